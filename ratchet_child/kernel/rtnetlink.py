"""The rtnetlink(7) messages that make, change and read interfaces, packed and read by hand. Pure.

pyroute2 walks the description of every attribute that there is, which takes twice as long as the
kernel needs for the whole link, and its import is a third of a child's start (docs/performance.md).
These few forms never change. The header of a message that is sent is `netns`'s; one that is read
comes with its header.
"""

from __future__ import annotations

import socket
import struct
import sys

from ratchet.cni.dataclasses import dataclass
from ratchet.cni.ip import Address, Host

Attributes = dict[int, bytes]

_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, destination length, ..., table, ...
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type

_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_IFLA_QDISC, _IFLA_GROUP, _IFLA_NET_NS_FD = 6, 27, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFLA_OPERSTATE, _IFLA_LINKMODE = 16, 17
_DORMANT_MODE, _OPER_DORMANT, _OPER_UP = 1, 5, 6  # linux/if.h
_IFLA_MACVLAN_MODE = 1
BRIDGE_MODE = 4  # MACVLAN_MODE_BRIDGE, linux/if_link.h
_IFLA_IFALIAS, _IFLA_PROTO_DOWN = 20, 39
_IFLA_NEW_NETNSID, _IFLA_TARGET_NETNSID, _IFLA_NEW_IFINDEX = 45, 46, 49
_IFLA_LINK, _IFLA_EXT_MASK, _IFLA_LINK_NETNSID = 5, 29, 37
_RTEXT_FILTER_SKIP_STATS = 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFA_PROTO = 1, 2, 4, 8, 11
_IFA_F_NODAD = 0x02
_POINT_TO_POINT_BITS = 31  # RFC 3021: such a network has no broadcast address
_RTA_DST, _RTA_OIF = 1, 4
_NETNSA_NSID, _NETNSA_FD = 1, 3
_NESTED = 0x3FFF  # the type without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_HEADER_BYTES = 16  # struct nlmsghdr
ATTRIBUTES_OFFSET = _HEADER_BYTES + _IFINFO.size  # of a message about an interface
GROUP_ATTRIBUTE = _IFLA_GROUP
_NO_NSID = -1

MARK = 0x7261  # the group of every interface that Ratchet makes: "ra"

# Who has set an address, for RemoveAddress after a restart: "r". Linux before 5.18 ignores it.
ADDRESS_PROTOCOL = 0x72


def interface(index: int) -> bytes:
    """Return an interface and nothing else."""
    return _IFINFO.pack(0, 0, index, 0, 0)


def up(index: int, alias: str) -> bytes:
    """Return an interface that is to be brought up, and its alias."""
    return _IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP) + attribute(_IFLA_IFALIAS, alias.encode())


def down(index: int) -> bytes:
    """Return an interface that is to be set down."""
    return _IFINFO.pack(0, 0, index, 0, _IFF_UP)


def elsewhere(nsid: int, index: int) -> bytes:
    """Return an interface in a namespace that the one that is asked knows by a number."""
    return interface(index) + attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", nsid))


def moved(index: int, ifname: str, mac: str | None, namespace_fd: int) -> bytes:
    """Return an interface that moves to another namespace, with its name there and no alias."""
    address = b"" if mac is None else attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    return (
        interface(index)
        + attribute(_IFLA_IFNAME, ifname.encode() + b"\0")
        + address
        + attribute(_IFLA_NET_NS_FD, u32(namespace_fd))
        + attribute(_IFLA_IFALIAS, b"")
    )


def carrier(index: int, *, is_plugged: bool) -> bytes:
    """Return a tunnel's end that has its carrier, or none (IFLA_PROTO_DOWN)."""
    return interface(index) + attribute(_IFLA_PROTO_DOWN, bytes((not is_plugged,)))


def dormant(index: int, *, is_dormant: bool) -> bytes:
    """Return an interface that is up but not running (RFC 2863), or that is running again."""
    mode, state = (_DORMANT_MODE, _OPER_DORMANT) if is_dormant else (0, _OPER_UP)
    return (
        interface(index)
        + attribute(_IFLA_LINKMODE, bytes((mode,)))
        + attribute(_IFLA_OPERSTATE, bytes((state,)))
    )


def new(ifname: str, mac: str, namespace_fd: int, group: int) -> bytes:
    """Return a new interface in another namespace, without its kind."""
    return (
        interface(0)
        + attribute(_IFLA_IFNAME, ifname.encode() + b"\0")
        + attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        + attribute(_IFLA_NET_NS_FD, u32(namespace_fd))
        + attribute(_IFLA_GROUP, u32(group))
    )


def new_here(ifname: str, group: int) -> bytes:
    """Return a new interface in the namespace that is asked, without its kind."""
    return (
        interface(0)
        + attribute(_IFLA_IFNAME, ifname.encode() + b"\0")
        + attribute(_IFLA_GROUP, u32(group))
    )


def macvlan(lower_index: int) -> bytes:
    """Return what makes a new interface a macvlan in bridge mode."""
    mode = attribute(_IFLA_MACVLAN_MODE, u32(BRIDGE_MODE))
    return attribute(_IFLA_LINK, u32(lower_index)) + kind_of("macvlan", mode)


def veth(peer: bytes) -> bytes:
    """Return what makes a new interface a veth, with its far end as `new` gives it."""
    return kind_of("veth", attribute(_VETH_INFO_PEER, peer))


def mtu(index: int, mtu_bytes: int) -> bytes:
    """Return an interface with another MTU."""
    return interface(index) + mtu_attribute(mtu_bytes)


def hardware_address(index: int, mac: str) -> bytes:
    """Return an interface with another MAC address."""
    return interface(index) + attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))


def mtu_attribute(mtu_bytes: int) -> bytes:
    """Return an MTU as a part of a message."""
    return attribute(_IFLA_MTU, u32(mtu_bytes))


def address(index: int, given: Address) -> bytes:
    """Return an address of an interface."""
    family, flags = (socket.AF_INET, 0) if given.version == 4 else (socket.AF_INET6, _IFA_F_NODAD)
    packed = given.ip.packed
    message = (
        _IFADDR.pack(family, given.prefix_len, flags, 0, index)
        + attribute(_IFA_LOCAL, packed)
        + attribute(_IFA_ADDRESS, packed)
        + attribute(_IFA_PROTO, bytes((ADDRESS_PROTOCOL,)))
    )
    if given.version == 4 and given.prefix_len < _POINT_TO_POINT_BITS:
        host_bits = (1 << (32 - given.prefix_len)) - 1
        broadcast = int.from_bytes(packed, "big") | host_bits
        message += attribute(_IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    # A link has two ends and its addresses are given: nothing to detect, and usable at once.
    return message + attribute(_IFA_FLAGS, u32(flags)) if flags else message


# Reading ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkMessage:
    """An interface as RTM_GETLINK and RTM_NEWLINK give it. `data` is its kind's own part."""

    index: int
    is_up: bool
    ifname: str
    group: int
    mtu_bytes: int
    kind: str | None
    data: Attributes
    link: int | None  # IFLA_LINK: a veth's far end, a tunnel's lower device
    link_nsid: int  # where that is; -1 when the kernel gives none
    alias: str | None
    mac: str | None
    is_plugged: bool  # not IFLA_PROTO_DOWN
    is_dormant: bool  # IFLA_LINKMODE
    qdisc: str  # the kind of its queueing discipline
    moved_to: tuple[int, int] | None  # of one that has gone: number of a namespace, index there


@dataclass(frozen=True, slots=True)
class AddressMessage:
    """An address as RTM_GETADDR gives it. `is_ours`: Ratchet has set it."""

    index: int
    address: Address
    is_ours: bool


def every_link() -> bytes:
    """Ask for all interfaces, without their counters."""
    return interface(0) + attribute(_IFLA_EXT_MASK, u32(_RTEXT_FILTER_SKIP_STATS))


def every_link_elsewhere(nsid: int) -> bytes:
    """Ask for all interfaces of a namespace that the one that is asked knows by a number."""
    return every_link() + attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", nsid))


def link_at(index: int) -> bytes:
    """Ask for one interface by its index, without its counters."""
    return interface(index) + attribute(_IFLA_EXT_MASK, u32(_RTEXT_FILTER_SKIP_STATS))


def link_named(ifname: str) -> bytes:
    """Ask for one interface, without its counters."""
    name = attribute(_IFLA_IFNAME, ifname.encode() + b"\0")
    return interface(0) + name + attribute(_IFLA_EXT_MASK, u32(_RTEXT_FILTER_SKIP_STATS))


def every_address(index: int = 0) -> bytes:
    """Ask for all addresses of both families, of one interface or (0) of all.

    A kernel before 4.20 gives those of all interfaces in any case.
    """
    return _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, index)


def every_nsid() -> bytes:
    """Ask for the numbers of all namespaces that the one that is asked knows (RTM_GETNSID)."""
    return bytes(4)


def every_route(family: int) -> bytes:
    """Ask for all routes of a family (struct rtmsg)."""
    return _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)


def route_to(host: Host) -> bytes:
    """Ask for the route that a packet to a host takes."""
    family, bits = (socket.AF_INET, 32) if host.version == 4 else (socket.AF_INET6, 128)
    return _RTMSG.pack(family, bits, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, host.packed)


def nsid_of(namespace_fd: int) -> bytes:
    """Ask by which number a namespace is known in the one that is asked (RTM_GETNSID)."""
    return bytes(4) + attribute(_NETNSA_FD, u32(namespace_fd))


def is_marked(message: bytes) -> bool:
    """Say whether a message is about an interface of Ratchet's, without reading the rest of it."""
    offset, end = ATTRIBUTES_OFFSET, len(message)
    while offset + _ATTRIBUTE.size < end:
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if kind == _IFLA_GROUP:
            return number(message[offset + _ATTRIBUTE.size : offset + length]) == MARK
        offset += max((length + 3) & ~3, _ATTRIBUTE.size)
    return False


def read_link(message: bytes) -> LinkMessage:
    """Read an RTM_NEWLINK message."""
    _, _, index, flags, _ = _IFINFO.unpack_from(message, _HEADER_BYTES)
    found = attributes(message, ATTRIBUTES_OFFSET)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    kind = info.get(_IFLA_INFO_KIND)
    return LinkMessage(
        index=index,
        is_up=bool(flags & _IFF_UP),
        ifname=text(found.get(_IFLA_IFNAME, b"")),
        group=number(found.get(_IFLA_GROUP)) or 0,
        mtu_bytes=number(found.get(_IFLA_MTU)) or 0,
        kind=None if kind is None else text(kind),
        data=attributes(info.get(_IFLA_INFO_DATA, b"")),
        link=number(found.get(_IFLA_LINK)),
        link_nsid=_signed(found.get(_IFLA_LINK_NETNSID)),
        alias=None if _IFLA_IFALIAS not in found else text(found[_IFLA_IFALIAS]),
        mac=found[_IFLA_ADDRESS].hex(":") if _IFLA_ADDRESS in found else None,
        is_plugged=not number(found.get(_IFLA_PROTO_DOWN)),
        is_dormant=number(found.get(_IFLA_LINKMODE)) == _DORMANT_MODE,
        qdisc=text(found.get(_IFLA_QDISC, b"")),
        moved_to=(
            (_signed(found[_IFLA_NEW_NETNSID]), number(found.get(_IFLA_NEW_IFINDEX)) or index)
            if _IFLA_NEW_NETNSID in found
            else None
        ),
    )


def read_address(message: bytes) -> AddressMessage | None:
    """Read an RTM_NEWADDR message; None for one without an address."""
    _, prefix_len, _, _, index = _IFADDR.unpack_from(message, _HEADER_BYTES)
    found = attributes(message, _HEADER_BYTES + _IFADDR.size)
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if not packed:
        return None
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    host = Host.parse(socket.inet_ntop(family, packed))
    is_ours = found.get(_IFA_PROTO, b"\0")[0] == ADDRESS_PROTOCOL
    return AddressMessage(index, Address(host, prefix_len), is_ours)


def route_device(message: bytes) -> int:
    """Return the index of the device of a route; 0 for one without."""
    return number(attributes(message, _HEADER_BYTES + _RTMSG.size).get(_RTA_OIF)) or 0


def read_nsid(message: bytes) -> int:
    """Read the answer to `nsid_of`; -1 for a namespace that has no number there."""
    return _signed(attributes(message, _HEADER_BYTES + 4).get(_NETNSA_NSID))


def macvlan_mode(data: Attributes) -> int | None:
    """Return a macvlan's mode."""
    return number(data.get(_IFLA_MACVLAN_MODE))


def is_of_bridge(message: bytes) -> bool:
    """Say whether a link message speaks of a bridge's port and not of the interface itself."""
    return message[_HEADER_BYTES] != socket.AF_UNSPEC


def attributes(message: bytes, offset: int = 0) -> Attributes:
    """Return the attributes that begin at an offset, by type. What is cut off is left out."""
    found: Attributes = {}
    while offset + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size or offset + length > len(message):
            break
        found[kind & _NESTED] = message[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def number(data: bytes | None) -> int | None:
    """Read an unsigned number in the machine's order."""
    return None if data is None else int.from_bytes(data, sys.byteorder)


def text(data: bytes) -> str:
    """Read a string that ends with a zero byte."""
    return data.partition(b"\0")[0].decode(errors="replace")


def host(packed: bytes | None) -> Host | None:
    if packed is None:
        return None
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return Host.parse(socket.inet_ntop(family, packed))


def _signed(data: bytes | None) -> int:
    if data is None:
        return _NO_NSID
    return int.from_bytes(data, sys.byteorder, signed=True)


def kind_of(name: str, data: bytes) -> bytes:
    return attribute(
        _IFLA_LINKINFO,
        attribute(_IFLA_INFO_KIND, name.encode()) + attribute(_IFLA_INFO_DATA, data),
    )


def attribute(kind: int, data: bytes) -> bytes:
    """Return an attribute as a part of a message."""
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + b"\0" * (-length % 4)


def u32(value: int) -> bytes:
    return struct.pack("=I", value)
