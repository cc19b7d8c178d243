"""Interfaces and network namespaces: the only sender of netlink messages in the child.

May import from `model`; does not know the store, the pods or the pairing.
"""
