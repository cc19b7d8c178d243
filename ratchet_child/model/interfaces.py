"""What an interface in a pod should be, what it is, and what brings the one to the other. Pure.

An `Interface` is the whole specification of one end: its name, what carries its frames (the
medium), its addresses on both layers and its properties. Equal specifications need no change. What
the kernel has is `Found`; `changes` is the difference. Whether a found interface is of the right
medium is the question of its kind, which answers it (`kernel.kinds`), so a new kind changes nothing
in here.

Ratchet owns that an end exists and where its cable goes. Once an end was handed over, which its
label says, its administrative state, addresses, name and MTU are the pod's: only what the links say
anew is changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import ClassVar

from ratchet.cni.dataclasses import dataclass, field
from ratchet.cni.ip import Address, Host
from ratchet.impairment import Impairment
from ratchet_child.model.keys import PodKey


@dataclass(frozen=True, slots=True)
class Veth:
    """The medium of a cable to a pod on this node. The kernel makes both ends at once."""

    kind: ClassVar[str] = "veth"

    peer: PodKey
    peer_ifname: str
    peer_address: Address | None

    def details(self) -> dict[str, object]:
        """Return what a log line says of it."""
        return {}


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The medium of a cable to a pod on another node: a tunnel with one far end (RFC 7348)."""

    kind: ClassVar[str] = "vxlan"

    vni: int
    remote: Host

    def details(self) -> dict[str, object]:
        """Return what a log line says of it."""
        return {"vni": self.vni, "remote": self.remote}


@dataclass(frozen=True, slots=True)
class Macvlan:
    """The medium of an uplink to what one of the node's interfaces is connected with."""

    kind: ClassVar[str] = "macvlan"

    device: str

    def details(self) -> dict[str, object]:
        """Return what a log line says of it."""
        return {"device": self.device}


@dataclass(frozen=True, slots=True)
class HostVeth:
    """The medium of an uplink to the node itself. The kernel makes both ends at once."""

    kind: ClassVar[str] = "host"

    device: str  # the end at the node
    device_address: Address | None

    def details(self) -> dict[str, object]:
        """Return what a log line says of it."""
        return {"device": self.device}


Medium = Veth | Vxlan | Macvlan | HostVeth


@dataclass(frozen=True, slots=True)
class Label:
    """Which end an interface is, whatever the pod calls it: its name in the link, and the link.

    The kernel keeps it as the interface's alias, ip-link(8), so that a renamed interface is known
    again, also by another process.
    """

    ifname: str
    link: str  # <primary>:<ifname of the primary's end>

    def __str__(self) -> str:
        if len(self.link) <= _LONGEST_LINK:  # the same at both ends, whatever their names
            return f"{_LABEL}{self.ifname}{_OF}{self.link}"
        digest = hashlib.sha256(self.link.encode()).hexdigest()[:32]
        return f"{_LABEL}{self.ifname}{_OF}#{digest}"

    @property
    def kept(self) -> Label:
        """The label as the kernel gives it back: a long link is a digest there."""
        return Label.parse(str(self)) or self

    @classmethod
    def parse(cls, text: str | None) -> Label | None:
        """Return the label in an alias; None for an alias of somebody else's, or none."""
        if text is None or not text.startswith(_LABEL):
            return None
        ifname, of, link = text.removeprefix(_LABEL).partition(_OF)
        return cls(ifname, link) if ifname and of and link else None

    def is_of(self, other: Label) -> bool:
        """Say whether both name the same end, one of them perhaps as the kernel had room for."""
        return str(self) == str(other)


_LABEL, _OF = "ratchet ", " of "
# IFALIASZ less its final zero, linux/if_link.h, and the longest name of an interface. All is ASCII.
_LONGEST_LINK = 255 - len(_LABEL) - 15 - len(_OF)


@dataclass(frozen=True, slots=True)
class Interface:
    """The specification of one end.

    `address` is None for plain layer 2, `mtu_bytes` where the kernel chooses. The MAC address is
    given when the interface is made and then belongs to the pod: a bond changes it, for example.
    `impairment` is of what it sends, None for nothing. `is_pulled`: an operator has pulled the
    cable out, None when that is not known, which leaves it as it is.
    """

    ifname: str
    medium: Medium
    mac: str
    address: Address | None = None
    mtu_bytes: int | None = None
    link: str = ""  # as in `Label`
    impairment: Impairment | None = None
    is_pulled: bool | None = field(default=None, compare=False)

    def has_cable_of(self, before: Interface, found: Found | None) -> bool:
        """Say whether the cable is in or out as it was brought about `before`."""
        if self.is_pulled is None:
            return True
        # A leg that came dormant may have been held since: what was found is as it came.
        may_be_held = found is not None and (found.is_held or found.is_dormant)
        if before.is_pulled is None and may_be_held:
            return False
        return self.is_pulled == bool(before.is_pulled)

    @property
    def label(self) -> Label:
        return Label(self.ifname, self.link)


@dataclass(frozen=True, slots=True)
class Found:
    """An interface in a pod's namespace, by the name that the pod has for it.

    `label` is None before an end was handed over, and of interfaces that are not Ratchet's. `given`
    are those of its addresses that Ratchet has set, as far as that is known. `impairment` is what
    Ratchet's queueing disciplines do. `details` is what its kind has read of it, None for a kind
    that is not ours.
    """

    ifname: str
    index: int
    kind: str | None  # IFLA_INFO_KIND: veth, vxlan, ...; None for a device without one
    ours: bool  # it carries Ratchet's mark
    up: bool
    addresses: frozenset[Address] = frozenset()
    given: frozenset[Address] = frozenset()
    mtu_bytes: int | None = None
    mac: str | None = None
    label: Label | None = None
    impairment: Impairment | None = None
    is_dormant: bool = False
    details: object = None

    @property
    def is_held(self) -> bool:
        """Whether nothing goes out of it: a discipline of ours that lets nothing through."""
        return self.impairment == Impairment()

    @property
    def key(self) -> str:
        """The name of the end that it is, or its own."""
        return self.label.ifname if self.ours and self.label is not None else self.ifname


# What can be done to an interface ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the interface that is there."""


@dataclass(frozen=True, slots=True)
class Make:
    """Make it, with its name and MAC address, down and without addresses."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Bring it up and label it: from then on it is the pod's."""

    label: Label


@dataclass(frozen=True, slots=True)
class AddAddress:
    address: Address


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    address: Address


@dataclass(frozen=True, slots=True)
class SetMtu:
    mtu_bytes: int


@dataclass(frozen=True, slots=True)
class SetMac:
    mac: str


@dataclass(frozen=True, slots=True)
class Impair:
    """Do that to what the interface sends, and nothing else; None: nothing at all."""

    impairment: Impairment | None


@dataclass(frozen=True, slots=True)
class SetRemote:
    """Have a tunnel end at another node."""

    remote: Host


@dataclass(frozen=True, slots=True)
class SetLocal:
    """Have a tunnel's end send from an address; the unspecified one for the kernel's choice."""

    local: Host


@dataclass(frozen=True, slots=True)
class Plug:
    """Plug the cable in: the interface has its carrier."""


@dataclass(frozen=True, slots=True)
class Unplug:
    """Pull the cable out: the interface stays as it is, without its carrier."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Have an interface whose far end is up show no carrier, and send nothing."""


@dataclass(frozen=True, slots=True)
class Release:
    """Undo `Hold`."""


# What one message of rtnetlink(7) says of an interface, and what takes several.
Attribute = (
    HandOver | AddAddress | RemoveAddress | SetMtu | SetMac | SetRemote | SetLocal | Plug | Unplug
)
Setting = Attribute | Impair | Hold | Release
Change = Remove | Make | Setting


def changes(
    wanted: Interface, found: Found | None, *, is_same: bool, given: Interface | None = None
) -> tuple[Change, ...]:
    """Return what brings an interface of ours to its specification, in order.

    `is_same` says whether what was found is of the wanted medium. `given` is the specification that
    Ratchet has brought about last, None when this process has not.
    """
    if found is None:
        return (Make(), *settings(wanted))
    if not is_same:
        return (Remove(), Make(), *settings(wanted))
    if found.label is None:
        return tuple(_lacking(wanted, found))
    return tuple(_said_anew(wanted, found, given))


def settings(wanted: Interface) -> tuple[Setting, ...]:
    """Return what an interface that was just made still lacks."""
    return tuple(_lacking(wanted, Found(wanted.ifname, 0, None, ours=True, up=False)))


def _lacking(wanted: Interface, found: Found) -> Iterable[Setting]:
    """Give what has to be done before an end is handed over."""
    if wanted.mtu_bytes not in (None, found.mtu_bytes):
        yield SetMtu(int(wanted.mtu_bytes or 0))
    yield HandOver(wanted.label)
    for address in sorted(found.given - {wanted.address}, key=str):
        yield RemoveAddress(address)
    if wanted.address is not None and wanted.address not in found.addresses:
        yield AddAddress(wanted.address)
    yield from _sending(wanted, found, found.impairment)


def _said_anew(wanted: Interface, found: Found, given: Interface | None) -> Iterable[Setting]:
    """Give what the links say of an end that was handed over, and had not said before."""
    if given is not None and wanted.mtu_bytes not in (None, given.mtu_bytes):
        yield SetMtu(int(wanted.mtu_bytes or 0))
    if given is not None and wanted.mac != given.mac:
        yield SetMac(wanted.mac)
    if not found.label or not found.label.is_of(wanted.label):
        yield HandOver(wanted.label)
    old = sorted(found.given - {wanted.address}, key=str)
    for address in old:
        yield RemoveAddress(address)
    is_new = bool(old) or (given is not None and given.address != wanted.address)
    if is_new and wanted.address is not None and wanted.address not in found.addresses:
        yield AddAddress(wanted.address)
    yield from _sending(wanted, found, (found if given is None else given).impairment)


def _sending(wanted: Interface, found: Found, before: Impairment | None) -> Iterable[Setting]:
    """Give what is to be done about what an interface sends; `before` it was impaired like that."""
    if isinstance(wanted.medium, Veth):
        # A leg that was held keeps its mode when it moves, and loses its discipline.
        is_held = found.is_held or (found.label is None and found.is_dormant)
        if wanted.is_pulled or (wanted.is_pulled is None and is_held):
            # By the discipline it is known later, too: the mode may be the pod's own doing then.
            if not found.is_held:
                yield Hold()
            return
        if is_held:
            yield Release()
            if wanted.impairment is not None:
                yield Impair(wanted.impairment)
            return
    elif wanted.is_pulled and found.label is None:
        yield Unplug()
    if wanted.impairment != before:
        yield Impair(wanted.impairment)


def operation(done: Iterable[Change]) -> str | None:
    """Return the name under which changes are counted; None when there were none."""
    kinds = {type(one) for one in done}
    if Make in kinds:
        return "replace" if Remove in kinds else "make"
    return "mend" if kinds else None


def hardware_address(pod: PodKey, ifname: str) -> str:
    """Return the MAC address of an end, which stays when the end is made again.

    The far pod goes on using the one that it has learnt, for half a minute and more (arp(7)): with
    another one a pod that comes back could not be reached for so long. Locally administered.
    """
    digest = hashlib.sha256(f"{pod.namespace}:{pod.name}/{ifname}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])
