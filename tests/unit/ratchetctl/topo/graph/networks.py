"""Topologies for tests of drawings, and what is seen of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ratchetctl.topo import generate
from ratchetctl.topo.graph.seen import EndSeen, PodSeen, Seen
from ratchetctl.topo.model import End, Link, Node, Topology, Uplink

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "-->]]>&amp;{policy}{script}",
    "a\x00b\x1b[31m\u202etxt.exe\u2028\ud800\ufffe",
    "'; drop\n\t table",
    '\\N\\"%%| #quot; `$(x)`',
)


def network(pairs: Iterable[tuple[str, str]], kind: str = "linux") -> Topology:
    """Return a topology of links between nodes that are named by them."""
    pairs = list(pairs)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    return generate.topology("net", names, pairs, kind, "image")


def random(count: int, extra: int) -> Topology:
    names = generate.numbered(count, "r")
    links = generate.random_links(count, extra, 7)
    return network((names[a], names[b]) for a, b in links)


def outside() -> Topology:
    """Return two pods, of which one has a macvlan and the other a link with its machine."""
    two = network([("a", "b")])
    uplinks = (
        Uplink(End("a", "out"), "macvlan", "eth0"),
        Uplink(End("b", "out"), "host", "to-b"),
    )
    return replace(two, uplinks=uplinks)


def hostile() -> Topology:
    """Return a ring of nodes whose every text is an attack."""
    nodes = tuple(
        Node(f"n{number}", text, text, text, node_selector=(("kubernetes.io/hostname", text),))
        for number, text in enumerate(HOSTILE)
    )
    links = tuple(
        Link(End(one.name, HOSTILE[0]), End(other.name, HOSTILE[1]))
        for one, other in zip(nodes, (*nodes[1:], nodes[0]), strict=True)
    )
    uplinks = (Uplink(End("n0", HOSTILE[2]), "macvlan", HOSTILE[3]),)
    return Topology(HOSTILE[0], nodes, links, uplinks)


def seen(topology: Topology, machines: int = 2) -> Seen:
    """Return what is seen of a topology that runs well, its pods on machines in turn."""
    pods = {
        node.name: PodSeen(f"node{number % machines + 1}", (f"10.244.0.{number % 250}",))
        for number, node in enumerate(topology.nodes)
    }
    ends = {}
    for link in topology.links:
        first, second = (pods[end.node].machine for end in link.ends)
        kind = "veth" if first == second else "vxlan"
        for end in link.ends:
            vni = 11 if kind == "vxlan" else None
            ends[end.node, end.ifname] = EndSeen("up", None, kind, vni, 1000, 10, 2000, 20)
    for uplink in topology.uplinks:
        ends[uplink.end.node, uplink.end.ifname] = EndSeen("up", None, uplink.kind)
    return Seen(pods, ends)


def broken(topology: Topology, state: str, reason: str) -> Seen:
    """Return the same, with the first link in another state at its first end."""
    found = seen(topology)
    end = topology.links[0].first
    before = found.ends[end.node, end.ifname]
    worse = replace(before, state=state, reason=reason)
    return replace(found, ends={**found.ends, (end.node, end.ifname): worse})
