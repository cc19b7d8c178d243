"""Addresses are what the standard library's `ipaddress` takes them for."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni.ip import Address, Host

hosts = st.ip_addresses()
interfaces = hosts.flatmap(
    lambda host: st.integers(0, host.max_prefixlen).map(
        lambda length: ipaddress.ip_interface(f"{host}/{length}")
    )
)


@given(hosts)
def test_a_host_is_read_and_told_as_by_the_standard_library(
    theirs: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    ours = Host.parse(str(theirs))
    assert ours.packed == theirs.packed
    assert ours.version == theirs.version
    assert ipaddress.ip_address(str(ours)) == theirs
    assert ours.is_unspecified == theirs.is_unspecified
    assert ours.is_multicast == theirs.is_multicast
    if not ours.is_ipv4_mapped:
        assert ours.is_loopback == theirs.is_loopback
    assert ours.is_ipv4_mapped == (
        isinstance(theirs, ipaddress.IPv6Address) and theirs.ipv4_mapped is not None
    )


@given(interfaces)
def test_an_address_has_its_network(
    theirs: ipaddress.IPv4Interface | ipaddress.IPv6Interface,
) -> None:
    ours = Address.parse(str(theirs))
    assert ours.version == theirs.version
    assert ours.prefix_len == theirs.network.prefixlen
    assert ours.ip.packed == theirs.ip.packed
    assert ours.network.ip.packed == theirs.network.network_address.packed
    assert ours.broadcast.packed == theirs.network.broadcast_address.packed
    assert ours.network == Address.parse(str(theirs.network))
    assert Address.parse(str(ours)) == ours


@given(hosts)
def test_without_a_prefix_length_it_is_the_host_alone(
    theirs: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert Address.parse(str(theirs)).prefix_len == theirs.max_prefixlen


@given(st.text(alphabet="0123456789abcdef.:/%- \0१", max_size=20))
def test_what_is_no_address_to_the_standard_library_is_none(text: str) -> None:
    try:
        ours = Address.parse(text)
    except ValueError:
        return
    assert ipaddress.ip_interface(text).ip.packed == ours.ip.packed


@pytest.mark.parametrize("host", ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "0x1.2.3.4", "1.2.3.4\0"])
@pytest.mark.parametrize("length", ["", "/24"])
def test_what_is_no_host_is_a_value_error(host: str, length: str) -> None:
    with pytest.raises(ValueError):
        Address.parse(host + length)


@pytest.mark.parametrize("text", ["fe80::1%eth0", ":::", "g::", "::/129", "\udc80"])
def test_what_is_no_ipv6_host_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        Address.parse(text)


@pytest.mark.parametrize(
    "length", ["", "33", "-1", "+1", "1/2", "²", "255.255.255.0", "0000000000024"]
)
def test_a_prefix_length_is_a_number_that_fits(length: str) -> None:
    with pytest.raises(ValueError, match="prefix length"):
        Address.parse(f"1.2.3.4/{length}")
