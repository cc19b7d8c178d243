"""What a topology needs in the simulator."""

from __future__ import annotations

import pytest

from ratchetctl.topo.live import uses_network
from ratchetctl.topo.model import End, File, Link, Node, Port, Topology, interface


def lab(**said: object) -> Topology:
    """Return two hosts and a link, with more to say of the second host."""
    second = {"kind": "linux", "image": "alpine:3", **said}
    nodes = (Node("a", "a", "linux", "alpine:3"), Node("b", "b", **second))  # type: ignore[arg-type]
    return Topology("lab", nodes, (Link(End("a", "eth1"), End("b", "eth1")),))


def test_hosts_with_links_and_addresses_alone_use_no_network() -> None:
    assert not uses_network(lab(loopbacks=(interface("10.128.0.1/32"),), env=(("A", "b"),)))


@pytest.mark.parametrize(
    "said",
    [
        {"ports": (Port(80),)},
        {"command": ("sleep", "1")},
        {"args": ("1",)},
        {"commands": ("ip route replace default via 10.0.0.1",)},
        {"files": (File("/etc/motd", ""),)},
        {"routing": "ospf"},
        {"kind": "frr"},
        {"kind": "ceos"},
        {"kind": "somebody's"},
    ],
)
def test_what_runs_in_a_node_may_use_the_network(said: dict[str, object]) -> None:
    assert uses_network(lab(**said))
