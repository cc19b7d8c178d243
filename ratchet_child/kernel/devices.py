"""Interfaces in pods' namespaces. With `netns`, the only place that speaks rtnetlink.

An end is made where it belongs, in one message: a veth pair with both names in both namespaces, a
vxlan device from the node's namespace (where its UDP socket stays) into the pod's. There is nothing
to rename or move, and a crash leaves either nothing or a whole link. Every interface made here
carries a mark (its group, ip-link(8)), also from that one message: only marked ones are ever
removed or replaced.

Of pyroute2 the message formats are used, to read what the kernel answers, and not its sockets: see
`netns`. What is sent is packed in `rtnetlink`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ratchet.cni.ip import Address, Host
from ratchet.errors import KernelError
from ratchet_child.kernel import rtnetlink
from ratchet_child.kernel.netns import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Namespace,
    Netlink,
)
from ratchet_child.model.plan import Found

MARK = 0x7261  # the group of every interface made here: "ra"

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_GETROUTE = 26
_RTM_GETNSID = 90
_IFF_UP = 1
_IFF_RUNNING = 0x40
_RTEXT_FILTER_SKIP_STATS = 8
_SIOCGIFINDEX = 0x8933
_SIOCETHTOOL = 0x8946
_ETHTOOL_GLINK = 0x0A
_ETHTOOL_STXCSUM = 0x17
_IFREQ = struct.Struct("=16si20x")

_NO_ADDRESSES: frozenset[Address] = frozenset()


class VniInUseError(Exception):
    """Another vxlan device that this node's namespace has made uses the VNI and port.

    `visible`: it is in the node's own namespace, so it belongs to somebody else for sure. If not,
    it may be ours, in a namespace that is being taken down.
    """

    def __init__(self, vni: int, visible: bool) -> None:
        super().__init__(f"VNI {vni} is in use on this node")
        self.vni = vni
        self.visible = visible


class Devices:
    """The node's side of every interface. Safe to use from many threads."""

    def __init__(self, vxlan_port: int, mtu_bytes: int | None) -> None:
        self._node = Netlink()
        self._port = vxlan_port
        self._mtu_bytes = mtu_bytes

    def close(self) -> None:
        self._node.close()

    # What is there ----------------------------------------------------------------------------

    def found(self, namespace: Namespace) -> dict[str, Found]:
        """The interfaces in a namespace by name."""
        request = ifinfmsg()
        request["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
        links = [
            _decode(ifinfmsg, answer)
            for answer in namespace.netlink.dump(_RTM_GETLINK, _body(request))
        ]
        addresses = self._addresses(namespace) if any(map(_is_marked, links)) else {}
        return {
            one.ifname: one
            for one in (_found(link, addresses.get(link["index"])) for link in links)
        }

    def find(self, namespace: Namespace, ifname: str) -> Found | None:
        """One interface; None when there is none of that name."""
        request = ifinfmsg()
        request["attrs"] = [("IFLA_IFNAME", ifname), ("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
        try:
            answers = namespace.netlink.get(_RTM_GETLINK, _body(request))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise KernelError(f"look at {ifname} in {namespace.path}", str(error)) from error
        link = _decode(ifinfmsg, answers[0])
        return _found(link, self._addresses(namespace).get(link["index"]))

    def _addresses(self, namespace: Namespace) -> dict[int, frozenset[Address]]:
        by_index: dict[int, set[Address]] = {}
        for answer in namespace.netlink.dump(_RTM_GETADDR, _body(ifaddrmsg())):
            message = _decode(ifaddrmsg, answer)
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text:
                by_index.setdefault(message["index"], set()).add(
                    Address(Host.parse(text), message["prefixlen"])
                )
        return {index: frozenset(found) for index, found in by_index.items()}

    def are_joined(self, a: Namespace, end_a: Found, b: Namespace, end_b: Found) -> bool:
        """Whether two veth interfaces are each other's far end."""
        if end_a.peer_index != end_b.index or end_b.peer_index != end_a.index:
            return False
        request = nsidmsg()
        request["rtgen_family"] = 0
        request["attrs"] = [("NETNSA_FD", b.fd)]
        for answer in a.netlink.get(_RTM_GETNSID, _body(request)):
            return _signed(_decode(nsidmsg, answer).get_attr("NETNSA_NSID")) == end_a.peer_nsid
        return False

    # The node ---------------------------------------------------------------------------------

    def lower(self, ifname: str) -> int:
        """The index of the node's interface under the tunnels.

        *Raises* KernelError when the node has none of that name.
        """
        index = _index(self._node, ifname)
        if index is None:
            raise KernelError(
                f"find parent_interface {ifname!r}", "this node has no interface of that name"
            )
        return index

    def first_address(self, ifname: str) -> str | None:
        """The interface's first global address, IPv4 before IPv6; None when it has none."""
        index = _index(self._node, ifname)
        found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
        for answer in self._node.dump(_RTM_GETADDR, _body(ifaddrmsg())):
            message = _decode(ifaddrmsg, answer)
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if message["index"] == index and text:
                ip = ipaddress.ip_address(text)
                if not (ip.is_link_local or ip.is_loopback):
                    found.append(ip)
        found.sort(key=lambda ip: ip.version)  # stable: the kernel's order within a family
        return str(found[0]) if found else None

    def interface_of(self, address: str) -> str | None:
        """The node's interface that has an address; None when none has."""
        for answer in self._node.dump(_RTM_GETADDR, _body(ifaddrmsg())):
            message = _decode(ifaddrmsg, answer)
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text and ipaddress.ip_address(text) == ipaddress.ip_address(address):
                return self._name(message["index"])
        return None

    def default_route_interface(self) -> str | None:
        """The interface of the node's default route, IPv4 before IPv6; None without one."""
        for family in (socket.AF_INET, socket.AF_INET6):
            request = rtmsg()
            request["family"] = family
            for answer in self._node.dump(_RTM_GETROUTE, _body(request)):
                route = _decode(rtmsg, answer)
                if route["dst_len"] == 0 and route["table"] == 254 and route.get_attr("RTA_OIF"):
                    return self._name(route.get_attr("RTA_OIF"))
        return None

    def _name(self, index: int) -> str | None:
        request = ifinfmsg()
        request["index"] = index
        try:
            answers = self._node.get(_RTM_GETLINK, _body(request))
        except OSError:
            return None
        return _decode(ifinfmsg, answers[0]).get_attr("IFLA_IFNAME") if answers else None

    # Making and removing ------------------------------------------------------------------------

    def make_veth(
        self,
        a: Namespace,
        ifname_a: str,
        address_a: Address | None,
        mac_a: str,
        b: Namespace,
        ifname_b: str,
        address_b: Address | None,
        mac_b: str,
    ) -> None:
        """Join two namespaces. *Raises* KernelError, having left nothing."""
        message = self._new(ifname_a, mac_a, a) + rtnetlink.veth(self._new(ifname_b, mac_b, b))
        what = f"make veth {ifname_a} in {a.path} with {ifname_b} in {b.path}"
        _must(what, self._node.request((_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message))[0])
        try:
            self.finish(a, ifname_a, address_a)
            self.finish(b, ifname_b, address_b)
        except KernelError:
            self.remove(a, ifname_a)
            raise
        # The carrier comes with the second end.
        self.settle(a, ifname_a)
        self.settle(b, ifname_b)

    def make_vxlan(
        self,
        namespace: Namespace,
        ifname: str,
        address: Address | None,
        mac: str,
        vni: int,
        remote: Host,
        lower_index: int,
    ) -> None:
        """Make a tunnel's end. *Raises* KernelError or VniInUseError, having left nothing."""
        message = self._new(ifname, mac, namespace)
        message += rtnetlink.vxlan(vni, remote, lower_index, self._port)
        code = self._node.request((_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message))[0]
        if code == errno.EEXIST and _index(namespace.netlink, ifname) is None:
            raise VniInUseError(vni, self._is_visible(vni))
        _must(f"make vxlan {ifname} with VNI {vni} to {remote} in {namespace.path}", code)
        try:
            self.finish(namespace, ifname, address)
        except KernelError:
            self.remove(namespace, ifname)
            raise

    def finish(self, namespace: Namespace, ifname: str, address: Address | None) -> None:
        """Bring an end up and give it its address; nothing changes where that is so already.

        *Raises* KernelError.
        """
        netlink = namespace.netlink
        index = _index(netlink, ifname)
        if index is None:
            raise KernelError(f"bring up {ifname} in {namespace.path}", "it has gone")
        _transmit_checksums_off(netlink, ifname)
        requests = [(_RTM_NEWLINK, 0, rtnetlink.up(index))]
        if address is not None:
            requests.append((_RTM_NEWADDR, NLM_F_CREATE, rtnetlink.address(index, address)))
        codes = netlink.request(*requests)
        _must(f"bring up {ifname} in {namespace.path}", codes[0])
        if address is not None and codes[1] != errno.EEXIST:
            _must(f"give {ifname} in {namespace.path} the address {address}", codes[1])

    def settle(self, namespace: Namespace, ifname: str) -> None:
        """Have a veth that has just got its carrier carry frames at once."""
        _settle_carrier(namespace.netlink, ifname)

    def remove(self, namespace: Namespace, ifname: str) -> None:
        """Remove an end, and a veth's far end with it. *Safe to call twice.*"""
        index = _index(namespace.netlink, ifname)
        if index is None:
            return
        code = namespace.netlink.request((_RTM_DELLINK, 0, rtnetlink.interface(index)))[0]
        if code != errno.ENODEV:
            _must(f"remove {ifname} in {namespace.path}", code)

    def _new(self, ifname: str, mac: str, namespace: Namespace) -> bytes:
        return rtnetlink.new(ifname, mac, namespace.fd, MARK, self._mtu_bytes)

    def _is_visible(self, vni: int) -> bool:
        for answer in self._node.dump(_RTM_GETLINK, _body(ifinfmsg())):
            link = _decode(ifinfmsg, answer)
            found = _found(link, None)
            if found.kind == "vxlan" and found.vni == vni and found.port == self._port:
                return True
        return False


def _must(what: str, code: int) -> None:
    if code:
        raise KernelError(what, os.strerror(code))


def _body(message: Any) -> bytes:
    """A pyroute2 message without its header, which `netns` writes."""
    message.reset()
    message.encode()
    return bytes(message.data[16:])


def _decode(kind: Any, data: bytes) -> Any:
    message = kind(data)
    message.decode()
    return message


def _signed(number: int) -> int:
    """NSIDs are signed, and -1 is "none"; pyroute2 reads them as unsigned."""
    return number - 2**32 if number >= 2**31 else number


def _index(netlink: Netlink, ifname: str) -> int | None:
    """The index of an interface in a socket's namespace; None without one. See netdevice(7)."""
    request = _IFREQ.pack(ifname.encode(), 0)
    try:
        answer = fcntl.ioctl(netlink.fileno(), _SIOCGIFINDEX, request)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return int(_IFREQ.unpack(answer)[1])


class _EthtoolValue(ctypes.Structure):
    """struct ethtool_value, linux/ethtool.h."""

    _fields_ = (("cmd", ctypes.c_uint32), ("data", ctypes.c_uint32))


class _EthtoolRequest(ctypes.Structure):
    """struct ifreq with ifr_data, netdevice(7)."""

    _fields_ = (
        ("name", ctypes.c_char * 16),
        ("data", ctypes.c_void_p),
        ("rest", ctypes.c_char * 16),
    )


def _transmit_checksums_off(netlink: Netlink, ifname: str) -> None:
    """Systems in VMs drop TCP segments whose checksum was left to a device that never comes."""
    value = _EthtoolValue(_ETHTOOL_STXCSUM, 0)
    request = _EthtoolRequest(ifname.encode(), ctypes.addressof(value))
    with contextlib.suppress(OSError):  # a device without the feature has nothing to turn off
        fcntl.ioctl(netlink.fileno(), _SIOCETHTOOL, request)


def _settle_carrier(netlink: Netlink, ifname: str) -> None:
    """Have the kernel act at once on a carrier that has just come.

    Otherwise it does so some time later, behind whatever else holds its lock, and up to a second
    later for what routing daemons see (IFF_RUNNING); until then frames that are sent are dropped.
    Whoever asks for the carrier is told after that is done (Linux 6.8).
    """
    value = _EthtoolValue(_ETHTOOL_GLINK, 0)
    request = _EthtoolRequest(ifname.encode(), ctypes.addressof(value))
    with contextlib.suppress(OSError):
        fcntl.ioctl(netlink.fileno(), _SIOCETHTOOL, request)


def _is_marked(link: Any) -> bool:
    return bool(link.get_attr("IFLA_GROUP") == MARK)


def _found(link: Any, addresses: frozenset[Address] | None) -> Found:
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    data = info.get_attr("IFLA_INFO_DATA") if kind == "vxlan" else None
    remote = data and (data.get_attr("IFLA_VXLAN_GROUP") or data.get_attr("IFLA_VXLAN_GROUP6"))
    return Found(
        ifname=link.get_attr("IFLA_IFNAME"),
        index=link["index"],
        kind=kind,
        ours=_is_marked(link),
        up=bool(link["flags"] & _IFF_UP),
        addresses=addresses or _NO_ADDRESSES,
        peer_index=link.get_attr("IFLA_LINK") if kind == "veth" else None,
        peer_nsid=link.get_attr("IFLA_LINK_NETNSID") if kind == "veth" else None,
        vni=data.get_attr("IFLA_VXLAN_ID") if data else None,
        remote=Host.parse(remote) if remote else None,
        port=data.get_attr("IFLA_VXLAN_PORT") if data else None,
        lower=data.get_attr("IFLA_VXLAN_LINK") if data else None,
    )
