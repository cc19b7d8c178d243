"""Topologies: a drawing of a network becomes labelled pods.

The files that people already have (containerlab, k8s-topo, meshnet, kne, GraphML) are read into one
model (`model.py`), which keeps the file and line of everything. What follows works on the model
alone: names that the kernel takes, addresses, checks, Kubernetes objects, the simulator.
"""
