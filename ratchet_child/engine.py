"""What works for one configuration: its parts, and what they are told from outside.

Bells, records, requests and the kernel's news end in the same way: some pods are to be looked at
again. This module says which, and has them scheduled; what then happens to a pod, and when it is
tried again, is the business of the reconciler and the workers. So nothing in here makes a link.

The order of locks: the ends' lock (what is in the namespaces), then the roster's (which pods there
are). Neither is held over a request to etcd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ratchet.attachments import Directory
from ratchet.config import Config
from ratchet_child.addresses import Addresses
from ratchet_child.contact import Contact
from ratchet_child.ends import Ends
from ratchet_child.keys import PodKey, Published
from ratchet_child.links import Kernel
from ratchet_child.node import this_node
from ratchet_child.pairing import Pairing
from ratchet_child.pods import Gone
from ratchet_child.reconcile import Reconciler
from ratchet_child.records import Records
from ratchet_child.roster import Roster
from ratchet_child.schedule import Schedule
from ratchet_child.status import Status
from ratchet_child.store import Store
from ratchet_child.traces import Traces
from ratchet_child.workers import Workers


class Engine:
    """Makes the parts, and joins them. Who asks for something asks the part."""

    def __init__(self, config: Config, directory: Directory, on_change: Callable[[], None]) -> None:
        """`on_change` is called from any thread when a pod has been worked on."""
        self._kernel = Kernel(config.vxlan_port, config.mtu)
        self._schedule: Schedule[PodKey] = Schedule()
        self.node = this_node(config, self._kernel)
        self.store = Store(config)
        self.etcd = Contact()
        self.roster = Roster(
            self.node, directory, Records(directory.state_dir), self._schedule, self.etcd
        )
        self.pairing = Pairing(
            self.store,
            self.node,
            is_local=self.roster.is_present,
            claimed_earlier=self.etcd.claim,
        )
        self.ends = Ends(
            self._kernel,
            port=config.vxlan_port,
            parent_interface=self.node.interface,
            find=self.roster.find,
        )
        self._traces = Traces(
            self.node, directory, Addresses(directory.state_dir), self.roster, self.pairing
        )
        reconciler = Reconciler(
            self.node, self.etcd, self.roster, self._traces, self.pairing, self.ends, on_change
        )
        self.workers = Workers(
            self._schedule, self.roster, reconciler, self.ends, self.etcd, on_change
        )
        self.status = Status(self.roster, self.ends, self.etcd)

    def start(self) -> None:
        self.roster.scan()
        self.workers.start()

    def stop(self) -> None:
        """End the threads and let go of all namespaces. *Blocks at most* a few requests."""
        self.workers.stop()
        self.roster.close()
        self._kernel.close()

    # What is heard from the kernel ----------------------------------------------------------------

    def interfaces_lost(self, key: PodKey, ifnames: set[str] | None) -> None:
        """Interfaces of a pod have gone or gone down; None when it may be any."""
        state = self.roster.get(key)
        delay_s = None if state is None else self.ends.lost(state, ifnames)
        if delay_s is not None:
            self._schedule.put(key, delay_s)

    # What is heard from etcd, always by one thread ------------------------------------------------

    def etcd_is_back(self, published: dict[PodKey, tuple[Published, int]] | None) -> None:
        """etcd answers. `published`: what the node had published, when everything is looked at.

        *Raises* StoreError.
        """
        moved = {} if self.etcd.is_known else self._traces.leave_earlier_addresses()
        self.etcd.answered()
        if published is None:
            return
        with self.roster.lock:
            if not self.etcd.is_known:
                self.etcd.learn(published, moved)
            for key, (one, _) in published.items():
                state = self.roster.get(key)
                if state is None or state.container != one.container:
                    # A reboot, or a child that was killed: nothing stands behind these keys.
                    self.roster.note_gone(key, Gone.remembered(one, self.node.address))
            idle = self.roster.is_idle
            self.look_again()
        if idle:
            self.pairing.leave(self.node.address)

    def etcd_is_away(self, error: str) -> None:
        self.etcd.failed(error)

    def rung(self, by: PodKey, targets: Iterable[PodKey]) -> None:
        """A bell: the pods that have links with `by` look at these again."""
        with self.roster.lock:
            names = set(targets)
            for state in self.roster.states():
                if state.key in names or by in state.memory.known:
                    state.look.peers.add(by)
                    state.look.everyone = state.look.everyone or state.key == by
                    self._schedule.put(state.key)

    def listed(self, key: PodKey, published: Published | None) -> None:
        """The node's own entry for a pod has been written, or removed: None.

        Mostly by this process. But etcd carries out a request whose answer was lost whenever it
        comes to it, so what stands there may be what this node once had. Only the node knows what
        it has: the rest is taken back, and what it has is written again.
        """
        with self.roster.lock:
            state = self.roster.get(key)
            if published is not None:
                if published.state_dir not in ("", self.node.state_dir):
                    return
                if state is not None and state.container == published.container:
                    return
                self.roster.note_gone(key, Gone.remembered(published, self.node.address))
            if state is not None and state.attachment is not None:
                state.is_unlisted = state.look.everyone = True
                self._schedule.put(key)

    def look_again(self) -> None:
        """Every pod looks at all of its links: the node's keys are not what they were."""
        with self.roster.lock:
            for state in self.roster.states():
                state.look.everyone = True
                self._schedule.put(state.key)
