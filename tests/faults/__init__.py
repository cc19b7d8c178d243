"""The fault suite: a cluster that is broken on purpose, at random, and must come right by itself.

`plan` says what happens, as a pure function of a seed; `world` is the cluster and plays the
runtimes; `injectors` break things; `invariants` say what must be true once it is quiet again;
`runner` joins them, measures how long healing takes and tells what it saw when something is wrong.

It is apart from tests/integration because it asks another question: not whether one promise is
kept, but whether there is any sequence of misfortunes after which something is left wrong for good.
"""
