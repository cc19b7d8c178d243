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
from ratchet_child.local import Memory
from ratchet_child.netns import Monitor, Namespace
from ratchet_child.plan import (
    Declared,
    End,
    Form,
    Found,
    Place,
    Side,
    Vxlan,
    Waiting,
    Wanted,
)

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


@dataclass(slots=True)
class Note:
    """What has become of a link: its state, since when, and its last error, also when it is over.

    Times are seconds since the epoch.
    """

    state: str
    since: float
    error: str | None = None
    error_at: float | None = None  # when that error began
    is_told: bool = False  # that it waits


class PodState:
    """Everything about one pod of this node."""

    def __init__(self, key: PodKey, monitors: deque[tuple[Monitor, PodKey | None]]) -> None:
        """`monitors` takes what is to be waited for, and without a pod what no longer is.

        Who waits closes them.
        """
        self.key = key
        self._monitors = monitors
        self.attachment: Attachment | None = None
        self.gone: list[Gone] = []
        self.doubted: set[str] = set()  # containers for which a request to etcd has failed
        self.again: dict[Gone, float] = {}  # to be withdrawn once more, monotonic seconds
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
        self.last_error: str | None = None  # the same, also when it is over
        self.last_error_at: float | None = None  # when that began, seconds since the epoch
        self.told: tuple[str | None, bool] | None = None  # to the peers on this node
        self._notes: dict[tuple[str, PodKey, str], Note] = {}  # by ifname, peer and peer_ifname

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
        return self.attachment is None and not self.gone and not self.again

    def watch(self, monitor: Monitor) -> None:
        """Have somebody wait for what the namespace's monitor tells."""
        self.monitor = monitor
        self._monitors.append((monitor, self.key))

    def forget_kernel(self) -> None:
        """Let go of the namespace and of what was found in it."""
        monitor, self.monitor = self.monitor, None
        if monitor is not None:
            self._monitors.append((monitor, None))  # now it may be closed at any moment
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
        self._notes.clear()

    def renew(self) -> None:
        """Start afresh with another record; the namespace is changed when it is opened."""
        self.memory = Memory()
        self.look = Look()
        self.looked = False
        self.failures = self.waits = 0
        self.keep_until = 0.0

    # Telling ------------------------------------------------------------------------------------

    def fail(self, error: str) -> None:
        """Note why a reconciliation failed."""
        if error != self.error:
            self.last_error, self.last_error_at = error, time.time()
        self.error = error

    def note(self, side: Side, state: str, error: str | None = None) -> Note:
        """Note what has become of a link, at the moment it does."""
        key = (side.ifname, side.peer, side.peer_ifname)
        note = self._notes.get(key)
        if note is None:
            note = self._notes[key] = Note(state, time.time())
        elif note.state != state:
            note.state, note.since, note.is_told = state, time.time(), False
        elif error in (None, note.error):
            return note
        if error is not None:
            note.error, note.error_at = error, time.time()
        return note

    def note_up(self, side: Side, *, is_new: bool) -> float:
        """Note that a link is up; the seconds since it was not, or since its pod came.

        `is_new`: its end was made at this moment. The link may have been unknown for a while.
        """
        before = self._notes.get((side.ifname, side.peer, side.peer_ifname))
        now = time.time()
        since = now if self.attachment is None else self.attachment.attached_at
        if before is not None:
            since = now if before.state == UP else before.since
        note = self.note(side, UP)
        if is_new:
            note.since = now
        return max(now - since, 0.0)

    def forget_notes(self) -> None:
        """Let go of what was noted of links that are no longer wanted, when that is a lot."""
        wanted = self.wanted
        if wanted is None or len(self._notes) <= 2 * (len(wanted.ends) + len(wanted.waiting)) + 16:
            return
        sides = [one.side for one in (*wanted.ends, *wanted.waiting)]
        keys = {(side.ifname, side.peer, side.peer_ifname) for side in sides}
        self._notes = {key: note for key, note in self._notes.items() if key in keys}

    def state_of(self, end: End) -> tuple[str, str | None]:
        """The state of an end that is wanted, and the error if it has one."""
        if self.right.get(end.side.ifname) == end.form:
            return UP, None
        error = self.errors.get(end.side.ifname)
        return (WAITING if error is None else ERROR), error

    @property
    def trouble(self) -> str | None:
        """What keeps the pod as a whole from being worked on."""
        if self.container is not None and self.vanished == self.container:
            return "its network namespace is gone"
        return self.error

    def links(self, places: dict[PodKey, Place]) -> list[dict[str, Any]]:
        """The links as requests and `ratchetctl status` show them; `places` of all known pods."""
        shown = []
        for end in () if self.wanted is None else self.wanted.ends:
            state, error = self.state_of(end)
            shown.append(self._link(end.side, state, error, end, places))
        for waiting in self._waiting():
            state = WAITING if waiting.error is None else ERROR
            shown.append(self._link(waiting.side, state, waiting.error, None, places))
        return shown

    def count_links(self, counts: dict[str, int]) -> None:
        """Add the number of links in each state."""
        for end in () if self.wanted is None else self.wanted.ends:
            counts[self.state_of(end)[0]] += 1
        for waiting in self._waiting():
            counts[WAITING if waiting.error is None else ERROR] += 1

    def _waiting(self) -> tuple[Waiting, ...]:
        """The links that no end can be made of, all of them before the namespace was opened."""
        if self.wanted is not None:
            return self.wanted.waiting
        links = () if self.attachment is None else self.attachment.links
        return tuple(Waiting(Side.of(Declared(self.key, link), self.key)) for link in links)

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
        note = self._notes.get((side.ifname, side.peer, side.peer_ifname))
        if note is None:
            note = self.note(side, state, error)
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
            # Between two notes: it is being looked at, and will be noted at once.
            "since": note.since if note.state == state else time.time(),
            "error": error,
            "last_error": note.error,
            "last_error_at": note.error_at,
        }
