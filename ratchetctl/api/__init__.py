"""A cluster's API server, as an operator reaches it: by kubectl's kubeconfig, or from a pod.

`client.connect` gives a client with `get`, `list`, `apply`, `delete` and `watch`; `arguments` are
the options with which a command lets people choose the cluster. Errors are `ClusterError`s, which
name the object, the verb and the remedy. The parent and the agent have smaller readers of their own
(decisions 16 and 18 say why).
"""
