"""Bringing one pod to what it should be, as a sequence of steps.

Remove what is left of containers that are gone, make the links inside the node that the records
alone decide, publish, look, ring, make and remove ends. Each run computes everything from the
records, etcd and the kernel, so a run may end at any point and the next one finishes the work.
Nothing in here waits or tries again: who calls does that.
"""

from __future__ import annotations

from collections.abc import Callable

from ratchet import log
from ratchet.attachments import Attachment
from ratchet.cni.dataclasses import replace
from ratchet.errors import StoreError
from ratchet_child.model.clock import Clock
from ratchet_child.model.links import (
    DeclaredLink,
    Side,
    UplinkSide,
)
from ratchet_child.model.local import LocalPod, Memory, Node
from ratchet_child.model.plan import Wanted, wanted
from ratchet_child.pairing.protocol import Pairing
from ratchet_child.pods.earlier import PublishedEarlier
from ratchet_child.pods.registry import Registry
from ratchet_child.pods.state import Gone, Look, PodState
from ratchet_child.store.health import Health
from ratchet_child.work.ends import Ends
from ratchet_child.work.returning import Returning
from ratchet_child.work.withdrawal import Withdrawal

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
        self._returning = Returning(node, registry, pairing, ends, clock)

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
        """Publish, look, ring, make what should be.

        `unusable` are links whose VNI could not be used here a moment ago.
        """
        self._publish(state, pod, memory)
        if not look.is_empty or not state.progress.looked:
            self._look(state, pod, memory, look)
        self._obey(state, pod, memory)
        self._returning.await_again(state, memory, look)
        wanted_now = self._wanted(state, pod, memory)
        keep = self._returning.kept(state, pod, memory, look, wanted_now)
        remove = self._clock.monotonic() >= state.progress.keep_until
        try:  # the far nodes do their part meanwhile
            self._pairing.ring(pod, memory)
        finally:
            unusable = [*unusable, *self._ends.bring(state, wanted_now, remove=remove, keep=keep)]
        self._tell_local_peers(state)
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
            if self._pairing.unrung.shares_vni(one) and one.pair not in memory.deaf
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

    def settles_in(self, state: PodState) -> float | None:
        """Return the seconds until what a pod that has come back does not declare is given up.

        None where nothing of that kind is waited for.
        """
        return self._returning.settles_in(state)

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
