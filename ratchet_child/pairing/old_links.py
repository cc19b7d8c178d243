"""Links with primaries on nodes of v0.1.0 that stay: `association/<pair>/v010/<primary>`.

v0.1.0 has room for one link on a pair, and a second old primary that names the same pair writes
over the first one's. A pair on an old node does not notice, because it has made its end by then. So
the node of a pair of ours writes each such link down when it first sees it, and the first link
stays beside the second, until its primary goes: until another container has the primary's name, or
a node of ours. v0.1.0 says no more of that.

Only the pair's node writes these keys. They go with the pair, whose next container is told of the
most recent primary, as v0.1.0's own is. Apart so that this can go with `v010`.
"""

from __future__ import annotations

from collections.abc import Callable

from ratchet import log
from ratchet.cni.dataclasses import replace
from ratchet.cni.ip import Address
from ratchet.links import Link
from ratchet.names import is_pod_name
from ratchet_child.model import keys
from ratchet_child.model.keys import OldLink, PodKey
from ratchet_child.model.links import DeclaredLink, Place
from ratchet_child.model.local import LocalPod
from ratchet_child.pairing import v010
from ratchet_child.pairing.association import place_of
from ratchet_child.store.api import Entry, Store

_DIRECTORY = "v010/"


def written(own: dict[str, Entry]) -> dict[str, OldLink]:
    """Return what is written down of old links on a pod, by the primary's name."""
    found = {}
    for name, entry in own.items():
        primary = name.removeprefix(_DIRECTORY)
        if primary == name or not is_pod_name(primary):
            continue
        try:
            found[primary] = OldLink.loads(entry.value)
        except ValueError:
            continue  # etcd is shared, and the link's own words may yet tell of it
    return found


def offers(pod: PodKey, own: dict[str, Entry]) -> list[DeclaredLink]:
    """Return the old links on a pod that are written down, whatever has become of them."""
    return [_offer(pod, primary, one) for primary, one in written(own).items()]


class OldLinks:
    """Every method talks to etcd and raises StoreError when it cannot."""

    def __init__(self, store: Store, is_local: Callable[[PodKey], bool]) -> None:
        """`is_local` is that of `Pairing`."""
        self._store = store
        self._is_local = is_local

    def standing(
        self, pod: LocalPod, own: dict[str, Entry], found: list[DeclaredLink]
    ) -> list[DeclaredLink]:
        """Return those of the links declared on a pod that are no traces, and write old ones down.

        v0.1.0 removes nothing: what its words tell of a pod that is on a node of ours now is over.
        Where a node was set back to v0.1.0, it is the declarations that are over.
        """
        standing = [one for one in found if not v010.is_v010_only(one)]
        told = _told(pod.key, own, standing)
        before = written(own)
        contradicts = told is not None and self._contradicts(told, standing)
        if told is not None and contradicts and self._old_place(told.primary)[0]:
            log.debug("a declaration of a node that is set back", pod=pod.key, link=told)
            standing = [one for one in standing if one.primary != told.primary]
            found = [*found, told]
        for offer in found:
            if not v010.is_v010_only(offer):
                continue
            is_old, place = self._old_place(offer.primary)
            if not is_old:
                continue
            one = before.get(offer.primary.name)
            if one is not None and place is not None and _is_of(one, pod, place):
                link = _offer(pod.key, offer.primary.name, one)  # it never changes
            elif told is not None and offer.primary == told.primary:
                link = told
                if place is not None:
                    self._write(pod, told, place)
            else:
                continue
            why = no_primarys_end(pod.key, link.primary, link.link.pair_address)
            standing.append(replace(link, no_far_end=why))
        stays = {one.primary.name for one in standing if v010.is_v010_only(one)}
        self._remove(pod.key, own, set(before) - stays)
        return standing

    def forget(self, pod: PodKey, container: str, own: dict[str, Entry]) -> None:
        """Remove what was written down for a container of a pod, which goes."""
        gone = {name for name, one in written(own).items() if one.container == container}
        self._remove(pod, own, gone)

    def _contradicts(self, told: DeclaredLink, declared: list[DeclaredLink]) -> bool:
        """Say whether a pod that has declarations is the primary of another link in v0.1.0's words.

        With our nodes that is so for a moment, while a link gets another VNI.
        """
        vnis = {one.vni for one in declared if one.primary == told.primary}
        return bool(vnis) and told.vni not in vnis

    def _old_place(self, primary: PodKey) -> tuple[bool, Place | None]:
        """Say whether a pod is on no node of ours, as far as is known, and where it is then."""
        if self._is_local(primary):
            return False, None
        there, _ = self._store.tree(keys.association(primary))
        return not v010.is_ours(self._store, primary, there), place_of(there)

    def _write(self, pod: LocalPod, offer: DeclaredLink, place: Place) -> None:
        link = OldLink(
            container=pod.container,
            primary_container=place.container,
            vni=offer.vni or 0,
            pair_ifname=offer.link.pair_ifname,
            pair_address=offer.link.pair_address,
            since=offer.created,
        )
        self._store.set(keys.old_link(pod.key, offer.primary.name), link.dumps())

    def _remove(self, pod: PodKey, own: dict[str, Entry], primaries: set[str]) -> None:
        for name in sorted(primaries):
            entry = own[f"{_DIRECTORY}{name}"]
            self._store.remove(keys.old_link(pod, name), entry.modified)
            log.info("a link with an old node is over", pod=pod, primary=name)
        if primaries:
            self._store.prune(keys.old_links(pod))


def no_primarys_end(pair: PodKey, primary: PodKey, address: Address | None) -> str:
    """Return why an old primary makes no end of its link with a pair of ours; empty if it can."""
    node = f"the node of {primary} runs Ratchet CNI v0.1.0, which"
    if len(pair.name) == 1:
        return f"{node} takes a name of one letter, such as {pair}, for none"
    if address is None:
        return f"{node} makes no link without addresses"
    return ""


def _told(pod: PodKey, own: dict[str, Entry], declared: list[DeclaredLink]) -> DeclaredLink | None:
    """Return the link of v0.1.0's words on a pod; None for a mixture of two that were written."""
    told = v010.offer(pod, own)
    if told is None or v010.is_half_written(own):
        return None
    # A node of ours may have written its VNI between an old one's words, whose own is lost then.
    is_mixed = any(one.vni == told.vni and one.primary != told.primary for one in declared)
    return None if is_mixed else told


def _offer(pod: PodKey, primary: str, one: OldLink) -> DeclaredLink:
    link = Link(v010.UNTOLD, None, pod.name, one.pair_ifname, one.pair_address)
    return DeclaredLink(pod.sibling(primary), link, one.vni, one.since)


def _is_of(one: OldLink, pod: LocalPod, place: Place) -> bool:
    """Say whether both pods of an old link are still the ones that it was written down for."""
    return one.container == pod.container and one.primary_container == place.container
