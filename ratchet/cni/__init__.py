"""The CNI specification, ignorant of Ratchet.

Nothing below this package may import from the rest of ``ratchet``.
"""
