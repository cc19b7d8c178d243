"""The nfnetlink messages that make, read and change a table of nftables, and a socket for them.

Packed by hand, as `rtnetlink` is and for the same reasons; a node need not have the program nft(8).
The forms are those that nft 1.0.6 sends. All numbers in nftables' messages are in network order.
Messages that change something only work between the two that bracket a transaction: all of them
are carried out, or none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable

from ratchet.cni.dataclasses import dataclass
from ratchet_child.kernel import rtnetlink
from ratchet_child.kernel.netns import NLM_F_CREATE, Netlink

_NETLINK_NETFILTER = 12
_SO_SNDBUFFORCE = 32  # socket(7)
_MOST_BYTES = 16 << 20  # a hundred thousand tunnels
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NLM_F_APPEND = 0x800
_NFGENMSG = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource
_INET = 1  # NFPROTO_INET
_NESTED = 0x8000

_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _GETRULE, _NEWSET = 0, 2, 3, 6, 7, 9
_NEWSETELEM, _GETSETELEM, _DELSETELEM, _GETGEN = 12, 13, 14, 16

_HEADER_BYTES = 20  # struct nlmsghdr and struct nfgenmsg
_LIST_ELEM = 1
_MOST_ELEMENTS = 400  # in one attribute, whose length has 16 bits

# Where a payload expression looks, and what is done with a packet.
NETWORK, TRANSPORT = 1, 2
DROP, ACCEPT = 0, 1
EQUAL, NOT_EQUAL, LESS_OR_EQUAL, GREATER_OR_EQUAL = 0, 1, 3, 5
META_SKUID, META_NFPROTO, META_L4PROTO = 10, 15, 16
LOCAL_IN, LOCAL_OUT = 1, 3

Change = tuple[int, int, bytes]
"""A part of a transaction: type, flags and body."""


@dataclass(frozen=True, slots=True)
class Element:
    """A member of a set, and the comment that it bears."""

    key: bytes
    comment: str = ""


class Nftables(Netlink):
    """A socket to nftables in the calling thread's namespace. *Raises* OSError without nftables."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_NETFILTER)
        # A whole table is one transaction, which is one message to the socket.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _MOST_BYTES)

    def commit(self, changes: Iterable[Change]) -> None:
        """Carry out all changes, or none. *Raises* OSError with the kernel's errno."""
        bracket = _NFGENMSG.pack(socket.AF_UNSPEC, 0, _SUBSYSTEM)
        code = self.transact(
            (_BATCH_BEGIN, 0, bracket),
            [(_SUBSYSTEM << 8 | kind, flags, body) for kind, flags, body in changes],
            (_BATCH_END, 0, bracket),
        )
        if code:
            raise OSError(code, os.strerror(code))

    def generation(self) -> int:
        """Return a number that is another one after each transaction, whoever made it."""
        answers = self.get(_SUBSYSTEM << 8 | _GETGEN, _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0))
        found = rtnetlink.attributes(answers[0], _HEADER_BYTES) if answers else {}
        return int.from_bytes(found.get(1, b""), "big")

    def rules(self, table: str) -> list[tuple[str, str]]:
        """Return (chain, comment) of each rule of a table; none without the table."""
        body = _body(_string(1, table))
        found = []
        for message in self._listed(_GETRULE, body):
            attributes = rtnetlink.attributes(message, _HEADER_BYTES)
            if rtnetlink.text(attributes.get(1, b"")) == table:
                chain = rtnetlink.text(attributes.get(2, b""))
                found.append((chain, _read_comment(attributes.get(7, b""))))
        return found

    def elements(self, table: str, name: str) -> set[Element]:
        """Return the members of a set; none without the set."""
        found = set()
        for message in self._listed(_GETSETELEM, _body(_string(1, table), _string(2, name))):
            listed = rtnetlink.attributes(message, _HEADER_BYTES).get(3, b"")
            for packed in _parts(listed):
                one = rtnetlink.attributes(packed)
                key = rtnetlink.attributes(one.get(1, b"")).get(1, b"")
                found.add(Element(key, _read_comment(one.get(6, b""))))
        return found

    def _listed(self, kind: int, body: bytes) -> list[bytes]:
        try:
            return self.dump(_SUBSYSTEM << 8 | kind, body)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return []
            raise


# Changes ------------------------------------------------------------------------------------------


def add_table(name: str) -> Change:
    """Make a table, if it is not there."""
    return _NEWTABLE, NLM_F_CREATE, _body(_string(1, name))


def remove_table(name: str) -> Change:
    """Remove a table with all that is in it."""
    return _DELTABLE, 0, _body(_string(1, name))


def add_chain(table: str, name: str, hook: int, priority: int) -> Change:
    """Make a chain that every packet at a hook goes through, and which lets pass what is left."""
    where = _u32(1, hook) + _attribute(2, struct.pack("!i", priority))
    hooked = _nested(4, where) + _string(7, "filter") + _u32(5, ACCEPT)
    return _NEWCHAIN, NLM_F_CREATE, _body(_string(1, table), _string(3, name), hooked)


def add_rule(table: str, chain: str, expressions: Iterable[bytes], comment: str) -> Change:
    """Make a rule, the last of its chain."""
    listed = _nested(4, b"".join(_nested(_LIST_ELEM, one) for one in expressions))
    parts = _string(1, table), _string(2, chain), listed, _attribute(7, _comment(comment))
    return _NEWRULE, NLM_F_CREATE | _NLM_F_APPEND, _body(*parts)


def add_set(table: str, name: str, key_type: int, key_bytes: int, typeof: bytes) -> Change:
    """Make a set. `key_type` and `typeof` are there so that nft(8) can print its members."""
    parts = _u32(3, 0), _u32(4, key_type), _u32(5, key_bytes), _u32(10, 1), _attribute(13, typeof)
    return _NEWSET, NLM_F_CREATE, _body(_string(1, table), _string(2, name), *parts)


def add_elements(table: str, name: str, elements: Iterable[Element]) -> list[Change]:
    """Put members into a set. One that is there is left as it is."""
    return _change_elements(_NEWSETELEM, NLM_F_CREATE, table, name, elements)


def remove_elements(table: str, name: str, elements: Iterable[Element]) -> list[Change]:
    """Take members out of a set. One that is not there is an error, ENOENT."""
    return _change_elements(_DELSETELEM, 0, table, name, elements)


def _change_elements(
    kind: int, flags: int, table: str, name: str, elements: Iterable[Element]
) -> list[Change]:
    packed = [
        _nested(
            _LIST_ELEM,
            _nested(1, _attribute(1, one.key))
            + (_attribute(6, _comment(one.comment)) if one.comment else b""),
        )
        for one in elements
    ]
    return [
        (kind, flags, _body(_string(1, table), _string(2, name), _nested(3, b"".join(some))))
        for some in (
            packed[first : first + _MOST_ELEMENTS]
            for first in range(0, len(packed), _MOST_ELEMENTS)
        )
    ]


# Expressions, which work on registers of four bytes: 1, 9, 10, ... -------------------------------


def load_meta(key: int) -> bytes:
    """Load what is known of a packet into register 1. What is not known ends the rule."""
    return _expression("meta", _u32(2, key) + _u32(1, 1))


def load_payload(base: int, offset: int, length: int, register: int = 1) -> bytes:
    """Load bytes of a packet. If they are not there, the rule ends."""
    where = _u32(2, base) + _u32(3, offset) + _u32(4, length)
    return _expression("payload", _u32(1, register) + where)


def compare(operator: int, value: bytes) -> bytes:
    """Go on if register 1 compares like this with a value."""
    data = _nested(3, _attribute(1, value))
    return _expression("cmp", _u32(1, 1) + _u32(2, operator) + data)


def look_up(name: str, *, is_member: bool) -> bytes:
    """Go on if what begins in register 1 is a member of a set, or if it is none."""
    return _expression("lookup", _u32(2, 1) + _string(1, name) + _u32(5, 0 if is_member else 1))


def count() -> bytes:
    """Count the packets that come to here."""
    return _expression("counter", b"")


def verdict(code: int) -> bytes:
    """End with a packet's fate."""
    data = _nested(2, _nested(2, _u32(1, code)))
    return _expression("immediate", _u32(1, 0) + data)


def _expression(name: str, data: bytes) -> bytes:
    return _string(1, name) + _nested(2, data)


# Packing ------------------------------------------------------------------------------------------


def _body(*parts: bytes) -> bytes:
    return _NFGENMSG.pack(_INET, 0, 0) + b"".join(parts)


def _comment(text: str) -> bytes:
    """Return a comment as nft(8) keeps it: type, length, and a string with its zero byte."""
    packed = text.encode() + b"\0"
    return bytes((0, len(packed))) + packed


def _read_comment(userdata: bytes) -> str:
    is_one = len(userdata) > 2 and userdata[0] == 0
    return rtnetlink.text(userdata[2 : 2 + userdata[1]]) if is_one else ""


def _parts(data: bytes) -> list[bytes]:
    """Return the contents of attributes that all have the same type."""
    found, offset = [], 0
    while offset + 4 <= len(data):
        length = struct.unpack_from("=H", data, offset)[0]
        if length < 4:
            break
        found.append(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3
    return found


def _string(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!I", value))


def _nested(kind: int, data: bytes) -> bytes:
    return _attribute(_NESTED | kind, data)


def _attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + b"\0" * (-length % 4)
