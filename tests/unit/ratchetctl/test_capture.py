"""The pcap file format, byte by byte."""

from __future__ import annotations

import struct

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
