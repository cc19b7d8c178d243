"""`ratchetctl topo graph`: drawings of topologies, and of those that run, as they are now."""
