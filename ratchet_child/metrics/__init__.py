"""What the child counts (`figures`), and the Prometheus endpoint that shows it (`exporter`).

Imports from no other room.
"""
