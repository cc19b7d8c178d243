"""Removing what is left in etcd and on the disk of containers that are gone from this node.

A trace may have been written by this process, by one that was killed, before a reboot, or while the
node had another address; and etcd may yet carry out a request whose answer was lost. So everything
here may be done twice, and what is doubtful is. Interfaces are the ends' business, and go first.

The keys go before the record: until the record is gone, a crash has all of this done again.
"""

from __future__ import annotations

from ratchet import log
from ratchet.attachments import Directory
from ratchet.cni.dataclasses import replace
from ratchet.errors import StoreError
from ratchet_child import steps
from ratchet_child.model.clock import Clock
from ratchet_child.model.keys import PodKey
from ratchet_child.model.local import Node
from ratchet_child.pairing.protocol import Pairing
from ratchet_child.pods.earlier import Claim
from ratchet_child.pods.registry import Registry
from ratchet_child.pods.state import Gone, PodState
from ratchet_child.work.earlier_addresses import EarlierAddresses
from ratchet_child.work.telling import Many

_LATE_S = 10.0  # until then a request to etcd that has failed is carried out, if it ever is


class Withdrawal:
    """Every method talks to etcd and raises StoreError when it cannot."""

    def __init__(
        self,
        node: Node,
        directory: Directory,
        addresses: EarlierAddresses,
        registry: Registry,
        pairing: Pairing,
        clock: Clock,
    ) -> None:
        self._node = node
        self._directory = directory
        self._addresses = addresses
        self._registry = registry
        self._pairing = pairing
        self._clock = clock
        self._traces = Many(clock)

    def withdraw(self, state: PodState, gone: Gone) -> None:
        """Remove a container's keys, then its record, and have its peers look."""
        self._pairing.withdraw(state.key, gone.published, gone.node_address)
        fields = {"pod": state.key, "container": gone.container, "node": gone.node_address}
        if state.is_trace:
            self._traces.note("withdrawn", **fields)
        else:
            log.info("withdrawn", **fields)
        if self._registry.note_withdrawn(gone):
            self._pairing.leave(self._node.address)
        if gone.node_address != self._node.address:
            self.leave_earlier_addresses()
        self._forget(state, gone)
        with self._registry.lock:
            if gone.container in state.heard.doubted:
                state.heard.doubted.discard(gone.container)
                once_more = replace(gone, record=None, netns=None)
                state.heard.again[once_more] = self._clock.monotonic() + _LATE_S

    def _forget(self, state: PodState, gone: Gone) -> None:
        if gone.record is not None:
            steps.reach("forget record")
            self._directory.forget(gone.record)
        with self._registry.lock:
            self._registry.forget_gone(state, gone)
            self._registry.rouse_peers_of(state.key, gone.published)

    def forget(self, state: PodState, gone: Gone) -> None:
        """Forget a container on a node without an address, which has nothing in etcd.

        *Raises* StoreError when it had another address earlier: its keys are still there.
        """
        if self._addresses.known():
            raise StoreError("withdraw what this node has published", self._node.why_without)
        self._forget(state, gone)

    def has_moved(self, state: PodState, gone: Gone) -> bool:
        """Whether the container is still here, and only its node's address is another one."""
        return (
            gone.container == state.container != state.progress.vanished
            and gone.node_address != self._node.address
        )

    def move(self, state: PodState, gone: Gone) -> None:
        """Forget where a pod was published when its node had another address."""
        self._pairing.forget(state.key, gone.published, gone.node_address)
        self.leave_earlier_addresses()
        self._registry.forget_gone(state, gone)

    def leave_earlier_addresses(self) -> dict[PodKey, Claim]:
        """Have what was published under other addresses of this node withdrawn.

        The containers among it that are still here, with etcd's index of when they were published.
        """
        moved: dict[PodKey, Claim] = {}
        for address in self._addresses.use(self._node.address):
            found = self._pairing.node(address).published
            with self._registry.lock:
                for key, (one, index) in found.items():
                    state = self._registry.note_gone(key, Gone.remembered(one, address))
                    earlier = moved.get(key, (one.container, index))
                    if state.container == one.container:
                        moved[key] = one.container, min(index, earlier[1])
            if not found:
                self._pairing.leave(address)
                self._addresses.forget(address)
        return moved
