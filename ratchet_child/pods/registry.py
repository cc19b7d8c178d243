"""Which pods there are on this node: the attachment records, and a state for each pod.

A pod is here when it has a record, or when something of one of its containers is left. This module
brings the states to the records, says who may be linked with whom on this node, and has the pods
worked on that this concerns. What then becomes of a pod is not decided here: nothing in here
touches etcd or the kernel.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from ratchet import log
from ratchet.attachments import Attachment, Directory
from ratchet.errors import RatchetError
from ratchet.links import Override
from ratchet_child.kernel.netns import Monitor
from ratchet_child.model.clock import Clock
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.links import DeclaredLink, Place
from ratchet_child.model.local import Node
from ratchet_child.pods.earlier import PublishedEarlier
from ratchet_child.pods.records import Records, pod_of
from ratchet_child.pods.schedule import Schedule
from ratchet_child.pods.state import Gone, PodState, declarations_of


class Registry:
    """The pods of this node.

    `lock` guards everything in here, and the `heard` part of each state. It is the inner lock: who
    needs that of the ends as well takes that one first. It is never held over a request to etcd.
    """

    def __init__(
        self,
        node: Node,
        directory: Directory,
        records: Records,
        schedule: Schedule[PodKey],
        earlier: PublishedEarlier,
        clock: Clock,
    ) -> None:
        self._node = node
        # Says if a container leaves its name to another one (decision 21); the agent knows.
        self.stands_by: Callable[[Attachment], bool] = lambda _: False
        self._directory = directory
        self._records = records
        self._schedule = schedule
        self._earlier = earlier
        self._clock = clock
        self.lock = threading.RLock()
        self._states: dict[PodKey, PodState] = {}
        self._replaced: dict[PodKey, list[Attachment]] = {}  # not their pod's newest
        self._primaries: dict[PodKey, set[PodKey]] = {}  # pods of this node that declare on a pod
        self._withdrawn: set[Gone] = set()  # from etcd, but not forgotten yet
        # Appended to by any thread and emptied by one, which needs no lock.
        self._monitors: deque[tuple[Monitor, PodKey | None]] = deque()

    # Who is there -------------------------------------------------------------------------------

    def get(self, key: PodKey) -> PodState | None:
        with self.lock:
            return self._states.get(key)

    def find(self, key: PodKey) -> PodState | None:
        """Return the pod if others of this node can be linked with it."""
        state = self._states.get(key)
        return state if state is not None and state.is_present else None

    def is_present(self, key: PodKey) -> bool:
        return self.find(key) is not None

    def states(self) -> list[PodState]:
        """Every pod, also those of which only traces are left."""
        with self.lock:
            return list(self._states.values())

    def replaced(self) -> list[Attachment]:
        """Return the containers that lost their name to a newer one and whose DEL has not come."""
        with self.lock:
            return [one for older in self._replaced.values() for one in older]

    @property
    def is_idle(self) -> bool:
        with self.lock:
            return not self._states

    def namespaces_in_use(self) -> set[tuple[int, int]]:
        """Return the namespaces of the pods that are attached."""
        with self.lock:
            return {
                state.inside.namespace.identity
                for state in self._states.values()
                if state.inside.namespace is not None
                and state.inside.opened == state.container != state.progress.vanished
            }

    @property
    def has_monitors(self) -> bool:
        """Whether `monitors` has something to return."""
        return bool(self._monitors)

    def monitors(self) -> list[tuple[Monitor, PodKey | None]]:
        """Return what has changed since the last call: monitors to wait for, with their pod.

        None for one that is no longer needed, which the caller closes.
        """
        changes = []
        while self._monitors:
            changes.append(self._monitors.popleft())
        return changes

    # What is asked for --------------------------------------------------------------------------

    def attached(self, name: str) -> tuple[PodKey, int] | None:
        """Take up one record; the pod and the number of the request, None without a record."""
        with self.lock:
            self._take_up(self._records.refresh(name))
            attachment = self._records.named(name)
            state = None if attachment is None else self._states.get(pod_of(attachment))
            if attachment is None or state is None:
                return None
            if state.container != attachment.container_id and not self.stands_by(attachment):
                return None  # of one that stands by, nobody waits for more than who has the name
            state.heard.asked += 1
            self.schedule(state)
            return state.key, state.heard.asked

    def deleted(self, name: str) -> None:
        """Take up what has become of one record that was marked deleted."""
        with self.lock:
            self._take_up(self._records.refresh_deleted(name))

    def schedule(self, state: PodState, delay_s: float = 0.0) -> None:
        """Have a pod worked on, behind others if it is large, or is none but for etcd."""
        self._schedule.put(state.key, delay_s, rank=state.rank)

    def check(self, key: PodKey) -> int | None:
        """Have a pod verified against the kernel; the number of the request."""
        with self.lock:
            state = self._states.get(key)
            if state is None:
                return None
            state.heard.look.everyone = state.heard.look.kernel = True
            state.heard.asked += 1
            self.schedule(state)
            return state.heard.asked

    def order(self, key: PodKey, ifname: str, change: Override | None) -> int | None:
        """Have something set of a link; the number of the request."""
        with self.lock:
            state = self._states.get(key)
            if state is None:
                return None
            state.heard.orders.append((ifname, change))
            state.heard.asked += 1
            self.schedule(state)
            return state.heard.asked

    def check_namespaces(self) -> None:
        """Notice pods whose namespace is gone without a DEL, and look where ends were moved to."""
        with self.lock:
            for state in self._states.values():
                namespace = state.inside.namespace
                if namespace is None or namespace.fd < 0:
                    continue
                if state.inside.moved or not namespace.is_current():
                    self.schedule(state)

    # The records --------------------------------------------------------------------------------

    def scan(self) -> None:
        """Take up whatever has changed among the records."""
        with self.lock:
            self._take_up(self._records.scan())

    def _take_up(self, pods: Iterable[PodKey]) -> None:
        """Bring the states of pods to their records."""
        for key in pods:
            live, deleted = self._records.of(key)
            newest = max(live, key=self._precedence, default=None)
            for path, attachment in deleted.items():
                if any(one.container_id == attachment.container_id for one in live):
                    self._forget_record(path)  # the pod keeps its links: one of two attachments
                else:
                    self.note_gone(key, Gone.detached(attachment, self._node.address, path))
            if newest is not None or key in self._states:
                self._rename(key, newest, pods)
                self._change(key, newest)
            self._retire(key, [] if newest is None else _others(live, newest))

    def _precedence(self, attachment: Attachment) -> tuple[bool, float]:
        """Return what decides which container of this node has a name: the greatest."""
        return not self.stands_by(attachment), attachment.boottime_s

    def weigh_again(self, key: PodKey) -> None:
        """Decide again who has a pod's name: one of its containers stands by now, or no longer."""
        with self.lock:
            self._take_up([key])
            state = self._states.get(key)
            if state is not None and state.progress.memory.stands_by:
                state.renew()
                self.schedule(state)

    def _forget_record(self, path: str) -> None:
        try:
            self._directory.forget(path)
        except RatchetError as error:
            log.warning("will try again", error=str(error))
        else:
            self._records.forget(path)

    def _rename(self, key: PodKey, newest: Attachment | None, pods: Iterable[PodKey]) -> None:
        """Have the old name withdrawn of a container that was attached again under another one."""
        before = self._states[key].heard.attachment if key in self._states else None
        if before is None or newest is not None:
            return
        for other in pods:
            if any(one.container_id == before.container_id for one in self._records.of(other)[0]):
                self.note_gone(key, Gone.detached(before, self._node.address))
                return

    def _change(self, key: PodKey, attachment: Attachment | None) -> None:
        """Take up that a pod's newest record is another one, or says something else."""
        state = self._state(key)
        before = state.heard.attachment
        if before == attachment:
            return
        if before is not None and attachment is not None:
            if before.container_id != attachment.container_id:
                # Replaced on this node. When its own DEL comes, nothing will be left to do.
                self.note_gone(key, Gone.detached(before, self._node.address))
            else:
                state.heard.dropped |= declarations_of(before) - declarations_of(attachment)
        state.heard.attachment = attachment
        state.renew()
        if before is not None:
            self._earlier.drop(key)
        for link in () if before is None else before.links:
            self._primaries.get(key.sibling(link.pair), set()).discard(key)
        for link in () if attachment is None else attachment.links:
            self._primaries.setdefault(key.sibling(link.pair), set()).add(key)
        self.schedule(state)

    def _retire(self, key: PodKey, older: list[Attachment]) -> None:
        """Clean up after containers that have been replaced on this node, and wait for their DEL.

        An earlier process may have died before it could.
        """
        before = self._replaced.pop(key, [])
        for attachment in older:
            if attachment not in before:
                how = "stands by" if self.stands_by(attachment) else "superseded on this node"
                log.info(how, pod=key, container=attachment.container_id)
                self.note_gone(key, Gone.detached(attachment, self._node.address))
        if older:
            self._replaced[key] = older

    def _state(self, key: PodKey) -> PodState:
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = PodState(key, self._monitors, self._clock)
        return state

    # Containers that are gone -------------------------------------------------------------------

    def note_gone(self, key: PodKey, gone: Gone) -> PodState:
        """Have the traces of a container removed; its pod. *Safe to call twice.*"""
        with self.lock:
            state = self._state(key)
            if gone not in state.heard.gone:
                state.heard.gone.append(gone)
                self.schedule(state)
            return state

    def note_withdrawn(self, gone: Gone) -> bool:
        """Note that a container's keys are gone; say whether the node has nothing left in etcd."""
        with self.lock:
            self._withdrawn.add(gone)  # the last pods of a node may go at the same moment
            return all(
                state.heard.attachment is None and self._withdrawn.issuperset(state.heard.gone)
                for state in self._states.values()
            )

    def forget_gone(self, state: PodState, gone: Gone) -> None:
        """Nothing is left of a container."""
        with self.lock:
            if gone.record is not None:
                self._records.forget(gone.record)
            state.heard.gone.remove(gone)
            self._withdrawn.discard(gone)

    def remove(self, state: PodState) -> None:
        """Nothing is left of a pod."""
        with self.lock:
            state.forget_kernel()
            del self._states[state.key]

    def close(self) -> None:
        """Let go of all namespaces, when nobody works on the pods any more."""
        for state in self._states.values():
            state.forget_kernel()

    # Peers on this node -------------------------------------------------------------------------

    def places(self, state: PodState) -> dict[PodKey, Place]:
        """Return the pods at the other ends of a pod's links that are there, on whatever node."""
        # A pod that etcd has on this node is here, or it is a trace that is being removed.
        places = {
            peer: place
            for peer, place in state.progress.memory.places.items()
            if place.address != self._node.address
        }
        with self.lock:
            for peer in self._peers(state):
                other = self.find(peer)
                if other is not None:
                    places[peer] = Place(str(other.container), self._node.address)
        return places

    def far_nodes(self) -> set[str]:
        """Return the addresses of the other nodes with which this one's pods have links.

        Those of v0.1.0 are left out, which keep no keys of their own.
        """
        with self.lock:
            return {
                place.address
                for memory in [state.progress.memory for state in self._states.values()]
                for peer, place in list(memory.places.items())
                if place.address != self._node.address and peer not in memory.deaf
            }

    def declared_on(self, key: PodKey) -> list[DeclaredLink]:
        """Return the links that pods of this node declare on a pod, by their records."""
        declared = []
        with self.lock:
            for primary in self._primaries.get(key, ()):
                other = self.find(primary)
                if other is not None and other.heard.attachment is not None:
                    declared += [
                        DeclaredLink(primary, link)
                        for link in other.heard.attachment.links
                        if link.pair == key.name
                    ]
        return declared

    def rouse_peers(self, state: PodState) -> None:
        """Have the pods of this node that a pod may be linked with look at it again."""
        with self.lock:
            self._rouse(self._peers(state), state.key)

    def rouse_peers_of(self, key: PodKey, published: Published) -> None:
        """Have the pods look that a container which is gone had declared links to."""
        with self.lock:
            declared = {key.sibling(pair) for pair, _ in published.declared}
            self._rouse(declared.union(self._primaries.get(key, ())), key)

    def _peers(self, state: PodState) -> set[PodKey]:
        """Pods that may be at the other ends of a pod's links."""
        peers = set(self._primaries.get(state.key, ()))
        if state.heard.attachment is not None:
            peers |= {state.key.sibling(link.pair) for link in state.heard.attachment.links}
        memory = state.progress.memory
        return peers | {offer.primary for offer in memory.incoming} | memory.kept

    def _rouse(self, peers: Iterable[PodKey], by: PodKey) -> None:
        for peer in peers:
            other = self._states.get(peer)
            if other is not None and other.heard.attachment is not None:
                other.heard.look.peers.add(by)
                self.schedule(other)


def _others(live: list[Attachment], newest: Attachment) -> list[Attachment]:
    """Return the attachments of other containers."""
    return [one for one in live if one.container_id != newest.container_id]
