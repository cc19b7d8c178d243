"""Bringing one pod to what it should be: its turn, the steps, its interfaces, what it leaves.

May import from `pairing`, `pods`, `kernel`, `store`, `metrics` and `model`.
"""
