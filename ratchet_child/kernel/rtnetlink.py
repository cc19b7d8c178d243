"""The messages that make and change interfaces, packed by hand: rtnetlink(7). Pure.

pyroute2 packs a message by walking the description of every attribute that there is, which takes
twice as long as the kernel needs for the whole link (docs/performance.md). These few forms never
change. What the kernel answers is still read with pyroute2 in `links`. The header of a message is
`netns`'s.
"""

from __future__ import annotations

import socket
import struct

from ratchet.cni.ip import Address, Host

_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type

_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_IFLA_GROUP, _IFLA_NET_NS_FD = 27, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFLA_VXLAN_ID, _IFLA_VXLAN_GROUP, _IFLA_VXLAN_LINK, _IFLA_VXLAN_LEARNING = 1, 2, 3, 7
_IFLA_VXLAN_PORT, _IFLA_VXLAN_GROUP6 = 15, 16
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 0x02


def interface(index: int) -> bytes:
    """An interface and nothing else."""
    return _IFINFO.pack(0, 0, index, 0, 0)


def up(index: int) -> bytes:
    """An interface that is to be brought up."""
    return _IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP)


def new(ifname: str, mac: str, namespace_fd: int, group: int, mtu_bytes: int | None) -> bytes:
    """A new interface in another namespace, up to what kind it is."""
    return (
        interface(0)
        + _attribute(_IFLA_IFNAME, ifname.encode() + b"\0")
        + _attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        + _attribute(_IFLA_NET_NS_FD, _u32(namespace_fd))
        + _attribute(_IFLA_GROUP, _u32(group))
        + (b"" if mtu_bytes is None else _attribute(_IFLA_MTU, _u32(mtu_bytes)))
    )


def veth(peer: bytes) -> bytes:
    """What makes a new interface a veth, with its far end as `new` gives it."""
    return _kind("veth", _attribute(_VETH_INFO_PEER, peer))


def vxlan(vni: int, remote: Host, lower_index: int, port: int) -> bytes:
    """What makes a new interface a vxlan end with one far end."""
    group = _IFLA_VXLAN_GROUP if remote.version == 4 else _IFLA_VXLAN_GROUP6
    return _kind(
        "vxlan",
        _attribute(_IFLA_VXLAN_ID, _u32(vni))
        + _attribute(group, remote.packed)
        + _attribute(_IFLA_VXLAN_LINK, _u32(lower_index))
        + _attribute(_IFLA_VXLAN_PORT, struct.pack("!H", port))
        # There is one far end: nothing to learn (RFC 7348 §4.1).
        + _attribute(_IFLA_VXLAN_LEARNING, b"\0"),
    )


def address(index: int, given: Address) -> bytes:
    """An interface's address."""
    family, flags = (socket.AF_INET, 0) if given.version == 4 else (socket.AF_INET6, _IFA_F_NODAD)
    packed = given.ip.packed
    message = (
        _IFADDR.pack(family, given.prefix_len, flags, 0, index)
        + _attribute(_IFA_LOCAL, packed)
        + _attribute(_IFA_ADDRESS, packed)
    )
    # A link has two ends and its addresses are given: nothing to detect, and usable at once.
    return message + _attribute(_IFA_FLAGS, _u32(flags)) if flags else message


def _kind(name: str, data: bytes) -> bytes:
    return _attribute(
        _IFLA_LINKINFO,
        _attribute(_IFLA_INFO_KIND, name.encode()) + _attribute(_IFLA_INFO_DATA, data),
    )


def _attribute(kind: int, data: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + b"\0" * (-length % 4)


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)
