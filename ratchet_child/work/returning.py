"""What is kept for a pod that has gone and comes back: its peers' ends, and the VNIs of its links.

Nobody declares such a link meanwhile, and when the pod is there again it declares its links one
after the other. Until then its absence from etcd means nothing; what it does not declare in a while
is given up. Apart because all else in a turn goes by what is declared.
"""

from __future__ import annotations

from collections.abc import Collection

from ratchet.names import is_pod_name
from ratchet_child.model.clock import Clock
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import Cable, counts_before
from ratchet_child.model.local import LocalPod, Memory, Node
from ratchet_child.model.plan import Wanted
from ratchet_child.pairing.protocol import Pairing
from ratchet_child.pods.registry import Registry
from ratchet_child.pods.state import Look, PodState
from ratchet_child.work.ends import Ends

_SETTLE_S = 2.0  # a pod that comes back declares its links one after the other
_MINUTE_S = 60.0


class Returning:
    """For the thread that works on a pod. What asks etcd raises StoreError when it cannot."""

    def __init__(
        self, node: Node, registry: Registry, pairing: Pairing, ends: Ends, clock: Clock
    ) -> None:
        self._node = node
        self._registry = registry
        self._pairing = pairing
        self._ends = ends
        self._clock = clock

    def kept(
        self, state: PodState, pod: LocalPod, memory: Memory, look: Look, wanted_now: Wanted
    ) -> set[str]:
        """Return the ends that stay although nobody declares their link: the primary is gone.

        They stay for as long as their own pod does, or until the primary comes back. A primary that
        is there and does not declare the link has dropped it, or is just about to declare it. One
        of this node may have come since it was found out what is wanted now.
        """
        declared = {(one.primary, one.link.ifname) for one in memory.incoming}
        unclaimed: dict[str, float] = {}
        kept: dict[str, PodKey] = {}
        now = self._clock.monotonic()
        ends = {} if memory.superseded else self._ends.unwanted(state, wanted_now)
        recorded = {
            (one.primary, one.link.ifname, one.link.pair_ifname)
            for one in (self._registry.declared_on(pod.key) if ends else ())
        }
        for ifname, (primary, far_ifname) in ends.items():
            if (primary, far_ifname, ifname) in recorded:
                kept[ifname] = primary
                continue
            if primary == pod.key or self._registry.is_present(primary):
                continue
            if (primary, far_ifname) in declared:
                continue  # for another interface of the pod
            if len(kept) >= self._node.max_links:
                continue  # the pod has made them itself; etcd would be asked for each
            if primary in memory.places:
                before = state.progress.unclaimed.get(ifname, now)
                since = self._awaited_since(state, memory, look, (primary, far_ifname), before)
                if since is None:
                    continue
                unclaimed[ifname] = since
            kept[ifname] = primary
        state.progress.unclaimed = {one: unclaimed[one] for one in unclaimed if one in kept}
        memory.kept = {one for one in kept.values() if is_pod_name(one.name)}
        unknown = self._may_be_asked_for(state, memory.kept - memory.known, now)
        if unknown:
            with self._registry.lock:
                state.heard.look.peers.update(unknown)
        return set(kept)

    def _may_be_asked_for(
        self, state: PodState, unknown: set[PodKey], now: float
    ) -> Collection[PodKey]:
        """Return the primaries to look at: no more in a minute than a pod may have links.

        Their names stand on the pod's interfaces, where the pod can write whatever it likes.
        """
        times, since = state.progress.strangers
        if now >= since + _MINUTE_S:
            times, since = 0, now
        asked = sorted(unknown)[: max(self._node.max_links - times, 0)]
        state.progress.strangers = times + len(asked), since
        return asked

    def await_again(self, state: PodState, memory: Memory, look: Look) -> None:
        """Note which links that both pods declare wait for the far pod to declare them again.

        Each declaration has a VNI of its own, and one of them counts. While the pod whose does is
        away its VNI is kept for the link. It comes back before it has declared anything: with the
        other VNI the end would be made anew, and once more a moment later.
        """
        now, progress = self._clock.monotonic(), state.progress
        own = {one.cable: one for one in memory.own.values()}
        returning: dict[Cable, float] = {}
        awaited: set[Cable] = set()
        for one in memory.reserved:
            other = own.get(one.cable)
            if other is None or not counts_before(one, other) or one.primary not in memory.places:
                continue
            before = returning[one.cable] = progress.returning.get(one.cable, now)
            if one.cable in progress.returning and one.cable not in progress.awaited:
                continue  # it was given up
            link = one.primary, one.link.ifname
            if (since := self._awaited_since(state, memory, look, link, before)) is not None:
                returning[one.cable] = since
                awaited.add(one.cable)
        progress.returning, progress.awaited = returning, frozenset(awaited)

    def _awaited_since(
        self, state: PodState, memory: Memory, look: Look, link: tuple[PodKey, str], since: float
    ) -> float | None:
        """Return since when (monotonic seconds) a declaration is awaited; None: it is given up.

        `link` is its primary, which is there, and the primary's interface; `since` is the time up
        to now. It begins again for as long as the primary's node says that the link is to come.
        """
        now = self._clock.monotonic()
        if now - since < _SETTLE_S:
            return since
        primary, ifname = link
        if not look.is_at(primary):
            with self._registry.lock:
                state.heard.look.peers.add(primary)
            return since
        return now if self._pairing.is_declaring(primary, ifname, state.key, memory) else None

    def settles_in(self, state: PodState) -> float | None:
        """Return the seconds until what a pod that has come back does not declare is given up.

        None where nothing of that kind is waited for.
        """
        progress = state.progress
        begun = [*progress.unclaimed.values()]
        begun += [progress.returning[one] for one in progress.awaited]
        since = min(begun, default=None)
        return None if since is None else max(since + _SETTLE_S - self._clock.monotonic(), 0.0)
