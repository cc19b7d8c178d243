"""What this process knows of one pod on this node, by who may change it.

A `PodState` has three parts, and each has one owner:

    heard       what others have told of the pod; changed under the registry's lock
    inside      what is in its network namespace; changed under a lock of its own (a veth has two
                pods, and either's worker may make it)
    progress    what has become of it; changed by the thread that works on the pod, and by `renew`

Anybody may read a part without its lock where an old value does no harm. Nothing in here takes a
lock or decides what is to be done.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

from ratchet.attachments import Attachment
from ratchet.cni.dataclasses import dataclass, field
from ratchet.errors import KernelError
from ratchet.links import Link, Override
from ratchet.netns import Identity
from ratchet_child.kernel.netns import Monitor, Namespace
from ratchet_child.model.clock import Clock
from ratchet_child.model.interfaces import Found, Interface, Setting
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.links import Cable, DeclaredLink, Side
from ratchet_child.model.local import Memory
from ratchet_child.model.plan import End, Waiting, Wanted
from ratchet_child.pods.history import ERROR, UP, WAITING, History
from ratchet_child.pods.schedule import Rank

FEW_LINKS = 32  # of a pod that is worked on in some tenths of a second


@dataclass(frozen=True, slots=True)
class Gone:
    """A container of which nothing is to be left: interfaces, keys, record."""

    container: str
    published: Published
    node_address: str
    record: str | None  # path of the deleted record, None while there is none
    netns: str | None
    netns_identity: Identity | None = None

    @classmethod
    def detached(cls, attachment: Attachment, node_address: str, record: str | None = None) -> Gone:
        """Return what an attachment was, of which nothing is to be left."""
        declared = tuple(sorted(declarations_of(attachment)))
        container = attachment.container_id
        return cls(
            container,
            Published(container, declared),
            node_address,
            record,
            attachment.netns,
            attachment.netns_identity,
        )

    @classmethod
    def remembered(cls, published: Published, node_address: str) -> Gone:
        """Return one that only etcd remembers."""
        return cls(published.container, published, node_address, None, None)


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
        """Return the peers as `Pairing.look` takes them."""
        return None if self.everyone else self.peers

    def is_at(self, peer: PodKey) -> bool:
        """Say whether a peer is among them."""
        return self.everyone or peer in self.peers

    def add(self, other: Look) -> None:
        """Look at what `other` was to look at, too."""
        self.everyone |= other.everyone
        self.kernel |= other.kernel
        self.peers |= other.peers


@dataclass(slots=True)
class Heard:
    """What others have told of a pod. Changed under the registry's lock."""

    attachment: Attachment | None = None
    gone: list[Gone] = field(default_factory=list)
    doubted: set[str] = field(default_factory=set)  # containers whose request to etcd has failed
    again: dict[Gone, float] = field(default_factory=dict)  # withdraw once more, monotonic seconds
    look: Look = field(default_factory=Look)
    asked: int = 0  # number of the latest request for a reconciliation
    dropped: set[tuple[str, str]] = field(default_factory=set)  # (pair, ifname) no longer declared
    # What operators ask of links: interface, and what is to be set of it; None: as it is declared.
    orders: list[tuple[str, Override | None]] = field(default_factory=list)
    is_unlisted: bool = False  # the node's entry for it is not its own, write it again

    def take_again(self, now: float) -> None:
        """Have withdrawn what is due once more at a moment, in monotonic seconds."""
        for one in [one for one, due in self.again.items() if due <= now]:
            del self.again[one]
            self.gone.append(one)


@dataclass(slots=True)
class Inside:
    """What is in a pod's network namespace. Changed under its lock.

    Whoever only tells how the pod is reads single values without the lock, so that it never waits
    for work: each is right, and may be of a moment ago.

    `right` holds, by interface, the specification that the kernel is known to satisfy; `given` the
    one that Ratchet has brought about last, also when it is no longer known to hold.
    """

    history: History
    lock: threading.RLock = field(default_factory=threading.RLock)
    namespace: Namespace | None = None
    opened: str | None = None  # container whose namespace that is
    monitor: Monitor | None = None
    wanted: Wanted | None = None
    cables: dict[Cable, End] = field(default_factory=dict)  # the ends of `wanted`
    refusals: dict[Cable, str] = field(default_factory=dict)  # why it has no end of a cable
    found: dict[str, Found] | None = None
    right: dict[str, Interface] = field(default_factory=dict)
    given: dict[str, Interface] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)  # why an end could not be made
    # What the kernel refused of an end, by what was to be set.
    faults: dict[str, dict[type[Setting], str]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # ends that the far pod has no interface for
    # Ends that the pod has moved: the number of a namespace, and the index there.
    moved: dict[str, tuple[int, int]] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)  # of `found`, to be read again when it matters
    busy_since: dict[int, float] = field(default_factory=dict)  # VNIs in use here (monotonic)
    told_errors: dict[str, str] = field(default_factory=dict)
    # Ends that have gone without Ratchet: how often in a row, and when last (monotonic seconds).
    losses: dict[str, tuple[int, float]] = field(default_factory=dict)
    # Of what the pod can have logged: how many lines in this minute, and when that began.
    told_lately: tuple[int, float] = (0, float("-inf"))

    def want(self, wanted: Wanted) -> None:
        """Take up which ends the pod should have."""
        names = {end.ifname for end in wanted.ends}
        for ifname in self.errors.keys() - names:
            del self.errors[ifname]
        # The far pod may go and come back before this one has its next turn: its leg is another.
        for ifname in self.right.keys() - names:
            del self.right[ifname]
        self.refused &= names
        self.cables = {end.side.declared.cable: end for end in wanted.ends}
        self.refusals = {
            one.side.declared.cable: one.error for one in wanted.waiting if one.error is not None
        }
        self.wanted = wanted

    def clear(self) -> None:
        """Forget all that was read and done in the namespace, and the namespace itself."""
        self.namespace = self.opened = self.monitor = self.found = self.wanted = None
        self.cables, self.refusals = {}, {}
        for one in (self.right, self.given, self.errors, self.faults, self.moved, self.losses):
            one.clear()
        self.refused.clear()
        self.stale.clear()
        self.busy_since.clear()
        self.history.clear()


@dataclass(slots=True)
class Progress:
    """What has become of a pod. Changed by the thread that works on it, and by `renew`."""

    memory: Memory = field(default_factory=Memory)
    looked: bool = False  # everything has been read at least once
    look_all_at: float | None = None  # when it looks again unasked, monotonic seconds
    keep_until: float = 0.0  # remove nothing before this moment, monotonic seconds
    # Ends whose primary is there and does not declare them, since when (monotonic seconds).
    unclaimed: dict[str, float] = field(default_factory=dict)
    # Primaries looked at that only an interface names: how many in this minute, and its beginning.
    strangers: tuple[int, float] = (0, float("-inf"))
    # Links that both pods declare, when the far pod, whose word counts, has come back and has not
    # declared them yet: since when (monotonic seconds), and those that wait for it.
    returning: dict[Cable, float] = field(default_factory=dict)
    awaited: frozenset[Cable] = frozenset()
    vanished: str | None = None  # container whose namespace is gone
    told: tuple[str | None, bool, tuple[Link, ...]] | None = None  # to the peers on this node
    turn_of: str | None = None  # the container that the last turn was about, for the log
    served: int = 0  # the latest request that has been served in full
    failures: int = 0  # in a row
    waits: int = 0  # looks in a row that have found a link waiting
    error: str | None = None  # why the last reconciliation failed
    last_error: str | None = None  # the same, also when it is over
    last_error_at: float | None = None  # when that began, seconds since the epoch

    def serve(self, number: int) -> None:
        """Note that requests up to that one have been served in full."""
        self.served = max(self.served, number)

    def fail(self, error: str, now: float) -> None:
        """Note why a reconciliation failed, at a moment in seconds since the epoch."""
        if error != self.error:
            self.last_error, self.last_error_at = error, now
        self.error = error


class PodState:
    """Everything about one pod of this node."""

    def __init__(
        self, key: PodKey, monitors: deque[tuple[Monitor, PodKey | None]], clock: Clock
    ) -> None:
        """Keep a pod's state, empty at first.

        `monitors` takes what is to be waited for, and without a pod what no longer is. Whoever
        waits closes them.
        """
        self.key = key
        self._monitors = monitors
        self.heard = Heard()
        self.inside = Inside(History(clock))
        self.progress = Progress()

    @property
    def container(self) -> str | None:
        attachment = self.heard.attachment
        return None if attachment is None else attachment.container_id

    def is_open(self) -> bool:
        """Say whether its namespace is open."""
        return self.inside.namespace is not None

    @property
    def opened_namespace(self) -> Namespace:
        """The namespace, for those who have seen to it that it is open."""
        if self.inside.namespace is None:
            raise KernelError(f"use the namespace of {self.key}", "it is not open")
        return self.inside.namespace

    @property
    def is_present(self) -> bool:
        """Whether other pods of this node can be linked with it."""
        return (
            self.heard.attachment is not None
            and not self.progress.memory.superseded
            and self.progress.vanished != self.container
        )

    @property
    def is_certain(self) -> bool:
        """Whether the pod is known to be here: etcd says so, or this process has heard its ADD.

        The record that an earlier process has left may be one of a container whose name another
        one has taken since, on another node. What etcd has just said of that may be known here
        before the ends that the pod should have are computed again.
        """
        if self.progress.memory.superseded:
            return False
        return self.progress.looked or self.heard.asked > 0

    @property
    def is_idle(self) -> bool:
        return self.heard.attachment is None and not self.heard.gone and not self.heard.again

    @property
    def is_trace(self) -> bool:
        """Whether etcd alone remembers it, where others may have written it."""
        gone = [*self.heard.gone, *self.heard.again]
        return self.heard.attachment is None and all(one.record is None for one in gone)

    @property
    def rank(self) -> Rank:
        """How soon it is worked on when others are due as well."""
        if self.is_trace:
            return Rank.TRACE
        attachment, ends = self.heard.attachment, len(self.ends)
        links = 0 if attachment is None else len(attachment.links)
        gone = (len(one.published.declared) for one in self.heard.gone)
        return Rank.LARGE if max(ends, links, *gone) > FEW_LINKS else Rank.FIRST

    def watch(self, monitor: Monitor) -> None:
        """Have somebody wait for what the namespace's monitor tells."""
        self.inside.monitor = monitor
        self._monitors.append((monitor, self.key))

    def forget_kernel(self) -> None:
        """Let go of the namespace and of what was found in it."""
        if self.inside.monitor is not None:
            self._monitors.append((self.inside.monitor, None))  # now it may be closed at any moment
        if self.inside.namespace is not None:
            self.inside.namespace.close()
        self.inside.clear()

    def renew(self) -> None:
        """Start afresh with another record; the namespace is changed when it is opened.

        *Needs* the registry's lock.
        """
        self.heard.look = Look()
        self.progress.memory = Memory()
        self.progress.looked = False
        self.progress.failures = self.progress.waits = 0
        self.progress.keep_until = 0.0
        self.progress.returning, self.progress.awaited = {}, frozenset()
        self.progress.vanished = None  # an ADD that is repeated may name another namespace

    def doubt(self) -> None:
        """Note that a request to etcd has failed: it may yet be carried out, for any container."""
        self.heard.doubted.update(one.container for one in self.heard.gone)
        if self.container is not None:
            self.heard.doubted.add(self.container)

    # Its links ----------------------------------------------------------------------------------

    def state_of(self, end: End) -> tuple[str, str | None]:
        """Return the state of an end that is wanted, and the error if it has one."""
        if self.inside.right.get(end.ifname) == end.interface or end.ifname in self.inside.moved:
            return UP, None
        error = self.inside.errors.get(end.ifname)
        return (WAITING if error is None else ERROR), error

    @property
    def ends(self) -> tuple[End, ...]:
        """The ends that it should have; none before its namespace was opened."""
        wanted = self.inside.wanted
        return () if wanted is None else wanted.ends

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """The links that no end can be made of, all of them before the namespace was opened."""
        wanted = self.inside.wanted
        if wanted is not None:
            return wanted.waiting
        attachment = self.heard.attachment
        links = () if attachment is None else attachment.links
        return tuple(Waiting(Side.of(DeclaredLink(self.key, link), self.key)) for link in links)

    @property
    def trouble(self) -> str | None:
        """What keeps the pod as a whole from being worked on."""
        if self.container is not None and self.progress.vanished == self.container:
            return "its network namespace is gone"
        return self.progress.error


def fault(refused: Mapping[type[Setting], str]) -> str | None:
    """Return what the kernel refused of an end in one sentence; None when it was nothing."""
    return "; ".join(refused.values()) or None


def declarations_of(attachment: Attachment) -> set[tuple[str, str]]:
    """Return the links that an attachment declares: (pair, ifname) of each."""
    return {(link.pair, link.ifname) for link in attachment.links}
