"""What this process knows of one pod on this node, and how it tells others.

A `PodState` is worked on by one thread at a time. What more than one thread touches (`wanted`,
`found`, `right`: a veth has two pods) is only touched by who holds the engine's kernel lock.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ratchet.attachments import Attachment
from ratchet.errors import KernelError
from ratchet_child.keys import PodKey, Published
from ratchet_child.netns import Monitor, Namespace
from ratchet_child.pairing import Memory
from ratchet_child.plan import End, Form, Found, Place, Side, Vxlan, Wanted

UP, WAITING, ERROR = "up", "waiting", "error"


@dataclass(frozen=True, slots=True)
class Gone:
    """A container whose traces are to be removed: interfaces, keys, record."""

    container: str
    published: Published
    node_address: str
    record: str | None  # path of the deleted record, None for one that only etcd remembers
    netns: str | None


@dataclass(slots=True)
class Look:
    """Which peers a pod is to look at again: `everyone` at first."""

    everyone: bool = True
    peers: set[PodKey] = field(default_factory=set)
    kernel: bool = False  # trust nothing that was found in the namespace earlier

    @property
    def is_empty(self) -> bool:
        return not (self.everyone or self.peers or self.kernel)

    def at(self) -> set[PodKey] | None:
        """The peers as `Pairing.look` takes them."""
        return None if self.everyone else self.peers


class PodState:
    """Everything about one pod of this node."""

    def __init__(self, key: PodKey, retired: deque[Monitor]) -> None:
        """`retired` takes monitors that are no longer needed: who waits for them closes them."""
        self.key = key
        self._retired = retired
        self.attachment: Attachment | None = None
        self.gone: list[Gone] = []
        self.dropped: set[tuple[str, str]] = set()  # (pair, ifname) that it no longer declares
        self.memory = Memory()
        self.look = Look()
        self.looked = False  # everything has been read at least once
        self.look_all_at: float | None = None  # when it looks again unasked, monotonic seconds

        self.namespace: Namespace | None = None
        self.opened: str | None = None  # container whose namespace that is
        self.monitor: Monitor | None = None
        self.vanished: str | None = None  # container whose namespace is gone

        self.wanted: Wanted | None = None
        self.found: dict[str, Found] | None = None
        self.right: dict[str, Form] = {}  # ends that are as they should be
        self.errors: dict[str, str] = {}  # why an end could not be made, by ifname
        self.refused: set[str] = set()  # ends that the far pod has no interface for
        self.lowered: dict[str, float] = {}  # when ends set down by hand are due, monotonic seconds
        self.told_errors: dict[str, str] = {}
        self.busy_since: dict[int, float] = {}  # VNIs that were in use here, monotonic seconds
        self.is_unlisted = False  # the node's entry for it is not its own, write it again
        self.keep_until = 0.0  # remove nothing before this moment, monotonic seconds

        self.asked = 0  # number of the latest request for a reconciliation
        self.served = 0  # the latest one that has been served in full
        self.failures = 0  # in a row
        self.waits = 0  # looks in a row that have found a link waiting
        self.error: str | None = None  # why the last reconciliation failed
        self.told: tuple[str | None, bool] | None = None  # to the peers on this node
        self._since: dict[str, tuple[str, float]] = {}

    @property
    def container(self) -> str | None:
        return None if self.attachment is None else self.attachment.container_id

    @property
    def opened_namespace(self) -> Namespace:
        """The namespace, for those who have seen to it that it is open."""
        if self.namespace is None:
            raise KernelError(f"use the namespace of {self.key}", "it is not open")
        return self.namespace

    @property
    def is_present(self) -> bool:
        """Whether other pods of this node can be linked with it."""
        return (
            self.attachment is not None
            and not self.memory.superseded
            and self.vanished != self.container
        )

    @property
    def is_idle(self) -> bool:
        return self.attachment is None and not self.gone

    def forget_kernel(self) -> None:
        """Let go of the namespace and of what was found in it."""
        monitor, self.monitor = self.monitor, None
        if monitor is not None:
            self._retired.append(monitor)  # now it may be closed at any moment
        if self.namespace is not None:
            self.namespace.close()
        self.namespace = self.opened = None
        self.found = None
        self.wanted = None
        self.right.clear()
        self.errors.clear()
        self.refused.clear()
        self.lowered.clear()
        self.busy_since.clear()

    def renew(self) -> None:
        """Start afresh with another record; the namespace is changed when it is opened."""
        self.memory = Memory()
        self.look = Look()
        self.looked = False
        self.failures = self.waits = 0
        self.keep_until = 0.0

    # Telling ------------------------------------------------------------------------------------

    def links(self, places: dict[PodKey, Place]) -> list[dict[str, Any]]:
        """The links as requests and `ratchetctl status` show them; `places` of all known pods."""
        if self.wanted is None:
            return []
        shown = []
        for end in self.wanted.ends:
            ifname = end.side.ifname
            if self.right.get(ifname) == end.form:
                shown.append(self._link(end.side, UP, None, end, places))
            else:
                error = self.errors.get(ifname)
                state = WAITING if error is None else ERROR
                shown.append(self._link(end.side, state, error, end, places))
        for waiting in self.wanted.waiting:
            state = WAITING if waiting.error is None else ERROR
            shown.append(self._link(waiting.side, state, waiting.error, None, places))
        return shown

    def is_complete(self, mode: str, places: dict[PodKey, Place]) -> bool:
        """Whether a parent that waits for `mode` ("present" or "all") can go on."""
        if not self.looked or self.wanted is None:
            return False
        for end in self.wanted.ends:
            ifname = end.side.ifname
            if self.right.get(ifname) != end.form and not (
                mode == "present" and ifname in self.refused
            ):
                return False
        if mode == "all":
            return not self.wanted.waiting
        # A link whose far pod is there but which waits is not complete, and neither is a wrong one.
        return not any(one.side.peer in places and not one.error for one in self.wanted.waiting)

    def _link(
        self,
        side: Side,
        state: str,
        error: str | None,
        end: End | None,
        places: dict[PodKey, Place],
    ) -> dict[str, Any]:
        before = self._since.get(side.ifname)
        if before is None or before[0] != state:
            self._since[side.ifname] = before = (state, time.time())
        place = places.get(side.peer)
        return {
            "ifname": side.ifname,
            "address": None if side.address is None else str(side.address),
            "peer": str(side.peer),
            "peer_ifname": None if side.peer_ifname == "?" else side.peer_ifname,
            "peer_address": None if side.peer_address is None else str(side.peer_address),
            "peer_node": None if place is None else place.address,
            "primary": side.declared.primary == self.key,
            "vni": side.declared.vni,
            "kind": None if end is None else ("vxlan" if isinstance(end, Vxlan) else "veth"),
            "state": state,
            "since": before[1],
            "error": error,
        }
