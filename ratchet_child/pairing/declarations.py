"""Declarations: every link of every primary, as `association/<pair>/links/<primary>:<ifname>`.

The primary's node writes and removes them; the pair's node may refuse one or give it another VNI,
always by compare-and-swap, so that neither undoes what the other has written. With a declaration go
the claim on its VNI and its copy for nodes of v0.1.0. Where pods are is not known in here, and
nobody is rung: callers do that when all is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from ratchet import log
from ratchet.cni.dataclasses import replace
from ratchet.errors import StoreError
from ratchet.links import Link, Override
from ratchet_child.model import keys
from ratchet_child.model.keys import Declaration, PodKey
from ratchet_child.model.links import DeclaredLink, Place
from ratchet_child.model.local import LocalPod
from ratchet_child.pairing import v010
from ratchet_child.pairing.association import declared_by, place_of, readable, take_down
from ratchet_child.pairing.v010 import V010Keys
from ratchet_child.pairing.vni import Vnis
from ratchet_child.store.api import Entry, Get, Remove, Store, Swap, Tree

RESERVED_S = 600  # for how long a link keeps its VNI when its primary has gone


class Declarations:
    """Every method that talks to etcd raises StoreError when it cannot."""

    def __init__(
        self,
        store: Store,
        v010_keys: V010Keys,
        vnis: Vnis,
        claimed_earlier: Callable[[PodKey], tuple[str, int] | None],
        *,
        is_ours: Callable[[str], bool],
    ) -> None:
        """Keep the parts; `claimed_earlier` is that of `Pairing`, `is_ours` tells of a node."""
        self._store = store
        self._vnis = vnis
        self._v010_keys = v010_keys
        self._claimed_earlier = claimed_earlier
        self._is_ours = is_ours
        self._begun: dict[str, int] = {}  # how often, of each container
        # Containers of which this process knows every claim: none can be a crash's.
        self._fresh: set[str] = set()

    def begin(self, pod: LocalPod) -> None:
        """Take down that a container's links are about to be declared: all of them, maybe again."""
        times = self._begun[pod.container] = self._begun.get(pod.container, 0) + 1
        earlier = self._claimed_earlier(pod.key)
        if times == 1 and (earlier is None or earlier[0] != pod.container):
            self._fresh.add(pod.container)

    def end(self, pod: PodKey, container: str, reserved: Collection[int]) -> None:
        """Give back what may still be claimed for a container, but VNIs that stay reserved."""
        self._begun.pop(container, None)
        if container in self._fresh:
            self._fresh.discard(container)
        else:
            self._vnis.release_all(container, partial(keys.is_link_of, pod), but=reserved)

    # Declare ------------------------------------------------------------------------------------

    def declare(self, pod: LocalPod, link: Link, *, for_v010: bool) -> DeclaredLink | None:
        """Write a declaration, or take over one; None when the pod is superseded."""
        try:
            return self._declare(pod, link, for_v010=for_v010)
        except StoreError:
            self._fresh.discard(pod.container)  # it may have been claimed all the same
            raise

    def _declare(self, pod: LocalPod, link: Link, *, for_v010: bool) -> DeclaredLink | None:
        pair = pod.key.sibling(link.pair)
        key = keys.declaration(pair, pod.key.name, link.ifname)
        # After a restart, and when a request went unanswered, it may stand there already.
        again = pod.container not in self._fresh
        found = self._store.get(key) if again or self._begun[pod.container] > 1 else None
        while True:
            if found is None:
                vni = self._vnis.take(pod.container, key, again=again)
                entry = self._store.create(key, Declaration(pod.container, vni, link).dumps())
                if entry is None:
                    self._vnis.release(vni, pod.container, key)
            elif self._is_heir(pod, link, key, found):
                vni, entry = self._adopt(pod, link, key, found)
            else:
                return None
            if entry is not None:
                break
            found = self._store.get(key)
        if for_v010:
            told = Declaration(pod.container, vni, link)
            if entry is not found or not self._v010_keys.stand(pod.key, pair, told):
                self._v010_keys.write(pod.key, pair, told)
        log.info("declared", pod=pod.key, container=pod.container, link=link.ifname, vni=vni)
        written = None if found is None else readable(pod.key, key, entry, link.pair)
        override = None if written is None else written.override
        return DeclaredLink(pod.key, link, vni, entry.created, override=override)

    def _is_heir(self, pod: LocalPod, link: Link, key: str, found: Entry) -> bool:
        """Say whether a declaration is an earlier container's and not the one's that came after.

        Each container writes its ID before it declares, so the ID, read after the declaration, is
        that of the later one.
        """
        if readable(pod.key, key, found, link.pair) is None:
            return True
        current = self._store.get(keys.container(pod.key))
        return current is None or current.value == pod.container

    def _adopt(self, pod: LocalPod, link: Link, key: str, found: Entry) -> tuple[int, Entry | None]:
        """Take over a declaration of the same link, with its VNI: no entry when it has changed."""
        old = readable(pod.key, key, found, link.pair)
        if old is not None and self._vnis.claim_again(
            old.vni,
            pod.container,
            key,
            predecessor=None if old.container == pod.container else old.container,
        ):
            vni = old.vni
        else:
            vni = self._vnis.take(pod.container, key)
        is_same = old is not None and old.link == link
        refused = old.refused if old and is_same else ""
        # What was set of a link lasts as long as its primary's container.
        is_own = old is not None and old.container == pod.container
        override = old.override if old is not None and is_own else None
        new = Declaration(pod.container, vni, link, refused, override=override)
        if new == old:
            return vni, found
        if pod.container not in self._fresh:
            # It may have claimed another one before it found the declaration there.
            self._vnis.release_all(pod.container, lambda one: one == key, but=(vni,))
        entry = self._store.swap(key, new.dumps(), found.modified)
        if entry is None:
            self._vnis.release(vni, pod.container, key)
        return vni, entry

    # Check --------------------------------------------------------------------------------------

    def check(
        self, pod: LocalPod, link: Link, there: dict[str, Entry], known: DeclaredLink | None
    ) -> tuple[DeclaredLink, Declaration] | None:
        """Return a link as it stands among its pair's keys; None when it is to be declared again.

        `known` is what was declared, None when it is not known. The far node may have renumbered it
        meanwhile: then the claim becomes this container's.
        """
        pair = pod.key.sibling(link.pair)
        key = keys.declaration(pair, pod.key.name, link.ifname)
        entry = there.get(key.removeprefix(f"{keys.association(pair)}/"))
        written = readable(pod.key, key, entry, link.pair)
        if entry is None or written is None or written.container != pod.container or known is None:
            return None
        if known.vni != written.vni:
            self._fresh.discard(pod.container)
            self._vnis.claim_again(written.vni, pod.container, key)
        current = replace(written, link=link)
        return declared_by(pod.key, current, entry), current

    # Answer -------------------------------------------------------------------------------------

    def refuse(self, pod: LocalPod, offer: DeclaredLink, *, refused: bool) -> DeclaredLink | None:
        """Write into a link declared on the pod that it is refused, or no longer.

        None when that cannot be told: v0.1.0 would not hear of it, and where the primary's node has
        changed the declaration it will ring.
        """
        if v010.is_v010_only(offer):
            return None
        key = keys.declaration(pod.key, offer.primary.name, offer.link.ifname)
        entry = self._store.get(key)
        written = readable(pod.key, key, entry, pod.key.name)
        if entry is None or written is None or written.gone or written.link != offer.link:
            return None
        answer = replace(written, refused=pod.container if refused else "")
        if self._store.swap(key, answer.dumps(), entry.modified) is None:
            return None
        return replace(offer, refused=answer.refused)

    def override(
        self, pod: LocalPod, declared: DeclaredLink, change: Override | None
    ) -> DeclaredLink:
        """Set something of a link on top of what it has been set to, or nothing any more: None.

        `change` is as the link's primary says it. Return the link as it is declared after that.
        """
        primary, pair = declared.primary, declared.pair
        key = keys.declaration(pair, primary.name, declared.link.ifname)
        while (entry := self._store.get(key)) is not None:
            old = readable(pod.key, key, entry, pair.name)
            if old is None or old.gone:
                break
            new = replace(old, override=None if change is None else change.after(old.override))
            if new == old or self._store.swap(key, new.dumps(), entry.modified) is not None:
                return replace(declared, override=new.override)
        return declared

    def renumber(self, pod: LocalPod, declared: DeclaredLink) -> bool:
        """Give a link the next VNI; False when the far node was first."""
        primary, pair = declared.primary, declared.pair
        key = keys.declaration(pair, primary.name, declared.link.ifname)
        entry = self._store.get(key)
        old = readable(pod.key, key, entry, pair.name)
        if entry is None or old is None or old.gone or old.vni != declared.vni:
            return False
        # Claimed in this container's name, so that it is found after a crash; the primary takes the
        # claim over when it looks.
        self._fresh.discard(pod.container)
        vni = self._vnis.take(pod.container, key)
        new = replace(old, vni=vni)
        if not self._store.swap(key, new.dumps(), entry.modified):
            self._vnis.release(vni, pod.container, key)
            return False
        for container in {old.container, pod.container}:
            self._vnis.release(old.vni, container, key)
        self._v010_keys.renumber(primary, pair, old, new)
        if self._store.get(key) is None:  # the primary has gone meanwhile
            self._vnis.release(vni, pod.container, key)
            for declaration in (old, new):
                there, _ = self._store.tree(keys.association(pair))
                self._v010_keys.remove(primary, pair, declaration, there)
        log.warning(
            "the VNI was in use on this node; another one was taken",
            pod=pod.key,
            container=pod.container,
            link=declared,
            vni=old.vni,
            taken=vni,
        )
        return True

    # Undeclare ----------------------------------------------------------------------------------

    def undeclare(
        self,
        primary: PodKey,
        container: str,
        pair: PodKey,
        ifname: str,
        places: dict[PodKey, Place],
        *,
        reserve: bool = False,
    ) -> int | None:
        """Take back a declaration, if it is the container's, and note where the pair is.

        `reserve`: the primary has gone and may come back. While its pair is there the VNI is kept
        for the link, as the pair's end has it for good. Return the VNI that is.
        """
        key = keys.declaration(pair, primary.name, ifname)
        reserved: int | None = None
        removed = False
        (there, _), entry = self._store.together(Tree(keys.association(pair)), Get(key))
        take_down(pair, there, places)
        while entry is not None:
            declaration = readable(primary, key, entry, pair.name)
            if declaration is None or declaration.container != container:
                break
            place = place_of(there) if reserve else None
            # A pair on a v0.1.0 node keeps no end, and nobody there would give the VNI back.
            if place is not None and self._is_ours(place.address):
                if declaration.gone:
                    return declaration.vni
                self._vnis.reserve(declaration.vni, container, key, RESERVED_S)
                reserved = declaration.vni
                self._v010_keys.remove(primary, pair, declaration, there)
                kept = replace(declaration, refused="", gone=True)
                # A pair that goes at this moment looks for what is reserved on it before that, or
                # is seen to have gone after it.
                written, (there, _) = self._store.together(
                    Swap(key, kept.dumps(), entry.modified, RESERVED_S),
                    Tree(keys.association(pair)),
                )
                entry = written or self._store.get(key)
                continue
            self._vnis.release(declaration.vni, container, key)
            self._v010_keys.remove(primary, pair, declaration, there)
            removed, (there, _) = self._store.together(
                Remove(key, entry.modified), Tree(keys.association(pair))
            )
            if removed:  # the far node may have written the v0.1.0 keys meanwhile: `renumber`
                self._v010_keys.remove(primary, pair, declaration, there)
                reserved = None
                break
            entry = self._store.get(key)
        else:
            self._v010_keys.remove_late(primary, pair, there)
        if reserved is not None:  # the next container was faster, and may have another VNI
            self._vnis.release(reserved, container, key)
        if entry is not None and not removed:
            return None
        if self._store.prune(keys.declarations(pair)) or entry is None:
            self._store.prune(keys.association(pair))
        return None

    def give_back(self, pair: PodKey, there: dict[str, Entry]) -> None:
        """Give back the VNIs that are reserved on a pod, which goes as well."""
        for name, entry in there.items():
            if not name.startswith("links/"):
                continue
            key = f"{keys.association(pair)}/{name}"
            try:
                declaration = Declaration.loads(entry.value, pair.name)
            except ValueError:
                continue  # there may be thousands: `IncomingLinks` has told of them
            if declaration.gone:
                self._vnis.release(declaration.vni, declaration.container, key)
                self._store.remove(key, entry.modified)
                self._store.prune(keys.declarations(pair))
