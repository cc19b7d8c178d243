"""The frames of a check: what a tunnel's frame looks like, and who can make one."""

from __future__ import annotations

import pytest

from ratchet.cni.ip import Host
from ratchet_child.agent import frames

A, B, C = Host.parse("10.0.0.1"), Host.parse("10.0.0.2"), Host.parse("fd00::3")
SECRET = "s" * 32


@pytest.mark.parametrize("kind", frames.KINDS)
@pytest.mark.parametrize("sender", [A, C])
def test_a_frame_is_read_by_whom_it_is_for(kind: str, sender: Host) -> None:
    frame = frames.make(SECRET, kind, sender, B, 1450)
    assert frames.read(SECRET, B, frame) == (sender, kind)
    assert frames.read(SECRET, A, frame) is None


def test_nobody_makes_or_turns_a_frame_without_the_secret() -> None:
    frame = frames.make(SECRET, frames.SMALL, A, B, 1450)
    assert frames.read("t" * 32, B, frame) is None
    turned = bytearray(frame)
    turned[22 + 17 + 15] = 9  # another sender
    assert frames.read(SECRET, B, bytes(turned)) is None


@pytest.mark.parametrize("length", [0, 8, 22, 40, 60, 80])
def test_what_is_cut_is_none(length: int) -> None:
    frame = frames.make(SECRET, frames.SMALL, A, B, 1450)
    assert frames.read(SECRET, B, frame[:length]) is None


def test_a_large_frame_is_as_large_as_the_underlay_takes() -> None:
    # What an IPv4 packet of 1500 bytes holds: no byte less, or a smaller MTU would not be noticed.
    mtu = 1500 - frames.overhead(4)
    assert mtu == 1450
    assert len(frames.make(SECRET, frames.LARGE, A, B, mtu)) == 1500 - 20 - 8
    assert frames.overhead(6) == 70
    assert len(frames.make(SECRET, frames.SMALL, A, B, mtu)) < 120


def test_a_frame_is_a_tunnels() -> None:
    frame = frames.make(SECRET, frames.SMALL, A, B, 1450)
    assert frame[:4] == b"\x08\0\0\0"  # RFC 7348 §5: the VNI is valid
    assert int.from_bytes(frame[4:7], "big") == frames.VNI
    assert frame[8] & 1 == 0  # for one receiver
    assert frame[20:22] == b"\x88\xb5"
