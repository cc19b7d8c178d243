from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni import result as cni_result
from ratchet.cni.ip import Address, Host
from ratchet.cni.result import IP, Interface, Result, Route, convert, parse, serialise
from ratchet.cni.version import SUPPORTED

LOOPBACK_TODAY = {
    # What the reference loopback plugin answers to a configuration of any version but none.
    "cniVersion": "0.1.0",
    "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/x"}],
    "ips": [{"interface": 0, "address": "127.0.0.1/8"}, {"interface": 0, "address": "::1/128"}],
    "dns": {},
}
LOOPBACK_020 = {"cniVersion": "0.2.0", "ip4": {"ip": "127.0.0.1/8"}, "ip6": {"ip": "::1/128"}}
BRIDGE: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [
        {"name": "cni0", "mac": "0a:00:00:00:00:01"},
        {"name": "veth1", "mac": "0a:00:00:00:00:02"},
        {"name": "eth0", "mac": "0a:00:00:00:00:03", "sandbox": "/run/netns/x"},
    ],
    "ips": [{"interface": 2, "address": "10.1.0.5/16", "gateway": "10.1.0.1"}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
    "dns": {"nameservers": ["10.1.0.1"]},
}
ADDRESS = Address.parse("192.168.2.100/24")
NO_MAC = "00:00:00:00:00:00"

hosts = st.ip_addresses().map(lambda host: Host.parse(str(host)))
addresses = st.builds(
    lambda host, length: Address(host, length % (len(host.packed) * 8 + 1)),
    hosts,
    st.integers(0, 128),
)
interfaces = st.lists(
    st.builds(
        Interface,
        st.sampled_from(["eth0", "lo", "net1", "veth1"]),
        st.none() | st.just("0a:00:00:00:00:01"),
        st.none() | st.just("/run/netns/x"),
        st.just({}) | st.just({"mtu": 1450}),
    ),
    max_size=3,
)
routes = st.lists(
    st.builds(
        Route,
        addresses.map(lambda address: address.network),
        st.none() | hosts,
        st.just({}) | st.just({"priority": 3}),
    ),
    max_size=3,
)


@st.composite
def results(draw: st.DrawFn) -> Result:
    found = draw(interfaces)
    index = st.none() | (st.integers(0, len(found) - 1) if found else st.none())
    ips = draw(st.lists(st.builds(IP, addresses, st.none() | hosts, index), max_size=4))
    return Result(
        tuple(found), tuple(ips), tuple(draw(routes)), draw(st.just({}) | st.just({"domain": "a"}))
    )


@given(results())
def test_a_result_survives_being_written_and_read(result: Result) -> None:
    assert parse(serialise(result, "1.1.0")) == result


@given(results(), st.sampled_from(SUPPORTED), st.sampled_from(SUPPORTED))
def test_what_an_older_version_cannot_say_is_lost_once_only(
    result: Result, one: str, other: str
) -> None:
    older = min(one, other, key=SUPPORTED.index)
    through = serialise(parse(serialise(result, one)), other)
    direct = serialise(result, older)
    assert serialise(parse(through), older) == direct


@given(results(), st.sampled_from(SUPPORTED))
def test_every_result_has_an_address_for_the_pod_after_it_was_given_one(
    result: Result, version: str
) -> None:
    completed = result.with_pod_address("eth0", "/run/netns/x", ADDRESS)
    assert completed.ips_of("eth0")
    obj = serialise(completed, version, "eth0")
    if version in ("0.1.0", "0.2.0"):
        assert "ip4" in obj or "ip6" in obj
    else:
        assert parse(obj).ips_of("eth0")


@given(results())
def test_a_result_with_an_address_for_the_pod_is_left_alone(result: Result) -> None:
    once = result.with_pod_address("eth0", "/run/netns/x", ADDRESS)
    assert once.with_pod_address("eth0", "/run/netns/x", ADDRESS) is once
    if result.ips_of("eth0"):
        assert once is result


@pytest.mark.parametrize("found", [LOOPBACK_TODAY, LOOPBACK_020, {"cniVersion": "0.4.0"}])
@pytest.mark.parametrize("version", ["", "0.1.0", "0.2.0"])
def test_loopbacks_address_is_never_taken_for_the_pods_in_old_versions(
    found: dict[str, Any], version: str
) -> None:
    completed = parse(found).with_pod_address("eth0", "/run/netns/x", ADDRESS)
    assert serialise(completed, version, "eth0") == {
        "cniVersion": version or "0.1.0",
        "ip4": {"ip": "192.168.2.100/24"},
    }


def test_loopbacks_address_stays_on_lo_in_new_versions() -> None:
    completed = parse(LOOPBACK_020).with_pod_address("eth0", "/run/netns/x", ADDRESS)
    assert serialise(completed, "0.3.1", "eth0") == {
        "cniVersion": "0.3.1",
        "interfaces": [
            {"name": "lo", "mac": NO_MAC, "sandbox": "/run/netns/x"},
            {"name": "eth0", "mac": NO_MAC, "sandbox": "/run/netns/x"},
        ],
        "ips": [
            {"version": "4", "interface": 0, "address": "127.0.0.1/8"},
            {"version": "6", "interface": 0, "address": "::1/128"},
            {"version": "4", "interface": 1, "address": "192.168.2.100/24"},
        ],
    }


def test_a_bridges_result_in_every_version() -> None:
    assert convert(BRIDGE, "1.0.0", "eth0") is BRIDGE
    assert convert(BRIDGE, "1.1.0", "eth0") == {**BRIDGE, "cniVersion": "1.1.0"}
    for version in ("0.3.0", "0.3.1", "0.4.0"):
        ips = [{"version": "4", **BRIDGE["ips"][0]}]
        assert convert(BRIDGE, version) == {**BRIDGE, "cniVersion": version, "ips": ips}
    for version in ("0.1.0", "0.2.0"):
        assert convert(BRIDGE, version, "eth0") == {
            "cniVersion": version,
            "ip4": {
                "ip": "10.1.0.5/16",
                "gateway": "10.1.0.1",
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
            },
            "dns": {"nameservers": ["10.1.0.1"]},
        }


def test_the_nodes_end_of_a_pair_that_is_named_like_the_pods_is_not_the_pods() -> None:
    found = Result(
        (Interface("eth0"), Interface("eth0", sandbox="/run/netns/x")),
        (IP(Address.parse("10.0.0.1/24"), interface=0),),
    )
    assert found.ips_of("eth0") == ()


def test_a_result_in_the_wrong_shape_for_its_version_is_mended() -> None:
    converted = convert(LOOPBACK_TODAY, "0.1.0")
    assert "ips" not in converted
    without_version = {**LOOPBACK_TODAY, "cniVersion": "0.3.1"}
    assert convert(without_version, "0.3.1")["ips"][0]["version"] == "4"


@pytest.mark.parametrize(
    "obj",
    [
        None,
        [],
        "x",
        {"ips": {}},
        {"ips": [1]},
        {"ips": [{}]},
        {"ips": [{"address": "x"}]},
        {"ips": [{"address": 3}]},
        {"ips": [{"address": "10.0.0.1/24", "interface": 0}]},
        {"ips": [{"address": "10.0.0.1/24", "interface": True}], "interfaces": [{"name": "a"}]},
        {"ips": [{"address": "10.0.0.1/24", "interface": -1}], "interfaces": [{"name": "a"}]},
        {"interfaces": [{}]},
        {"interfaces": [{"name": 3}]},
        {"ips": [], "routes": [{"gw": "10.0.0.1"}]},
        {"ips": [], "dns": []},
        {"ip4": []},
        {"ip4": {"ip": "::1/128"}},
        {"ip6": {}},
    ],
)
def test_nonsense_is_a_value_error(obj: Any) -> None:
    with pytest.raises(ValueError):
        parse(obj)


@given(st.text())
def test_a_link_local_address_is_a_usable_one_and_always_the_same(seed: str) -> None:
    address = cni_result.link_local(seed)
    assert address == cni_result.link_local(seed)
    assert address.network == Address.parse("169.254.0.0/16")
    assert 0 < address.ip.packed[2] < 255
