"""The frames by which nodes find out whether tunnels' frames pass between them. Pure.

A frame of the check is a tunnel's frame (RFC 7348 §5) from the outside: UDP to the tunnels' port, a
VXLAN header, an Ethernet frame. What lies between two nodes cannot tell the difference. The VNI is
the last there is, which no link gets before all others are used, and the Ethernet frame has the
type for local experiments (IEEE 802), so nobody who receives it does anything with it.

Each frame says who has sent it to whom, sealed with a secret that is new for each check: others can
neither make one nor turn it to another node.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from ratchet.cni.ip import Host

VNI = 2**24 - 1
SMALL, LARGE, WHOLE = "s", "l", "w"
KINDS = (SMALL, LARGE, WHOLE)
"""A small frame, one as large as a link's largest, and the same, not to be fragmented."""

UDP_HEADER_BYTES, VXLAN_HEADER_BYTES, ETHERNET_HEADER_BYTES = 8, 8, 14
_IP_HEADER_BYTES = {4: 20, 6: 40}
_ETHERNET = bytes.fromhex("02000000ffff02000000fffe88b5")
_MAGIC = b"ratchet check 1 "
_SEAL_BYTES = 16
_ADDRESS_BYTES = 16


def overhead(version: int) -> int:
    """Return how much less a link's MTU is than that of the device below, by the IP version."""
    return _IP_HEADER_BYTES[version] + UDP_HEADER_BYTES + VXLAN_HEADER_BYTES + ETHERNET_HEADER_BYTES


def make(secret: str, kind: str, sender: Host, receiver: Host, mtu_bytes: int) -> bytes:
    """Return what is sent by UDP: a frame for one receiver, filled up to the MTU if it is large."""
    body = _MAGIC + kind.encode() + _padded(sender) + _padded(receiver)
    content = body + _seal(secret, body)
    if kind != SMALL:
        content = content.ljust(mtu_bytes, b"\0")
    return struct.pack("!BxxxI", 0x08, VNI << 8) + _ETHERNET + content


def read(secret: str, receiver: Host, datagram: bytes) -> tuple[Host, str] | None:
    """Return who has sent a frame, and its kind; None for what is none of this check's."""
    start = VXLAN_HEADER_BYTES + ETHERNET_HEADER_BYTES
    length = len(_MAGIC) + 1 + 2 * _ADDRESS_BYTES
    body = datagram[start : start + length]
    seal = datagram[start + length : start + length + _SEAL_BYTES]
    if not body.startswith(_MAGIC) or not hmac.compare_digest(_seal(secret, body), seal):
        return None
    kind = body[len(_MAGIC) : len(_MAGIC) + 1].decode()
    sender, meant = body[-2 * _ADDRESS_BYTES : -_ADDRESS_BYTES], body[-_ADDRESS_BYTES:]
    if meant != _padded(receiver):
        return None
    return _host(sender), kind


def bpf(version: int, port: int) -> list[tuple[int, int, int, int]]:
    """Return the program (socket(7), SO_ATTACH_FILTER) that takes the check's frames only.

    A raw socket is given IPv4's header, but not IPv6's.
    """
    load_half, load_word, equal, give = 0x48, 0x40, 0x15, 0x06
    header = [(0xB1, 0, 0, 0)] if version == 4 else [(0x01, 0, 0, 0)]  # X: how long the header is
    return [
        *header,
        (load_half, 0, 0, 2),  # the destination's port
        (equal, 0, 3, port),
        (load_word, 0, 0, UDP_HEADER_BYTES + 4),
        (equal, 0, 1, VNI << 8),
        (give, 0, 0, 0x40000),
        (give, 0, 0, 0),
    ]


def _seal(secret: str, body: bytes) -> bytes:
    return hmac.new(secret.encode(), body, hashlib.sha256).digest()[:_SEAL_BYTES]


def _padded(host: Host) -> bytes:
    return host.packed.rjust(_ADDRESS_BYTES, b"\0")


def _host(padded: bytes) -> Host:
    is_ipv4 = not any(padded[: _ADDRESS_BYTES - 4])
    return Host(padded[-4:] if is_ipv4 else padded)
