"""Bringing every pod of the node to what it should be.

For one pod at a time, in whichever thread is free: remove what is left of containers that are gone,
make the links inside the node that the records alone decide, publish, look, make and remove ends,
ring. Each run computes everything from the records, etcd and the kernel, so a run may end at any
point and the next one finishes the work. What goes wrong is tried again, sooner at first and then
less often; nothing is ever given up.

The order of locks: the ends' lock (what is in the namespaces), then `_lock` (which pods there are).
Neither is held over a request to etcd.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ratchet import log
from ratchet.attachments import Attachment, Directory
from ratchet.config import Config
from ratchet.errors import RatchetError, StoreError
from ratchet_child import faults, metrics
from ratchet_child.addresses import Addresses
from ratchet_child.ends import Ends
from ratchet_child.keys import PodKey, Published
from ratchet_child.links import Kernel
from ratchet_child.local import LocalPod, Memory, Node
from ratchet_child.netns import Monitor
from ratchet_child.pairing import Pairing
from ratchet_child.plan import Declared, Place, Wanted, wanted
from ratchet_child.pods import ERROR, UP, WAITING, Gone, Look, PodState
from ratchet_child.records import Records, pod_of
from ratchet_child.schedule import Schedule
from ratchet_child.store import Store

_WORKERS = 6
_RETRY_FIRST_S = 0.1
_RETRY_LONGEST_S = 2.0
_WAITING_FIRST_S = 1.0
_WAITING_LONGEST_S = 15.0
_SUPERSEDED_S = 2.0  # nobody rings when a name is free again
_ERROR_LONGEST_S = 5.0
_VNI_RETRY_S = 0.05
_LATE_S = 10.0  # until then a request to etcd that has failed is carried out, if it ever is
_GRACE_S = 3.0  # keys that somebody removed come back within that


class Engine:
    """Owns the pods' states and the threads that work on them."""

    def __init__(self, config: Config, directory: Directory, on_change: Callable[[], None]) -> None:
        """`on_change` is called from any thread when a pod has been worked on."""
        self._config = config
        self._directory = directory
        self._on_change = on_change
        self._kernel = Kernel(config.vxlan_port, config.mtu)
        self.node = _this_node(config, self._kernel)
        self.store = Store(config)
        self.pairing = Pairing(
            self.store,
            self.node,
            is_local=self._is_present,
            claimed_earlier=self._claimed_earlier,
        )
        self._addresses = Addresses(directory.state_dir)
        self._records = Records(directory.state_dir)
        self._lock = threading.RLock()
        self._ends = Ends(
            self._kernel,
            port=config.vxlan_port,
            parent_interface=self.node.interface,
            find=self._find,
        )
        self._states: dict[PodKey, PodState] = {}
        self._monitors: deque[tuple[Monitor, PodKey | None]] = deque()
        self._withdrawn: set[Gone] = set()  # from etcd, but not forgotten yet
        self._replaced: dict[PodKey, list[Attachment]] = {}  # not their pod's newest
        self._primaries: dict[PodKey, set[PodKey]] = {}  # pods of this node that declare on a pod
        self._earlier: dict[PodKey, tuple[str, int]] | None = None
        self._moved: dict[PodKey, tuple[str, int]] = {}  # the same, below earlier addresses
        self._schedule: Schedule[PodKey] = Schedule()
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            for number in range(_WORKERS)
        ]
        self.etcd_error: str | None = "not asked yet"
        self.etcd_since = time.time()  # when it was first away, or back, seconds since the epoch
        self.is_etcd_away = False

    def start(self) -> None:
        self.scan()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads and let go of all namespaces. *Blocks at most* a few requests."""
        self._schedule.stop()
        for thread in self._threads:
            thread.join(timeout=10)
        for state in self._states.values():
            state.forget_kernel()
        self._kernel.close()

    # Which pods there are ---------------------------------------------------------------------

    def scan(self) -> None:
        """Take up whatever has changed among the records."""
        with self._lock:
            self._take_up(self._records.scan())

    def attached(self, name: str) -> tuple[PodKey, int] | None:
        """Take up one record; the pod and the number of the request, None without a record."""
        with self._lock:
            self._take_up(self._records.refresh(name))
            attachment = self._records.named(name)
            state = None if attachment is None else self._states.get(pod_of(attachment))
            if attachment is None or state is None or state.container != attachment.container_id:
                return None
            state.asked += 1
            self._schedule.put(state.key)
            return state.key, state.asked

    def _take_up(self, pods: Iterable[PodKey]) -> None:
        """Bring the states of pods to their records."""
        for key in pods:
            live, deleted = self._records.of(key)
            newest = max(live, key=_age, default=None)
            for path, attachment in deleted.items():
                if any(one.container_id == attachment.container_id for one in live):
                    self._forget_record(path)  # the pod keeps its links: one of two attachments
                else:
                    self._note_gone(key, _gone(attachment, self.node.address, path))
            if newest is not None or key in self._states:
                self._rename(key, newest, pods)
                self._change(key, newest)
            self._retire(key, [] if newest is None else _others(live, newest))

    def _rename(self, key: PodKey, newest: Attachment | None, pods: Iterable[PodKey]) -> None:
        """Have the old name withdrawn of a container that was attached again under another one."""
        before = self._states[key].attachment if key in self._states else None
        if before is None or newest is not None:
            return
        for other in pods:
            if any(one.container_id == before.container_id for one in self._records.of(other)[0]):
                self._note_gone(key, _gone(before, self.node.address, None))
                return

    def _forget_record(self, path: str) -> None:
        try:
            self._directory.forget(path)
        except RatchetError as error:
            log.warning("will try again", error=str(error))
        else:
            self._records.forget(path)

    def _retire(self, key: PodKey, older: list[Attachment]) -> None:
        """Clean up after containers that have been replaced on this node, and wait for their DEL.

        An earlier process may have died before it could.
        """
        before = self._replaced.pop(key, [])
        for attachment in older:
            if attachment not in before:
                log.info("superseded on this node", pod=key, container=attachment.container_id)
                self._note_gone(key, _gone(attachment, self.node.address, None))
        if older:
            self._replaced[key] = older

    def _note_gone(self, key: PodKey, gone: Gone) -> None:
        state = self._state(key)
        if gone not in state.gone:
            state.gone.append(gone)
            self._schedule.put(key)

    def _change(self, key: PodKey, attachment: Attachment | None) -> None:
        """The pod's newest record is another one, or says something else, than before."""
        state = self._state(key)
        before = state.attachment
        if before == attachment:
            return
        if before is not None and attachment is not None:
            if before.container_id != attachment.container_id:
                # Replaced on this node. When its own DEL comes, nothing will be left to do.
                self._note_gone(key, _gone(before, self.node.address, None))
            else:
                state.dropped |= _declared(before) - _declared(attachment)
        state.attachment = attachment
        state.renew()
        if self._earlier is not None and before is not None:
            self._earlier.pop(key, None)
        for link in () if before is None else before.links:
            self._primaries.get(key.sibling(link.pair), set()).discard(key)
        for link in () if attachment is None else attachment.links:
            self._primaries.setdefault(key.sibling(link.pair), set()).add(key)
        self._schedule.put(key)

    def _state(self, key: PodKey) -> PodState:
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = PodState(key, self._monitors)
        return state

    def _find(self, key: PodKey) -> PodState | None:
        state = self._states.get(key)
        return state if state is not None and state.is_present else None

    def _is_present(self, key: PodKey) -> bool:
        state = self._states.get(key)
        return state is not None and state.is_present

    def _claimed_earlier(self, key: PodKey) -> tuple[str, int] | None:
        return None if self._earlier is None else self._earlier.get(key)

    @property
    def is_idle(self) -> bool:
        with self._lock:
            return not self._states

    # What happens outside -----------------------------------------------------------------------

    def etcd_is_back(self, published: dict[PodKey, tuple[Published, int]] | None) -> None:
        """etcd answers. `published`: what the node had published, when everything is looked at.

        *Raises* StoreError.
        """
        if self._earlier is None:
            self._moved = self._leave_earlier_addresses()
        if self.etcd_error is not None:
            self.etcd_since = time.time()
        self.etcd_error = None
        self.is_etcd_away = False
        if published is None:
            return
        with self._lock:
            if self._earlier is None:
                self._earlier = {
                    key: (one.container, index) for key, (one, index) in published.items()
                }
                # Another address makes no container a newer one.
                for key, (container, index) in self._moved.items():
                    claim = self._earlier.get(key, (container, index))
                    if claim[0] == container:
                        self._earlier[key] = container, min(index, claim[1])
            for key, (one, _) in published.items():
                state = self._states.get(key)
                if state is None or state.container != one.container:
                    # A reboot, or a child that was killed: nothing stands behind these keys.
                    self._note_gone(key, Gone(one.container, one, self.node.address, None, None))
            for state in self._states.values():
                state.look.everyone = True
                self._schedule.put(state.key)
            idle = not self._states
        if idle:
            self.pairing.leave(self.node.address)

    def _leave_earlier_addresses(self) -> dict[PodKey, tuple[str, int]]:
        """Have what was published under other addresses of this node withdrawn.

        The containers among it that are still here, with etcd's index of when they were published.
        """
        moved: dict[PodKey, tuple[str, int]] = {}
        for address in self._addresses.use(self.node.address):
            found = self.pairing.node(address).published
            with self._lock:
                for key, (one, index) in found.items():
                    self._note_gone(key, Gone(one.container, one, address, None, None))
                    state = self._state(key)
                    earlier = moved.get(key, (one.container, index))
                    if state.container == one.container:
                        moved[key] = one.container, min(index, earlier[1])
            if not found:
                self.pairing.leave(address)
                self._addresses.forget(address)
        return moved

    def etcd_is_away(self, error: str) -> None:
        if not self.is_etcd_away:
            self.etcd_since = time.time()
        self.etcd_error = error
        self.is_etcd_away = True

    def rung(self, by: PodKey, targets: Iterable[PodKey]) -> None:
        """A bell: the pods that have links with `by` look at these again."""
        with self._lock:
            names = set(targets)
            for key, state in self._states.items():
                if key in names or by in state.memory.known:
                    state.look.peers.add(by)
                    state.look.everyone = state.look.everyone or key == by
                    self._schedule.put(key)

    def listed(self, key: PodKey, published: Published | None) -> None:
        """The node's own entry for a pod has been written, or removed: None.

        Mostly by this process. But etcd carries out a request whose answer was lost whenever it
        comes to it, so what stands there may be what this node once had. Only the node knows what
        it has: the rest is taken back, and what it has is written again.
        """
        with self._lock:
            state = self._states.get(key)
            if published is not None:
                if published.state_dir not in ("", self.node.state_dir):
                    return
                if state is not None and state.container == published.container:
                    return
                self._note_gone(
                    key, Gone(published.container, published, self.node.address, None, None)
                )
            if state is not None and state.attachment is not None:
                state.is_unlisted = state.look.everyone = True
                self._schedule.put(key)

    def look_again(self, key: PodKey | None) -> None:
        """Keys of this node were removed by somebody else: of one pod, None for all."""
        with self._lock:
            for state in self._states.values():
                if key is None or state.key == key:
                    state.look.everyone = True
                    self._schedule.put(state.key)

    def monitors(self) -> list[tuple[Monitor, PodKey | None]]:
        """What has changed since the last call: monitors to wait for, with their pod.

        None for one that is no longer needed, which the caller closes.
        """
        changes = []
        while self._monitors:
            changes.append(self._monitors.popleft())
        return changes

    def interfaces_lost(self, key: PodKey, ifnames: set[str] | None) -> None:
        """Interfaces of a pod have gone or gone down; None when it may be any."""
        with self._lock:
            state = self._states.get(key)
        delay_s = None if state is None else self._ends.lost(state, ifnames)
        if delay_s is not None:
            self._schedule.put(key, delay_s)

    def check_namespaces(self) -> None:
        """Notice pods whose namespace is gone without a DEL."""
        with self._lock:
            for state in self._states.values():
                namespace = state.namespace
                if namespace is not None and namespace.fd >= 0 and not namespace.is_current():
                    self._schedule.put(state.key)

    def check(self, key: PodKey) -> int | None:
        """Have a pod verified against the kernel; the number of the request."""
        with self._lock:
            state = self._states.get(key)
            if state is None:
                return None
            state.look.everyone = state.look.kernel = True
            state.asked += 1
            self._schedule.put(key)
            return state.asked

    # Telling ------------------------------------------------------------------------------------

    def places(self, state: PodState) -> dict[PodKey, Place]:
        """The pods at the other ends that are there, on this node or others."""
        # A pod that etcd has on this node is here, or it is a trace that is being removed.
        places = {
            peer: place
            for peer, place in state.memory.places.items()
            if place.address != self.node.address
        }
        with self._lock:
            for peer in self._local_peers(state):
                other = self._states.get(peer)
                if other is not None and other.is_present:
                    places[peer] = Place(str(other.container), self.node.address)
        return places

    def is_served(self, key: PodKey, number: int, mode: str) -> bool:
        """Whether request `number` has been served and the pod's links are complete."""
        with self._lock:
            state = self._states.get(key)
        if state is None or state.served < number:
            return False
        with self._ends.lock:
            return state.is_complete(mode, self.places(state))

    def links(self, key: PodKey) -> list[dict[str, Any]]:
        with self._lock:
            state = self._states.get(key)
        if state is None:
            return []
        with self._ends.lock:
            return state.links(self.places(state))

    def counts(self) -> metrics.Counts:
        """How many pods and links there are in each state."""
        counts = metrics.Counts(
            dict.fromkeys((UP, WAITING, ERROR), 0), etcd=self.etcd_error is None
        )
        with self._lock:
            states = list(self._states.values())
            counts.superseded = sum(map(len, self._replaced.values()))
        for state in states:
            if state.attachment is None:
                continue
            with self._ends.lock:
                state.count_links(counts.links)
            if state.memory.superseded:
                counts.superseded += 1
            elif state.trouble is not None:
                counts.troubled += 1
            else:
                counts.attached += 1
        return counts

    def status(self) -> list[dict[str, Any]]:
        """Every pod of the node with its links, also those whose name another container has."""
        with self._lock:
            states = sorted(self._states.values(), key=lambda state: state.key)
            replaced = [one for older in self._replaced.values() for one in older]
        shown = []
        for state in states:
            attachment = state.attachment
            if attachment is None:
                continue
            with self._ends.lock:
                links = state.links(self.places(state))
            shown.append(
                {
                    **_shown(attachment),
                    "superseded": state.memory.superseded,
                    "error": state.trouble,
                    "last_error": state.last_error,
                    "last_error_at": state.last_error_at,
                    "links": links,
                }
            )
        without = {"error": None, "last_error": None, "last_error_at": None, "links": list[Any]()}
        return shown + [{**_shown(one), "superseded": True, **without} for one in replaced]

    # Working ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            key = self._schedule.take()
            if key is None:
                return
            with self._lock:
                state = self._states.get(key)
            if state is not None:
                self._work_on(state)
            self._schedule.done(key)
            self._on_change()

    def _work_on(self, state: PodState) -> None:
        started = time.monotonic()
        with self._lock:
            number = state.asked
            look, state.look = state.look, Look(everyone=False)
            if state.look_all_at is not None and started >= state.look_all_at:
                look.everyone = True
        try:
            self._reconcile(state, look, number)
        except (RatchetError, OSError) as error:
            self._failed(state, look, error)
        except Exception as error:  # noqa: BLE001 - one pod must not end the others'
            log.crash("reconciling failed", error, pod=state.key, container=state.container)
            self._failed(state, look, error)
        else:
            if state.error is not None and not state.errors:
                log.info("works again", pod=state.key, container=state.container)
            state.error = None
            state.failures = state.failures + 1 if state.errors else 0
            self._served(state, number)
            self._plan_next(state, look)
        metrics.reconciled(time.monotonic() - started)

    def _failed(self, state: PodState, look: Look, error: Exception) -> None:
        text = str(error)
        if self._earlier is None:
            pass  # it has only just begun
        elif state.error != text:
            log.warning("will try again", pod=state.key, container=state.container, error=text)
            state.fail(text)
        if self._earlier is not None:
            metrics.tried_in_vain()
            if isinstance(error, StoreError):
                with self._lock:
                    state.doubted.update(one.container for one in state.gone)
                    if state.container is not None:
                        state.doubted.add(state.container)
        state.failures += 1
        with self._lock:  # what was to be looked at still is
            state.look.everyone |= look.everyone
            state.look.kernel |= look.kernel
            state.look.peers |= look.peers
        self._schedule.put(state.key, _backoff(_RETRY_FIRST_S, _RETRY_LONGEST_S, state.failures))

    def _plan_next(self, state: PodState, look: Look) -> None:
        """When the pod is worked on next without being asked for."""
        with self._lock:
            if state.is_idle:
                state.forget_kernel()
                del self._states[state.key]
                return
            if not state.look.is_empty:
                self._schedule.put(state.key)
            self._plan_look(state, look)
        rests_s = self._ends.rests_for(state)
        if rests_s is not None:  # this run came before its time, which must not be forgotten
            self._schedule.put(state.key, rests_s)
        if state.again:
            due = min(state.again.values())
            self._schedule.put(state.key, max(due - time.monotonic(), 0))
        if state.busy_since:
            self._schedule.put(state.key, _VNI_RETRY_S)
        elif state.errors:
            self._schedule.put(
                state.key, _backoff(_RETRY_FIRST_S, _ERROR_LONGEST_S, state.failures)
            )

    def _plan_look(self, state: PodState, look: Look) -> None:
        """Nobody rings for a v0.1.0 node, or when a bell was lost: who waits looks by itself.

        A second apart at first, then less often. What happens in between neither counts nor
        postpones the next look.
        """
        now = time.monotonic()
        # A pod without any link waits as well: for a primary that declares one.
        waits = state.wanted is not None and bool(state.wanted.waiting or not state.wanted.ends)
        if now < state.keep_until:
            state.look_all_at = state.keep_until
        elif state.memory.superseded:
            state.look_all_at = now + _SUPERSEDED_S
        elif not waits:
            state.look_all_at, state.waits = None, 0
        elif look.everyone or state.look_all_at is None:
            state.waits = min(state.waits + 1, 100)
            state.look_all_at = now + _backoff(_WAITING_FIRST_S, _WAITING_LONGEST_S, state.waits)
        if state.look_all_at is not None:
            self._schedule.put(state.key, max(state.look_all_at - now, 0))

    def _served(self, state: PodState, number: int) -> None:
        state.served = max(state.served, number)

    def _reconcile(self, state: PodState, look: Look, number: int) -> None:
        # Records may change meanwhile: what is begun for one is finished for that one, and the
        # next run, which is due by then, undoes what was too much.
        with self._lock:
            for one in [one for one, due in state.again.items() if due <= time.monotonic()]:
                del state.again[one]
                state.gone.append(one)
            gone = list(state.gone)
            attachment, memory, looked = state.attachment, state.memory, state.looked
        # What stands below an earlier address of this node goes when it stands below the new one.
        moved = [one for one in gone if self._has_moved(one, state)]
        gone = [one for one in gone if one not in moved]
        for one in gone:
            self._ends.remove_gone(one, state, self._namespaces_in_use())
        pod = None
        if attachment is not None and self._open(state, attachment):
            pod = LocalPod(state.key, attachment.container_id, attachment.links)
            if look.kernel:
                self._ends.forget(state)
            # What the records of this node decide needs no etcd, and is there at once.
            self._ends.bring(
                state, self._wanted(state, pod, memory, local_only=not looked), remove=False
            )
            self._tell_local_peers(state)
        self._require_etcd()
        for one in gone:
            self._withdraw(state, one)
        if pod is not None:
            self._pair(state, pod, memory, look, number)
        for one in moved if memory.published and not memory.superseded else ():
            self._move(state, one)

    def _has_moved(self, gone: Gone, state: PodState) -> bool:
        """Whether the container is still here, and only its node's address is another one."""
        return (
            gone.container == state.container != state.vanished
            and gone.node_address != self.node.address
        )

    def _open(self, state: PodState, attachment: Attachment) -> bool:
        """Whether the pod's namespace exists."""
        if state.vanished == attachment.container_id:
            return False
        if self._ends.open(state, attachment):
            return True
        log.warning(
            "the network namespace is gone without a DEL",
            pod=state.key,
            container=attachment.container_id,
            netns=attachment.netns,
        )
        state.vanished = attachment.container_id
        with self._lock:
            self._note_gone(state.key, _gone(attachment, self.node.address, None))
        return False

    def _namespaces_in_use(self) -> set[tuple[int, int]]:
        with self._lock:
            return {
                state.namespace.identity
                for state in self._states.values()
                if state.namespace is not None and state.opened == state.container
            }

    def _require_etcd(self) -> None:
        """*Raises* StoreError until it is known what this node had published earlier."""
        if self._earlier is None:
            raise StoreError("read what this node has published", self.etcd_error or "")

    def _withdraw(self, state: PodState, gone: Gone) -> None:
        self.pairing.withdraw(state.key, gone.published, gone.node_address)
        with self._lock:
            self._withdrawn.add(gone)  # the last pods of a node may go at the same moment
            last = all(
                other.attachment is None and self._withdrawn.issuperset(other.gone)
                for other in self._states.values()
            )
        if last:
            self.pairing.leave(self.node.address)
        if gone.node_address != self.node.address:
            self._leave_earlier_addresses()
        # The record goes last: until then a crash has all of this done again.
        if gone.record is not None:
            faults.reach("forget record")
            self._directory.forget(gone.record)
        with self._lock:
            if gone.record is not None:
                self._records.forget(gone.record)
            state.gone.remove(gone)
            self._withdrawn.discard(gone)
            if gone.container in state.doubted:
                state.doubted.discard(gone.container)
                once_more = replace(gone, record=None, netns=None)
                state.again[once_more] = time.monotonic() + _LATE_S
            self._rouse(self._local_peers_of(state.key, gone.published), state.key)

    def _move(self, state: PodState, gone: Gone) -> None:
        """Forget where a pod was published when its node had another address."""
        self.pairing.forget(state.key, gone.container, gone.node_address)
        self._leave_earlier_addresses()
        with self._lock:
            state.gone.remove(gone)

    def _pair(
        self, state: PodState, pod: LocalPod, memory: Memory, look: Look, number: int
    ) -> None:
        """Publish, look, make what should be, ring."""
        if state.dropped:
            self.pairing.undeclare(pod, state.dropped)
            state.dropped = set()
        self.pairing.publish(pod, memory)
        if state.is_unlisted:
            self.pairing.enlist(pod)
            state.is_unlisted = False
        if not look.is_empty or not state.looked:
            peers = look.at() if state.looked else None
            while not self.pairing.look(pod, memory, peers):
                # Somebody has removed keys of ours. Others have lost theirs as well: what is
                # missing now means nothing until they had the time to write it again.
                state.keep_until = time.monotonic() + _GRACE_S
                self.pairing.publish(pod, memory)
            with self._lock:
                state.looked = state.looked or state.memory is memory
        remove = time.monotonic() >= state.keep_until
        wanted_now = self._wanted(state, pod, memory)
        unusable = self._ends.bring(state, wanted_now, remove=remove)
        self._tell_local_peers(state)
        self.pairing.ring(pod, memory)
        # A parent that waits need not wait for what is left to write.
        self._served(state, number)
        self._on_change()
        if not memory.superseded:
            refused = {one.side.declared for one in wanted_now.waiting if one.is_taken}
            self.pairing.refuse(pod, memory, refused)
        for declared in unusable:
            self.pairing.renumber(pod, memory, declared)
        if unusable:
            with self._lock:  # the far node is told in the next run
                state.look.everyone = True

    def _wanted(
        self, state: PodState, pod: LocalPod, memory: Memory, *, local_only: bool = False
    ) -> Wanted:
        """The ends that the pod should have, by all that is known now."""
        if memory.superseded:
            return Wanted((), ())
        with self._lock:
            declared = [*memory.declared.values(), *memory.offered]
            declared += [
                Declared(pod.key, link) for link in pod.links if link.ifname not in memory.declared
            ]
            for primary in self._primaries.get(state.key, ()):
                other = self._find(primary)
                if other is not None and other.attachment is not None:
                    declared += [
                        Declared(primary, link)
                        for link in other.attachment.links
                        if link.pair == state.key.name
                    ]
            reserved = _runtimes(state.attachment)
        result = wanted(
            state.key, self.node.address, declared, self.places(state), memory.rivals, reserved
        )
        if local_only and any(one.error for one in result.waiting):
            # Two links want one interface: etcd's order decides, and is not known yet.
            return Wanted((), result.waiting)
        return result

    def _local_peers(self, state: PodState) -> set[PodKey]:
        """Pods that may be at the other ends of a pod's links."""
        peers = set(self._primaries.get(state.key, ()))
        if state.attachment is not None:
            peers |= {state.key.sibling(link.pair) for link in state.attachment.links}
        return peers | {offer.primary for offer in state.memory.offered}

    def _local_peers_of(self, key: PodKey, published: Published) -> set[PodKey]:
        return set(self._primaries.get(key, ())) | {
            key.sibling(pair) for pair, _ in published.declared
        }

    def _rouse(self, peers: Iterable[PodKey], by: PodKey) -> None:
        """Have pods of this node look at their links with `by` again."""
        for peer in peers:
            other = self._states.get(peer)
            if other is not None and other.attachment is not None:
                other.look.peers.add(by)
                self._schedule.put(peer)

    def _tell_local_peers(self, state: PodState) -> None:
        """A pod that has come, or stands in for another one, is news to its peers on this node."""
        if state.told == (state.container, state.memory.superseded):
            return
        state.told = (state.container, state.memory.superseded)
        with self._lock:
            self._rouse(self._local_peers(state), state.key)


def _this_node(config: Config, kernel: Kernel) -> Node:
    """This node's tunnel end, as configured or found out."""
    interface, address = config.parent_interface, config.parent_address
    if interface is None:
        interface = kernel.interface_of(address) if address else kernel.default_route_interface()
    if address is None and interface is not None:
        address = kernel.first_address(interface)
    if address is None:
        # Links inside the node work without; v0.1.0 compared empty strings here.
        address = socket.gethostname()
        log.warning("no parent_address: links to other nodes cannot be made", node=address)
    return Node(address, interface or "", config.state_dir)


def _shown(attachment: Attachment) -> dict[str, Any]:
    return {
        "namespace": attachment.namespace,
        "name": attachment.pod,
        "kubernetes_name": attachment.kubernetes_name,
        "container": attachment.container_id,
        "netns": attachment.netns,
        "attached_at": attachment.attached_at,
    }


def _runtimes(attachment: Attachment | None) -> tuple[str, ...]:
    """Interfaces that labels cannot name; what is written in etcd can."""
    return ("lo",) if attachment is None else ("lo", attachment.ifname)


def _age(attachment: Attachment) -> float:
    return attachment.boottime_s


def _others(live: list[Attachment], newest: Attachment) -> list[Attachment]:
    """The attachments of other containers."""
    return [one for one in live if one.container_id != newest.container_id]


def _declared(attachment: Attachment) -> set[tuple[str, str]]:
    return {(link.pair, link.ifname) for link in attachment.links}


def _gone(attachment: Attachment, node_address: str, record: str | None) -> Gone:
    return Gone(
        attachment.container_id,
        Published(attachment.container_id, tuple(sorted(_declared(attachment)))),
        node_address,
        record,
        attachment.netns,
    )


def _backoff(first_s: float, longest_s: float, times: int) -> float:
    """Half as long again each time."""
    return float(min(longest_s, first_s * 1.5 ** min(times - 1, 30)))
