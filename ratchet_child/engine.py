"""What works for one configuration: its parts, and what they hear from outside.

Bells, records, requests and the kernel's news end in the same way: some pods are to be looked at
again. This module says which, and has them scheduled; what then happens to a pod, and when it is
tried again, is the business of the reconciler and the workers. So nothing in here makes a link.

Locks are taken in this order: the pods' own (what is in their namespaces; of two pods in the order
of their keys), the panel's, then the registry's (which pods there are). None is held over a request
to etcd.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from ratchet import log
from ratchet.attachments import Directory
from ratchet.cni.dataclasses import dataclass, field
from ratchet.cni.ip import Host
from ratchet.config import DEFAULT_VXLAN_PORT, Config
from ratchet_child.kernel.devices import Devices
from ratchet_child.kernel.guard import Guard
from ratchet_child.kernel.kinds import Kind, every_kind
from ratchet_child.kernel.netns import Namespaces, News
from ratchet_child.kernel.this_node import this_node
from ratchet_child.model.clock import Clock, SystemClock
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.local import Node
from ratchet_child.pairing.protocol import Pairing
from ratchet_child.pods.earlier import PublishedEarlier
from ratchet_child.pods.records import Records
from ratchet_child.pods.registry import Registry
from ratchet_child.pods.schedule import Schedule
from ratchet_child.pods.state import Gone
from ratchet_child.pods.turns import Pauses
from ratchet_child.status import Status
from ratchet_child.store import later
from ratchet_child.store.api import Store
from ratchet_child.store.health import Health
from ratchet_child.work.earlier_addresses import EarlierAddresses
from ratchet_child.work.ends import Ends
from ratchet_child.work.guarding import Guarding
from ratchet_child.work.panel import Keeps
from ratchet_child.work.reconcile import Reconciler
from ratchet_child.work.tidying import Tidying
from ratchet_child.work.withdrawal import Withdrawal
from ratchet_child.work.workers import WORKERS, Workers


@dataclass(frozen=True, slots=True)
class Parts:
    """What of an engine reaches outside the process. Tests and benchmarks hand in their own."""

    node: Node
    store: Store
    devices: Devices
    kinds: Mapping[str, Kind]
    directory: Directory
    records: Records
    addresses: EarlierAddresses
    keeper: Keeps
    guard: Guard | None = None
    vxlan_port: int = DEFAULT_VXLAN_PORT
    namespaces: Namespaces = field(default_factory=Namespaces)
    clock: Clock = field(default_factory=SystemClock)
    schedule: Schedule[PodKey] = field(default_factory=Schedule)
    pauses: Pauses = field(default_factory=Pauses)
    threads: int = WORKERS
    new_lock: Callable[[], AbstractContextManager[Any]] = threading.Lock

    @classmethod
    def of(cls, config: Config, directory: Directory, keeper: Keeps) -> Parts:
        """Make the parts that a configuration asks for. *Raises* KernelError."""
        devices = Devices()
        node = this_node(config, devices.node)
        guard = Guard(directory.state_dir, is_wanted=config.guard == "auto")
        return cls(
            node=node,
            store=later.etcd(config),
            devices=devices,
            kinds=every_kind(
                devices,
                port=config.vxlan_port,
                parent_interface=None if node.is_routed else node.interface,
                sender=Host.parse(node.address) if node.is_own else None,
                guard=guard,
            ),
            directory=directory,
            records=Records(directory.state_dir),
            addresses=EarlierAddresses(directory.state_dir),
            keeper=keeper,
            guard=guard,
            vxlan_port=config.vxlan_port,
        )


class Engine:
    """Joins the parts. Callers ask the parts themselves."""

    def __init__(self, parts: Parts, on_change: Callable[[], None]) -> None:
        """Join the parts; call `on_change`, from any thread, when a pod has been worked on."""
        clock = parts.clock
        self._devices = parts.devices
        self.node = parts.node
        self.store = parts.store
        self.clock = clock
        self.namespaces = parts.namespaces
        self.etcd = Health(clock)
        self._earlier = PublishedEarlier()
        self.registry = Registry(
            self.node, parts.directory, parts.records, parts.schedule, self._earlier, clock
        )
        self.pairing = Pairing(
            self.store,
            self.node,
            is_local=self.registry.is_present,
            claimed_earlier=self._earlier.claim,
            clock=clock,
            new_lock=parts.new_lock,
        )
        self.ends = Ends(
            parts.devices,
            parts.kinds,
            parts.namespaces,
            clock,
            parts.keeper,
            find=self.registry.find,
        )
        self._tidying = Tidying(self.ends, self.registry)
        self.guard = parts.guard
        self._guarding = (
            None if parts.guard is None else Guarding(parts.guard, self.registry, parts.vxlan_port)
        )
        self._withdrawal = Withdrawal(
            self.node, parts.directory, parts.addresses, self.registry, self.pairing, clock
        )
        reconciler = Reconciler(
            self.node,
            self.etcd,
            self._earlier,
            self.registry,
            self._withdrawal,
            self.pairing,
            self.ends,
            clock,
            on_change,
        )
        self.workers = Workers(
            parts.schedule,
            self.registry,
            reconciler,
            self.ends,
            self._earlier,
            clock,
            on_change,
            pauses=parts.pauses,
            threads=parts.threads,
        )
        self.status = Status(self.node, self.registry, self.pairing.machines, self.etcd, clock)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of this node is left, in its records or in etcd, as far as etcd says.

        An etcd that has not answered yet may hold what an earlier process had published.
        """
        return self._earlier.is_known and self.registry.is_idle

    @property
    def trouble(self) -> str | None:
        """What is wrong with this node's address."""
        return self.node.why_without or self.pairing.machines.trouble

    @property
    def is_cut_off(self) -> bool:
        """Whether its pods cannot be published, so that nobody can say which far pods are there."""
        return not self.node.address or self.pairing.machines.waits

    def start(self) -> None:
        self.registry.scan()
        if self._guarding is not None:
            self._guarding.start()
        self.workers.start()
        self._tidying.start()

    def stop(self) -> None:
        """End the threads and let go of all namespaces. *Blocks at most* a few requests."""
        self.ends.end()  # a pod may have hundreds of them
        self._tidying.stop()
        self.workers.stop()
        if self._guarding is not None:
            self._guarding.stop()
        self.close_kernel()

    def close_kernel(self) -> None:
        """Let go of all namespaces and sockets, as the end of the process does."""
        self.registry.close()
        self.ends.close()
        self._devices.close()

    def leave(self) -> None:
        """Leave nothing on the node: there will be no pods, and no child."""
        if self._guarding is not None:
            self._guarding.leave()

    # What is heard from the kernel ----------------------------------------------------------------

    def interfaces_changed(self, key: PodKey, news: News | None) -> None:
        """Take up what has become of a pod's interfaces; None when it may be anything."""
        state = self.registry.get(key)
        if state is None:
            return
        delay_s = self.ends.heard(state, news)
        if delay_s is not None:
            log.debug("an end is lost", pod=key, container=state.container, again_in_s=delay_s)
            self.registry.schedule(state, delay_s)

    # What is heard from etcd, always by one thread ------------------------------------------------

    def etcd_is_back(self, published: dict[PodKey, tuple[Published, int]] | None) -> None:
        """Work again, now that etcd answers.

        `published` is what the node had published; None if there is no need to look at everything.
        *Raises* StoreError.
        """
        moved = {} if self._earlier.is_known else self._withdrawal.leave_earlier_addresses()
        self.etcd.answered()
        if published is None:
            return
        with self.registry.lock:
            if not self._earlier.is_known:
                self._earlier.learn(published, moved)
            for key, (one, _) in published.items():
                state = self.registry.get(key)
                if state is None or state.container != one.container:
                    # A reboot, or a child that was killed: nothing stands behind these keys.
                    self.registry.note_gone(key, Gone.remembered(one, self.node.address))
            idle = self.registry.is_idle
            self.look_again()
        if idle:
            self.pairing.leave(self.node.address)

    def keep_alive(self) -> None:
        """Have other nodes know that this one is there, and look for what nobody rings for.

        *Raises* StoreError.
        """
        news = self.pairing.unrung.look(self.registry.far_nodes)
        if news is None:
            return
        if news.of_everyone:
            self.look_again()
        with self.registry.lock:
            for state in self.registry.states():
                memory = state.progress.memory
                unsure = {
                    peer
                    for peer, place in list(memory.places.items())
                    if place.address in news.doubtful
                }
                is_told = news.is_for(state.key, memory)
                if unsure or is_told:
                    state.heard.look.peers |= unsure
                    state.heard.look.everyone |= is_told
                    self.registry.schedule(state)

    def etcd_is_away(self, error: str) -> None:
        self.etcd.failed(error)

    def rung(self, by: PodKey, targets: Iterable[PodKey]) -> None:
        """Have the pods that have links with `by`, whose bell has rung, look at these again."""
        log.debug("bell heard", by=by, peers=log.Joined(targets))
        with self.registry.lock:
            names = set(targets)
            for state in self.registry.states():
                if state.key in names or by in state.progress.memory.known:
                    state.heard.look.peers.add(by)
                    state.heard.look.everyone = state.heard.look.everyone or state.key == by
                    self.registry.schedule(state)

    def listed(self, key: PodKey, published: Published | None) -> None:
        """Note that the node's own entry for a pod has been written, or removed: None.

        Mostly by this process. But etcd carries out a request whose answer was lost whenever it
        comes to it, so what stands there may be what this node once had. Only the node knows what
        it has: the rest is taken back, and what it has is written again.
        """
        with self.registry.lock:
            state = self.registry.get(key)
            if published is not None:
                if not published.is_of(self.node.state_dir, self.node.machine):
                    return
                if state is not None and state.container == published.container:
                    return
                self.registry.note_gone(key, Gone.remembered(published, self.node.address))
            if state is not None and state.heard.attachment is not None:
                state.heard.is_unlisted = state.heard.look.everyone = True
                self.registry.schedule(state)

    def look_again(self) -> None:
        """Have every pod look at all its links: the node's keys are not what they were."""
        with self.registry.lock:
            for state in self.registry.states():
                state.heard.look.everyone = True
                self.registry.schedule(state)
