"""Puts Ratchet onto a node whose pods have a network already, and takes it away again.

`networks` reads network configurations as a runtime does, `wrapping` writes Ratchet's from one of
them; both are pure. `files`, `programs` and `credentials` write on the node, each step so that a
process that is killed leaves either the old or the new. `installation` joins them, `following`
repeats it for as long as the node runs, and `command` is the command line.

Nothing that belongs to somebody else is ever changed: Ratchet's configuration is a file of its own
that comes first, so that taking Ratchet away is taking away that file.
"""
