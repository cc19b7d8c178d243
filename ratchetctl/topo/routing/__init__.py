"""Routers' configuration, made from a topology: OSPF, IS-IS or BGP for FRR, BIRD and GoBGP. Pure.

One OSPF area or IS-IS level, with every link point-to-point; or BGP between all neighbours, each
router being an autonomous system of its own. Timers are short: a lab wants to see at once that a
cable was pulled out.
"""
