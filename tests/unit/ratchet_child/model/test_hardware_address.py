"""The MAC address of an end: the far pod remembers it for longer than the end may be away."""

from __future__ import annotations

from ratchet_child.model.interfaces import hardware_address
from ratchet_child.model.keys import PodKey

A = PodKey("default", "a")


def test_an_end_that_is_made_again_has_the_address_that_it_had() -> None:
    assert hardware_address(A, "in1") == hardware_address(PodKey("default", "a"), "in1")


def test_no_two_ends_have_the_same_address() -> None:
    ends = [(PodKey(ns, pod), ifname) for ns in "xy" for pod in "ab" for ifname in ("in1", "in2")]
    assert len({hardware_address(*end) for end in ends}) == len(ends)


def test_it_is_one_host_s_and_locally_administered() -> None:
    """IEEE 802: the two lowest bits of the first byte."""
    for number in range(100):
        first = int(hardware_address(A, f"in{number}")[:2], 16)
        assert first & 0b11 == 0b10
