"""Links as a node knows them: where pods are, who declared what, which declaration counts. Pure.

When two links want the same interface of a pod, the pod's own goes before others' and earlier
declarations before later ones, so that nobody can take over a link that exists. Both nodes of a
link see the same order, as it is etcd's. Two declarations that say the same from both sides ("both
pods are primary") are one link.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ratchet.cni.ip import Address
from ratchet.impairment import Impairment
from ratchet.links import Link
from ratchet_child.model.keys import PodKey

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

    @property
    def name(self) -> str:
        """The link's name within the namespace of its pods."""
        return f"{self.primary.name}:{self.link.ifname}"

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
    mac: str | None = None
    impairment: Impairment | None = None

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
                link.mac,
                link.impairment,
            )
        return cls(
            declared,
            link.pair_ifname,
            link.pair_address,
            declared.primary,
            link.ifname,
            link.address,
            link.pair_mac,
            link.pair_impairment,
        )


def first_at(ifname: str, offers: Iterable[DeclaredLink]) -> DeclaredLink | None:
    """Return which of the links that others declare on a pod has its interface `ifname`."""
    return min(
        (one for one in offers if one.link.pair_ifname == ifname),
        key=lambda one: (one.created, _seniority(one)),
        default=None,
    )


def in_order(pod: PodKey, declared: Iterable[DeclaredLink]) -> list[Side]:
    """Return each cable once, own links first, then by age."""
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
    """Rank the declarations of one cable, in the same way on every node and at any time."""
    return declared.primary, declared.link.ifname
