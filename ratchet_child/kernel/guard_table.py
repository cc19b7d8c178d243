"""The table of the guard: which packets it looks at, and how its sets and rules are written. Pure.

`guard` says why they are what they are. nft(8) shows the table as `nft list table inet ratchet`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

from ratchet.cni.ip import Host
from ratchet_child.kernel import nftables
from ratchet_child.kernel.nftables import Change

TABLE = "ratchet"

Tunnel = tuple[int, int]
"""A tunnel on this node: UDP port and VNI."""

# The sets: which tunnels there are, and each with its far node.
VNIS = "vnis"
LINKS = {4: "links4", 6: "links6"}
SETS = (VNIS, *LINKS.values())

_SENDS, _RECEIVES = "sends", "receives"
_BEFORE_ALL = -300  # NF_IP_PRI_RAW: before connection tracking and translation of addresses
_VERSION = 1  # of the rules
_UDP = 17
_NFPROTO = {4: 2, 6: 10}
_ADDRESS_BYTES = {4: 4, 6: 16}
_NO_UID = 0xFFFFFFFF

# Outside what the kernel gives to the sockets and tunnels of others: above its usual range, or
# below what it may be set to, between the services and what NFS takes (Linux: min_resvport 665).
_SOURCE_PORTS = ((61440, 61951), (512, 639))

# nft's types of data, and what it calls the parts of a key (enum datatypes, and `typeof`).
_INTEGER, _SERVICE, _ADDRESS = 4, 13, {4: 7, 6: 8}
_CONCAT, _PAYLOAD = 13, 7
_DPORT, _DADDR = (6, 2), {4: (12, 12), 6: (13, 9)}


def source_ports(local: tuple[int, int]) -> tuple[int, int] | None:
    """Return the source ports of tunnels, first and last, beside those that the kernel gives away.

    None if there are no such ports.
    """
    for first, last in _SOURCE_PORTS:
        if last < local[0] or first > local[1]:
            return first, last
    return None


def _comment(ports: tuple[int, int]) -> str:
    return f"version {_VERSION}, source ports {ports[0]}-{ports[1]}"


def expected(ports: tuple[int, int] | None) -> list[tuple[str, str]]:
    """Return (chain, comment) of each rule, as `Nftables.rules` reads them."""
    if ports is None:
        return []
    return [(chain, _comment(ports)) for chain, _ in _rules(ports)]


def read_ports(rules: Iterable[tuple[str, str]]) -> tuple[int, int] | None:
    for _, comment in rules:
        found = re.fullmatch(rf"version {_VERSION}, source ports (\d+)-(\d+)", comment)
        if found is not None:
            return int(found[1]), int(found[2])
    return None


def make(ports: tuple[int, int]) -> list[Change]:
    """Return what makes the table, up to its members."""
    vnis = _SERVICE << 6 | _INTEGER
    changes = [
        nftables.add_table(TABLE),
        nftables.add_chain(TABLE, _SENDS, nftables.LOCAL_OUT, _BEFORE_ALL),
        nftables.add_chain(TABLE, _RECEIVES, nftables.LOCAL_IN, _BEFORE_ALL),
        nftables.add_set(TABLE, VNIS, vnis, 8, _typeof(None)),
    ]
    for version, name in LINKS.items():
        key_type = vnis << 6 | _ADDRESS[version]
        changes.append(
            nftables.add_set(TABLE, name, key_type, 8 + _ADDRESS_BYTES[version], _typeof(version))
        )
    changes += [
        nftables.add_rule(TABLE, chain, expressions, _comment(ports))
        for chain, expressions in _rules(ports)
    ]
    return changes


def _rules(ports: tuple[int, int]) -> list[tuple[str, list[bytes]]]:
    """Return the chain and the expressions of each rule, in the order of the kernel's listing."""
    is_ours = [
        nftables.load_payload(nftables.TRANSPORT, 0, 2),
        nftables.compare(nftables.GREATER_OR_EQUAL, struct.pack("!H", ports[0])),
        nftables.compare(nftables.LESS_OR_EQUAL, struct.pack("!H", ports[1])),
    ]
    has_socket = [
        nftables.load_meta(nftables.META_SKUID),
        nftables.compare(nftables.NOT_EQUAL, struct.pack("=I", _NO_UID)),
    ]
    drop = [nftables.count(), nftables.verdict(nftables.DROP)]
    # RFC 7348 §5: the VNI follows eight bytes of UDP and four of VXLAN.
    tunnel = [
        nftables.load_payload(nftables.TRANSPORT, 2, 2),
        nftables.load_payload(nftables.TRANSPORT, 12, 3, register=9),
    ]
    destination = {4: (16, 4), 6: (24, 16)}
    source = {4: (12, 4), 6: (8, 16)}

    def address(where: tuple[int, int]) -> bytes:
        return nftables.load_payload(nftables.NETWORK, *where, register=10)

    accepts = [*_udp(), *is_ours, *has_socket, nftables.verdict(nftables.ACCEPT)]
    rules = [(_SENDS, accepts)]
    for version, name in LINKS.items():
        is_none = nftables.look_up(name, is_member=False)
        sends = [*_udp(version), *is_ours, *tunnel, address(destination[version]), is_none, *drop]
        rules.append((_SENDS, sends))
    for version, name in LINKS.items():
        is_none = nftables.look_up(name, is_member=False)
        is_known = nftables.look_up(VNIS, is_member=True)
        from_far = [*tunnel, address(source[version]), is_none]
        rules.append((_RECEIVES, [*_udp(version), *tunnel, is_known, *from_far, *drop]))
    return rules


def _udp(version: int | None = None) -> list[bytes]:
    family: list[bytes] = []
    if version is not None:
        family = [
            nftables.load_meta(nftables.META_NFPROTO),
            nftables.compare(nftables.EQUAL, bytes((_NFPROTO[version],))),
        ]
    is_udp = nftables.compare(nftables.EQUAL, bytes((_UDP,)))
    return [*family, nftables.load_meta(nftables.META_L4PROTO), is_udp]


def key(tunnel: Tunnel) -> bytes:
    """Return a key's first two parts, each filled up to four bytes."""
    port, vni = tunnel
    return struct.pack("!H2x", port) + vni.to_bytes(3, "big") + b"\0"


def read_key(packed: bytes) -> tuple[Tunnel, Host | None]:
    tunnel = struct.unpack_from("!H", packed)[0], int.from_bytes(packed[4:7], "big")
    return tunnel, Host(packed[8:]) if len(packed) > 8 else None


def _typeof(version: int | None) -> bytes:
    """Return what nft(8) notes for `typeof udp dport . @th,96,24`, and an address after that."""
    parts = [_field(*_DPORT), _number(0, _PAYLOAD) + _noted(1, _raw(96, 24))]
    if version is not None:
        parts.append(_field(*_DADDR[version]))
    listed = b"".join(_noted(position, part) for position, part in enumerate(parts))
    return _number(0, 0) + _noted(3, _number(0, _CONCAT) + _noted(1, listed))


def _field(protocol: int, field: int) -> bytes:
    return _number(0, _PAYLOAD) + _noted(1, _number(0, protocol) + _number(1, field))


def _raw(offset: int, bits: int) -> bytes:
    after_header = 3  # the transport layer's
    values = (0, 0, after_header, offset, bits)
    return b"".join(_number(kind, value) for kind, value in enumerate(values))


def _number(kind: int, value: int) -> bytes:
    return _noted(kind, struct.pack("=I", value))


def _noted(kind: int, data: bytes) -> bytes:
    return bytes((kind, len(data))) + data
