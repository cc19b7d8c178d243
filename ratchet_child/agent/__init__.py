"""The child as the node's agent: it watches the node's pods at the API server and writes of them.

Only a child that stays and has a kubeconfig imports this room, and nothing of it is on the way of a
pod: the API server is asked and told by two threads of its own. What is known of a pod is in `seen`
(fed by `watch`); what is written is decided by `events`, `conditions` and `network_status`, which
are pure, and sent by `reporter`; `follower` has running pods' links follow their labels.
"""
