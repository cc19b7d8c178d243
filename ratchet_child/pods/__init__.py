"""Which pods are on this node, what is known of each, and when each one has its turn.

May import from `kernel` (for the namespaces that stay open), `store` and `model`; does not know the
pairing protocol and changes no interface.
"""
