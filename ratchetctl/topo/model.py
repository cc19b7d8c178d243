"""A topology as Ratchet sees it, whatever file it came from. Pure data.

A node becomes a pod, a link becomes the labels of the pod at its first end. Everything knows its
place in the source, so that whoever finds a mistake later can name file and line. Positions are no
part of equality: the same topology written differently is the same topology.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from ratchet import links
from ratchet.impairment import Impairment
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
    (interface, name in the file) for each interface whose name the kernel could not take. `routing`
    is the protocol that Ratchet is to write the configuration for.
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
    routing: str = ""
    where: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: the node's `name`, the interface, its address. None: not said."""

    node: str
    ifname: str
    address: Interface | None = None
    mac: str | None = None
    impairment: Impairment | None = None
    where: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two pods; the first end's pod declares it. `mtu` None: not said."""

    first: End
    second: End
    mtu: int | None = None
    where: Position = field(default=NOWHERE, compare=False)

    @property
    def ends(self) -> tuple[End, ...]:
        return self.first, self.second

    @classmethod
    def of(cls, node: str, link: links.Link, where: Position = NOWHERE) -> Link:
        """Return what a pod's labels say."""
        address, far = interface(link.address), interface(link.pair_address)
        first = End(node, link.ifname, address, link.mac, link.impairment, where)
        second = End(link.pair, link.pair_ifname, far, link.pair_mac, link.pair_impairment, where)
        return cls(first, second, link.mtu_bytes, where)


@dataclass(frozen=True, slots=True)
class Uplink:
    """A link of one pod with its machine: `device` is the machine's interface.

    `address` is that of the machine's end, if it has one of its own.
    """

    end: End
    kind: str
    device: str
    address: Interface | None = None
    mtu: int | None = None
    where: Position = field(default=NOWHERE, compare=False)

    @property
    def ends(self) -> tuple[End, ...]:
        return (self.end,)

    @classmethod
    def of(cls, node: str, uplink: links.Uplink, where: Position = NOWHERE) -> Uplink:
        """Return what a pod's labels say."""
        address = interface(uplink.address)
        end = End(node, uplink.ifname, address, uplink.mac, uplink.impairment, where)
        far = interface(uplink.device_address)
        return cls(end, uplink.kind, uplink.device, far, uplink.mtu_bytes, where)


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole network, nodes and links in the order of the file.

    `says_kinds` is False of a drawing, which does not know what its nodes are.
    """

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    uplinks: tuple[Uplink, ...] = ()
    where: Position = field(default=NOWHERE, compare=False)
    says_kinds: bool = field(default=True, compare=False)

    @property
    def all_links(self) -> list[Link | Uplink]:
        """The links, and after them those with the machines."""
        return [*self.links, *self.uplinks]

    @property
    def ends(self) -> int:
        """How many ends they have in pods."""
        return sum(len(link.ends) for link in self.all_links)


def interface(address: object) -> Interface | None:
    """Return an address of Ratchet's own type as the standard library's."""
    return None if address is None else ipaddress.ip_interface(str(address))
