"""What should be, what is, and the difference. Pure: no etcd, no netlink, no clock.

`wanted` says which ends a pod should have, from what its own labels declare, what others have
declared on it, and where each far pod is. `compare` sets those against the interfaces found in the
pod's namespace. Both are computed anew each time: a bell, a restart and a lost event all end here.

When two links want the same interface of a pod, the pod's own goes before others' and earlier
declarations before later ones, so that nobody can take over a link that exists. Both nodes of a
link see the same order, as it is etcd's. Two declarations that say the same from both sides ("both
pods are primary") are one link.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ratchet.cni.ip import Address, Host
from ratchet.links import Link
from ratchet_child.model.keys import PodKey

Form = tuple[object, ...]

NEVER = 2**63  # etcd's index of something that etcd has not heard of yet


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod is: its container, and the address of its node."""

    container: str
    address: str


@dataclass(frozen=True, slots=True)
class DeclaredLink:
    """A link with its primary, as far as this node knows it.

    `vni` is None until one has been taken (a link inside one node needs none). `created` is etcd's
    index of the declaration, NEVER when it is only known from a record of this node. `refused` is
    the pair's container, if that has another link at the interface.
    """

    primary: PodKey
    link: Link
    vni: int | None = None
    created: int = NEVER
    refused: str = ""

    @property
    def pair(self) -> PodKey:
        return self.primary.sibling(self.link.pair)

    @property
    def cable(self) -> frozenset[tuple[PodKey, str]]:
        """The two ends that it joins, whoever has declared it."""
        return frozenset(
            ((self.primary, self.link.ifname), (self.pair, self.link.pair_ifname)),
        )

    def __str__(self) -> str:
        return f"{self.primary}:{self.link.ifname}"


@dataclass(frozen=True, slots=True)
class Side:
    """One link as one of its two pods sees it."""

    declared: DeclaredLink
    ifname: str
    address: Address | None
    peer: PodKey
    peer_ifname: str
    peer_address: Address | None

    @classmethod
    def of(cls, declared: DeclaredLink, pod: PodKey) -> Side:
        link = declared.link
        if declared.primary == pod:
            return cls(
                declared,
                link.ifname,
                link.address,
                declared.pair,
                link.pair_ifname,
                link.pair_address,
            )
        return cls(
            declared,
            link.pair_ifname,
            link.pair_address,
            declared.primary,
            link.ifname,
            link.address,
        )


@dataclass(frozen=True, slots=True)
class Veth:
    """An end whose far end is on this node."""

    side: Side

    @property
    def form(self) -> Form:
        """What the kernel must know of it: equal forms need no change."""
        side = self.side
        return (side.ifname, side.address, side.peer, side.peer_ifname, side.peer_address)


@dataclass(frozen=True, slots=True)
class Vxlan:
    """An end whose far end is on the node with the address `remote`."""

    side: Side
    vni: int
    remote: Host

    @property
    def form(self) -> Form:
        """What the kernel must know of it: equal forms need no change."""
        return (self.side.ifname, self.side.address, self.vni, self.remote)


End = Veth | Vxlan


@dataclass(frozen=True, slots=True)
class Waiting:
    """A link whose end cannot be made yet, or not at all: `error` then says why.

    `is_taken`: because the pod's own interface has another use.
    """

    side: Side
    error: str | None = None
    is_taken: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    ends: tuple[End, ...]
    waiting: tuple[Waiting, ...]


def wanted(
    pod: PodKey,
    node_address: str,
    declared: Iterable[DeclaredLink],
    places: Mapping[PodKey, Place],
    rivals: Mapping[str, DeclaredLink],
    reserved: Collection[str] = (),
) -> Wanted:
    """The ends that `pod`, which is on this node, should have.

    `declared` are the links that it declares or that are declared on it; `places` the pods that
    are there; `rivals` the links that have the far end of the pod's own ones, by own ifname;
    `reserved` interfaces that no link may have, whoever declares it.
    """
    ends: list[End] = []
    waiting: list[Waiting] = []
    taken: dict[str, Side] = {}
    for side in _in_order(pod, declared):
        if side.ifname in reserved:
            why = f"interface {side.ifname} of {pod} is the runtime's"
            waiting.append(Waiting(side, why, is_taken=True))
            continue
        holder = taken.get(side.ifname)
        if holder is not None:
            why = _taken(side.ifname, pod, holder.declared)
            waiting.append(Waiting(side, why, is_taken=True))
            continue
        taken[side.ifname] = side
        rival = rivals.get(side.ifname)
        if (
            rival is not None
            and side.declared.primary == pod
            and rival.cable != side.declared.cable
        ):
            waiting.append(Waiting(side, _taken(side.peer_ifname, side.peer, rival)))
            continue
        place = places.get(side.peer)
        if place is None:
            waiting.append(Waiting(side))
        elif place.address == node_address:
            ends.append(Veth(side))
        elif side.declared.primary == pod and side.declared.refused == place.container:
            waiting.append(
                Waiting(
                    side,
                    f"interface {side.peer_ifname} of {side.peer} is the end of a link of its own,"
                    " or the runtime's",
                )
            )
        elif side.declared.vni is None:
            waiting.append(Waiting(side))
        else:
            remote = _ip(place.address)
            if remote is None:
                waiting.append(
                    Waiting(
                        side,
                        f"the node of {side.peer} has published {place.address[:64]!a} as its"
                        " parent_address, which is not an IP address of a node",
                    )
                )
            else:
                ends.append(Vxlan(side, side.declared.vni, remote))
    return Wanted(tuple(ends), tuple(waiting))


def first_at(ifname: str, offers: Iterable[DeclaredLink]) -> DeclaredLink | None:
    """Which of the links that others declare on a pod has its interface `ifname`."""
    return min(
        (one for one in offers if one.link.pair_ifname == ifname),
        key=lambda one: (one.created, _seniority(one)),
        default=None,
    )


def _taken(ifname: str, pod: PodKey, holder: DeclaredLink) -> str:
    return f"interface {ifname} of {pod} is the end of the link {holder} already"


def _in_order(pod: PodKey, declared: Iterable[DeclaredLink]) -> list[Side]:
    """Each cable once, own links first, then by age."""
    by_cable: dict[frozenset[tuple[PodKey, str]], DeclaredLink] = {}
    for one in declared:
        other = by_cable.get(one.cable)
        if other is None or _seniority(one) < _seniority(other):
            by_cable[one.cable] = one
    ordered = sorted(
        by_cable.values(), key=lambda one: (one.primary != pod, one.created, _seniority(one))
    )
    return [Side.of(one, pod) for one in ordered]


def _seniority(declared: DeclaredLink) -> tuple[PodKey, str]:
    """Which of two declarations of one cable counts: the same on every node, at any time."""
    return declared.primary, declared.link.ifname


def _ip(text: str) -> Host | None:
    """The address of one other node; None for anything else, which etcd may well hold."""
    try:
        found = Host.parse(text)
    except ValueError:
        return None
    strange = found.is_unspecified or found.is_multicast or found.is_loopback
    return None if strange or str(found) == "255.255.255.255" else found


@dataclass(frozen=True, slots=True)
class Found:
    """An interface in a pod's namespace."""

    ifname: str
    index: int
    kind: str | None  # IFLA_INFO_KIND: veth, vxlan, ...; None for a device without one
    ours: bool  # it carries Ratchet's mark
    up: bool
    addresses: frozenset[Address]
    peer_index: int | None = None  # veth: IFLA_LINK
    peer_nsid: int | None = None  # veth: IFLA_LINK_NETNSID, -1 when the kernel gives none
    vni: int | None = None
    remote: Host | None = None
    port: int | None = None
    lower: int | None = None  # vxlan: index of the lower device, in the node's namespace


class Step(enum.Enum):
    """What has to be done for one wanted end."""

    NOTHING = "nothing"
    MAKE = "make"
    MEND = "mend"  # bring up, add the address
    REPLACE = "replace"
    REFUSE = "refuse"  # somebody else's interface has the name


def compare(
    end: End, found: Found | None, *, paired: bool, port: int, lower: int | None = None
) -> Step:
    """The step that brings `found` to `end`.

    `paired` says, for a veth, whether the kernel joins it to the wanted far end; `port` and `lower`
    are this node's, for a vxlan.
    """
    if found is None:
        return Step.MAKE
    if not found.ours:
        return Step.REFUSE
    if isinstance(end, Veth):
        right = found.kind == "veth" and paired
    else:
        right = (
            found.kind == "vxlan"
            and found.vni == end.vni
            and found.remote == end.remote
            and found.port == port
            and found.lower == lower
        )
    if not right:
        return Step.REPLACE
    return Step.NOTHING if is_mended(end.side.address, found) else Step.MEND


def hardware_address(pod: PodKey, ifname: str) -> str:
    """The MAC address of an end, which stays when the end is made again.

    The far pod goes on using the one that it has learnt, for half a minute and more (arp(7)): with
    another one a pod that comes back could not be reached for so long. Locally administered.
    """
    digest = hashlib.sha256(f"{pod.namespace}:{pod.name}/{ifname}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])


def is_mended(address: Address | None, found: Found) -> bool:
    """Whether an end is up and has its address; further addresses are the user's."""
    return found.up and (address is None or address in found.addresses)


def superfluous(wanted: Wanted, found: Iterable[Found]) -> list[Found]:
    """Interfaces with Ratchet's mark that no wanted end accounts for."""
    names = {end.side.ifname for end in wanted.ends}
    return [one for one in found if one.ours and one.ifname not in names]
