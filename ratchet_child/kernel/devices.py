"""Interfaces in pods' namespaces: reading, changing and removing them, of whatever kind they are.

Every interface that Ratchet makes carries a mark (its group, ip-link(8)) from the message that
makes it; only marked ones are ever removed or replaced. How an interface is made, and what else
there is to know of it, is its kind's business: see `kinds`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from ratchet.cni.dataclasses import dataclass, field
from ratchet.errors import KernelError
from ratchet.impairment import Impairment
from ratchet_child.kernel import features, qdisc, rtnetlink, tunnel
from ratchet_child.kernel.netns import NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, Namespace, Netlink
from ratchet_child.kernel.rtnetlink import MARK, AddressMessage, LinkMessage
from ratchet_child.model.interfaces import (
    AddAddress,
    Attribute,
    Found,
    HandOver,
    Hold,
    Impair,
    Interface,
    Label,
    Plug,
    Release,
    RemoveAddress,
    SetLocal,
    SetMac,
    SetMtu,
    SetRemote,
    Setting,
    Unplug,
)

LEAST_IPV6_MTU_BYTES = 1280

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_GETNSID = 90
_SIOCGIFINDEX = 0x8933
_MOST_MARKED = 2048
_IFREQ = struct.Struct("=16si20x")


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of changing an interface: its index, and which properties the kernel has refused.

    `refused` says why, by the kind of setting.
    """

    index: int
    refused: Mapping[type[Setting], str] = field(default_factory=dict)


class Devices:
    """The node's side of every interface. Safe to use from many threads."""

    def __init__(self) -> None:
        self.node = Netlink()
        self._own_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        # What a kind reads of an interface, by kind; the kinds put it here.
        self.readers: dict[str, Callable[[LinkMessage], object]] = {}

    def close(self) -> None:
        self.node.close()
        os.close(self._own_fd)

    # What is there ------------------------------------------------------------------------------

    def found(self, namespace: Namespace) -> list[Found]:
        """Return the interfaces of Ratchet's in a namespace: the pod may have thousands more.

        It may have marked these as well, and then gets to have so many of them read.
        """
        answers = namespace.netlink.dump(RTM_GETLINK, rtnetlink.every_link())
        marked = islice(filter(rtnetlink.is_marked, answers), _MOST_MARKED)
        return [self._found_here(namespace, rtnetlink.read_link(one)) for one in marked]

    def moved_away(
        self, namespace: Namespace, besides: Namespace | None = None
    ) -> list[tuple[int, Found]]:
        """Return interfaces of Ratchet's in the namespaces that a pod's own one knows.

        Each comes with the number of its namespace. They are ends that the pod has moved, and the
        ends of its peers. Left out are the node's namespace, `besides`, and the pod's own: looking
        at a peer's end from there, as is done here, has the kernel number it.
        """
        netlink = namespace.netlink
        answers = netlink.dump(RTM_GETNSID, rtnetlink.every_nsid())
        numbers = {rtnetlink.read_nsid(answer) for answer in answers}
        others = [self._own_fd, namespace.fd] + ([] if besides is None else [besides.fd])
        for fd in others if numbers else ():
            known = netlink.get(RTM_GETNSID, rtnetlink.nsid_of(fd))
            numbers -= {rtnetlink.read_nsid(answer) for answer in known}
        moved = []
        for nsid in sorted(numbers):
            with contextlib.suppress(OSError):  # it goes at this moment
                for one in netlink.dump(RTM_GETLINK, rtnetlink.every_link_elsewhere(nsid)):
                    if rtnetlink.is_marked(one):
                        moved.append((nsid, self._found(rtnetlink.read_link(one))))
        return moved

    def find(self, namespace: Namespace, which: str | int) -> Found | None:
        """Return one interface by its name or its index; None when there is none."""
        if isinstance(which, str):
            request = rtnetlink.link_named(which)
        else:
            request = rtnetlink.link_at(which)
        try:
            answers = namespace.netlink.get(RTM_GETLINK, request)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise KernelError(f"look at {which} in {namespace.path}", str(error)) from error
        link = rtnetlink.read_link(answers[0])
        return self._found_here(namespace, link) if link.group == MARK else self._found(link)

    def _found_here(self, namespace: Namespace, link: LinkMessage) -> Found:
        impairment = _impairment(namespace, link) if link.qdisc in qdisc.KINDS else None
        return self._found(link, _addresses(namespace, link.index), impairment)

    def _found(
        self,
        link: LinkMessage,
        own: Sequence[AddressMessage] = (),
        impairment: Impairment | None = None,
    ) -> Found:
        reader = self.readers.get(link.kind or "")
        return Found(
            ifname=link.ifname,
            index=link.index,
            kind=link.kind,
            ours=link.group == MARK,
            up=link.is_up,
            addresses=frozenset(one.address for one in own),
            given=frozenset(one.address for one in own if one.is_ours),
            mtu_bytes=link.mtu_bytes,
            mac=link.mac,
            label=Label.parse(link.alias),
            is_dormant=link.is_dormant,
            impairment=impairment,
            details=None if reader is None else reader(link),
        )

    # Making, changing and removing --------------------------------------------------------------

    def new(self, namespace: Namespace, wanted: Interface) -> bytes:
        """Return the part of a message that makes an interface which no kind differs in."""
        return rtnetlink.new(wanted.ifname, wanted.mac, namespace.fd, MARK)

    def make(self, message: bytes) -> int:
        """Have the node's namespace make an interface; return the errno, 0 for success."""
        return self.node.request((RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message))[0]

    def apply(
        self, namespace: Namespace, ifname: str, settings: Iterable[Setting], index: int | None
    ) -> Applied:
        """Change an interface, all in one message. `index` is None for one that was just made.

        An interface whose properties are refused is up all the same. *Raises* KernelError when it
        cannot be brought up, plugged in or get its address. *Safe to call twice.*
        """
        wanted = list(settings)
        is_new = index is None
        if index is None:
            index = index_of(namespace.netlink, ifname)
        if index is None:
            raise KernelError(f"bring up {ifname} in {namespace.path}", "it has gone")
        if is_new:
            features.transmit_checksums_off(namespace.netlink, ifname)
        if any(isinstance(one, AddAddress) and one.address.version == 6 for one in wanted):
            features.prepare_ipv6(namespace, ifname)
        if any(isinstance(one, SetMac) for one in wanted):
            features.tell_of_new_mac(namespace, ifname)
        refused: dict[type[Setting], str] = {}
        attributes = [one for one in wanted if not isinstance(one, Impair | Hold | Release)]
        requests = [_request(index, one) for one in attributes]
        codes = namespace.netlink.request(*requests) if requests else []
        where = f"{ifname} in {namespace.path}"
        for one, code in zip(attributes, codes, strict=True):
            match one:
                case SetMtu() if code:
                    refused[SetMtu] = f"mtu {one.mtu_bytes}: {os.strerror(code)}"
                case SetMac() if code:
                    refused[SetMac] = f"MAC address {one.mac}: {os.strerror(code)}"
                case AddAddress() if code != errno.EEXIST:
                    if code == errno.EINVAL and one.address.ip.version == 6:
                        self._refuse_mtu(namespace, ifname)
                    must(f"give {where} the address {one.address}", code)
                case RemoveAddress() if code != errno.EADDRNOTAVAIL:
                    must(f"take the address {one.address} of {where}", code)
                case HandOver():
                    if code == errno.EADDRINUSE:
                        self._refuse_port(namespace, ifname)
                    must(f"bring up {where}", code)
                case SetRemote():
                    must(f"have {where} end at {one.remote}", code)
                case SetLocal():
                    must(f"have {where} send from {one.local}", code)
                case Plug() | Unplug():
                    must(f"plug or unplug {where}", code)
        for setting in wanted:
            if isinstance(setting, Hold | Release):
                self._hold(namespace, ifname, index, is_held=isinstance(setting, Hold))
            elif isinstance(setting, Impair):
                why = self._impair(namespace, index, setting.impairment)
                if why:
                    refused[Impair] = why
        return Applied(index, refused)

    def _hold(self, namespace: Namespace, ifname: str, index: int, *, is_held: bool) -> None:
        """Have a veth show no carrier and send nothing, or undo that. *Raises* KernelError.

        A veth has its carrier while its far end is up, and IFLA_PROTO_DOWN is not for it.
        """
        what = f"pull the cable of {ifname} in {namespace.path} out"
        requests = [(qdisc.RTM_DELQDISC, 0, qdisc.ours(index))]
        if is_held:
            flags = NLM_F_CREATE | NLM_F_EXCL
            requests.append((qdisc.RTM_NEWQDISC, flags, qdisc.nothing(index)))
        codes = namespace.netlink.request(*requests)
        if is_held and codes[1] == errno.EEXIST:
            raise KernelError(what, "the pod has put a queueing discipline of its own there")
        must(what, codes[1] if is_held else 0)
        body = rtnetlink.dormant(index, is_dormant=is_held)
        must(what, namespace.netlink.request((RTM_NEWLINK, 0, body))[0])

    def _impair(self, namespace: Namespace, index: int, wanted: Impairment | None) -> str:
        """Have an interface's queueing disciplines be these; return what the kernel refuses."""
        requests = [(qdisc.RTM_DELQDISC, 0, qdisc.ours(index))]
        parts = []
        if wanted is not None:
            link = namespace.netlink.get(RTM_GETLINK, rtnetlink.link_at(index))
            mtu_bytes = rtnetlink.read_link(link[0]).mtu_bytes
            parts = qdisc.parts(index, wanted, mtu_bytes)
            flags = NLM_F_CREATE | NLM_F_EXCL
            requests += [(qdisc.RTM_NEWQDISC, flags, part.body) for part in parts]
        # What is not there, or is the pod's, cannot be removed: no error.
        codes = namespace.netlink.request(*requests)[1:]
        return "; ".join(
            f"{part.does}: {_refusal(part, code)}"
            for part, code in zip(parts, codes, strict=True)
            if code
        )

    def _refuse_port(self, namespace: Namespace, ifname: str) -> None:
        """Raise KernelError that names the UDP port which the tunnel cannot share."""
        found = self.find(namespace, ifname)
        port = getattr(found.details, "port", None) if found is not None else None
        if port is not None:
            raise KernelError(
                f"bring up {ifname} in {namespace.path}",
                f"UDP port {port} of this node is held by another overlay, whose vxlan device has"
                " other flags (external, gbp), or by a program: give vxlan_port another number, the"
                " same on every node",
            )

    def _refuse_mtu(self, namespace: Namespace, ifname: str) -> None:
        """Raise KernelError if the interface's MTU is below what IPv6 needs (RFC 8200 §5)."""
        found = self.find(namespace, ifname)
        if found is not None and (found.mtu_bytes or 0) < LEAST_IPV6_MTU_BYTES:
            raise KernelError(
                f"give {ifname} in {namespace.path} an IPv6 address",
                f"its MTU is {found.mtu_bytes}, and IPv6 needs {LEAST_IPV6_MTU_BYTES}: a tunnel has"
                " 50 less than parent_interface, or 70 less where parent_address is IPv6; mtu and"
                " ratchet.mtu can lower it further",
            )

    def settle(self, namespace: Namespace, ifname: str) -> None:
        """Have an interface that has just got its carrier carry frames at once.

        Otherwise the kernel acts on it some time later, behind whatever else holds its lock, and up
        to a second later for what routing daemons see (IFF_RUNNING); until then frames that are
        sent are dropped. Whoever asks for the carrier is answered after that is done (Linux 6.8).
        """
        features.ask_for_carrier(namespace.netlink, ifname)

    def set_down(self, namespace: Namespace, index: int) -> None:
        """Set an interface down. *Raises* KernelError."""
        code = namespace.netlink.request((RTM_NEWLINK, 0, rtnetlink.down(index)))[0]
        must(f"set down interface {index} in {namespace.path}", code)

    def move(
        self, here: Namespace, index: int, there: Namespace, ifname: str, mac: str | None = None
    ) -> None:
        """Move an interface to another namespace, under the name that it has there.

        It arrives down, without addresses and without its label, and has another MAC address if
        `mac` is one. *Raises* KernelError.
        """
        message = rtnetlink.moved(index, ifname, mac, there.fd)
        code = here.netlink.request((RTM_NEWLINK, 0, message))[0]
        must(f"move interface {index} of {here.path} to {there.path} as {ifname}", code)

    def is_elsewhere(self, namespace: Namespace, nsid: int, index: int, ifname: str) -> bool:
        """Say whether an end is there yet that a pod has moved; see `remove_elsewhere`."""
        try:
            answers = namespace.netlink.get(RTM_GETLINK, rtnetlink.elsewhere(nsid, index))
        except OSError:  # it has gone, or its namespace
            return False
        link = rtnetlink.read_link(answers[0])
        label = Label.parse(link.alias)
        return link.group == MARK and label is not None and label.ifname == ifname

    def remove_elsewhere(self, namespace: Namespace, nsid: int, index: int, ifname: str) -> None:
        """Remove an end that a pod has moved into a namespace of its own, if it is still there.

        `nsid` is the number of that one in `namespace`, and `ifname` stands in the end's label. The
        kernel may have given the number to another namespace since, the node's own among them, so
        what is not that end stays.
        """
        if self.is_elsewhere(namespace, nsid, index, ifname):
            namespace.netlink.request((RTM_DELLINK, 0, rtnetlink.elsewhere(nsid, index)))

    def remove(self, namespace: Namespace, index: int) -> None:
        """Remove an interface, and a veth's far end with it. *Safe to call twice.*"""
        code = namespace.netlink.request((RTM_DELLINK, 0, rtnetlink.interface(index)))[0]
        if code != errno.ENODEV:
            must(f"remove interface {index} in {namespace.path}", code)


def _refusal(part: qdisc.Part, code: int) -> str:
    if code == errno.ENOENT:
        return f"this node's kernel has no queueing discipline {part.kind}"
    if code == errno.EEXIST:
        return "the pod has put a queueing discipline of its own there"
    return os.strerror(code)


def must(what: str, code: int) -> None:
    """Raise KernelError for an errno other than 0."""
    if code:
        raise KernelError(what, os.strerror(code))


def index_of(netlink: Netlink, ifname: str) -> int | None:
    """Return an interface's index in a socket's namespace; None without one. See netdevice(7)."""
    request = _IFREQ.pack(ifname.encode(), 0)
    try:
        answer = fcntl.ioctl(netlink.fileno(), _SIOCGIFINDEX, request)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return int(_IFREQ.unpack(answer)[1])


def _addresses(namespace: Namespace, index: int) -> list[AddressMessage]:
    answers = namespace.netlink.dump(RTM_GETADDR, rtnetlink.every_address(index))
    addresses = [rtnetlink.read_address(answer) for answer in answers]
    return [one for one in addresses if one is not None and one.index == index]


def _impairment(namespace: Namespace, link: LinkMessage) -> Impairment | None:
    """Return what our queueing disciplines do, of an interface that may have some."""
    answers = []
    for request in qdisc.each_of_ours(link.index):
        try:
            # Some kernels tell only who listens to news, and who asks for an echo.
            answers += namespace.netlink.get(qdisc.RTM_GETQDISC, request, NLM_F_ECHO)
        except OSError as error:
            # It has none by that handle, or has gone itself, which is the next news.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
    return qdisc.read(answers).get(link.index)


def _request(index: int, setting: Attribute) -> tuple[int, int, bytes]:
    match setting:
        case HandOver():
            return RTM_NEWLINK, 0, rtnetlink.up(index, str(setting.label))
        case SetMtu():
            return RTM_NEWLINK, 0, rtnetlink.mtu(index, setting.mtu_bytes)
        case SetMac():
            return RTM_NEWLINK, 0, rtnetlink.hardware_address(index, setting.mac)
        case SetRemote():
            return RTM_NEWLINK, 0, tunnel.remote(index, setting.remote)
        case SetLocal():
            return RTM_NEWLINK, 0, tunnel.local(index, setting.local)
        case Plug():
            return RTM_NEWLINK, 0, rtnetlink.carrier(index, is_plugged=True)
        case Unplug():
            return RTM_NEWLINK, 0, rtnetlink.carrier(index, is_plugged=False)
        case AddAddress():
            return RTM_NEWADDR, NLM_F_CREATE, rtnetlink.address(index, setting.address)
        case RemoveAddress():
            return RTM_DELADDR, 0, rtnetlink.address(index, setting.address)
