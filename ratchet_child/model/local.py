"""This node, a pod that is attached on it, and what is remembered of that pod.

The nouns that the pairing and its pieces share; no work is done in here. `Memory` only saves
requests: with an empty one everything is read again.
"""

from __future__ import annotations

from ratchet.cni.dataclasses import dataclass, field
from ratchet.config import DEFAULT_MAX_LINKS
from ratchet.links import Link
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import DeclaredLink, Place


@dataclass(frozen=True, slots=True)
class Node:
    """This node's end of all tunnels.

    `address` is empty when there is none, for the reason in `why_without`: such a node publishes
    nothing and has only the links inside it. `index` is the lower device's in the kernel, None when
    it is not there or the tunnels have none (`is_routed`: the node's routes lead them). `is_own`:
    an interface has the address, which otherwise is translated on its way.
    """

    address: str
    interface: str
    state_dir: str = ""
    mtu_bytes: int | None = None  # of links that say nothing about it; None: the kernel's choice
    max_links: int = DEFAULT_MAX_LINKS  # of one pod, whoever has declared them
    index: int | None = None
    is_routed: bool = False
    is_own: bool = False
    why_without: str = ""
    machine: str = ""  # its identity, empty where there is none
    host: str = ""  # the machine's name, for people


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod that is attached on this node."""

    key: PodKey
    container: str
    links: tuple[Link, ...]
    stands_by: bool = False  # it takes no name from a pod that is there

    def links_with(self, peer: PodKey) -> list[Link]:
        """Return those of its own links whose pair is `peer`."""
        return [link for link in self.links if link.pair == peer.name]


@dataclass(slots=True)
class Memory:
    """What this process has written and read for one pod."""

    published: bool = False
    superseded: bool = False
    yields: bool = False  # it was superseded once: a later container may have that name
    stands_by: bool = False  # it is superseded because it stands by
    own: dict[str, DeclaredLink] = field(default_factory=dict)  # links that it declares, by ifname
    incoming: list[DeclaredLink] = field(
        default_factory=list
    )  # links that others declare on the pod
    reserved: list[DeclaredLink] = field(
        default_factory=list
    )  # links that others have declared on the pod before they went, and may declare again
    places: dict[PodKey, Place] = field(default_factory=dict)  # pods on other nodes
    rivals: dict[str, DeclaredLink] = field(
        default_factory=dict
    )  # who has the far end, by own ifname
    known: set[PodKey] = field(default_factory=set)  # peers that have been looked up
    beside: set[PodKey] = field(default_factory=set)  # peers that were on this node then
    deaf: set[PodKey] = field(default_factory=set)  # peers whose nodes ring no bells
    kept: set[PodKey] = field(default_factory=set)  # primaries of ends that nobody declares
    unheard: bool = False  # something was written that peers have not been told

    def give_way(self) -> None:
        """Note that another container has the name."""
        self.superseded = self.yields = True

    def stand_by(self) -> None:
        """Note that it leaves the name to another container until it is ready itself."""
        self.superseded = self.stands_by = True

    def come_forward(self) -> None:
        """Note that the name is to be published again."""
        self.published = self.superseded = self.stands_by = False
        self.own.clear()
