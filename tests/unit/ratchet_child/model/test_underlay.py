"""Which address and device the tunnels have, by what the node has."""

from __future__ import annotations

import pytest

from ratchet.cni.ip import Host
from ratchet_child.model.underlay import (
    Choice,
    DefaultRoute,
    Device,
    OwnAddress,
    Underlay,
    choose,
)

LO, ETH0, ETH1, DUMMY0 = (
    Device(1, "lo", is_virtual=True),
    Device(2, "eth0"),
    Device(3, "eth1"),
    Device(4, "dummy0", is_virtual=True),
)
DEVICES = (LO, ETH0, ETH1, DUMMY0)


def address(
    device: Device,
    text: str,
    *,
    usable: bool = True,
    deprecated: bool = False,
    temporary: bool = False,
    created: int = 0,
) -> OwnAddress:
    host, _, length = text.partition("/")
    return OwnAddress(
        device.index, Host.parse(host), int(length), usable, deprecated, temporary, created
    )


def route(
    *devices: Device, version: int = 4, metric: int = 0, source: str | None = None
) -> DefaultRoute:
    prefers = None if source is None else Host.parse(source)
    return DefaultRoute(version, metric, tuple(one.index for one in devices), prefers)


def underlay(*have: OwnAddress | DefaultRoute) -> Underlay:
    return Underlay(
        device={one.index: one for one in DEVICES}.get,
        named={one.ifname: one for one in DEVICES}.get,
        addresses=tuple(one for one in have if isinstance(one, OwnAddress)),
        routes=tuple(one for one in have if isinstance(one, DefaultRoute)),
    )


TEN0, TEN1 = address(ETH0, "10.0.0.1/24"), address(ETH1, "10.0.1.1/24")


def test_the_default_route_of_the_lowest_metric_is_taken() -> None:
    found = choose(
        underlay(TEN0, TEN1, route(ETH0, metric=600), route(ETH1, metric=100)), None, None
    )
    assert found == Choice("10.0.1.1", "eth1", 3)


def test_the_first_device_of_a_multipath_route_that_has_an_address_is_taken() -> None:
    assert choose(underlay(TEN1, route(ETH0, ETH1)), None, None) == Choice("10.0.1.1", "eth1", 3)


def test_the_address_that_the_default_route_prefers_is_taken() -> None:
    have = underlay(address(LO, "10.255.0.1/32"), TEN0, route(ETH0, ETH1, source="10.255.0.1"))
    assert choose(have, None, None) == Choice("10.255.0.1", "lo", is_routed=True)


def test_ipv6_is_taken_where_there_is_no_ipv4() -> None:
    have = underlay(address(ETH0, "fd00::1/64"), route(ETH0, version=6))
    assert choose(have, None, None) == Choice("fd00::1", "eth0", 2)


@pytest.mark.parametrize(
    "worse",
    [
        address(ETH0, "fd00::bad/64", usable=False),
        address(ETH0, "fd00::bad/64", deprecated=True),
        address(ETH0, "fd00::bad/128"),
        address(ETH0, "fd00::bad/64", temporary=True),
        address(ETH0, "fd00::bad/64", created=9),
        address(ETH0, "fe80::bad/64"),
        address(ETH1, "fd00::bad/64"),
    ],
    ids=["tentative", "deprecated", "single", "temporary", "newer", "link-local", "other device"],
)
def test_an_address_that_will_not_last_is_not_taken(worse: OwnAddress) -> None:
    good = address(ETH0, "fd00::1/64", created=5)
    assert choose(underlay(worse, good), "eth0", None).address == "fd00::1"


@pytest.mark.parametrize(
    "floating",
    [address(ETH0, "10.0.0.9/32"), address(ETH0, "10.0.0.9/32", deprecated=True)],
)
def test_the_ipv4_address_of_a_load_balancer_is_not_taken(floating: OwnAddress) -> None:
    assert choose(underlay(floating, TEN0), "eth0", None).address == "10.0.0.1"


def test_a_single_address_is_taken_when_it_is_the_only_one() -> None:
    """DHCPv6 gives such addresses, and so do clouds."""
    assert choose(underlay(address(ETH0, "fd00::1/128")), "eth0", None).address == "fd00::1"


def test_a_deprecated_address_is_the_last_resort_unless_it_floats() -> None:
    only = address(ETH0, "fd00::1/64", deprecated=True)
    assert choose(underlay(only), "eth0", None).address == "fd00::1"
    vip = address(ETH0, "fd00::1/128", deprecated=True)
    assert choose(underlay(vip), "eth0", None).address is None


def test_the_interface_that_has_parent_address_is_taken() -> None:
    have = underlay(TEN0, TEN1, route(ETH0))
    assert choose(have, None, "10.0.1.1") == Choice("10.0.1.1", "eth1", 3)


@pytest.mark.parametrize("device", [LO, DUMMY0])
def test_tunnels_have_no_lower_device_when_parent_address_is_on_one_that_sends_nothing(
    device: Device,
) -> None:
    have = underlay(address(device, "10.255.0.1/32"), TEN0, route(ETH0, ETH1))
    wanted = Choice("10.255.0.1", device.ifname, is_routed=True)
    assert choose(have, None, "10.255.0.1") == wanted
    assert choose(have, device.ifname, "10.255.0.1") == wanted


def test_parent_address_on_no_interface_goes_by_the_default_route() -> None:
    have = underlay(TEN0, TEN1, route(ETH1))
    assert choose(have, None, "203.0.113.9") == Choice("203.0.113.9", "eth1", 3)


@pytest.mark.parametrize(
    ("have", "interface", "parent_address", "why"),
    [
        (underlay(TEN0), None, None, "there is no default route"),
        (underlay(route(ETH0)), None, None, "eth0, which has the default route, has no usable"),
        (underlay(TEN0), None, "203.0.113.9", "203.0.113.9 is on no interface, and there is no"),
        (underlay(), "eth0", None, "eth0 has no usable address"),
        (underlay(), "eth9", None, "there is no interface eth9"),
    ],
)
def test_a_node_without_an_address_says_why(
    have: Underlay, interface: str | None, parent_address: str | None, why: str
) -> None:
    found = choose(have, interface, parent_address)
    assert found.address is None
    assert why in found.why


def test_what_is_configured_stands_while_the_interface_is_away() -> None:
    assert choose(underlay(), "eth9", "10.0.0.1") == Choice("10.0.0.1", "eth9")
    assert choose(underlay(TEN0), "eth0", "203.0.113.9") == Choice("203.0.113.9", "eth0", 2)
