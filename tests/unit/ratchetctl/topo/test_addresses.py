"""Addresses that are handed out: deterministic, one network a link, none given twice."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchetctl.errors import TopologyError
from ratchetctl.topo import addresses
from ratchetctl.topo.model import End, Interface, Link, Node, Topology


def chain(*given_: str | None) -> Topology:
    """Return a chain of nodes with these addresses at the first ends of the links."""
    nodes = tuple(
        Node(f"n{number}", f"n{number}", "linux", "x") for number in range(len(given_) + 1)
    )
    links = tuple(
        Link(
            End(f"n{number}", "eth1", ipaddress.ip_interface(one) if one else None),
            End(f"n{number + 1}", "eth2"),
        )
        for number, one in enumerate(given_)
    )
    return Topology("lab", nodes, links)


def shown(topology: Topology) -> list[str]:
    return [f"{link.first.address} {link.second.address}" for link in topology.links]


def test_links_get_a_31_or_127_each() -> None:
    assert shown(addresses.hand_out(chain(None, None), 4)) == [
        "10.0.0.0/31 10.0.0.1/31",
        "10.0.0.2/31 10.0.0.3/31",
    ]
    assert shown(addresses.hand_out(chain(None), 6)) == ["fd00:0:0:1::2/127 fd00:0:0:1::3/127"]


def test_a_30_leaves_its_first_and_last_address_alone() -> None:
    assert shown(addresses.hand_out(chain(None), 4, 30)) == ["10.0.0.1/30 10.0.0.2/30"]


def test_what_is_given_is_kept_and_skipped() -> None:
    found = addresses.hand_out(chain("10.0.0.5/24", None, "10.0.1.0/31", None), 4)
    assert shown(found) == [
        "10.0.0.5/24 10.0.0.1/24",
        "10.0.1.2/31 10.0.1.3/31",
        "10.0.1.0/31 10.0.1.1/31",
        "10.0.1.4/31 10.0.1.5/31",
    ]


def test_loopbacks() -> None:
    found = addresses.hand_out_loopbacks(addresses.hand_out_loopbacks(chain(None), 4), 6)
    assert [[str(one) for one in node.loopbacks] for node in found.nodes] == [
        ["10.128.0.1/32", "fd00:0:0:2::1/128"],
        ["10.128.0.2/32", "fd00:0:0:2::2/128"],
    ]
    assert addresses.hand_out_loopbacks(found, 4) == found


def test_a_pool_that_is_too_small_is_told() -> None:
    with pytest.raises(TopologyError, match="too small"):
        addresses.hand_out(chain(None, None, None), 4, 30, "192.0.2.0/29")


@pytest.mark.parametrize(("version", "length"), [(4, 32), (4, 40), (6, 128)])
def test_a_link_needs_two_addresses(version: int, length: int) -> None:
    with pytest.raises(TopologyError, match="--prefix-len"):
        addresses.hand_out(chain(None), version, length)


GIVEN = st.lists(
    st.none()
    | st.builds(
        lambda host, length: f"{ipaddress.IPv4Address(0x0A000000 + host)}/{length}",
        st.integers(0, 4096),
        st.integers(20, 32),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(GIVEN, st.integers(24, 31))
def test_no_network_is_handed_out_twice_or_meets_a_given_one(
    given_: list[str | None], length: int
) -> None:
    before = chain(*given_)
    after = addresses.hand_out(before, 4, length)
    assert addresses.hand_out(before, 4, length) == after
    made: list[Interface] = []
    for link, one in zip(after.links, given_, strict=True):
        if one is None:
            assert link.first.address is not None
            assert link.second.address is not None
            assert link.first.address.network == link.second.address.network
            assert link.first.address.ip != link.second.address.ip
            made.append(link.first.address)
    networks = [one.network for one in made]
    networks += [ipaddress.ip_interface(one).network for one in set(given_) if one]
    for number, network in enumerate(networks[: len(made)]):
        for other in networks[number + 1 :]:
            assert not network.overlaps(other)
