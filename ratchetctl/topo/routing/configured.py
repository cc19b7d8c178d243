"""A topology whose routers have configurations: addresses that these need, and the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType

from ratchetctl.errors import TopologyError
from ratchetctl.topo import addresses
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import File, Link, Node, Topology
from ratchetctl.topo.routing import bird, frr, gobgp
from ratchetctl.topo.routing.router import BGP, Port, Router

LANGUAGES: Mapping[str, ModuleType] = {"frr": frr, "bird": bird, "gobgp": gobgp}
DRAWN = "frr"  # what nodes are of which only a drawing is known
# Private numbers of 32 bits (RFC 6996): one for each router, in the order of the file.
FIRST_AS = 4_200_000_001


def configured(topology: Topology, everywhere: str | None = None) -> Topology:
    """Give a configuration to routers that ask for one, or to all of them, and have none.

    Routers without an IPv4 loopback address get one, and links that need addresses a /31. Raises
    TopologyError where a router does not speak the protocol, and where all are asked and there are
    none.
    """
    if everywhere:
        if not topology.says_kinds:
            topology = replace(topology, nodes=tuple(map(_as_router, topology.nodes)))
        if not any(kind_of(node.kind).router for node in topology.nodes):
            raise TopologyError(
                f"{topology.name}: --routing {everywhere}: no node is a router; its kind has to be"
                f" one of {', '.join(LANGUAGES)}"
            )
    wanted = {
        node.name: node.routing or everywhere or ""
        for node in topology.nodes
        if (node.routing or everywhere) and _may_have_one(node)
    }
    if not wanted:
        return topology
    for node in topology.nodes:
        if node.name in wanted:
            _check_speaks(node, wanted[node.name])
    topology = addresses.hand_out_loopbacks(topology, 4, chosen=wanted)
    by_name = {node.name: node for node in topology.nodes}

    def needs_addresses(link: Link) -> bool:
        ends = [end.node for end in link.ends]
        return all(one in wanted for one in ends) and not _is_unnumbered(link, wanted, by_name)

    topology = addresses.hand_out(topology, 4, chosen=needs_addresses)
    numbers = {name: FIRST_AS + number for number, name in enumerate(wanted)}
    ports = _ports(topology, wanted, numbers)
    nodes = []
    for node in topology.nodes:
        if node.name in wanted:
            router = Router(
                name=node.name,
                protocol=wanted[node.name],
                router_id=next(str(one.ip) for one in node.loopbacks if one.version == 4),
                as_number=numbers[node.name],
                loopbacks=node.loopbacks,
                ports=tuple(ports.get(node.name, ())),
            )
            node = replace(node, routing=router.protocol, files=(*node.files, _file(node, router)))  # noqa: PLW2901 - same node, completed
        nodes.append(node)
    return replace(topology, nodes=tuple(nodes))


def _as_router(node: Node) -> Node:
    known = kind_of(DRAWN)
    return replace(node, kind=DRAWN, image=known.image or "", command=known.command)


def _may_have_one(node: Node) -> bool:
    known = kind_of(node.kind)
    return known.router is not None and all(file.path != known.config_path for file in node.files)


def _check_speaks(node: Node, protocol: str) -> None:
    router = kind_of(node.kind).router or ""
    speaks = LANGUAGES[router].SPEAKS
    if protocol not in speaks:
        raise TopologyError(
            f"{node.where}: node {node.title} is to speak {protocol}, and Ratchet writes"
            f" {', '.join(speaks)} for the kind {node.kind}"
        )


def _is_unnumbered(link: Link, wanted: Mapping[str, str], nodes: Mapping[str, Node]) -> bool:
    return all(
        wanted[end.node] == BGP and kind_of(nodes[end.node].kind).router == "frr"
        for end in link.ends
    )


def _ports(
    topology: Topology, wanted: Mapping[str, str], numbers: Mapping[str, int]
) -> dict[str, list[Port]]:
    found: dict[str, list[Port]] = {}
    for link in topology.links:
        for own, far in (link.ends, reversed(link.ends)):
            port = Port(own.ifname, own.address)
            if wanted.get(own.node) == wanted.get(far.node):
                port = replace(
                    port,
                    peer=far.node,
                    peer_as=numbers.get(far.node, 0),
                    peer_address=far.address,
                )
            found.setdefault(own.node, []).append(port)
    return found


def _file(node: Node, router: Router) -> File:
    known = kind_of(node.kind)
    text = LANGUAGES[known.router or ""].configuration(router)
    return File(known.config_path or "", text)
