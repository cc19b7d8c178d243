"""What an interface should be against what it is."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni.ip import Address, Host
from ratchet_child.model.interfaces import (
    AddAddress,
    Change,
    Found,
    Interface,
    Make,
    Remove,
    RemoveAddress,
    SetMtu,
    SetUp,
    Vxlan,
    changes,
    hardware_address,
    operation,
    settings,
    superfluous,
)
from ratchet_child.model.keys import PodKey

OWN, OTHER, USERS = map(Address.parse, ("10.1.0.1/24", "10.1.0.7/24", "10.9.9.9/8"))
WANTED = Interface("in1", Vxlan(11, Host.parse("10.0.0.2")), "02:00:00:00:00:01", OWN)
RIGHT = Found(
    "in1",
    7,
    "vxlan",
    ours=True,
    up=True,
    addresses=frozenset({OWN}),
    given=frozenset({OWN}),
    mtu_bytes=1450,
)


def of(found: Found | None, wanted: Interface = WANTED) -> tuple[Change, ...]:
    return changes(wanted, found, is_same=True)


def test_what_is_right_needs_nothing() -> None:
    assert of(RIGHT) == ()


def test_what_is_missing_is_made_brought_up_and_given_its_address() -> None:
    assert of(None) == (Make(), SetUp(), AddAddress(OWN))


def test_what_is_of_another_medium_is_made_anew() -> None:
    assert changes(WANTED, RIGHT, is_same=False) == (Remove(), Make(), SetUp(), AddAddress(OWN))


@pytest.mark.parametrize(
    ("wrong", "change"),
    [
        ({"up": False}, SetUp()),
        ({"addresses": frozenset()}, AddAddress(OWN)),
        ({"addresses": frozenset({USERS})}, AddAddress(OWN)),
    ],
)
def test_what_is_down_or_lacks_its_address_is_mended(
    wrong: dict[str, object], change: Change
) -> None:
    assert of(dataclasses.replace(RIGHT, **wrong)) == (change,)  # type: ignore[arg-type]


def test_an_address_that_a_link_had_before_is_removed() -> None:
    wanted = dataclasses.replace(WANTED, address=OTHER)
    assert of(RIGHT, wanted) == (RemoveAddress(OWN), AddAddress(OTHER))
    assert of(RIGHT, dataclasses.replace(WANTED, address=None)) == (RemoveAddress(OWN),)


def test_further_addresses_are_the_users() -> None:
    assert of(dataclasses.replace(RIGHT, addresses=RIGHT.addresses | {USERS})) == ()


def test_an_mtu_that_is_given_is_set_and_one_that_is_not_is_the_kernels() -> None:
    assert of(RIGHT, dataclasses.replace(WANTED, mtu_bytes=1400)) == (SetMtu(1400),)
    assert of(RIGHT, dataclasses.replace(WANTED, mtu_bytes=1450)) == ()
    made = dataclasses.replace(WANTED, mtu_bytes=1400, address=None)
    assert settings(made) == (SetMtu(1400), SetUp())


ADDRESSES = st.frozensets(st.sampled_from([OWN, OTHER, USERS]))


@given(ADDRESSES, ADDRESSES, st.booleans(), st.sampled_from([None, OWN, OTHER]))
def test_changes_lead_to_what_is_wanted_and_touch_nothing_of_the_users(
    given: frozenset[Address], users: frozenset[Address], up: bool, address: Address | None
) -> None:
    found = dataclasses.replace(RIGHT, addresses=given | users, given=given - users, up=up)
    wanted = dataclasses.replace(WANTED, address=address)
    after, is_up = set(found.addresses), found.up
    for one in of(found, wanted):
        match one:
            case AddAddress():
                after.add(one.address)
            case RemoveAddress():
                after.remove(one.address)
            case SetUp():
                is_up = True
    assert is_up
    assert after == users | ({address} if address is not None else set())


@pytest.mark.parametrize(
    ("done", "name"),
    [
        ((), None),
        ((SetUp(),), "mend"),
        ((Make(), SetUp()), "make"),
        ((Remove(), Make(), SetUp()), "replace"),
    ],
)
def test_changes_are_counted_by_what_they_are(done: tuple[Change, ...], name: str | None) -> None:
    assert operation(done) == name


def test_superfluous_is_ours_and_unwanted() -> None:
    found = [
        dataclasses.replace(RIGHT, ifname=name, ours=ours)
        for name, ours in (("in1", True), ("in9", True), ("eth0", False))
    ]
    assert [one.ifname for one in superfluous(["in1"], found)] == ["in9"]
    assert superfluous([], []) == []


@given(st.sampled_from("abcd"), st.text(max_size=15))
def test_hardware_addresses_are_stable_local_and_of_one_station(name: str, ifname: str) -> None:
    address = hardware_address(PodKey("default", name), ifname)
    assert address == hardware_address(PodKey("default", name), ifname)
    assert int(address[:2], 16) & 0b11 == 0b10
    assert len(address.split(":")) == 6
    assert address != hardware_address(PodKey("other", name), ifname)
