"""A topology as a picture: what is drawn, where, and in which format. Pure.

`picture` says what is drawn, `layout` where each node stands; the other modules write one format
each. What is known of running pods comes in as `seen`, so that nothing here asks anybody.
"""
