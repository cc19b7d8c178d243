"""What is wrong with a network that its file's grammar does not show. Pure.

Errors are what cannot work; warnings (the notes of `Findings`) are what is seldom meant.
"""

from __future__ import annotations

from collections.abc import Iterable

from ratchetctl.topo.findings import Findings, Position
from ratchetctl.topo.model import Interface, Link, Topology
from ratchetctl.topo.render import NODE_PORTS

# What a vxlan tunnel leaves of the usual 1,500 bytes, over IPv4.
TUNNEL_MTU_BYTES = 1450
LEAST_MTU_BYTES = {4: 68, 6: 1280}  # RFC 791, RFC 8200
SHOWN_NAMES = 8
MOST_BYTES = 1_000_000  # of one node's files: a ConfigMap holds 1 MiB with everything around it


def check(topology: Topology, findings: Findings) -> None:
    """Look at everything and tell what is wrong, each with the line where it stands."""
    _links(topology.links, findings)
    _duplicates(topology, findings)
    _reachable(topology, findings)
    _ports(topology, findings)
    _files(topology, findings)


def _links(links: Iterable[Link], findings: Findings) -> None:
    for link in links:
        one, other = link.first.address, link.second.address
        if one is not None and other is not None and one.network != other.network:
            findings.error(
                link.second.where,
                f"the ends' networks differ: {link.first.node} {link.first.ifname} has {one},"
                f" {link.second.node} {link.second.ifname} has {other}",
                "give both ends an address of one network",
            )
        elif (one is None) != (other is None):
            lacking = link.first if one is None else link.second
            findings.note(
                lacking.where, f"{lacking.node} {lacking.ifname} has no address, the other end has"
            )
        if link.mtu is not None:
            _mtu(link.where, link.mtu, one or other, findings)


def _mtu(where: Position, mtu: int, address: Interface | None, findings: Findings) -> None:
    least = LEAST_MTU_BYTES[address.version if address else 4]
    if mtu < least or mtu > 65535:
        findings.error(where, f"an MTU of {mtu}", f"use {least} to 65535")
    elif mtu > TUNNEL_MTU_BYTES:
        findings.note(
            where,
            f"an MTU of {mtu} does not fit between two machines with the usual 1500:"
            f" a tunnel leaves {TUNNEL_MTU_BYTES}",
        )


def _duplicates(topology: Topology, findings: Findings) -> None:
    seen: dict[object, tuple[str, Position]] = {}
    places = [
        (end.address, f"{end.node} {end.ifname}", end.where)
        for link in topology.all_links
        for end in link.ends
        if end.address is not None
    ]
    places += [
        (uplink.address, f"{uplink.device} at the machine of {uplink.end.node}", uplink.where)
        for uplink in topology.uplinks
        if uplink.address is not None
    ]
    places += [
        (address, f"{node.name} lo", node.where)
        for node in topology.nodes
        for address in node.loopbacks
    ]
    for address, place, where in places:
        first = seen.setdefault(address.ip, (place, where))
        if first[0] != place:
            findings.error(
                where,
                f"address {address.ip} of {place} is that of {first[0]} as well (line"
                f" {first[1].line})",
                "change one",
            )
    networks: dict[object, Link] = {}
    for link in topology.links:
        if link.first.address is not None:
            network = link.first.address.network
            other = networks.setdefault(network, link)
            if other is not link:
                findings.note(
                    link.where,
                    f"network {network} is on the link in line {other.where.line} as well",
                    "give every link a network of its own, unless a bridge joins them",
                )


def _reachable(topology: Topology, findings: Findings) -> None:
    """Tell which nodes the first one does not reach, in one sentence for each island."""
    neighbours: dict[str, list[str]] = {node.name: [] for node in topology.nodes}
    for link in topology.links:
        neighbours[link.first.node].append(link.second.node)
        neighbours[link.second.node].append(link.first.node)
    left = dict.fromkeys(neighbours)
    first = True
    where = {node.name: node.where for node in topology.nodes}
    while left:
        start = next(iter(left))
        del left[start]
        island, pending = [start], [start]
        while pending:
            for name in neighbours[pending.pop()]:
                if name in left:
                    del left[name]
                    island.append(name)
                    pending.append(name)
        if not first:
            names = ", ".join(island[:SHOWN_NAMES])
            more = f" and {len(island) - SHOWN_NAMES} more" if len(island) > SHOWN_NAMES else ""
            findings.note(
                where[start],
                f"{names}{more} cannot be reached from {topology.nodes[0].name}",
                "add a link, unless this is meant",
            )
        first = False


def _ports(topology: Topology, findings: Findings) -> None:
    seen: dict[tuple[int, str], str] = {}
    for node in topology.nodes:
        for port in node.ports:
            if port.outside not in NODE_PORTS or port.outside is None:
                continue
            other = seen.setdefault((port.outside, port.protocol), node.name)
            if other != node.name:
                findings.error(
                    node.where,
                    f"port {port.outside} of {node.name} is published for {other} already",
                    "change one",
                )


def _files(topology: Topology, findings: Findings) -> None:
    for node in topology.nodes:
        size = sum(len(file.content.encode()) for file in node.files)
        if size > MOST_BYTES:
            findings.error(
                node.where,
                f"the files of {node.name} have {size} bytes, more than a ConfigMap holds",
                "put some of them into the image",
            )
