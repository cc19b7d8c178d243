"""Links as a node knows them: where pods are, who declared what, which declaration counts. Pure.

When two links want the same interface of a pod, the pod's own goes before others' and earlier
declarations before later ones, so that nobody can take over a link that exists. Both nodes of a
link see the same order, as it is etcd's. Two declarations that say the same from both sides ("both
pods are primary") are one link.
"""

from __future__ import annotations

from collections.abc import Iterable

from ratchet.cni.dataclasses import dataclass, replace
from ratchet.cni.ip import Address
from ratchet.impairment import Impairment
from ratchet.links import Link, Override, Uplink
from ratchet_child.model.keys import PodKey

Cable = frozenset[tuple[PodKey, str]]
"""The two ends that a link joins: a pod and an interface each."""

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
    the pair's container, if that has another link at the interface. `no_far_end` says why the node
    of the other pod makes no end of it, where that is known of a v0.1.0 node. `override` is what an
    operator has set of the link.
    """

    primary: PodKey
    link: Link
    vni: int | None = None
    created: int = NEVER
    refused: str = ""
    no_far_end: str = ""
    override: Override | None = None

    @property
    def pair(self) -> PodKey:
        return self.primary.sibling(self.link.pair)

    @property
    def cable(self) -> Cable:
        """The two ends that it joins, whoever has declared it."""
        return frozenset(
            ((self.primary, self.link.ifname), (self.pair, self.link.pair_ifname)),
        )

    @property
    def name(self) -> str:
        """The link's name within the namespace of its pods."""
        return f"{self.primary.name}:{self.link.ifname}"

    def __str__(self) -> str:
        return f"{self.primary}:{self.link.ifname}"


@dataclass(frozen=True, slots=True)
class DeclaredUplink:
    """An uplink with its pod. Nobody else knows of it."""

    primary: PodKey
    link: Uplink
    vni: None = None

    @property
    def cable(self) -> frozenset[tuple[PodKey, str]]:
        """The one end that it has at a pod."""
        return frozenset(((self.primary, self.link.ifname),))

    @property
    def name(self) -> str:
        """The uplink's name within the namespace of its pod."""
        return f"{self.primary.name}:{self.link.ifname}"

    def __str__(self) -> str:
        return f"{self.primary}:{self.link.ifname}"


@dataclass(frozen=True, slots=True)
class Side:
    """One link as one of its two pods sees it.

    `contradiction` is what its two pods have declared differently.
    """

    declared: DeclaredLink
    ifname: str
    address: Address | None
    peer: PodKey
    peer_ifname: str
    peer_address: Address | None
    mtu_bytes: int | None = None
    mac: str | None = None
    impairment: Impairment | None = None
    contradiction: str | None = None

    @classmethod
    def of(
        cls, declared: DeclaredLink, pod: PodKey, link: Link | None = None, why: str | None = None
    ) -> Side:
        """Return a pod's side; `link` is what both pods say of it, None for what `declared` says.

        `why` is their contradiction.
        """
        link = declared.link if link is None else link
        if declared.override is not None:
            link = declared.override.applied(link)
        peer = declared.pair
        if declared.primary != pod:
            link, peer = link.seen_from_pair(declared.primary.name), declared.primary
        return cls(
            declared,
            link.ifname,
            link.address,
            peer,
            link.pair_ifname,
            link.pair_address,
            link.mtu_bytes,
            link.mac,
            link.impairment,
            why,
        )

    @property
    def far(self) -> str:
        """What is at the other end, for people."""
        return str(self.peer)

    @property
    def is_pulled(self) -> bool | None:
        """Whether an operator has pulled the cable out; None when etcd has not been asked."""
        if self.declared.created == NEVER:
            return None
        return self.declared.override is not None and self.declared.override.is_down is True


@dataclass(frozen=True, slots=True)
class UplinkSide:
    """An uplink as its pod sees it."""

    declared: DeclaredUplink
    contradiction: None = None
    is_pulled: None = None

    @property
    def ifname(self) -> str:
        return self.declared.link.ifname

    @property
    def address(self) -> Address | None:
        return self.declared.link.address

    @property
    def peer_ifname(self) -> str:
        return self.declared.link.device

    @property
    def peer_address(self) -> Address | None:
        return self.declared.link.device_address

    @property
    def mtu_bytes(self) -> int | None:
        return self.declared.link.mtu_bytes

    @property
    def mac(self) -> str | None:
        return self.declared.link.mac

    @property
    def impairment(self) -> Impairment | None:
        return self.declared.link.impairment

    @property
    def far(self) -> str:
        """What is at the other end, for people."""
        return "the node"


def first_at(ifname: str, offers: Iterable[DeclaredLink]) -> DeclaredLink | None:
    """Return which of the links that others declare on a pod has its interface `ifname`."""
    return min(
        (one for one in offers if one.link.pair_ifname == ifname),
        key=lambda one: (one.created, _seniority(one)),
        default=None,
    )


def counts_before(one: DeclaredLink, other: DeclaredLink) -> bool:
    """Say which of two declarations of one cable counts, as both nodes see it."""
    return _seniority(one) < _seniority(other)


def in_order(pod: PodKey, declared: Iterable[DeclaredLink]) -> list[Side]:
    """Return each cable once, own links first, then by age."""
    by_cable: dict[Cable, DeclaredLink] = {}
    from_pairs: dict[Cable, DeclaredLink] = {}
    for one in declared:
        cable = one.cable
        other = by_cable.get(cable)
        if other is None:
            by_cable[cable] = one
            continue
        senior, junior = (one, other) if _seniority(one) < _seniority(other) else (other, one)
        by_cable[cable] = senior
        if senior.primary != junior.primary:
            from_pairs[cable] = junior
    ordered = sorted(
        by_cable.values(), key=lambda one: (one.primary != pod, one.created, _seniority(one))
    )
    sides = []
    for one in ordered:
        pairs = from_pairs.get(one.cable)
        link, why = (None, None) if pairs is None else _agreed(one, pairs)
        sides.append(Side.of(one, pod, link, why))
    return sides


def _agreed(senior: DeclaredLink, junior: DeclaredLink) -> tuple[Link, str | None]:
    """Return what the two pods of a link say of it together, and where they contradict.

    What only one of them says holds. Where they differ the senior one's word counts.
    """
    link, other = senior.link, junior.link.seen_from_pair(junior.primary.name)
    added, contradictions = {}, []
    for name, what in _COMPARED:
        own, its = getattr(link, name), getattr(other, name)
        if own is None:
            added[name] = its
        elif its not in (None, own):
            end = what.format(primary=senior.primary, pair=senior.pair)
            contradictions.append(f"{end} is {own} or {its}")
    why = None
    if contradictions:
        differ = "; ".join(contradictions)
        why = f"{senior.primary} and {junior.primary} declare this link differently: {differ}"
    return replace(link, **added), why


_COMPARED = (
    ("address", "the address of {primary}"),
    ("pair_address", "the address of {pair}"),
    ("mtu_bytes", "the MTU"),
    ("mac", "the MAC address of {primary}"),
    ("pair_mac", "the MAC address of {pair}"),
    ("impairment", "what {primary} sends"),
    ("pair_impairment", "what {pair} sends"),
)


def _seniority(declared: DeclaredLink) -> tuple[PodKey, str]:
    """Rank the declarations of one cable, in the same way on every node and at any time."""
    return declared.primary, declared.link.ifname
