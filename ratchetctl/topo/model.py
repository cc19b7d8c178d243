"""A topology as Ratchet sees it, whatever file it came from. Pure data.

A node becomes a pod, a link becomes the labels of the pod at its first end. Everything knows its
place in the source, so that whoever finds a mistake later can name file and line. Positions are no
part of equality: the same topology written differently is the same topology.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from ratchetctl.topo.findings import Position

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
NOWHERE = Position("", 0)


@dataclass(frozen=True, slots=True)
class File:
    """A text file that the container finds at a path."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class Port:
    """A port that is published: the container's, and the one outside (None: any)."""

    inside: int
    outside: int | None = None
    protocol: str = "TCP"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the topology.

    `name` is the pod's, a DNS label; `title` is the name as the file spells it. `command` None is
    the image's own. `commands` run in the container after it has started. `renamed` holds
    (interface, name in the file) for each interface whose name the kernel could not take.
    """

    name: str
    title: str
    kind: str
    image: str
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    files: tuple[File, ...] = ()
    commands: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    node_selector: tuple[tuple[str, str], ...] = ()
    loopbacks: tuple[Interface, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    where: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: the node's `name`, the interface, its address. None: no address."""

    node: str
    ifname: str
    address: Interface | None = None
    where: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two pods; the first end's pod declares it. `mtu` None: not said."""

    first: End
    second: End
    mtu: int | None = None
    where: Position = field(default=NOWHERE, compare=False)

    @property
    def ends(self) -> tuple[End, End]:
        return self.first, self.second


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole network, nodes and links in the order of the file."""

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    where: Position = field(default=NOWHERE, compare=False)


def interface(address: object) -> Interface | None:
    """Return an address of Ratchet's own type as the standard library's."""
    return None if address is None else ipaddress.ip_interface(str(address))
