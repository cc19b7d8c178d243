"""The nouns and the decisions that need no outside world: keys, links, interfaces, the plan.

Pure: no sockets, files, threads or clocks. Imports from no other room.
"""
