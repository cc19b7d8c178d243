"""The database that the nodes share: what it can be asked, and etcd's v2 API as one that can.

The only importer of python-etcd. May import from `metrics` and `model`.
"""
