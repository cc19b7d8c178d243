"""FRR's configuration for OSPF, made from a topology: one area, every link point-to-point. Pure."""

from __future__ import annotations

from dataclasses import replace

from ratchetctl.errors import TopologyError
from ratchetctl.topo import render
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import End, File, Node, Topology

HELLO_S, DEAD_S = 1, 4  # a lab wants to see a cable pulled out at once


def configured(topology: Topology) -> tuple[Node, ...]:
    """Return the nodes, each with its configuration. Raises TopologyError without IPv4."""
    _, ends = render.by_node(topology)
    return tuple(
        replace(node, files=(*node.files, _file(node, ends.get(node.name, []))))
        for node in topology.nodes
    )


def _file(node: Node, ends: list[End]) -> File:
    router_id = next((one.ip for one in node.loopbacks if one.version == 4), None)
    if router_id is None:
        raise TopologyError(f"{node.name}: OSPF needs a loopback address: use --loopbacks ipv4")
    lines = [f"hostname {node.name}", "ip forwarding", "!", "interface lo", " ip ospf area 0"]
    for end in ends:
        if end.address is None or end.address.version != 4:
            raise TopologyError(f"{node.name} {end.ifname}: OSPF needs --addresses ipv4")
        lines += [
            "!",
            f"interface {end.ifname}",
            " ip ospf area 0",
            " ip ospf network point-to-point",
            f" ip ospf hello-interval {HELLO_S}",
            f" ip ospf dead-interval {DEAD_S}",
        ]
    lines += ["!", "router ospf", f" ospf router-id {router_id}", ""]
    return File(kind_of(node.kind).config_path or "", "\n".join(lines))
