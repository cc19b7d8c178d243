"""The routers that this machine has programs for: FRR, BIRD and GoBGP.

Each runs in a pod's own namespaces, where the paths that its package was built with are the pod's.
Which one a pod is, its files say.
"""
