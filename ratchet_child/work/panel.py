"""Legs of cables inside the node whose pod has gone: they wait, down, for the pod to come back.

A veth pair goes with either of its namespaces, and with it the surviving pod's interface, its
routes and its place in a bridge. So a leg whose pod was detached stays where it is: the namespace
is held open, the leg is set down, and the other end shows NO-CARRIER. When the pod comes back on
this node the leg is moved into its new namespace (15 to 20 ms), and nothing changes at the other
end but the carrier. A whole topology that is taken down moves nothing.

A container may live on after its DEL (`podman network disconnect`). It must not keep a leg, which
it could set up again; so a namespace that is still there some seconds later loses its legs to the
attic, a namespace of the panel's own.

The child's supervisor keeps the descriptors as well, so that the legs outlive the child.

The panel has a lock of its own, which is taken last: both pods of a cable may go at the same
moment, and then nothing is to wait.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol

from ratchet import log
from ratchet.cni.dataclasses import dataclass
from ratchet.errors import KernelError
from ratchet.netns import Identity
from ratchet_child.kernel.devices import Devices
from ratchet_child.kernel.netns import Namespace
from ratchet_child.model.interfaces import Found, Interface, Label
from ratchet_child.model.keys import PodKey

_NAME = "leg"


class Keeps(Protocol):
    """What keeps descriptors for the children to come, by name."""

    def keep(self, name: str, fd: int) -> None:
        """Keep a copy of a descriptor. *Raises* OSError."""

    def drop(self, name: str) -> None:
        """Keep a descriptor no longer. *Safe to call twice.*"""

    def kept(self) -> Mapping[str, int]:
        """Return what is kept; the descriptors stay the keeper's."""


@dataclass(slots=True)
class Room:
    """A namespace whose pod has gone, and how many need it: its legs, and who clears it."""

    namespace: Namespace
    users: int = 1
    may_live_on: bool = True
    has_lived_on: bool = False  # it was still there the last time that somebody looked


@dataclass(slots=True)
class _Leg:
    room: Room
    index: int

    def is_in(self, namespace: Namespace) -> bool:
        return self.room.namespace.identity == namespace.identity


class Panel:
    """The legs, by the Kubernetes namespace of their pods and the link."""

    def __init__(
        self,
        devices: Devices,
        keeper: Keeps,
        open_namespace: Callable[[str, Identity | None], Namespace],
        make_namespace: Callable[[], Namespace],
    ) -> None:
        """Take up what an earlier child has left with the keeper."""
        self._devices = devices
        self._keeper = keeper
        self._make_namespace = make_namespace
        self._attic: Room | None = None  # for as long as something is in it
        self._moved = 0
        self._legs: dict[tuple[str, str], _Leg] = {}
        # Set while a leg may be in a namespace that lives on, so that `tidy` is needed.
        self.may_be_untidy = threading.Event()
        self._lock = threading.RLock()
        rooms: dict[tuple[int, int], Room] = {}
        for name, fd in keeper.kept().items():
            known = _parsed(name)
            if known is None:
                continue
            try:
                status = os.fstat(fd)
                identity = status.st_dev, status.st_ino
                if identity not in rooms:
                    # Whose it was is not known any more.
                    opened = open_namespace(f"/proc/self/fd/{fd}", identity)
                    rooms[identity] = Room(opened, users=0, may_live_on=False)
            except (KernelError, OSError) as error:
                log.warning("a leg that waits cannot be taken up", name=name, error=str(error))
                keeper.drop(name)
                continue
            pod_namespace, link, index = known
            self._legs[pod_namespace, link] = _Leg(rooms[identity], index)
            rooms[identity].users += 1

    @contextlib.contextmanager
    def room(self, namespace: Namespace) -> Iterator[Room]:
        """Take over the namespace of a pod that has gone, while its interfaces are cleared.

        It is closed at the end, unless a leg waits in it.
        """
        room = Room(namespace)
        try:
            yield room
        finally:
            with self._lock:
                self._leave(room)

    def park(
        self, pod: PodKey, room: Room, label: Label, found: Found, *, is_needed: Callable[[], bool]
    ) -> bool:
        """Have a leg of a pod that has gone wait; False when nobody is at its other end.

        `is_needed` says whether the pod at the other end is there. Where that one has gone as well,
        its own leg waits already, or is removed. *Safe to call twice.*
        """
        with self._lock:
            leg = self._legs.get((pod.namespace, label.link))
            if leg is not None:
                return leg.is_in(room.namespace) and leg.index == found.index
            if not is_needed():
                return False
            try:
                self._devices.set_down(room.namespace, found.index)
            except KernelError as error:
                log.warning("a leg cannot be parked", link=label.link, error=str(error))
                return False
            self._legs[pod.namespace, label.link] = _Leg(room, found.index)
            self.may_be_untidy.set()
            room.users += 1
            self._keep(_name(pod.namespace, label.link, found.index), room)
        return True

    def has(self, pod_namespace: str, link: str) -> bool:
        """Say whether the leg of a link waits."""
        with self._lock:
            return (pod_namespace, link) in self._legs

    def plug(self, pod: PodKey, namespace: Namespace, wanted: Interface) -> bool:
        """Move the leg of a link into the pod's new namespace; False when none waits."""
        with self._lock:
            leg = self._legs.pop((pod.namespace, wanted.label.kept.link), None)
        if leg is None:
            return False
        try:
            self._devices.move(
                leg.room.namespace, leg.index, namespace, wanted.ifname, mac=wanted.mac
            )
        except KernelError as error:
            log.debug("a leg that waited is gone", link=wanted.label.kept.link, error=str(error))
            return False
        finally:
            self._let_go(pod.namespace, wanted.label.kept.link, leg)
        return True

    def give_back(self, pod: PodKey, namespace: Namespace, link: str) -> bool:
        """Say whether the leg of a link has waited in this very namespace, which a pod has again.

        It waits no longer.
        """
        with self._lock:
            leg = self._legs.get((pod.namespace, link))
            if leg is None or not leg.is_in(namespace):
                return False
            self.drop(pod.namespace, link)
        return True

    def tidy(
        self, in_use: Callable[[], Collection[Identity]], must_go_on: Callable[[], None]
    ) -> None:
        """Move legs out of namespaces that live on; for who calls it every few seconds.

        `in_use` gives the namespaces of pods that are attached. The lock is held for one leg at a
        time: a pod may have hundreds of them, and other pods' cables need the panel. `must_go_on`
        raises when there is no time for more.
        """
        with self._lock:
            legs = list(self._legs.items())
            if not any(leg.room.may_live_on for _, leg in legs):
                self.may_be_untidy.clear()
        late: list[Room] = []
        for (pod_namespace, link), leg in legs:
            must_go_on()
            with self._lock:
                room = leg.room
                if self._legs.get((pod_namespace, link)) is not leg:
                    continue  # it has gone, or has moved, meanwhile
                if not room.may_live_on or room.namespace.identity in in_use():
                    continue
                if room.has_lived_on and room.namespace.is_current():
                    self._move_out(pod_namespace, link, leg)
                else:
                    late.append(room)
        for room in late:
            room.has_lived_on = room.namespace.is_current()

    def _move_out(self, pod_namespace: str, link: str, leg: _Leg) -> None:
        """Move a leg into the attic; one that has gone is forgotten."""
        self._moved += 1
        attic = self._attic
        try:
            if attic is None or not attic.users:
                attic = self._attic = Room(self._make_namespace(), users=0, may_live_on=False)
            ifname = f"leg{self._moved}"
            self._devices.move(leg.room.namespace, leg.index, attic.namespace, ifname)
            found = self._devices.find(attic.namespace, ifname)
        except (KernelError, OSError) as error:
            log.debug("a leg that waited is gone", link=link, error=str(error))
            found = None
        if attic is None or found is None:
            self.drop(pod_namespace, link)
            return
        moved = self._legs[pod_namespace, link] = _Leg(attic, found.index)
        attic.users += 1
        self._keep(_name(pod_namespace, link, moved.index), attic)
        if leg.index != moved.index:
            self._keeper.drop(_name(pod_namespace, link, leg.index))
        self._leave(leg.room)
        log.debug("a leg that waited was moved, as its container lives on", link=link)

    def _keep(self, name: str, room: Room) -> None:
        try:
            self._keeper.keep(name, room.namespace.fd)
        except OSError as error:
            log.warning("a leg that waits ends with this process", error=str(error))

    def drop(self, pod_namespace: str, link: str) -> None:
        """Forget the leg of a link, whose other end has gone or will. *Safe to call twice.*"""
        with self._lock:
            leg = self._legs.pop((pod_namespace, link), None)
        if leg is not None:
            self._let_go(pod_namespace, link, leg)

    def _let_go(self, pod_namespace: str, link: str, leg: _Leg) -> None:
        with self._lock:
            self._keeper.drop(_name(pod_namespace, link, leg.index))
            self._leave(leg.room)

    def _leave(self, room: Room) -> None:
        room.users -= 1
        if not room.users:
            room.namespace.close()

    def close(self) -> None:
        """Let go of all namespaces. What the keeper has stays there, for the next one."""
        with self._lock:
            for leg in self._legs.values():
                leg.room.namespace.close()
            self._legs.clear()


def _name(pod_namespace: str, link: str, index: int) -> str:
    return f"{_NAME} {pod_namespace} {link} {index}"


def _parsed(name: str) -> tuple[str, str, int] | None:
    match name.split(" "):
        case [kind, pod_namespace, link, index] if kind == _NAME and index.isdigit():
            return pod_namespace, link, int(index)
        case _:
            return None
