"""The benchmark of the built programs: `make bench`, or `python -m benchmarks --help`.

It runs the programs that `make build` has made as a runtime would, in network namespaces with a
real etcd and the reference plugins, and says how long that takes: `docs/performance.md` explains
every figure. Machines are noisy and differ, so each figure stands beside a reference that was taken
in the same run, the two in turns.

It decides nothing: a figure that misses its target is printed as such, and the exit status is 0.
"""
