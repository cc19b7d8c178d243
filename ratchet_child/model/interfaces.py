"""What an interface in a pod should be, what it is, and what brings the one to the other. Pure.

An `Interface` is the whole specification of one end: its name, what carries its frames (the
medium), its addresses on both layers and its properties. Equal specifications need no change. What
the kernel has is `Found`; `changes` is the difference. Whether a found interface is of the right
medium is the question of its kind, which answers it (`kernel.kinds`), so a new kind changes nothing
in here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ratchet.cni.ip import Address, Host
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


Medium = Veth | Vxlan


@dataclass(frozen=True, slots=True)
class Interface:
    """The specification of one end.

    `address` is None for plain layer 2, `mtu_bytes` where the kernel chooses. The MAC address is
    given when the interface is made and then belongs to the pod: a bond changes it, for example.
    """

    ifname: str
    medium: Medium
    mac: str
    address: Address | None = None
    mtu_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An interface in a pod's namespace.

    `given` are those of its addresses that Ratchet has set, as far as that is known. `details` is
    what its kind has read of it, None for a kind that is not ours.
    """

    ifname: str
    index: int
    kind: str | None  # IFLA_INFO_KIND: veth, vxlan, ...; None for a device without one
    ours: bool  # it carries Ratchet's mark
    up: bool
    addresses: frozenset[Address] = frozenset()
    given: frozenset[Address] = frozenset()
    mtu_bytes: int | None = None
    details: object = None


# What can be done to an interface ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the interface that is there."""


@dataclass(frozen=True, slots=True)
class Make:
    """Make it, with its name and MAC address, down and without addresses."""


@dataclass(frozen=True, slots=True)
class SetUp:
    """Bring it up."""


@dataclass(frozen=True, slots=True)
class AddAddress:
    address: Address


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    address: Address


@dataclass(frozen=True, slots=True)
class SetMtu:
    mtu_bytes: int


Setting = SetUp | AddAddress | RemoveAddress | SetMtu
Change = Remove | Make | Setting


def changes(wanted: Interface, found: Found | None, *, is_same: bool) -> tuple[Change, ...]:
    """Return what brings an interface of ours to its specification, in order.

    `is_same` says whether what was found is of the wanted medium. Addresses that Ratchet has not
    set are the user's and stay.
    """
    if found is None:
        return (Make(), *settings(wanted))
    if not is_same:
        return (Remove(), Make(), *settings(wanted))
    return tuple(_different(wanted, found))


def settings(wanted: Interface) -> tuple[Setting, ...]:
    """Return what an interface that was just made still lacks."""
    return tuple(_different(wanted, Found(wanted.ifname, 0, None, ours=True, up=False)))


def _different(wanted: Interface, found: Found) -> Iterable[Setting]:
    if wanted.mtu_bytes not in (None, found.mtu_bytes):
        yield SetMtu(int(wanted.mtu_bytes or 0))
    if not found.up:
        yield SetUp()
    for address in sorted(found.given - {wanted.address}, key=str):
        yield RemoveAddress(address)
    if wanted.address is not None and wanted.address not in found.addresses:
        yield AddAddress(wanted.address)


def operation(done: Iterable[Change]) -> str | None:
    """Return the name under which changes are counted; None when there were none."""
    kinds = {type(one) for one in done}
    if Make in kinds:
        return "replace" if Remove in kinds else "make"
    return "mend" if kinds else None


def superfluous(wanted: Iterable[str], found: Iterable[Found]) -> list[Found]:
    """Return the interfaces with Ratchet's mark that have none of the wanted names."""
    names = set(wanted)
    return [one for one in found if one.ours and one.ifname not in names]


def hardware_address(pod: PodKey, ifname: str) -> str:
    """Return the MAC address of an end, which stays when the end is made again.

    The far pod goes on using the one that it has learnt, for half a minute and more (arp(7)): with
    another one a pod that comes back could not be reached for so long. Locally administered.
    """
    digest = hashlib.sha256(f"{pod.namespace}:{pod.name}/{ifname}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])
