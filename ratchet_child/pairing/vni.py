"""Taking VNIs (RFC 7348 §4) from the cluster's counter, so that none is ever used twice.

`vxlanid` holds the next free one, as in Ratchet CNI v0.1.0, and is advanced by compare-and-swap
only. As many as are wanted at the moment are taken at once, and some in stock where other nodes
take theirs at the same time. What is taken is claimed by a key of its own before it is used, since
an administrator (or a v0.1.0 node, which reads and writes without comparing) can set the counter
back. What is in stock when the process ends is skipped.

A v0.1.0 node claims nothing: the VNI of its link stands in `association/<pair>/vxlanid` alone. None
that stands there is taken. They are listed when the counter was written without comparing, see
`old_nodes`. An old node may yet have read before we wrote, and write after: `shared` finds that out
later.

Where all keys were removed, tunnels of old nodes stay and have their VNIs, which nobody can look up
any more. So this process follows the counter down only where it goes round, by compare-and-swap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

from ratchet import log
from ratchet.errors import StoreError
from ratchet_child.model import keys
from ratchet_child.pairing.old_nodes import OldNodes, is_number
from ratchet_child.store.api import Entry, Store

_STOCK = 8
_LOOKS = 2


class Vnis:
    """Safe to use from many threads; each call needs etcd and raises StoreError without it."""

    def __init__(
        self,
        store: Store,
        lock: AbstractContextManager[Any] | None = None,
        old_nodes: OldNodes | None = None,
    ) -> None:
        """Keep the parts; `lock` is held while the counter is moved."""
        self._store = store
        self._old_nodes = old_nodes or OldNodes(store)
        self._lock = lock or threading.Lock()
        self._count_lock = threading.Lock()
        self._wanted = 0
        self._taken: list[int] = []
        self._seen = 0, keys.FIRST_VNI  # the counter's index of creation, and the least next VNI
        self._listed = 0, 0  # for `shared`: such an index, and how often it has been listed for it
        self._shared: frozenset[int] = frozenset()

    def take(self, container: str, declaration_key: str, *, again: bool = False) -> int:
        """Claim a VNI that nobody uses for a link, and return it.

        `again`: an earlier process may have claimed one for it and ended before it was declared.
        """
        value = keys.claim_value(container, declaration_key)
        if again:
            for name, entry in self._claims().items():
                if entry.value == value:
                    return int(name)
        while True:
            vni = self._next()
            if vni in self._old_nodes.words.every_vni:
                self._advance_past_claims()
                continue
            log.debug("VNI taken", declaration=declaration_key, vni=vni)
            if self._store.create(keys.claim(vni), value):
                return vni
            self._advance_past_claims()

    def claim_again(
        self, vni: int, container: str, declaration_key: str, *, predecessor: str | None = None
    ) -> bool:
        """Claim a VNI that a link has already.

        `predecessor`: the container that has declared the link, None when that is this one. False
        when another link has claimed it meanwhile, or another heir.
        """
        value = keys.claim_value(container, declaration_key)
        if self._store.create(keys.claim(vni), value):
            return True
        while (entry := self._store.get(keys.claim(vni))) is not None:
            if entry.value == value:
                return True
            claimer, _, claimed_for = entry.value.partition(" ")
            if claimed_for != declaration_key or predecessor not in (None, claimer):
                return False
            if self._store.swap(keys.claim(vni), value, entry.modified) is not None:
                return True
        return self._store.create(keys.claim(vni), value) is not None

    def release(self, vni: int, container: str, declaration_key: str) -> None:
        """Give a VNI back. *Safe to call twice*; never harms another container's claim."""
        self._store.remove_value(keys.claim(vni), keys.claim_value(container, declaration_key))

    def reserve(self, vni: int, container: str, declaration_key: str, ttl_s: int) -> None:
        """Keep a VNI for a link whose primary has gone, for so many seconds. *Safe to call twice.*

        The claim stays as it is until then, and the next container of the primary takes it over.
        """
        self._store.expire_value(
            keys.claim(vni), keys.claim_value(container, declaration_key), ttl_s
        )

    def release_all(
        self, container: str, of: Callable[[str], bool], but: Collection[int] = ()
    ) -> None:
        """Give back what a container has claimed for declarations of which `of` is true, but some.

        `of` is given a declaration's key.
        """
        for name, entry in self._claims().items():
            claimer, _, claimed_for = entry.value.partition(" ")
            if claimer == container and int(name) not in but and of(claimed_for):
                self._store.remove(keys.claim(int(name)), entry.modified)

    def shared(self) -> frozenset[int]:
        """Return the VNIs that links of ours have in common with others' of v0.1.0.

        One request for as long as no old node takes a VNI. For one thread.
        """
        counter = self._store.get(keys.VXLANID)
        self._next_by(counter)
        created = 0 if counter is None else counter.created
        listed, times = self._listed
        # Twice: an old node writes the VNI into its link's keys some time after the counter.
        if created and (created != listed or times < _LOOKS):
            claims = {int(name): one for name, one in self._claims().items()}
            words = self._old_nodes.read_all()
            self._shared = frozenset(words.old_vnis & claims.keys()) | {
                vni
                for pair, vni in words.vnis.items()
                if vni in claims and not _is_for(claims[vni], str(pair))
            }
            self._listed = created, (times + 1 if created == listed else 1)
        return self._shared

    def _claims(self) -> dict[str, Entry]:
        claims, _ = self._store.tree("vni")
        return {name: one for name, one in claims.items() if is_number(name)}

    def _next_by(self, counter: Entry | None) -> int:
        """Return the next VNI by the counter, or by what it was if it was set back."""
        created, least = self._seen
        if counter is None:
            return least
        number = _number(counter.value)
        if counter.created != created:
            number = max(number, least)
        self._seen = counter.created, number
        return number

    def _wrote(self, counter: Entry | None, following: int) -> None:
        if counter is not None:
            self._old_nodes.wrote(counter)
            self._seen = counter.created, _number(str(following))

    def _next(self) -> int:
        with self._count_lock:
            self._wanted += 1
        with self._lock:
            with self._count_lock:
                self._wanted -= 1
                others = self._wanted
            if not self._taken:
                self._taken = self._advance(1 + others)
            return self._taken.pop(0)

    def _advance(self, count: int) -> list[int]:
        """Move the counter past `count` VNIs, or more when others move it as well; these VNIs."""
        while True:
            entry = self._store.get(keys.VXLANID)
            self._old_nodes.heard(entry)
            first = self._next_by(entry)
            following = min(first + count, keys.LAST_VNI + 1)  # all round: what is used is claimed
            if entry is None:
                written = self._store.create(keys.VXLANID, str(following))
            else:
                written = self._store.swap(keys.VXLANID, str(following), entry.modified)
            self._wrote(written, following)
            if written is not None:
                return [*range(first, following)]
            count = max(count, _STOCK)

    def _advance_past_claims(self) -> None:
        """Move the counter to the next VNI that nobody has claimed."""
        used = {int(name) for name in self._claims()}
        with self._lock:
            self._taken = [vni for vni in self._taken if vni not in used]
            if self._taken:
                return
            entry = self._store.get(keys.VXLANID)
            used |= self._old_nodes.heard(entry).every_vni
            start = self._next_by(entry)
            for vni in (*range(start, keys.LAST_VNI + 1), *range(keys.FIRST_VNI, start)):
                if vni not in used:
                    break
            else:
                raise StoreError("take a VNI: all of them are claimed")
            if entry is None:
                written = self._store.create(keys.VXLANID, str(vni + 1))
            else:
                written = self._store.swap(keys.VXLANID, str(vni + 1), entry.modified)
            self._wrote(written, vni + 1)
            self._taken = [vni] if written is not None else []


def _is_for(claim: Entry, pair: str) -> bool:
    """Say whether a VNI is claimed for a link that is declared on a pair."""
    return claim.value.partition(" ")[2].startswith(f"association/{pair}/links/")


def _number(text: str) -> int:
    """Return the counter's value; what is no VNI counts as a counter that was never set."""
    if is_number(text) and keys.FIRST_VNI <= int(text) <= keys.LAST_VNI:
        return int(text)
    return keys.FIRST_VNI
