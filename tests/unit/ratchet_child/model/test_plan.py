"""Wanted ends against found ones."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni.dataclasses import replace
from ratchet.cni.ip import Address, Host
from ratchet.impairment import Impairment
from ratchet.links import Link, Uplink
from ratchet_child.model.interfaces import (
    HostVeth,
    Interface,
    Macvlan,
    Veth,
    Vxlan,
    hardware_address,
)
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import NEVER, DeclaredLink, Place, Side
from ratchet_child.model.local import Node
from ratchet_child.model.plan import End, Waiting, Wanted, wanted

HERE, THERE = "10.0.0.1", "10.0.0.2"
NODE = Node(HERE, "eth1")


def pod(name: str) -> PodKey:
    return PodKey("default", name)


def declared(
    primary: str,
    ifname: str,
    pair: str,
    pair_ifname: str,
    *,
    vni: int | None = 11,
    created: int = 5,
) -> DeclaredLink:
    near, far = Address.parse("10.1.0.1/24"), Address.parse("10.1.0.2/24")
    return DeclaredLink(pod(primary), Link(ifname, near, pair, pair_ifname, far), vni, created)


def want(name: str, links: list[DeclaredLink], places: Mapping[PodKey, Place]) -> Wanted:
    return wanted(pod(name), NODE, links, places, {})


def peer_of(one: End | Waiting) -> PodKey:
    assert isinstance(one.side, Side)
    return one.side.peer


NAMES = st.sampled_from(["a", "b", "c", "d"])
IFNAMES = st.sampled_from(["in1", "in2", "in3"])


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[DeclaredLink], dict[PodKey, Place]]:
    """Declarations as etcd would hold them, and where the pods are."""
    written = draw(
        st.lists(
            st.tuples(NAMES, IFNAMES, NAMES, IFNAMES).filter(lambda one: one[0] != one[2]),
            unique_by=lambda one: (one[0], one[1]),
            max_size=8,
        )
    )
    order = draw(st.permutations(range(len(written))))
    links = [
        declared(*one, vni=11 + number, created=order[number]) for number, one in enumerate(written)
    ]
    at = draw(st.dictionaries(NAMES, st.sampled_from([HERE, THERE])))
    return links, {pod(name): Place(f"{name}-1", address) for name, address in at.items()}


def of(name: str, links: list[DeclaredLink]) -> list[DeclaredLink]:
    return [one for one in links if pod(name) in (one.primary, one.pair)]


@given(clusters(), NAMES)
def test_each_interface_has_one_end_at_most(
    cluster: tuple[list[DeclaredLink], dict[PodKey, Place]], name: str
) -> None:
    links, places = cluster
    ends = want(name, of(name, links), places).ends
    assert len({end.side.ifname for end in ends}) == len(ends)


@given(clusters(), NAMES)
def test_each_cable_is_wanted_or_waits_and_only_once(
    cluster: tuple[list[DeclaredLink], dict[PodKey, Place]], name: str
) -> None:
    links, places = cluster
    result = want(name, of(name, links), places)
    cables = [end.side.declared.cable for end in result.ends]
    cables += [one.side.declared.cable for one in result.waiting]
    assert sorted(map(hash, cables)) == sorted({hash(one.cable) for one in of(name, links)})


@given(clusters(), NAMES)
def test_an_end_is_a_veth_here_a_vxlan_elsewhere_and_waits_for_who_is_away(
    cluster: tuple[list[DeclaredLink], dict[PodKey, Place]], name: str
) -> None:
    links, places = cluster
    result = want(name, of(name, links), places)
    for end in result.ends:
        medium = end.interface.medium
        if isinstance(medium, Veth):
            assert places[peer_of(end)].address == HERE
        else:
            assert isinstance(medium, Vxlan)
            assert str(medium.remote) == places[peer_of(end)].address == THERE
            assert medium.vni == end.side.declared.vni
    for one in result.waiting:
        assert one.error is not None or peer_of(one) not in places


@given(clusters(), NAMES, st.randoms())
def test_the_order_in_which_declarations_are_read_does_not_matter(
    cluster: tuple[list[DeclaredLink], dict[PodKey, Place]], name: str, chance: object
) -> None:
    links, places = cluster
    shuffled = of(name, links)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert want(name, shuffled, places) == want(name, of(name, links), places)


@given(clusters())
def test_two_pods_agree_on_a_link_that_both_want(
    cluster: tuple[list[DeclaredLink], dict[PodKey, Place]],
) -> None:
    """Observed from each side: one VNI, and the interface names crossed."""
    links, _ = cluster
    everywhere = {pod(name): Place(f"{name}-1", THERE) for name in "abcd"}
    ends = {
        (name, end.side.declared.cable): end
        for name in "abcd"
        for end in want(name, of(name, links), everywhere).ends
    }
    for (name, cable), end in ends.items():
        far = ends.get((peer_of(end).name, cable))
        if far is not None:
            assert isinstance(end.interface.medium, Vxlan)
            assert far.interface.medium == end.interface.medium
            assert (far.side.ifname, far.side.peer_ifname) == (
                end.side.peer_ifname,
                end.side.ifname,
            )
            assert (far.side.address, peer_of(far)) == (end.side.peer_address, pod(name))


def test_both_primaries_of_one_cable_make_one_link() -> None:
    links = [
        declared("a", "in1", "b", "in2", vni=11, created=7),
        declared("b", "in2", "a", "in1", vni=12, created=3),
    ]
    places = {pod("a"): Place("a1", THERE), pod("b"): Place("b1", THERE)}
    (one,), (other,) = (want(name, links, places).ends for name in "ab")
    for end in (one, other):
        assert end.interface.medium == Vxlan(11, Host.parse(THERE))


def test_what_only_one_pod_says_of_a_link_holds_at_both_ends() -> None:
    near, far = Address.parse("10.1.0.1/24"), Address.parse("10.1.0.2/24")
    slow = Impairment(rate_bits=8_000)
    links = [
        DeclaredLink(pod("a"), Link("in1", near, "b", "in2", None, impairment=slow), 11, 1),
        DeclaredLink(pod("b"), Link("in2", far, "a", "in1", None, mtu_bytes=1400), 12, 2),
    ]
    places = {pod("a"): Place("a1", THERE), pod("b"): Place("b1", THERE)}
    (one,), (other,) = (want(name, links, places).ends for name in "ab")
    assert (one.interface.address, other.interface.address) == (near, far)
    assert (one.interface.mtu_bytes, other.interface.mtu_bytes) == (1400, 1400)
    assert (one.interface.impairment, other.interface.impairment) == (slow, None)
    assert one.side.contradiction is other.side.contradiction is None


def test_what_two_pods_say_differently_is_told_at_both_and_the_first_ones_word_counts() -> None:
    near, far, else_ = map(Address.parse, ("10.1.0.1/24", "10.1.0.2/24", "10.1.0.3/24"))
    links = [
        DeclaredLink(pod("a"), Link("in1", near, "b", "in2", far), 11, 9),
        DeclaredLink(pod("b"), Link("in2", else_, "a", "in1", near), 12, 2),
    ]
    places = {pod("a"): Place("a1", THERE), pod("b"): Place("b1", THERE)}
    (one,), (other,) = (want(name, links, places).ends for name in "ab")
    assert (one.interface.address, other.interface.address) == (near, far)
    told = "a and b declare this link differently: the address of b is 10.1.0.2/24 or 10.1.0.3/24"
    assert one.side.contradiction == other.side.contradiction == told


def test_an_uplink_needs_no_pod_and_has_its_interface_first() -> None:
    links = [declared("c", "x", "a", "up1", created=1)]
    uplinks = (Uplink("up1", "macvlan", "eth1"), Uplink("up2", "host", "to-a", mtu_bytes=1300))
    result = wanted(pod("a"), NODE, links, {pod("c"): Place("1", HERE)}, {}, (), uplinks)
    assert [end.interface.medium for end in result.ends] == [
        Macvlan("eth1"),
        HostVeth("to-a", None),
    ]
    assert [end.interface.mtu_bytes for end in result.ends] == [None, 1300]
    assert "up1 of a is the end of the link a:up1 already" in str(result.waiting[0].error)


def test_the_pods_own_link_goes_before_an_older_one_of_somebody_else() -> None:
    links = [
        declared("c", "x", "a", "in1", created=1),
        declared("a", "in1", "b", "in2", created=9),
    ]
    result = want("a", links, {pod(name): Place("1", HERE) for name in "bc"})
    assert [peer_of(end) for end in result.ends] == [pod("b")]
    assert [peer_of(one) for one in result.waiting] == [pod("c")]
    assert "in1 of a is the end of the link a:in1 already" in str(result.waiting[0].error)


def test_nobody_takes_over_an_interface_that_another_link_had_first() -> None:
    links = [
        declared("b", "x", "a", "in1", created=2),
        declared("c", "x", "a", "in1", created=1),
        declared("d", "x", "a", "in1", vni=None, created=NEVER),
    ]
    result = want("a", links, {pod(name): Place("1", HERE) for name in "bcd"})
    assert [peer_of(end) for end in result.ends] == [pod("c")]


def test_a_first_link_whose_pod_is_away_still_keeps_its_interface() -> None:
    links = [
        declared("b", "x", "a", "in1", created=1),
        declared("c", "x", "a", "in1", created=2),
    ]
    result = want("a", links, {pod("c"): Place("1", HERE)})
    assert result.ends == ()
    assert [one.error is None for one in result.waiting] == [True, False]


def test_a_link_whose_far_interface_is_anothers_is_refused_at_this_end_too() -> None:
    mine = declared("a", "in1", "b", "in2", created=5)
    rival = declared("c", "x", "b", "in2", created=1)
    places = {pod("b"): Place("1", THERE)}
    result = wanted(pod("a"), NODE, [mine], places, {"in1": rival})
    assert result.ends == ()
    assert result.waiting[0].error is not None
    assert wanted(pod("a"), NODE, [mine], places, {"in1": mine}).ends != ()


def test_a_link_that_the_far_pod_refuses_is_made_at_neither_end() -> None:
    mine = replace(declared("a", "in1", "b", "in2"), refused="b1")
    result = wanted(pod("a"), NODE, [mine], {pod("b"): Place("b1", THERE)}, {})
    assert result.ends == ()
    assert [one.error for one in result.waiting] == [
        (
            "interface in2 of b is the end of a link of its own, or the runtime's,"
            " or b has as many links as its node allows (max_links)"
        )
    ]


@pytest.mark.parametrize("place", [Place("b2", THERE), Place("b1", HERE)])
def test_a_refusal_holds_for_its_container_and_for_other_nodes(place: Place) -> None:
    """A pod of this node says itself what it wants."""
    mine = replace(declared("a", "in1", "b", "in2"), refused="b1")
    assert len(wanted(pod("a"), NODE, [mine], {pod("b"): place}, {}).ends) == 1


def test_the_runtimes_interfaces_are_nobodys_ends() -> None:
    links = [declared("a", "in1", "b", "eth0"), declared("a", "in2", "b", "in2")]
    places = {pod("a"): Place("a1", THERE)}
    result = wanted(pod("b"), NODE, links, places, {}, ("lo", "eth0"))
    assert [end.side.ifname for end in result.ends] == ["in2"]
    assert [one.error for one in result.waiting] == ["interface eth0 of b is the runtime's"]


def test_a_link_between_nodes_without_a_vni_waits() -> None:
    links = [declared("a", "in1", "b", "in2", vni=None)]
    result = want("a", links, {pod("b"): Place("b1", THERE)})
    assert result == Wanted((), (Waiting(Side.of(links[0], pod("a"))),))


def test_a_link_inside_a_node_needs_no_vni() -> None:
    links = [declared("a", "in1", "b", "in2", vni=None)]
    result = want("a", links, {pod("b"): Place("b1", HERE)})
    (end,) = result.ends
    assert end.side == Side.of(links[0], pod("a"))
    assert end.interface.medium == Veth(pod("b"), "in2", Address.parse("10.1.0.2/24"))


@pytest.mark.parametrize(
    "address",
    [
        *("", "node-2", "10.0.0.2/24", "10.0.0.256", "../../x"),
        *("0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.5", "ff02::5", "255.255.255.255"),
    ],
)
def test_a_far_node_without_an_ip_address_is_told(address: str) -> None:
    result = want("a", [declared("a", "in1", "b", "in2")], {pod("b"): Place("b1", address)})
    assert result.ends == ()
    assert "not an IP address" in str(result.waiting[0].error)


def test_an_ipv6_node_is_a_remote() -> None:
    (end,) = want("a", [declared("a", "in1", "b", "in2")], {pod("b"): Place("b1", "fd00::2")}).ends
    assert end.interface.medium == Vxlan(11, Host.parse("fd00::2"))


def test_specifications_differ_only_by_what_the_kernel_must_know() -> None:
    places = {pod("b"): Place("b1", THERE)}
    one = want("a", [declared("a", "in1", "b", "in2", created=5)], places).ends[0]
    same = want("a", [declared("a", "in1", "b", "in2", created=6)], places).ends[0]
    other = want("a", [declared("a", "in1", "b", "in2", vni=12)], places).ends[0]
    assert one.interface == same.interface != other.interface


def test_an_interface_is_fully_specified() -> None:
    node = Node(HERE, "eth1", mtu_bytes=1400)
    links = [declared("a", "in1", "b", "in2")]
    (end,) = wanted(pod("a"), node, links, {pod("b"): Place("b1", THERE)}, {}).ends
    assert end.interface == Interface(
        "in1",
        Vxlan(11, Host.parse(THERE)),
        hardware_address(pod("a"), "in1"),
        Address.parse("10.1.0.1/24"),
        1400,
        "a:in1",
    )


def test_a_pod_has_no_more_ends_than_its_node_allows_and_the_oldest_stay() -> None:
    node = Node(HERE, "eth1", max_links=2)
    links = [declared(f"p{age}", "in1", "a", f"x{age}", created=age) for age in (3, 1, 2)]
    places = {pod(f"p{age}"): Place(f"p{age}-1", HERE) for age in (1, 2, 3)}
    found = wanted(pod("a"), node, links, places, {})
    assert [end.ifname for end in found.ends] == ["x1", "x2"]
    (late,) = found.waiting
    assert (late.side.ifname, late.is_taken) == ("x3", True)
    assert late.error == "a has 2 links already, and max_links of its node allows no more"


def test_uplinks_count_as_links() -> None:
    node = Node(HERE, "eth1", max_links=2)
    uplinks = [Uplink(f"up{number}", "macvlan", "eth1") for number in (1, 2, 3)]
    links = [declared("p", "in1", "a", "x", created=1)]
    places = {pod("p"): Place("p-1", HERE)}
    found = wanted(pod("a"), node, links, places, {}, (), uplinks[:1])
    assert [end.ifname for end in found.ends] == ["up1", "x"]
    found = wanted(pod("a"), node, links, places, {}, (), uplinks)
    assert [end.ifname for end in found.ends] == ["up1", "up2"]
    told = "a has 2 links already, and max_links of its node allows no more"
    assert [(one.side.ifname, one.error) for one in found.waiting] == [("up3", told), ("x", told)]


def test_a_link_without_a_far_end_is_an_error_and_no_tunnel() -> None:
    link = replace(declared("a", "in1", "b", "in2"), no_far_end="it is an old node")
    found = want("a", [link], {pod("b"): Place("c", THERE)})
    assert found.ends == ()
    assert [one.error for one in found.waiting] == ["it is an old node"]
    assert want("a", [link], {}).waiting[0].error is None
    (end,) = want("a", [link], {pod("b"): Place("c", HERE)}).ends  # it has come to this node
    assert isinstance(end.interface.medium, Veth)


def test_a_link_without_a_far_end_leaves_its_interface_to_another_one() -> None:
    vain = replace(declared("a", "in1", "b", "in2"), no_far_end="it is an old node")
    other = declared("c", "x", "a", "in1", vni=12)
    places = {pod("b"): Place("b1", THERE), pod("c"): Place("c1", THERE)}
    found = want("a", [vain, other], places)
    assert [end.interface.medium for end in found.ends] == [Vxlan(12, Host.parse(THERE))]
    assert [one.error for one in found.waiting] == ["it is an old node"]
