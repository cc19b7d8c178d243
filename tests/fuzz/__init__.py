"""Hostile input, made at random from a seed: see docs/fuzzing.md.

`runner` makes inputs and judges what becomes of them, `mutate` knows how to spoil valid ones.
The rest are the targets: pure parsers, whole requests in this process, plugins that lie, an etcd
that lies, the child's socket.
"""
