"""This node's end of all tunnels: as configured, or found out from the kernel.

What is chosen of what the kernel has is `model.underlay`'s to say. `UnderlayMonitor` hears when
that may have become something else; a node that has changed needs a new engine.
"""

from __future__ import annotations

import errno
import socket
import struct

from ratchet.cni.ip import Host
from ratchet.config import Config
from ratchet_child.kernel import machine, rtnetlink
from ratchet_child.kernel.devices import RTM_GETADDR, RTM_GETLINK, index_of
from ratchet_child.kernel.netns import Netlink, messages
from ratchet_child.model.local import Node
from ratchet_child.model.underlay import DefaultRoute, Device, OwnAddress, Underlay, choose

_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR = 16, 17, 20, 21
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV4_ROUTE = 0x1, 0x10, 0x40
_RTMGRP_IPV6_IFADDR, _RTMGRP_IPV6_ROUTE = 0x100, 0x400
_GROUPS = (
    _RTMGRP_LINK
    | _RTMGRP_IPV4_IFADDR
    | _RTMGRP_IPV4_ROUTE
    | _RTMGRP_IPV6_IFADDR
    | _RTMGRP_IPV6_ROUTE
)

_HEADER_BYTES = 16  # struct nlmsghdr
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst and src length, tos, table, ..., type, flags
_NEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, index
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_CACHEINFO = struct.Struct("=IIII")  # struct ifa_cacheinfo: preferred, valid, created, updated
_IFA_F_TEMPORARY, _IFA_F_DADFAILED, _IFA_F_DEPRECATED = 0x01, 0x08, 0x20
_IFA_F_TENTATIVE, _IFA_F_OPTIMISTIC = 0x40, 0x04
_RTA_OIF, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_MULTIPATH = 4, 6, 7, 9
_RT_TABLE_MAIN, _RTN_UNICAST, _RTNH_F_DEAD, _RTNH_F_LINKDOWN = 254, 1, 0x1, 0x10
_IFF_LOOPBACK = 0x8
_RECEIVE_BYTES = 1 << 17


def this_node(config: Config, netlink: Netlink) -> Node:
    """Return this node as its keys and tunnels show it. `netlink` is in the node's namespace."""
    underlay = _underlay(netlink)
    found = choose(underlay, config.parent_interface, config.parent_address)
    return Node(
        address=found.address or "",
        interface=found.interface,
        state_dir=config.state_dir,
        mtu_bytes=config.mtu,
        max_links=config.max_links,
        index=found.index,
        is_routed=found.is_routed,
        is_own=any(str(one.host) == found.address for one in underlay.addresses),
        why_without=found.why,
        machine=machine.identity(),
        host=socket.gethostname(),
    )


class UnderlayMonitor:
    """Hears of interfaces, addresses and default routes in the namespace in which it is made."""

    def __init__(self) -> None:
        self._netlink = Netlink()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._netlink.close()
        self._socket.close()

    def find(self, config: Config) -> Node:
        """Return the node as it is now."""
        return this_node(config, self._netlink)

    def concerns(self, node: Node) -> bool:
        """Read what was heard; say whether it may make the node another one."""
        concerned = False
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return concerned
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more happened than the buffer could hold
                    raise
                concerned = True
                continue
            if not concerned:
                concerned = any(
                    _concerns(kind, message, node) for kind, _, message in messages(data)
                )


def _concerns(kind: int, message: bytes, node: Node) -> bool:
    """Say whether a message may be about the node's end: a busy node has many that are not."""
    if kind in (_RTM_NEWADDR, _RTM_DELADDR):
        return True
    if kind in (_RTM_NEWROUTE, _RTM_DELROUTE):
        return message[_HEADER_BYTES + 1] == 0  # a default route
    if kind in (_RTM_NEWLINK, _RTM_DELLINK):
        if _IFINFO.unpack_from(message, _HEADER_BYTES)[2] == node.index:
            return True
        return rtnetlink.read_link(message).ifname == node.interface
    return False


def _underlay(netlink: Netlink) -> Underlay:
    addresses = netlink.dump(RTM_GETADDR, rtnetlink.every_address())
    routes = [
        route
        for family in (socket.AF_INET, socket.AF_INET6)
        for answer in netlink.dump(_RTM_GETROUTE, rtnetlink.every_route(family))
        if (route := read_default_route(answer)) is not None
    ]
    return Underlay(
        device=lambda index: _device(netlink, index),
        named=lambda ifname: _named(netlink, ifname),
        addresses=tuple(one for each in addresses if (one := read_address(each)) is not None),
        routes=tuple(routes),
    )


def read_address(message: bytes) -> OwnAddress | None:
    """Read an RTM_NEWADDR message; None for one without an address."""
    _, prefix_len, flags, _, index = _IFADDR.unpack_from(message, _HEADER_BYTES)
    found = rtnetlink.attributes(message, _HEADER_BYTES + _IFADDR.size)
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if not packed:
        return None
    flags = rtnetlink.number(found.get(_IFA_FLAGS)) or flags
    cache = found.get(_IFA_CACHEINFO, b"")
    preferred, _, created, _ = (
        _CACHEINFO.unpack_from(cache) if len(cache) >= _CACHEINFO.size else (1, 0, 0, 0)
    )
    is_v6 = len(packed) != 4
    is_tentative = bool(flags & _IFA_F_TENTATIVE) and not flags & _IFA_F_OPTIMISTIC
    return OwnAddress(
        index=index,
        host=_host(packed),
        prefix_len=prefix_len,
        is_usable=not (is_v6 and (is_tentative or flags & _IFA_F_DADFAILED)),
        is_deprecated=bool(flags & _IFA_F_DEPRECATED) or preferred == 0,
        # For IPv4 the same bit says that the address is a secondary one.
        is_temporary=is_v6 and bool(flags & _IFA_F_TEMPORARY),
        created=created,
    )


def read_default_route(message: bytes) -> DefaultRoute | None:
    """Read an RTM_NEWROUTE message; None for all but a default route of the main table."""
    family, dst_len, _, _, table, _, _, kind, flags = _RTMSG.unpack_from(message, _HEADER_BYTES)
    if dst_len or table != _RT_TABLE_MAIN or kind != _RTN_UNICAST:
        return None
    found = rtnetlink.attributes(message, _HEADER_BYTES + _RTMSG.size)
    hops = _next_hops(found.get(_RTA_MULTIPATH, b""))
    oif = rtnetlink.number(found.get(_RTA_OIF))
    if oif is not None:
        hops.append((oif, flags))
    dead = _RTNH_F_DEAD | _RTNH_F_LINKDOWN
    # A hop whose device has no carrier is only taken when there is no other.
    indices = [index for index, its_flags in sorted(hops, key=lambda one: bool(one[1] & dead))]
    if not indices:
        return None
    source = found.get(_RTA_PREFSRC)
    return DefaultRoute(
        version=4 if family == socket.AF_INET else 6,
        metric=rtnetlink.number(found.get(_RTA_PRIORITY)) or 0,
        indices=tuple(indices),
        source=_host(source) if source else None,
    )


def _next_hops(data: bytes) -> list[tuple[int, int]]:
    """Return (index, flags) of each next hop of a multipath route."""
    hops, offset = [], 0
    while offset + _NEXTHOP.size <= len(data):
        length, flags, _, index = _NEXTHOP.unpack_from(data, offset)
        if length < _NEXTHOP.size:
            break
        hops.append((index, flags))
        offset += (length + 3) & ~3
    return hops


def _host(packed: bytes) -> Host:
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return Host.parse(socket.inet_ntop(family, packed))


def _named(netlink: Netlink, ifname: str) -> Device | None:
    index = index_of(netlink, ifname)
    return None if index is None else _device(netlink, index)


def _device(netlink: Netlink, index: int) -> Device | None:
    try:
        answers = netlink.get(RTM_GETLINK, rtnetlink.interface(index))
    except OSError:
        return None
    if not answers:
        return None
    link = rtnetlink.read_link(answers[0])
    flags = _IFINFO.unpack_from(answers[0], _HEADER_BYTES)[3]
    is_virtual = bool(flags & _IFF_LOOPBACK) or link.kind == "dummy"
    return Device(index, link.ifname, is_virtual)
