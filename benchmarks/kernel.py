"""The links alone: how many ends a second the child's code makes.

Beside it stand `ip -batch`, which is what a person would use, and netlink messages that were packed
beforehand, which is the floor. All of them make the same: a link between two namespaces (or a vxlan
end from the node's into a pod's), up, with addresses, marked with a group. The child's code turns
checksum offload off besides.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable

from benchmarks.bed import Bed
from benchmarks.figures import Results, in_turns
from ratchet.cni.ip import Address, Host
from ratchet_child.kernel.devices import Devices, index_of
from ratchet_child.kernel.kinds import Site, every_kind
from ratchet_child.kernel.netns import Namespace, Namespaces
from ratchet_child.kernel.rtnetlink import MARK
from ratchet_child.model.interfaces import Interface, Veth, Vxlan, settings
from ratchet_child.model.keys import PodKey
from ratchetctl.sim import netns
from ratchetctl.sim.underlay import NODE_INTERFACE

PORT = 4789
FIRST_VNI = 1_000_000
FIRST_INDEX = 1000
PREFIX_LEN = 24

_NLMSG = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTM_NEWLINK, _RTM_NEWADDR = 16, 20
_ROUTE_FLAGS = 0x1 | 0x4  # NLM_F_REQUEST, NLM_F_ACK
_CREATE = 0x400 | 0x200  # NLM_F_CREATE, NLM_F_EXCL
_NLMSG_ERROR = 2
_IFF_UP = 1
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_GROUP, _IFLA_NET_NS_FD = 3, 18, 27, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_VXLAN_ID, _IFLA_VXLAN_GROUP, _IFLA_VXLAN_LINK = 1, 2, 3
_IFLA_VXLAN_LEARNING, _IFLA_VXLAN_PORT = 7, 15
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


class _Bench:
    """Makes links in fresh namespaces; every method gives the seconds that the links took."""

    def __init__(self, bed: Bed, count: int) -> None:
        self._bed = bed
        self._node = bed.nodes[0]
        self._remote = Host.parse(bed.nodes[-1].address)
        self._count = count
        self._vni = FIRST_VNI
        with netns.inside(self._node.path):
            self._devices = Devices()
        self._kinds = every_kind(self._devices, port=PORT, parent_interface=NODE_INTERFACE)
        index = index_of(self._devices.node, NODE_INTERFACE)
        assert index is not None
        self._lower_index = index
        self._interfaces = [
            tuple(Address.parse(f"{one}/{PREFIX_LEN}") for one in _addresses(number))
            for number in range(count)
        ]

    def close(self) -> None:
        self._devices.close()

    def veth_child(self) -> float:
        def make(a: Namespace, b: Namespace) -> Callable[[], None]:
            wanted = [
                (
                    _veth_site(a, f"a{number}", one, _mac(1, number), f"b{number}", other),
                    _veth_site(b, f"b{number}", other, _mac(2, number), f"a{number}", one),
                )
                for number, (one, other) in enumerate(self._interfaces)
            ]

            def links() -> None:
                for here, there in wanted:
                    self._make(here, there)

            return links

        return self._in_two(make)

    def vxlan_child(self) -> float:
        def make(a: Namespace, _: Namespace) -> Callable[[], None]:
            wanted = [
                Site(
                    a,
                    Interface(
                        f"a{number}",
                        Vxlan(self._next_vni(), self._remote),
                        _mac(1, number),
                        address,
                    ),
                    None,
                )
                for number, (address, _) in enumerate(self._interfaces)
            ]

            def ends() -> None:
                for here in wanted:
                    self._make(here, None)

            return ends

        return self._in_two(make)

    def _make(self, here: Site, there: Site | None) -> None:
        """Make an end, or both, as the child does."""
        kind = self._kinds[here.wanted.medium.kind]
        kind.make(here, there)
        for site in (here, there):
            if site is not None:
                self._devices.apply(site.namespace, site.wanted.ifname, settings(site.wanted), None)
        kind.settle(here, there)

    def veth_ip(self) -> float:
        def make(a: Namespace, b: Namespace) -> Callable[[], None]:
            links, here, there = [], [], []
            for number in range(self._count):
                links.append(
                    f"link add a{number} netns {a.path} group {MARK}"
                    f" type veth peer name b{number} netns {b.path} group {MARK}"
                )
                one, other = _addresses(number)
                here += _ip_finish(f"a{number}", one)
                there += _ip_finish(f"b{number}", other)

            def run() -> None:
                _batch(self._node.path, links)
                _batch(a.path, here)
                _batch(b.path, there)

            return run

        return self._in_two(make)

    def vxlan_ip(self) -> float:
        def make(a: Namespace, _: Namespace) -> Callable[[], None]:
            ends, here = [], []
            for number in range(self._count):
                ends.append(
                    f"link add a{number} netns {a.path} group {MARK} type vxlan"
                    f" id {self._next_vni()} remote {self._remote} dev {NODE_INTERFACE}"
                    f" dstport {PORT} nolearning"
                )
                here += _ip_finish(f"a{number}", _addresses(number)[0])

            def run() -> None:
                _batch(self._node.path, ends)
                _batch(a.path, here)

            return run

        return self._in_two(make)

    def veth_raw(self) -> float:
        def make(a: Namespace, b: Namespace) -> Callable[[], None]:
            work = []
            for number in range(self._count):
                index = FIRST_INDEX + number
                peer = _IFINFO.pack(0, 0, index, 0, 0) + _new(f"b{number}", b.fd)
                link = _info("veth", _attribute(_VETH_INFO_PEER, peer))
                one, other = _addresses(number)
                work.append(
                    (
                        _message(
                            _RTM_NEWLINK,
                            _CREATE,
                            _IFINFO.pack(0, 0, index, 0, 0) + _new(f"a{number}", a.fd) + link,
                        ),
                        _finish(index, one),
                        _finish(index, other),
                    )
                )
            sockets = _route_sockets((self._node.path, a.path, b.path))
            return lambda: _send_all(sockets, work)

        return self._in_two(make)

    def vxlan_raw(self) -> float:
        def make(a: Namespace, _: Namespace) -> Callable[[], None]:
            work = []
            for number in range(self._count):
                index = FIRST_INDEX + number
                data = (
                    _attribute(_IFLA_VXLAN_ID, struct.pack("=I", self._next_vni()))
                    + _attribute(_IFLA_VXLAN_GROUP, self._remote.packed)
                    + _attribute(_IFLA_VXLAN_LINK, struct.pack("=I", self._lower_index))
                    + _attribute(_IFLA_VXLAN_PORT, struct.pack("!H", PORT))
                    + _attribute(_IFLA_VXLAN_LEARNING, b"\0")
                )
                body = _IFINFO.pack(0, 0, index, 0, 0) + _new(f"a{number}", a.fd)
                work.append(
                    (
                        _message(_RTM_NEWLINK, _CREATE, body + _info("vxlan", data)),
                        _finish(index, _addresses(number)[0]),
                    )
                )
            sockets = _route_sockets((self._node.path, a.path))
            return lambda: _send_all(sockets, work)

        return self._in_two(make)

    def _in_two(self, make: Callable[[Namespace, Namespace], Callable[[], None]]) -> float:
        """Time the work that `make` prepares, in two fresh namespaces; return the seconds."""
        paths = [self._bed.namespace(name) for name in ("links-a", "links-b")]
        machine = Namespaces()
        namespaces = [machine.open(path, None) for path in paths]
        try:
            work = make(*namespaces)
            started = time.perf_counter()
            work()
            return time.perf_counter() - started
        finally:
            for namespace in namespaces:
                namespace.close()
            for path in paths:
                self._bed.remove_namespace(path)

    def _next_vni(self) -> int:
        self._vni += 1
        return self._vni


def measure(bed: Bed, results: Results, count: int, links: int) -> None:
    bench = _Bench(bed, links)
    found = in_turns(
        count,
        {
            "veth/ip": bench.veth_ip,
            "veth/child": bench.veth_child,
            "veth/raw": bench.veth_raw,
            "vxlan/ip": bench.vxlan_ip,
            "vxlan/child": bench.vxlan_child,
            "vxlan/raw": bench.vxlan_raw,
        },
    )
    bench.close()
    makers = {"ip": "ip -batch", "child": "the child's code", "raw": "prebuilt netlink messages"}
    for name, seconds in found.items():
        kind, maker = name.split("/")
        what = "veth pairs" if kind == "veth" else "vxlan ends"
        results.add(
            f"links/{name}",
            f"{what} a second, {makers[maker]}",
            "1/s",
            [links / one for one in seconds],
            None if maker == "ip" else f"links/{kind}/ip",
        )


def _veth_site(
    namespace: Namespace, ifname: str, address: Address, mac: str, peer: str, peer_address: Address
) -> Site:
    medium = Veth(PodKey("default", "peer"), peer, peer_address)
    return Site(namespace, Interface(ifname, medium, mac, address), None)


def _addresses(number: int) -> tuple[str, str]:
    high, low = divmod(number, 250)
    return f"10.{high + 1}.{low}.1", f"10.{high + 1}.{low}.2"


def _mac(side: int, number: int) -> str:
    return f"02:00:00:{side:02x}:{number >> 8:02x}:{number & 255:02x}"


def _ip_finish(ifname: str, address: str) -> list[str]:
    return [f"address add {address}/{PREFIX_LEN} dev {ifname}", f"link set {ifname} up"]


def _batch(path: str, lines: list[str]) -> None:
    with netns.inside(path):
        subprocess.run(("ip", "-batch", "-"), input="\n".join(lines) + "\n", text=True, check=True)


# Netlink by hand, rtnetlink(7) ------------------------------------------------------------------


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _NLMSG.pack(_NLMSG.size + len(body), kind, flags | _ROUTE_FLAGS, 0, 0) + body


def _new(ifname: str, namespace_fd: int) -> bytes:
    return (
        _attribute(_IFLA_IFNAME, ifname.encode() + b"\0")
        + _attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespace_fd))
        + _attribute(_IFLA_GROUP, struct.pack("=I", MARK))
    )


def _info(kind: str, data: bytes) -> bytes:
    return _attribute(
        _IFLA_LINKINFO,
        _attribute(_IFLA_INFO_KIND, kind.encode()) + _attribute(_IFLA_INFO_DATA, data),
    )


def _finish(index: int, address: str) -> bytes:
    packed = socket.inet_aton(address)
    up = _IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP)
    given = (
        _IFADDR.pack(socket.AF_INET, PREFIX_LEN, 0, 0, index)
        + _attribute(_IFA_LOCAL, packed)
        + _attribute(_IFA_ADDRESS, packed)
    )
    return _message(_RTM_NEWLINK, 0, up) + _message(_RTM_NEWADDR, _CREATE, given)


def _route_sockets(paths: Iterable[str]) -> list[socket.socket]:
    sockets = []
    for path in paths:
        with netns.inside(path):
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        made.bind((0, 0))
        sockets.append(made)
    return sockets


def _send_all(sockets: list[socket.socket], work: Iterable[tuple[bytes, ...]]) -> None:
    for messages in work:
        for one, message in zip(sockets, messages, strict=True):
            one.send(message)
            expected = 1 if one is sockets[0] else 2
            while expected:
                expected -= _acknowledged(one.recv(65536))
    for one in sockets:
        one.close()


def _acknowledged(data: bytes) -> int:
    """Return how many messages the kernel has acknowledged. *Raises* OSError."""
    count = offset = 0
    while offset < len(data):
        length, kind, _, _, _ = _NLMSG.unpack_from(data, offset)
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", data, offset + _NLMSG.size)
            if code:
                raise OSError(-code, "netlink")
            count += 1
        offset += (length + 3) & ~3
    return count
