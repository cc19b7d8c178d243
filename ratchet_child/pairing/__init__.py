"""Which pod is linked with which: the protocol that nodes speak through the store.

Publish, look, ring. May import from `store` and `model`; knows neither the kernel nor the records.
"""
