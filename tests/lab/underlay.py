"""The network between the nodes: a bridge in a namespace of its own, with a port for each node.

It is made by `ip` alone, as are the namespaces: what tests say about the kernel has to come from
somebody else than the programs under test, so neither they nor the project's simulator make it.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.lab.namespaces import Namespace, run

BRIDGE = "br0"
# Without one of its own a bridge has the lowest of its ports'. One that joins later and has a lower
# one changes it, and for half a minute the nodes then send to an address that nobody has.
_MAC = "02:00:00:00:01:00"
ROUTER_ADDRESS = "10.99.0.1"
ROUTER_ADDRESS6 = "fd99::1"


def node_address(number: int) -> str:
    return f"10.99.0.{10 + number}"


def node_address6(number: int) -> str:
    return f"fd99::{10 + number}"


def port_of(ifname: str, number: int) -> str:
    """Return the name of a node's port on the bridge."""
    return f"{ifname}.{number}"


def lay(underlay: Namespace, addresses: Iterable[str]) -> None:
    """Make the bridge in a namespace that is there, with addresses of its own."""
    underlay.ip("link", "set", "lo", "up")
    underlay.ip("link", "add", BRIDGE, "address", _MAC, "type", "bridge")
    for address in addresses:
        add_address(underlay, address, BRIDGE)
    underlay.ip("link", "set", BRIDGE, "up")


def plug_in(
    underlay: Namespace, node: Namespace, ifname: str, port: str, *, mac: str | None = None
) -> None:
    """Join a node to the underlay by a veth pair; its own end is still down."""
    own = () if mac is None else ("address", mac)
    run(
        *("ip", "link", "add", ifname, "netns", node.name, *own, "type", "veth"),
        *("peer", "name", port, "netns", underlay.name),
    )
    underlay.ip("link", "set", port, "master", BRIDGE, "up")


def add_address(namespace: Namespace, address: str, ifname: str) -> None:
    """Give an interface an address of the underlay, which works at once."""
    if ":" in address:
        namespace.ip("addr", "add", f"{address}/64", "dev", ifname, "nodad")
    else:
        namespace.ip("addr", "add", f"{address}/24", "dev", ifname)
