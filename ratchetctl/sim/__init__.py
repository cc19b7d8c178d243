"""A cluster on one machine, out of real parts.

Nodes and pods are network namespaces, the underlay is a bridge in a namespace of its own, etcd and
the CNI plugins are the real programs. Only the scheduler, the kubelet and the API server are ours,
and they are small. The host's own network is never touched: nothing here makes an interface, a
route or a rule outside the namespaces that it has created.
"""
