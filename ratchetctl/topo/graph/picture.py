"""What a drawing of a topology shows: nodes, links, the machines that they are on. Pure.

Formats draw this and look nothing up themselves, so that all of them show the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ratchetctl.topo.graph import layout, looks
from ratchetctl.topo.graph.seen import UNKNOWN, EndSeen, PodSeen, Seen, worst
from ratchetctl.topo.model import End, Link, Node, Topology, Uplink

CABLE, VETH, VXLAN, MACVLAN, HOST = "cable", "veth", "vxlan", "macvlan", "host"
KINDS = (CABLE, VETH, VXLAN, MACVLAN, HOST)
"""Of links. A cable is one of which it is not known yet whether it crosses machines."""
HOSTNAME = "kubernetes.io/hostname"

_ROUTERS = re.compile(r"frr|bird|gobgp|quagga|router|r\d|crpd|vmx|vjunosrouter|csr|xr|iol|sros")
_SWITCHES = re.compile(r"srl|ceos|eos|switch|sonic|bridge|spine|leaf|cumulus|cvx|nxos|n9kv|dell")


@dataclass(frozen=True, slots=True)
class Spot:
    """A node of the drawing: a pod, or (`role` outside) what an uplink leads to.

    `x` and `y` are the middle of the mark, below which the label stands. `pod` is None where
    nothing is known of it; `machine` is then what its file asks for, if that is one machine.
    """

    name: str
    title: str
    role: str
    x: float
    y: float
    machine: str | None = None
    node: Node | None = None
    pod: PodSeen | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A link of the drawing between two spots, by number. An uplink has one end.

    `bend` tells links between the same two spots apart: 0 is straight.
    """

    first: int
    second: int
    link: Link | Uplink
    kind: str
    state: str
    bend: float = 0.0
    ends: tuple[EndSeen | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole drawing. Machines are in order; `is_live` when it tells of something that runs."""

    name: str
    spots: tuple[Spot, ...]
    lines: tuple[Line, ...]
    machines: tuple[str, ...]
    is_live: bool = False
    trouble: str | None = None

    @property
    def kinds(self) -> list[str]:
        """The kinds of links that it has, in order."""
        there = {line.kind for line in self.lines}
        return [kind for kind in KINDS if kind in there]

    def towards(self, line: Line) -> tuple[float, float]:
        """Return the point that a bent line is drawn towards."""
        first, second = self.spots[line.first], self.spots[line.second]
        dx, dy = second.x - first.x, second.y - first.y
        aside = 2 * looks.BEND * line.bend / (math.hypot(dx, dy) or 1.0)
        return (first.x + second.x) / 2 - dy * aside, (first.y + second.y) / 2 + dx * aside

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of all marks and labels."""
        left = min((one.x - looks.size(one.title)[0] / 2 for one in self.spots), default=0.0)
        right = max((one.x + looks.size(one.title)[0] / 2 for one in self.spots), default=0.0)
        top = min((one.y - looks.ABOVE for one in self.spots), default=0.0)
        bottom = max((one.y + looks.BELOW for one in self.spots), default=0.0)
        return left, top, right - left, bottom - top


def draw(topology: Topology, seen: Seen | None = None) -> Picture:
    """Return the drawing of a topology, and of what is known of it where it runs."""
    spots = [*map(_spot, topology.nodes), *map(_outside, topology.uplinks)]
    number = {spot.name: index for index, spot in enumerate(spots)}
    pairs = [(number[one.first.node], number[one.second.node]) for one in topology.links]
    pairs += [
        (number[one.end.node], len(topology.nodes) + index)
        for index, one in enumerate(topology.uplinks)
    ]
    places = layout.layout(
        [spot.title for spot in spots], pairs, [looks.size(spot.title) for spot in spots]
    )
    moved = tuple(
        _at(spot, x, y - (looks.BELOW - looks.ABOVE) / 2)
        for spot, (x, y) in zip(spots, places, strict=True)
    )
    bends = _bends(pairs)
    lines = tuple(
        Line(first, second, link, link.kind if isinstance(link, Uplink) else CABLE, UNKNOWN, bend)
        for link, (first, second), bend in zip(topology.all_links, pairs, bends, strict=True)
    )
    plain = Picture(topology.name, moved, lines, ())
    return look(plain, seen if seen is not None else Seen(), is_live=seen is not None)


def look(picture: Picture, seen: Seen, *, is_live: bool = True) -> Picture:
    """Return the same drawing, at the same places, with what is known now."""
    spots = tuple(_looked(spot, seen) for spot in picture.spots)
    lines = tuple(_line(line, spots, seen, is_live) for line in picture.lines)
    machines = sorted({one.machine for one in spots if one.machine is not None}, key=natural)
    return Picture(picture.name, spots, lines, tuple(machines), is_live, seen.trouble)


def natural(name: str) -> list[tuple[int, str]]:
    """Order names as people count: node2 before node10."""
    return [(int(one), "") if one.isdigit() else (-1, one) for one in re.split(r"(\d+)", name)]


def role(node: Node) -> str:
    """Return what a node looks like, as its kind and its name say."""
    if node.kind != "linux" and _SWITCHES.search(node.kind):
        return "switch"
    if node.kind != "linux" and _ROUTERS.search(node.kind):
        return "router"
    title = node.title.lower()
    if _SWITCHES.match(title):
        return "switch"
    return "router" if _ROUTERS.match(title) else "host"


def _spot(node: Node) -> Spot:
    return Spot(node.name, node.title, role(node), 0.0, 0.0, _asked(node), node)


def _outside(uplink: Uplink) -> Spot:
    # A space keeps it apart from every pod's name.
    return Spot(f"{uplink.end.node} {uplink.end.ifname}", uplink.device, "outside", 0.0, 0.0)


def _asked(node: Node) -> str | None:
    """Return the machine that a node's file asks for."""
    return dict(node.node_selector).get(HOSTNAME)


def _at(spot: Spot, x: float, y: float) -> Spot:
    return Spot(spot.name, spot.title, spot.role, round(x, 1), round(y, 1), spot.machine, spot.node)


def _looked(spot: Spot, seen: Seen) -> Spot:
    pod = seen.pods.get(spot.name)
    asked = None if spot.node is None else _asked(spot.node)
    machine = asked if pod is None else pod.machine
    return Spot(spot.name, spot.title, spot.role, spot.x, spot.y, machine, spot.node, pod)


def _line(line: Line, spots: Sequence[Spot], seen: Seen, is_live: bool) -> Line:
    ends = tuple(_end(end, spots, line, seen) if is_live else None for end in line.link.ends)
    kind = line.link.kind if isinstance(line.link, Uplink) else _kind(line, spots, ends)
    state = worst([end.state for end in ends if end is not None])
    return Line(line.first, line.second, line.link, kind, state, line.bend, ends)


def _kind(line: Line, spots: Sequence[Spot], ends: Sequence[EndSeen | None]) -> str:
    """Return how a link between two pods is made: as its ends say, or as their machines do."""
    for end in ends:
        if end is not None and end.kind in KINDS:
            return end.kind
    first, second = spots[line.first].machine, spots[line.second].machine
    if first is None or second is None:
        return CABLE
    return VETH if first == second else VXLAN


def _end(end: End, spots: Sequence[Spot], line: Line, seen: Seen) -> EndSeen | None:
    found = seen.ends.get((end.node, end.ifname))
    if found is not None:
        return found
    own = spots[line.first if end is line.link.ends[0] else line.second]
    if seen.trouble is not None:
        return EndSeen(UNKNOWN, seen.trouble)
    if own.pod is None:
        return EndSeen("waiting", f"the pod {own.name} is not there")
    return EndSeen(UNKNOWN, own.pod.reason or "the pod's node does not tell of this interface")


def _bends(pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return how far each link is bent aside, so that no two between the same spots are one."""
    together: dict[tuple[int, int], list[int]] = {}
    for index, (first, second) in enumerate(pairs):
        together.setdefault((min(first, second), max(first, second)), []).append(index)
    bends = [0.0] * len(pairs)
    for (low, _), members in together.items():
        for place, index in enumerate(members):
            bend = place - (len(members) - 1) / 2
            bends[index] = bend if pairs[index][0] == low else -bend
    return bends
