"""What this process knows of one pod on this node.

A `PodState` is worked on by one thread at a time, which owns most of it. What others touch as well
stands under a lock, whose owner says what for: the ends' lock for what is in the namespace (a veth
has two pods), the registry's lock for what has been heard. Nothing in here takes a lock or decides
what is to be done.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from ratchet.attachments import Attachment
from ratchet.errors import KernelError
from ratchet_child.kernel.netns import Monitor, Namespace
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.local import Memory
from ratchet_child.model.plan import DeclaredLink, End, Form, Found, Side, Waiting, Wanted
from ratchet_child.pods.history import ERROR, UP, WAITING, History


@dataclass(frozen=True, slots=True)
class Gone:
    """A container whose traces are to be removed: interfaces, keys, record."""

    container: str
    published: Published
    node_address: str
    record: str | None  # path of the deleted record, None while there is none
    netns: str | None

    @classmethod
    def detached(cls, attachment: Attachment, node_address: str, record: str | None = None) -> Gone:
        """What an attachment was, of which nothing is to be left."""
        declared = tuple(sorted(declared_by(attachment)))
        container = attachment.container_id
        return cls(
            container, Published(container, declared), node_address, record, attachment.netns
        )

    @classmethod
    def remembered(cls, published: Published, node_address: str) -> Gone:
        """One that only etcd remembers."""
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
        """The peers as `Pairing.look` takes them."""
        return None if self.everyone else self.peers

    def add(self, other: Look) -> None:
        """Look at what `other` was to look at, too."""
        self.everyone |= other.everyone
        self.kernel |= other.kernel
        self.peers |= other.peers


class PodState:
    """Everything about one pod of this node."""

    def __init__(self, key: PodKey, monitors: deque[tuple[Monitor, PodKey | None]]) -> None:
        """`monitors` takes what is to be waited for, and without a pod what no longer is.

        Who waits closes them.
        """
        self.key = key
        self._monitors = monitors

        # What has been heard: changed under the registry's lock.
        self.attachment: Attachment | None = None
        self.gone: list[Gone] = []
        self.doubted: set[str] = set()  # containers for which a request to etcd has failed
        self.again: dict[Gone, float] = {}  # to be withdrawn once more, monotonic seconds
        self.look = Look()
        self.asked = 0  # number of the latest request for a reconciliation
        self.dropped: set[tuple[str, str]] = set()  # (pair, ifname) that it no longer declares
        self.is_unlisted = False  # the node's entry for it is not its own, write it again

        # What is in the namespace: changed under the ends' lock.
        self.namespace: Namespace | None = None
        self.opened: str | None = None  # container whose namespace that is
        self.monitor: Monitor | None = None
        self.wanted: Wanted | None = None
        self.found: dict[str, Found] | None = None
        self.right: dict[str, Form] = {}  # ends that are as they should be
        self.errors: dict[str, str] = {}  # why an end could not be made, by ifname
        self.refused: set[str] = set()  # ends that the far pod has no interface for
        self.lowered: dict[str, float] = {}  # when ends set down by hand are due, monotonic seconds
        self.busy_since: dict[int, float] = {}  # VNIs that were in use here, monotonic seconds
        self.told_errors: dict[str, str] = {}
        self.history = History()

        # What has become of it: changed by the thread that works on it, and by `renew`.
        self.memory = Memory()
        self.looked = False  # everything has been read at least once
        self.look_all_at: float | None = None  # when it looks again unasked, monotonic seconds
        self.keep_until = 0.0  # remove nothing before this moment, monotonic seconds
        self.vanished: str | None = None  # container whose namespace is gone
        self.told: tuple[str | None, bool] | None = None  # to the peers on this node
        self.served = 0  # the latest request that has been served in full
        self.failures = 0  # in a row
        self.waits = 0  # looks in a row that have found a link waiting
        self.error: str | None = None  # why the last reconciliation failed
        self.last_error: str | None = None  # the same, also when it is over
        self.last_error_at: float | None = None  # when that began, seconds since the epoch

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
        self.history.clear()

    def renew(self) -> None:
        """Start afresh with another record; the namespace is changed when it is opened.

        *Needs* the registry's lock.
        """
        self.memory = Memory()
        self.look = Look()
        self.looked = False
        self.failures = self.waits = 0
        self.keep_until = 0.0

    def serve(self, number: int) -> None:
        """Note that requests up to that one have been served in full."""
        self.served = max(self.served, number)

    def fail(self, error: str) -> None:
        """Note why a reconciliation failed."""
        if error != self.error:
            self.last_error, self.last_error_at = error, time.time()
        self.error = error

    def doubt(self) -> None:
        """A request to etcd has failed, for whichever container: it may be carried out yet."""
        self.doubted.update(one.container for one in self.gone)
        if self.container is not None:
            self.doubted.add(self.container)

    def take_again(self, now: float) -> None:
        """Have withdrawn what is due once more at a moment, in monotonic seconds."""
        for one in [one for one, due in self.again.items() if due <= now]:
            del self.again[one]
            self.gone.append(one)

    # Its links ----------------------------------------------------------------------------------

    def state_of(self, end: End) -> tuple[str, str | None]:
        """The state of an end that is wanted, and the error if it has one."""
        if self.right.get(end.side.ifname) == end.form:
            return UP, None
        error = self.errors.get(end.side.ifname)
        return (WAITING if error is None else ERROR), error

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """The links that no end can be made of, all of them before the namespace was opened."""
        if self.wanted is not None:
            return self.wanted.waiting
        links = () if self.attachment is None else self.attachment.links
        return tuple(Waiting(Side.of(DeclaredLink(self.key, link), self.key)) for link in links)

    @property
    def trouble(self) -> str | None:
        """What keeps the pod as a whole from being worked on."""
        if self.container is not None and self.vanished == self.container:
            return "its network namespace is gone"
        return self.error


def declared_by(attachment: Attachment) -> set[tuple[str, str]]:
    """The links that an attachment declares: (pair, ifname) of each."""
    return {(link.pair, link.ifname) for link in attachment.links}
