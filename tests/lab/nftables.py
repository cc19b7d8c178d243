"""Nftables as the tests see it: which tables a namespace has, and `nft flush ruleset`.

By plain sockets, as in `namespaces`: the machine may have no nft(8).
"""

from __future__ import annotations

import socket
import struct

from tests.lab.namespaces import Namespace

NETLINK_NETFILTER = 12
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, GETTABLE, DELTABLE = 0x0A00, 0x0A01, 0x0A02
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
ERROR, DONE = 2, 3
NAME = 1  # NFTA_TABLE_NAME


def tables(namespace: Namespace) -> set[str]:
    """Return the names of all tables."""
    with namespace.do(_open) as opened:
        opened.send(_message(GETTABLE, REQUEST | DUMP))
        found: set[str] = set()
        while True:
            data = opened.recv(65536)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == DONE:
                    return found
                assert kind == NEWTABLE, kind
                size, attribute = struct.unpack_from("=HH", data, 20)
                assert attribute == NAME, attribute
                found.add(data[24 : 20 + size].rstrip(b"\0").decode())
                data = data[(length + 3) & ~3 :]


def flush(namespace: Namespace) -> None:
    """Remove every table, as `nft flush ruleset` does."""
    with namespace.do(_open) as opened:
        batch = _message(BATCH_BEGIN, REQUEST, resource=10), _message(DELTABLE, REQUEST | ACK)
        opened.send(b"".join((*batch, _message(BATCH_END, REQUEST, resource=10))))
        _, kind = struct.unpack_from("=IH", answer := opened.recv(65536))
        assert (kind, struct.unpack_from("=i", answer, 16)[0]) == (ERROR, 0)


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    opened.settimeout(10)
    return opened


def _message(kind: int, flags: int, *, resource: int = 0) -> bytes:
    return struct.pack("=IHHII", 20, kind, flags, 1, 0) + struct.pack("!BBH", 0, 0, resource)
