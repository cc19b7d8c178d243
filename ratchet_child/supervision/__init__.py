"""What lets a node's child die without anybody noticing: a small process that starts it again.

Imported before everything else, and by a process that stays in memory for as long as the node has
labelled pods: nothing in here imports what the parent would not.
"""
