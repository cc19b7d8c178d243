"""What the suites build their clusters of: namespaces, an underlay, etcd, nodes, pods, a runtime.

`cluster` is what the integration tests run in; tests/e2e puts real runtimes on its nodes, and
tests/faults breaks a world that it builds of the same parts. Nothing here imports the programs
under test, so that an error in the one cannot hide an error in the other; `simulation` alone drives
`ratchetctl sim`, which is what its tests are about.
"""
