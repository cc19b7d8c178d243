"""What an interface should be against what it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni.dataclasses import replace
from ratchet.cni.ip import Address, Host
from ratchet.impairment import Impairment
from ratchet_child.model.interfaces import (
    AddAddress,
    Change,
    Found,
    HandOver,
    Hold,
    Impair,
    Interface,
    Label,
    Make,
    Release,
    Remove,
    RemoveAddress,
    SetMac,
    SetMtu,
    Unplug,
    Veth,
    Vxlan,
    changes,
    hardware_address,
    operation,
    settings,
)
from ratchet_child.model.keys import PodKey

OWN, OTHER, USERS = map(Address.parse, ("10.1.0.1/24", "10.1.0.7/24", "10.9.9.9/8"))
WANTED = Interface("in1", Vxlan(11, Host.parse("10.0.0.2")), "02:00:00:00:00:01", OWN, link="a:in1")
LABEL = Label("in1", "a:in1")
IFNAMES = st.sampled_from(["in1", "e1-1", "x" * 15])
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", fullmatch=True)
RIGHT = Found(
    "in1",
    7,
    "vxlan",
    ours=True,
    up=True,
    addresses=frozenset({OWN}),
    given=frozenset({OWN}),
    mtu_bytes=1450,
    label=LABEL,
)


NEW = replace(RIGHT, label=None, up=False, addresses=frozenset(), given=frozenset())


def of(
    found: Found | None, wanted: Interface = WANTED, given: Interface | None = None
) -> tuple[Change, ...]:
    return changes(wanted, found, is_same=True, given=given)


def test_what_is_right_needs_nothing() -> None:
    assert of(RIGHT) == of(RIGHT, given=WANTED) == ()


def test_what_is_missing_is_made_handed_over_and_given_its_address() -> None:
    assert of(None) == (Make(), HandOver(LABEL), AddAddress(OWN))


def test_what_is_of_another_medium_is_made_anew() -> None:
    made = (Remove(), Make(), HandOver(LABEL), AddAddress(OWN))
    assert changes(WANTED, RIGHT, is_same=False) == made


def test_what_was_left_half_made_is_finished() -> None:
    assert of(NEW) == (HandOver(LABEL), AddAddress(OWN))
    arrived = replace(NEW, addresses=frozenset({OWN}), given=frozenset({OWN}))
    assert of(arrived) == (HandOver(LABEL),)


@pytest.mark.parametrize(
    "pods_own",
    [
        {"up": False},
        {"addresses": frozenset(), "given": frozenset()},
        {"addresses": frozenset({USERS}), "given": frozenset()},
        {"addresses": frozenset({OWN, USERS})},
        {"mtu_bytes": 1300},
        {"ifname": "up1"},
    ],
)
@pytest.mark.parametrize("given", [None, WANTED], ids=["by an earlier child", "by this one"])
def test_what_the_pod_does_to_an_end_that_it_was_given_is_left(
    pods_own: dict[str, object], given: Interface | None
) -> None:
    found = replace(RIGHT, **pods_own)  # type: ignore[arg-type]
    assert of(found, given=given) == ()


def test_an_address_that_a_link_had_before_is_removed() -> None:
    wanted = replace(WANTED, address=OTHER)
    for before in (None, WANTED):
        assert of(RIGHT, wanted, before) == (RemoveAddress(OWN), AddAddress(OTHER))
        assert of(RIGHT, replace(WANTED, address=None), before) == (RemoveAddress(OWN),)


def test_an_address_is_added_to_a_link_that_had_none() -> None:
    bare = replace(RIGHT, addresses=frozenset(), given=frozenset())
    assert of(bare, given=replace(WANTED, address=None)) == (AddAddress(OWN),)


def test_an_mtu_that_links_say_anew_is_set() -> None:
    wanted = replace(WANTED, mtu_bytes=1400)
    assert of(RIGHT, wanted, WANTED) == (SetMtu(1400),)
    assert of(RIGHT, wanted, wanted) == ()
    made = replace(wanted, address=None)
    assert settings(made) == (SetMtu(1400), HandOver(LABEL))


SLOW, LATE = Impairment(rate_bits=8_000_000), Impairment(rate_bits=8_000_000, delay_us=10)


def test_a_new_end_is_impaired_as_it_is_wanted() -> None:
    slow = replace(WANTED, impairment=SLOW)
    assert of(None, slow) == (Make(), HandOver(LABEL), AddAddress(OWN), Impair(SLOW))


def test_what_links_say_anew_of_an_impairment_is_done_and_undone() -> None:
    slow, late = (replace(WANTED, impairment=one) for one in (SLOW, LATE))
    found = replace(RIGHT, impairment=SLOW)
    assert of(RIGHT, slow, WANTED) == (Impair(SLOW),)
    assert of(found, late, slow) == (Impair(LATE),)
    assert of(found, WANTED, slow) == (Impair(None),)


def test_an_impairment_is_compared_with_the_kernels_after_a_restart() -> None:
    slow, late = (replace(WANTED, impairment=one) for one in (SLOW, LATE))
    found = replace(RIGHT, impairment=SLOW)
    assert of(found, slow) == ()
    assert of(found, late) == (Impair(LATE),)
    assert of(found) == (Impair(None),)


def test_a_refused_or_changed_impairment_is_not_tried_again() -> None:
    late = replace(WANTED, impairment=LATE)
    assert of(replace(RIGHT, impairment=SLOW), late, late) == ()
    assert of(RIGHT, late, late) == ()


INSIDE = replace(WANTED, medium=Veth(PodKey("default", "b"), "in2", None))
HELD = replace(RIGHT, kind="veth", impairment=Impairment())


def test_a_cable_inside_the_node_is_pulled_out_and_plugged_in_again() -> None:
    out, back = (replace(INSIDE, is_pulled=one) for one in (True, False))
    slow = replace(back, impairment=SLOW)
    assert of(RIGHT, out, INSIDE) == (Hold(),)
    assert of(HELD, out) == of(HELD, out, INSIDE) == ()
    assert of(HELD, back) == of(HELD, back, out) == (Release(),)
    assert of(HELD, slow, out) == (Release(), Impair(SLOW))


def test_a_cable_of_which_nothing_is_known_is_left_as_it_is() -> None:
    assert of(HELD, INSIDE) == of(HELD, replace(INSIDE, impairment=SLOW)) == ()
    assert INSIDE.has_cable_of(INSIDE, HELD)
    assert not replace(INSIDE, is_pulled=False).has_cable_of(INSIDE, HELD)
    assert replace(INSIDE, is_pulled=False).has_cable_of(INSIDE, RIGHT)
    assert not replace(INSIDE, is_pulled=True).has_cable_of(INSIDE, RIGHT)


def test_an_end_that_is_made_while_its_cable_is_out_is_out() -> None:
    tunnel, inside = (replace(one, is_pulled=True) for one in (WANTED, INSIDE))
    assert of(None, tunnel) == (Make(), HandOver(LABEL), AddAddress(OWN), Unplug())
    assert of(None, inside) == (Make(), HandOver(LABEL), AddAddress(OWN), Hold())


def test_a_leg_that_was_held_when_its_pod_went_is_released() -> None:
    arrived = replace(NEW, kind="veth", is_dormant=True)
    back = replace(INSIDE, is_pulled=False)
    assert of(arrived, back) == (HandOver(LABEL), AddAddress(OWN), Release())
    # Before etcd has said whether it is out it is held again: the mode alone may be the pod's.
    assert of(arrived, INSIDE) == (HandOver(LABEL), AddAddress(OWN), Hold())
    assert not back.has_cable_of(INSIDE, replace(arrived, label=LABEL))
    dormant = replace(RIGHT, kind="veth", is_dormant=True)
    assert of(dormant, back, back) == ()
    assert back.has_cable_of(back, dormant)


def test_a_mac_address_is_set_when_links_say_another_one() -> None:
    wanted = replace(WANTED, mac="02:00:00:00:00:09")
    assert of(RIGHT, wanted, WANTED) == (SetMac("02:00:00:00:00:09"),)
    assert of(RIGHT, wanted) == of(RIGHT, wanted, wanted) == ()


ADDRESSES = st.frozensets(st.sampled_from([OWN, OTHER, USERS]))


@given(ADDRESSES, ADDRESSES, st.sampled_from([None, OWN, OTHER]))
def test_changes_touch_no_address_of_the_users(
    given: frozenset[Address], users: frozenset[Address], address: Address | None
) -> None:
    found = replace(RIGHT, addresses=given | users, given=given - users)
    wanted = replace(WANTED, address=address)
    after = set(found.addresses)
    for one in of(found, wanted):
        match one:
            case AddAddress():
                after.add(one.address)
            case RemoveAddress():
                after.remove(one.address)
    assert after >= users
    assert after <= users | ({address} if address is not None else set())


@pytest.mark.parametrize(
    ("done", "name"),
    [
        ((), None),
        ((HandOver(LABEL),), "mend"),
        ((Make(), HandOver(LABEL)), "make"),
        ((Remove(), Make(), HandOver(LABEL)), "replace"),
    ],
)
def test_changes_are_counted_by_what_they_are(done: tuple[Change, ...], name: str | None) -> None:
    assert operation(done) == name


# Labels -----------------------------------------------------------------------------------------


@given(IFNAMES, NAMES, IFNAMES)
def test_a_label_is_read_as_it_is_written(ifname: str, primary: str, its: str) -> None:
    label = Label(ifname, f"{primary}:{its}")
    read = Label.parse(str(label))
    assert read is not None
    assert read.ifname == ifname
    assert read.is_of(label)
    assert len(str(label).encode()) <= 255


def test_labels_of_long_names_differ() -> None:
    one, other = (Label("in1", "x" * 252 + last + ":in1") for last in "ab")
    assert not one.is_of(other)


@pytest.mark.parametrize(
    "alias", [None, "", "uplink to r2", "ratchet", "ratchet in1", "ratchet  of "]
)
def test_somebody_elses_alias_is_no_label(alias: str | None) -> None:
    assert Label.parse(alias) is None


def test_a_renamed_end_goes_by_the_name_in_its_label() -> None:
    assert replace(RIGHT, ifname="up1").key == "in1"
    assert replace(RIGHT, ifname="up1", ours=False).key == "up1"


@given(st.sampled_from("abcd"), st.text(max_size=15))
def test_hardware_addresses_are_stable_local_and_of_one_station(name: str, ifname: str) -> None:
    address = hardware_address(PodKey("default", name), ifname)
    assert address == hardware_address(PodKey("default", name), ifname)
    assert int(address[:2], 16) & 0b11 == 0b10
    assert len(address.split(":")) == 6
    assert address != hardware_address(PodKey("other", name), ifname)
