"""The packed messages say what they should: read back with pyroute2's descriptions of them."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from ratchet.cni.ip import Address, Host
from ratchet_child.kernel import rtnetlink, tunnel

MAC = "02:ab:cd:ef:01:23"
HEADER_BYTES = 16


def read(kind: Any, body: bytes) -> Any:
    length = HEADER_BYTES + len(body)
    message = kind(length.to_bytes(4, "little") + bytes(HEADER_BYTES - 4) + body)
    message.decode()
    return message


def new(ifname: str = "in1") -> bytes:
    return rtnetlink.new(ifname, MAC, 9, 29281)


def assert_is_new(found: Any, ifname: str) -> None:
    assert found.get_attr("IFLA_IFNAME") == ifname
    assert found.get_attr("IFLA_ADDRESS") == MAC
    assert found.get_attr("IFLA_NET_NS_FD") == 9
    assert found.get_attr("IFLA_GROUP") == 29281


@pytest.mark.parametrize("ifname", ["i", "in1", "eth", "abcd", "fifteen-bytes-x", "größe"])
def test_new_interface_has_its_name_address_namespace_and_mark(ifname: str) -> None:
    assert_is_new(read(ifinfmsg, new(ifname)), ifname)


def test_mtu_is_that_of_the_interface() -> None:
    found = read(ifinfmsg, rtnetlink.mtu(7, 9000))
    assert (found["index"], found.get_attr("IFLA_MTU")) == (7, 9000)


def test_veth_holds_both_ends() -> None:
    found = read(ifinfmsg, new("in1") + rtnetlink.veth(new("in2")))
    assert_is_new(found, "in1")
    info = found.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    assert_is_new(info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER"), "in2")


@pytest.mark.parametrize(
    ("remote", "attribute"),
    [("10.0.0.7", "IFLA_VXLAN_GROUP"), ("fd99::7", "IFLA_VXLAN_GROUP6")],
)
def test_vxlan_has_one_far_end_and_learns_nothing(remote: str, attribute: str) -> None:
    body = new() + tunnel.new(2**24 - 1, Host.parse(remote), 7, 4789)
    info = read(ifinfmsg, body).get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "vxlan"
    data = info.get_attr("IFLA_INFO_DATA")
    assert data.get_attr("IFLA_VXLAN_ID") == 2**24 - 1
    assert data.get_attr(attribute) == remote
    assert data.get_attr("IFLA_VXLAN_LINK") == 7
    assert data.get_attr("IFLA_VXLAN_PORT") == 4789
    assert data.get_attr("IFLA_VXLAN_LEARNING") == 0


def test_up_changes_that_flag_alone() -> None:
    found = read(ifinfmsg, rtnetlink.up(5, "ratchet in1 of a:in1"))
    assert (found["index"], found["flags"], found["change"]) == (5, 1, 1)
    assert found.get_attr("IFLA_IFALIAS") == "ratchet in1 of a:in1"


def test_interface_names_only_its_index() -> None:
    found = read(ifinfmsg, rtnetlink.interface(5))
    assert (found["index"], found["flags"], found["change"]) == (5, 0, 0)
    assert found["attrs"] == []


@pytest.mark.parametrize(
    ("given", "flags"),
    [("192.168.2.100/24", 0), ("10.0.0.0/31", 0), ("fd00::1/64", 2)],
)
def test_address_has_its_prefix_and_ipv6_no_detection(given: str, flags: int) -> None:
    address = Address.parse(given)
    found = read(ifaddrmsg, rtnetlink.address(5, address))
    assert (found["index"], found["prefixlen"]) == (5, address.prefix_len)
    assert found["flags"] == flags
    assert found.get_attr("IFA_LOCAL") == found.get_attr("IFA_ADDRESS") == str(address.ip)
    assert (found.get_attr("IFA_FLAGS") or 0) == flags


@pytest.mark.parametrize(
    ("given", "broadcast"),
    [
        ("192.168.2.100/24", "192.168.2.255"),
        ("10.1.2.3/30", "10.1.2.3"),
        ("10.1.2.3/8", "10.255.255.255"),
        ("10.0.0.0/31", None),
        ("10.0.0.1/32", None),
        ("fd00::1/64", None),
    ],
)
def test_address_has_the_broadcast_address_of_its_network(
    given: str, broadcast: str | None
) -> None:
    found = read(ifaddrmsg, rtnetlink.address(5, Address.parse(given)))
    assert found.get_attr("IFA_BROADCAST") == broadcast


# Reading ----------------------------------------------------------------------------------------


def written(message: Any) -> bytes:
    message.reset()
    message.encode()
    return bytes(message.data)


def test_a_veth_is_read_as_pyroute2_writes_it() -> None:
    message = ifinfmsg()
    message["index"], message["flags"] = 7, 1
    message["attrs"] = [
        ("IFLA_IFNAME", "in1"),
        ("IFLA_MTU", 1400),
        ("IFLA_GROUP", 29281),
        ("IFLA_LINK", 9),
        ("IFLA_LINK_NETNSID", 2),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth")]}),
    ]
    found = rtnetlink.read_link(written(message))
    assert (found.index, found.is_up, found.ifname, found.kind) == (7, True, "in1", "veth")
    assert (found.mtu_bytes, found.group, found.link, found.link_nsid) == (1400, 29281, 9, 2)


def test_a_device_without_a_kind_is_read() -> None:
    message = ifinfmsg()
    message["index"] = 1
    message["attrs"] = [("IFLA_IFNAME", "lo")]
    found = rtnetlink.read_link(written(message))
    assert (found.kind, found.data, found.link, found.link_nsid) == (None, {}, None, -1)
    assert not found.is_up


@pytest.mark.parametrize("remote", ["10.0.0.2", "fd00::2"])
def test_a_tunnel_is_read_as_it_is_made(remote: str) -> None:
    ports = (61440, 61951)
    body = new("in1") + tunnel.new(12, Host.parse(remote), 3, 4789, None, ports)
    found = rtnetlink.read_link(bytes(HEADER_BYTES) + body)
    assert found.kind == "vxlan"
    assert tunnel.read(found.data) == (12, Host.parse(remote), 4789, 3, None, ports)


@pytest.mark.parametrize("text", ["192.168.2.100/24", "fd00::1/64"])
def test_an_address_is_read_as_it_is_set_and_is_known_for_ours(text: str) -> None:
    body = rtnetlink.address(7, Address.parse(text))
    found = rtnetlink.read_address(bytes(HEADER_BYTES) + body)
    assert found is not None
    assert (found.index, found.address, found.is_ours) == (7, Address.parse(text), True)


def test_an_address_that_somebody_else_has_set_is_not_ours() -> None:
    message = ifaddrmsg()
    message["family"], message["prefixlen"], message["index"] = 2, 8, 7
    message["attrs"] = [("IFA_ADDRESS", "10.9.9.9"), ("IFA_LOCAL", "10.9.9.9")]
    found = rtnetlink.read_address(written(message))
    assert found is not None
    assert (found.address, found.is_ours) == (Address.parse("10.9.9.9/8"), False)


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_message_that_is_cut_off_is_read_as_far_as_it_goes(cut: int) -> None:
    body = new("in1") + tunnel.new(12, Host.parse("10.0.0.2"), 3, 4789)
    found = rtnetlink.read_link((bytes(HEADER_BYTES) + body)[:-cut])
    assert found.ifname == "in1"
