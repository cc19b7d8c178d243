"""What nodes of v0.1.0 have written of all links, and what follows from it for ours.

They ring no bells and claim no VNIs. But each primary of theirs writes the counter of VNIs without
comparing, which gives that key another index of creation. So one request tells whether an old node
has declared anything since the last one, and only then all links are listed. Its own words for the
link come some moments after the counter, so they are listed twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratchet.cni.dataclasses import dataclass, field
from ratchet.links import Link
from ratchet_child.model import keys
from ratchet_child.model.keys import PodKey
from ratchet_child.pairing import old_links
from ratchet_child.pairing.association import value_of
from ratchet_child.store.api import Entry, Store

_LOOKS = 2


@dataclass(frozen=True, slots=True)
class Words:
    """All that stands in v0.1.0's words at one moment, written by old nodes or by ours for them."""

    vnis: Mapping[PodKey, int] = field(default_factory=dict)  # of the link on a pair
    told: Mapping[PodKey, str] = field(default_factory=dict)  # pair: the primary's name
    primaries: Mapping[PodKey, int] = field(default_factory=dict)  # etcd's index of the newest
    # What nodes of ours have written down of it: primaries with their containers, and VNIs.
    containers: frozenset[tuple[PodKey, str]] = frozenset()
    old_vnis: frozenset[int] = frozenset()

    @property
    def every_vni(self) -> frozenset[int]:
        """The VNIs that old links have, and those of ours that old nodes have been told of."""
        return self.old_vnis | frozenset(self.vnis.values())

    @classmethod
    def read(cls, entries: Mapping[str, Entry]) -> Words:
        """Read all that stands below `association`; what makes no sense is passed over."""
        vnis: dict[PodKey, int] = {}
        told: dict[PodKey, str] = {}
        primaries: dict[PodKey, int] = {}
        containers: set[tuple[PodKey, str]] = set()
        old_vnis: set[int] = set()
        for name, entry in entries.items():
            pod, _, word = name.partition("/")
            is_old_link = word.startswith("v010/")
            if not is_old_link and word not in ("vxlanid", "primaryname"):
                continue
            try:
                pair = PodKey.parse(pod)
            except ValueError:
                continue
            if word == "vxlanid":
                if is_number(entry.value):
                    vnis[pair] = int(entry.value)
            elif word == "primaryname":
                told[pair] = entry.value
                primary = pair.sibling(entry.value)
                primaries[primary] = max(entry.modified, primaries.get(primary, 0))
            else:
                for primary_name, link in old_links.written({word: entry}).items():
                    containers.add((pair.sibling(primary_name), link.primary_container))
                    old_vnis.add(link.vni)
        return cls(vnis, told, primaries, frozenset(containers), frozenset(old_vnis))


class OldNodes:
    """Every method that talks to etcd raises StoreError when it cannot. *Safe in many threads.*"""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listed: tuple[int, int] = 0, 0  # the counter's index of creation, and how often
        self.words = Words()

    def heard(self, counter: Entry | None, looks: int = 1) -> Words:
        """Return what stands there, listed anew if the counter tells of something new.

        `looks`: as often as that, if it has not been done yet.
        """
        created, times = self._listed
        if counter is not None and (counter.created != created or times < looks):
            self.read_all()
            self._listed = counter.created, (times + 1 if counter.created == created else 1)
        return self.words

    def read_all(self) -> Words:
        """Read everything."""
        entries, _ = self._store.tree("association", recursive=True)
        self.words = Words.read(entries)
        return self.words

    def wrote(self, counter: Entry) -> None:
        """Take down that the counter is as this process has written it: that is no news."""
        if counter.created != self._listed[0]:
            self._listed = counter.created, _LOOKS

    def no_far_ends(
        self, pod: PodKey, links: list[Link], pair: PodKey, there: Mapping[str, Entry]
    ) -> list[str]:
        """Return why the links of a pod of ours with a pair on an old node have no far end.

        Empty where one can be there. `there` is what stands below the pair's association.
        v0.1.0 gives a pair one end, and none to a pod that is a primary itself.
        """
        words = self.heard(self._store.get(keys.VXLANID), _LOOKS)
        node = f"the node of {pair} runs Ratchet CNI v0.1.0, which"
        if _is_primary(words, pair, there):
            why = f"{node} makes no end for a pair that is a primary itself"
            return [why] * len(links)
        name = there.get("primaryname")
        if name is not None and name.value != pod.name and name.modified < there["id"].modified:
            return [f"{node} has made {pair} the pair of {name.value[:64]!a}"] * len(links)
        found = []
        for position, link in enumerate(links):
            if position:
                found.append(f"{node} makes one link with a pair: {pod.name}:{links[0].ifname}")
            elif link.pair_address is None:
                found.append(f"{node} makes no end without an address: give ratchet.pair_ip")
            else:
                found.append("")
        return found


def is_number(text: str) -> bool:
    """Say whether a text is a number that may be a VNI: longer ones Python does not even read."""
    return text.isascii() and text.isdigit() and len(text) <= len(str(keys.LAST_VNI))


def _is_primary(words: Words, pod: PodKey, there: Mapping[str, Entry]) -> bool:
    """Say whether a pod on an old node was started as a primary, as far as is still known.

    v0.1.0 removes nothing: what it wrote before the pod's ID is an earlier container's.
    """
    since = there["id"].modified
    container = value_of(dict(there), "id") or ""
    return words.primaries.get(pod, 0) > since or (pod, container) in words.containers
