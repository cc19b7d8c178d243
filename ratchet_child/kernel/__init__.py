"""Interfaces and network namespaces: the only importers of pyroute2, and every netlink message.

May import from `model`; does not know the store, the pods or the pairing.
"""
