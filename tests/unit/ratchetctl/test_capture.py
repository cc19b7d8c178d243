"""The pcap file format, byte by byte."""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Iterator

import pytest

from ratchetctl import capture
from ratchetctl.capture import header, record, tagged

FRAME = bytes(range(12)) + b"\x08\x00" + b"payload"


def auxdata(status: int, tci: int, tpid: int) -> bytes:
    return struct.pack("=IIIHHHH", status, 0, 0, 0, 0, tci, tpid)


def test_a_file_says_that_it_has_ethernet_frames_with_nanoseconds() -> None:
    fields = struct.unpack("=IHHiIII", header(262144))
    assert fields == (0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


def test_a_frame_has_its_time_and_lengths() -> None:
    whole = record(FRAME, 1_700_000_000_123_456_789, 262144)
    assert struct.unpack_from("=IIII", whole) == (1_700_000_000, 123_456_789, 21, 21)
    assert whole[16:] == FRAME
    cut = record(FRAME, 0, 14)
    assert struct.unpack_from("=IIII", cut) == (0, 0, 14, 21)
    assert cut[16:] == FRAME[:14]


def test_a_vlan_tag_is_put_back_in_its_place() -> None:
    assert tagged(FRAME, auxdata(0, 0, 0)) == FRAME
    assert tagged(FRAME, auxdata(1 << 4, 7, 0)) == FRAME[:12] + b"\x81\x00\x00\x07" + FRAME[12:]
    service = tagged(FRAME, auxdata(1 << 4 | 1 << 6, 0x2007, 0x88A8))
    assert service == FRAME[:12] + b"\x88\xa8\x20\x07" + FRAME[12:]


class EndedError(Exception):
    """What the test has in the place of the process's end."""


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return where to say that one is there; the capture is patient for a tenth of a second."""

    def end(status: int) -> None:
        assert status == 0
        raise EndedError

    hearing, saying = os.pipe()
    stdin = os.fdopen(hearing)
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(capture, "UNHEARD_S", 0.1)
    with stdin:
        yield saying


def test_a_capture_from_afar_ends_with_its_input(asking: int) -> None:
    os.write(asking, b"\n")
    os.close(asking)
    with pytest.raises(EndedError):
        capture._end_unheard()


def test_a_capture_from_afar_ends_when_nothing_is_heard(asking: int) -> None:
    os.write(asking, b"\n")
    began = time.monotonic()
    with pytest.raises(EndedError):
        capture._end_unheard()
    assert time.monotonic() - began >= 0.1
    os.close(asking)
