"""Bringing one pod to what it should be, as a sequence of steps.

Remove what is left of containers that are gone, make the links inside the node that the records
alone decide, publish, look, make and remove ends, ring. Each run computes everything from the
records, etcd and the kernel, so a run may end at any point and the next one finishes the work.
Nothing in here waits or tries again: who calls does that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from ratchet import log
from ratchet.attachments import Attachment
from ratchet.errors import StoreError
from ratchet.names import is_pod_name
from ratchet_child.model.clock import Clock
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import (
    Cable,
    DeclaredLink,
    Side,
    UplinkSide,
    counts_before,
)
from ratchet_child.model.local import LocalPod, Memory, Node
from ratchet_child.model.plan import Wanted, wanted
from ratchet_child.pairing.protocol import Pairing
from ratchet_child.pods.earlier import PublishedEarlier
from ratchet_child.pods.registry import Registry
from ratchet_child.pods.state import Gone, Look, PodState
from ratchet_child.store.health import Health
from ratchet_child.work.ends import Ends
from ratchet_child.work.withdrawal import Withdrawal

_SETTLE_S = 2.0  # a pod that comes back declares its links one after the other
_MINUTE_S = 60.0
_GRACE_S = 3.0  # keys that somebody removed come back within that


class Reconciler:
    """Works on one pod at a time in each thread, and never on the same one in two."""

    def __init__(
        self,
        node: Node,
        etcd: Health,
        earlier: PublishedEarlier,
        registry: Registry,
        traces: Withdrawal,
        pairing: Pairing,
        ends: Ends,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called when a pod's links are as they should be."""
        self._node = node
        self._etcd = etcd
        self._earlier = earlier
        self._registry = registry
        self._withdrawal = traces
        self._pairing = pairing
        self._ends = ends
        self._clock = clock
        self._on_change = on_change

    def reconcile(self, state: PodState, look: Look, number: int) -> None:
        """Do all that is to be done, for the sake of requests up to `number`.

        *Raises* RatchetError for what concerns the pod as a whole; of a single end see the ends.
        """
        # Records may change meanwhile: what is begun for one is finished for that one, and the
        # next run, which is due by then, undoes what was too much.
        with self._registry.lock:
            state.heard.take_again(self._clock.monotonic())
            gone = list(state.heard.gone)
            dropped = set(state.heard.dropped)
            attachment, memory, looked = (
                state.heard.attachment,
                state.progress.memory,
                state.progress.looked,
            )
        # What stands below an earlier address of this node goes when it stands below the new one.
        moved = [one for one in gone if self._withdrawal.has_moved(state, one)]
        gone = [one for one in gone if one not in moved]
        for one in gone:
            self._ends.remove_gone(one, state, self._registry.namespaces_in_use())
        pod = None
        unusable: list[DeclaredLink] = []
        if attachment is not None and self._open(state, attachment):
            stands_by = self._registry.stands_by(attachment)
            pod = LocalPod(state.key, attachment.container_id, attachment.links, stands_by)
            if look.kernel:
                self._ends.forget(state)
            # What the records of this node decide needs no etcd, and is there at once.
            wanted_now = self._wanted(state, pod, memory, local_only=not looked)
            unusable = self._ends.bring(state, wanted_now, remove=False)
            self._tell_local_peers(state)
        if not self._node.address:
            self._end_without_address(state, gone, number)
            return
        self._earlier.require(self._etcd.error)
        for one in gone:
            log.debug("withdrawing", pod=state.key, container=one.container, node=one.node_address)
            self._withdrawal.withdraw(state, one)
        if pod is not None:
            if not memory.published:
                self._pairing.machines.register()
                if self._pairing.machines.waits:
                    state.progress.serve(number)
                    self._on_change()
                    return
            self._undeclare(state, pod, dropped)
            self._pair(state, pod, memory, look, number, unusable)
            # The node's last pod may have gone meanwhile, and the machine's key with it.
            self._pairing.machines.register()
        for one in moved if memory.published and not memory.superseded else ():
            self._withdrawal.move(state, one)

    def _open(self, state: PodState, attachment: Attachment) -> bool:
        """Whether the pod's namespace exists."""
        if state.progress.vanished == attachment.container_id:
            return False
        if self._ends.open(state, attachment):
            return True
        log.warning(
            "the network namespace is gone without a DEL",
            pod=state.key,
            container=attachment.container_id,
            netns=attachment.netns,
        )
        state.progress.vanished = attachment.container_id
        self._registry.note_gone(state.key, Gone.detached(attachment, self._node.address))
        return False

    def _end_without_address(self, state: PodState, gone: list[Gone], number: int) -> None:
        """End a run on a node that can publish nothing: the links inside it are all there is."""
        for one in gone:
            self._withdrawal.forget(state, one)
        state.progress.serve(number)
        self._on_change()

    def _undeclare(self, state: PodState, pod: LocalPod, dropped: set[tuple[str, str]]) -> None:
        """Take back what the record in hand no longer declares.

        What a later one drops may be declared by this run: it is the next one's to take back.
        """
        if dropped:
            self._pairing.undeclare(pod, dropped)
            with self._registry.lock:
                state.heard.dropped -= dropped

    def _pair(
        self,
        state: PodState,
        pod: LocalPod,
        memory: Memory,
        look: Look,
        number: int,
        unusable: list[DeclaredLink],
    ) -> None:
        """Publish, look, make what should be, ring.

        `unusable` are links whose VNI could not be used here a moment ago.
        """
        self._publish(state, pod, memory)
        if not look.is_empty or not state.progress.looked:
            self._look(state, pod, memory, look)
        self._obey(state, pod, memory)
        self._await(state, memory, look)
        wanted_now = self._wanted(state, pod, memory)
        keep = self._kept(state, pod, memory, look, wanted_now)
        remove = self._clock.monotonic() >= state.progress.keep_until
        unusable = [*unusable, *self._ends.bring(state, wanted_now, remove=remove, keep=keep)]
        self._tell_local_peers(state)
        self._pairing.ring(pod, memory)
        # A parent that waits need not wait for what is left to write.
        state.progress.serve(number)
        self._on_change()
        if not memory.superseded:
            refused = {
                one.side.declared
                for one in wanted_now.waiting
                if one.is_taken and isinstance(one.side, Side)
            }
            self._pairing.refuse(pod, memory, refused)
        unusable += [
            one
            for one in memory.own.values()
            # A far end of v0.1.0 would not follow.
            if self._pairing.shares_vni(one) and one.pair not in memory.deaf
        ]
        renumbered = [self._pairing.renumber(pod, memory, declared) for declared in unusable]
        if any(renumbered):
            with self._registry.lock:  # the far node is told in the next run
                state.heard.look.everyone = True

    def _publish(self, state: PodState, pod: LocalPod, memory: Memory) -> None:
        self._pairing.publish(pod, memory)
        if state.heard.is_unlisted:
            state.heard.is_unlisted = False  # what is written over from now on is heard of again
            try:
                self._pairing.enlist(pod)
            except StoreError:
                state.heard.is_unlisted = True
                raise

    def _look(self, state: PodState, pod: LocalPod, memory: Memory, look: Look) -> None:
        peers = look.at() if state.progress.looked else None
        while not self._pairing.look(pod, memory, peers):
            # Somebody has removed keys of ours. Others have lost theirs as well: what is
            # missing now means nothing until they had the time to write it again.
            state.progress.keep_until = self._clock.monotonic() + _GRACE_S
            self._pairing.publish(pod, memory)
        with self._registry.lock:
            state.progress.looked = state.progress.looked or state.progress.memory is memory

    def _obey(self, state: PodState, pod: LocalPod, memory: Memory) -> None:
        """Do what operators ask of the pod's links; what cannot be done now stays to be done."""
        with self._registry.lock:
            orders = list(state.heard.orders)
        if not orders:
            return
        for ifname, change in orders:
            self._pairing.override(pod, memory, ifname, change)
            log.info("link set", pod=pod.key, ifname=ifname, to=change)
        with self._registry.lock:
            del state.heard.orders[: len(orders)]
        self._look(state, pod, memory, Look())
        self._registry.rouse_peers(state)

    def _wanted(
        self, state: PodState, pod: LocalPod, memory: Memory, *, local_only: bool = False
    ) -> Wanted:
        """Return the ends that the pod should have, by all that is known now."""
        if memory.superseded:
            return Wanted((), ())
        with self._registry.lock:
            by_records = self._registry.declared_on(state.key)
            declared = [
                replace(one, vni=None) if one.cable in state.progress.awaited else one
                for one in memory.own.values()
            ]
            declared += _as_recorded(memory.incoming, by_records)
            declared += [
                DeclaredLink(pod.key, link) for link in pod.links if link.ifname not in memory.own
            ]
            declared += by_records
            reserved = _runtimes(state.heard.attachment)
            uplinks = () if state.heard.attachment is None else state.heard.attachment.uplinks
        result = wanted(
            state.key,
            self._node,
            declared,
            self._registry.places(state),
            memory.rivals,
            reserved,
            uplinks,
        )
        if local_only and any(one.error for one in result.waiting):
            # Two links want one interface: etcd's order decides, and is not known yet.
            own = tuple(end for end in result.ends if isinstance(end.side, UplinkSide))
            result = Wanted(own, result.waiting)
        log.debug(
            "decided",
            pod=pod.key,
            container=pod.container,
            by="the records alone" if local_only else "records and etcd",
            ends=log.Joined(f"{one.ifname}:{one.interface.medium.kind}" for one in result.ends),
            waiting=log.Joined(f"{one.side.ifname}:{one.side.far}" for one in result.waiting),
        )
        return result

    def _kept(
        self, state: PodState, pod: LocalPod, memory: Memory, look: Look, wanted_now: Wanted
    ) -> set[str]:
        """Return the ends that stay although nobody declares their link: the primary is gone.

        They stay for as long as their own pod does, or until the primary comes back. A primary that
        is there and does not declare the link has dropped it, or is just about to declare it.
        """
        declared = {(one.primary, one.link.ifname) for one in memory.incoming}
        unclaimed: dict[str, float] = {}
        kept: dict[str, PodKey] = {}
        now = self._clock.monotonic()
        ends = {} if memory.superseded else self._ends.unwanted(state, wanted_now)
        for ifname, (primary, far_ifname) in ends.items():
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

    def _await(self, state: PodState, memory: Memory, look: Look) -> None:
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

    def _tell_local_peers(self, state: PodState) -> None:
        """Have the peers on this node look, when the pod has come or declares something else."""
        attachment = state.heard.attachment
        links = () if attachment is None else attachment.links
        news = (state.container, state.progress.memory.superseded, links)
        if state.progress.told == news:
            return
        state.progress.told = news
        self._registry.rouse_peers(state)


def _as_recorded(
    incoming: list[DeclaredLink], by_records: list[DeclaredLink]
) -> list[DeclaredLink]:
    """Return links with what the record of a primary on this node says of them now."""
    links = {(one.primary, one.link.ifname): one.link for one in by_records}
    return [
        replace(one, link=links.get((one.primary, one.link.ifname), one.link)) for one in incoming
    ]


def _runtimes(attachment: Attachment | None) -> tuple[str, ...]:
    """Interfaces that labels cannot name; what is written in etcd can."""
    return ("lo",) if attachment is None else ("lo", attachment.ifname)
