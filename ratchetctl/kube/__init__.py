"""`kubectl ratchet`: the links of a whole cluster, seen from an operator's desk.

Everything is read from the API server, where the nodes' agents tell of pods and of themselves
(`ratchet.annotations`, decision 19). `cluster` has the nouns, `reading` lists them, `links`,
`explaining` and `nodes` say what follows from them and are pure; `checking` asks the agents, and
`stale` and `removing` take what nobody owns any more out of etcd.
"""
