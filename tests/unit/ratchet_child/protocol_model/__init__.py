"""The pairing protocol as a model: the real engine of several nodes, one step at a time.

`tasks` runs code in threads of which one moves at a time, `kernel` stands for the namespaces,
`world` puts nodes together and says what must hold when all is quiet, `explore` tries all orders of
steps. Only the edges are made up: etcd (`memory_store`), the kernel, the records, the clock.
"""
