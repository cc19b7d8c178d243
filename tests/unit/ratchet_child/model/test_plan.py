"""Wanted ends against found ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni.ip import Address, Host
from ratchet.links import Link
from ratchet_child.model.keys import PodKey
from ratchet_child.model.plan import (
    NEVER,
    DeclaredLink,
    Found,
    Place,
    Side,
    Step,
    Veth,
    Vxlan,
    Waiting,
    Wanted,
    compare,
    hardware_address,
    is_mended,
    superfluous,
    wanted,
)

HERE, THERE = "10.0.0.1", "10.0.0.2"
PORT, LOWER = 4789, 3


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
    return wanted(pod(name), HERE, links, places, {})


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
    cables = [one.side.declared.cable for one in (*result.ends, *result.waiting)]
    assert sorted(map(hash, cables)) == sorted({hash(one.cable) for one in of(name, links)})


@given(clusters(), NAMES)
def test_an_end_is_a_veth_here_a_vxlan_elsewhere_and_waits_for_who_is_away(
    cluster: tuple[list[DeclaredLink], dict[PodKey, Place]], name: str
) -> None:
    links, places = cluster
    result = want(name, of(name, links), places)
    for end in result.ends:
        if isinstance(end, Veth):
            assert places[end.side.peer].address == HERE
        else:
            assert str(end.remote) == places[end.side.peer].address == THERE
            assert end.vni == end.side.declared.vni
    for one in result.waiting:
        assert one.error is not None or one.side.peer not in places


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
        far = ends.get((end.side.peer.name, cable))
        if far is not None:
            assert isinstance(end, Vxlan)
            assert isinstance(far, Vxlan)
            assert far.vni == end.vni
            assert (far.side.ifname, far.side.peer_ifname) == (
                end.side.peer_ifname,
                end.side.ifname,
            )
            assert (far.side.address, far.side.peer) == (end.side.peer_address, pod(name))


def test_both_primaries_of_one_cable_make_one_link() -> None:
    links = [
        declared("a", "in1", "b", "in2", vni=11, created=7),
        declared("b", "in2", "a", "in1", vni=12, created=3),
    ]
    places = {pod("a"): Place("a1", THERE), pod("b"): Place("b1", THERE)}
    (one,), (other,) = (want(name, links, places).ends for name in "ab")
    assert isinstance(one, Vxlan)
    assert isinstance(other, Vxlan)
    assert one.vni == other.vni == 11


def test_the_pods_own_link_goes_before_an_older_one_of_somebody_else() -> None:
    links = [
        declared("c", "x", "a", "in1", created=1),
        declared("a", "in1", "b", "in2", created=9),
    ]
    result = want("a", links, {pod(name): Place("1", HERE) for name in "bc"})
    assert [end.side.peer for end in result.ends] == [pod("b")]
    assert [one.side.peer for one in result.waiting] == [pod("c")]
    assert "in1 of a is the end of the link a:in1 already" in str(result.waiting[0].error)


def test_nobody_takes_over_an_interface_that_another_link_had_first() -> None:
    links = [
        declared("b", "x", "a", "in1", created=2),
        declared("c", "x", "a", "in1", created=1),
        declared("d", "x", "a", "in1", vni=None, created=NEVER),
    ]
    result = want("a", links, {pod(name): Place("1", HERE) for name in "bcd"})
    assert [end.side.peer for end in result.ends] == [pod("c")]


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
    result = wanted(pod("a"), HERE, [mine], places, {"in1": rival})
    assert result.ends == ()
    assert result.waiting[0].error is not None
    assert wanted(pod("a"), HERE, [mine], places, {"in1": mine}).ends != ()


def test_a_link_that_the_far_pod_refuses_is_made_at_neither_end() -> None:
    mine = dataclasses.replace(declared("a", "in1", "b", "in2"), refused="b1")
    result = wanted(pod("a"), HERE, [mine], {pod("b"): Place("b1", THERE)}, {})
    assert result.ends == ()
    assert [one.error for one in result.waiting] == [
        "interface in2 of b is the end of a link of its own, or the runtime's"
    ]


@pytest.mark.parametrize("place", [Place("b2", THERE), Place("b1", HERE)])
def test_a_refusal_holds_for_its_container_and_for_other_nodes(place: Place) -> None:
    """A pod of this node says itself what it wants."""
    mine = dataclasses.replace(declared("a", "in1", "b", "in2"), refused="b1")
    assert len(wanted(pod("a"), HERE, [mine], {pod("b"): place}, {}).ends) == 1


def test_the_runtimes_interfaces_are_nobodys_ends() -> None:
    links = [declared("a", "in1", "b", "eth0"), declared("a", "in2", "b", "in2")]
    places = {pod("a"): Place("a1", THERE)}
    result = wanted(pod("b"), HERE, links, places, {}, ("lo", "eth0"))
    assert [end.side.ifname for end in result.ends] == ["in2"]
    assert [one.error for one in result.waiting] == ["interface eth0 of b is the runtime's"]


def test_a_link_between_nodes_without_a_vni_waits() -> None:
    links = [declared("a", "in1", "b", "in2", vni=None)]
    result = want("a", links, {pod("b"): Place("b1", THERE)})
    assert result == Wanted((), (Waiting(Side.of(links[0], pod("a"))),))


def test_a_link_inside_a_node_needs_no_vni() -> None:
    links = [declared("a", "in1", "b", "in2", vni=None)]
    result = want("a", links, {pod("b"): Place("b1", HERE)})
    assert result.ends == (Veth(Side.of(links[0], pod("a"))),)


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
    assert isinstance(end, Vxlan)
    assert end.remote == Host.parse("fd00::2")


def test_forms_differ_only_by_what_the_kernel_must_know() -> None:
    places = {pod("b"): Place("b1", THERE)}
    one = want("a", [declared("a", "in1", "b", "in2", created=5)], places).ends[0]
    same = want("a", [declared("a", "in1", "b", "in2", created=6)], places).ends[0]
    other = want("a", [declared("a", "in1", "b", "in2", vni=12)], places).ends[0]
    assert one.form == same.form != other.form


# What is there ------------------------------------------------------------------------------------

VXLAN_END = want("a", [declared("a", "in1", "b", "in2")], {pod("b"): Place("b1", THERE)}).ends[0]
VETH_END = want("a", [declared("a", "in1", "b", "in2")], {pod("b"): Place("b1", HERE)}).ends[0]
RIGHT_VXLAN = Found(
    "in1",
    7,
    "vxlan",
    ours=True,
    up=True,
    addresses=frozenset({Address.parse("10.1.0.1/24")}),
    vni=11,
    remote=Host.parse(THERE),
    port=PORT,
    lower=LOWER,
)
RIGHT_VETH = dataclasses.replace(
    RIGHT_VXLAN, kind="veth", vni=None, remote=None, port=None, lower=None
)


def test_what_is_right_needs_nothing() -> None:
    assert compare(VXLAN_END, RIGHT_VXLAN, paired=False, port=PORT, lower=LOWER) is Step.NOTHING
    assert compare(VETH_END, RIGHT_VETH, paired=True, port=PORT) is Step.NOTHING


def test_what_is_missing_is_made() -> None:
    assert compare(VXLAN_END, None, paired=False, port=PORT, lower=LOWER) is Step.MAKE
    assert compare(VETH_END, None, paired=False, port=PORT) is Step.MAKE


@pytest.mark.parametrize("paired", [True, False])
def test_somebody_elses_interface_is_never_touched(paired: bool) -> None:
    foreign = dataclasses.replace(RIGHT_VETH, ours=False)
    assert compare(VETH_END, foreign, paired=paired, port=PORT) is Step.REFUSE
    foreign = dataclasses.replace(RIGHT_VXLAN, ours=False)
    assert compare(VXLAN_END, foreign, paired=paired, port=PORT, lower=LOWER) is Step.REFUSE


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "veth"},
        {"kind": "dummy"},
        {"kind": None},
        {"vni": 12},
        {"remote": Host.parse("10.0.0.3")},
        {"port": 8472},
        {"lower": 4},
    ],
)
def test_a_wrong_vxlan_is_replaced(wrong: dict[str, object]) -> None:
    found = dataclasses.replace(RIGHT_VXLAN, **wrong)  # type: ignore[arg-type]
    assert compare(VXLAN_END, found, paired=False, port=PORT, lower=LOWER) is Step.REPLACE


def test_a_veth_to_somewhere_else_is_replaced() -> None:
    assert compare(VETH_END, RIGHT_VETH, paired=False, port=PORT) is Step.REPLACE
    assert compare(VETH_END, RIGHT_VXLAN, paired=True, port=PORT) is Step.REPLACE


@pytest.mark.parametrize("wrong", [{"up": False}, {"addresses": frozenset()}])
def test_what_is_down_or_lacks_its_address_is_mended(wrong: dict[str, object]) -> None:
    found = dataclasses.replace(RIGHT_VXLAN, **wrong)  # type: ignore[arg-type]
    assert compare(VXLAN_END, found, paired=False, port=PORT, lower=LOWER) is Step.MEND


def test_further_addresses_are_the_users() -> None:
    more = RIGHT_VXLAN.addresses | {Address.parse("10.9.9.9/8")}
    found = dataclasses.replace(RIGHT_VXLAN, addresses=more)
    assert is_mended(Address.parse("10.1.0.1/24"), found)
    assert is_mended(None, found)


def test_superfluous_is_ours_and_unwanted() -> None:
    found = [
        dataclasses.replace(RIGHT_VXLAN, ifname=name, ours=ours)
        for name, ours in (("in1", True), ("in9", True), ("eth0", False))
    ]
    assert [one.ifname for one in superfluous(Wanted((VXLAN_END,), ()), found)] == ["in9"]
    assert superfluous(Wanted((), ()), []) == []


@given(NAMES, st.text(max_size=15))
def test_hardware_addresses_are_stable_local_and_of_one_station(name: str, ifname: str) -> None:
    address = hardware_address(pod(name), ifname)
    assert address == hardware_address(pod(name), ifname)
    assert int(address[:2], 16) & 0b11 == 0b10
    assert len(address.split(":")) == 6
    assert address != hardware_address(PodKey("other", name), ifname)
