"""The network namespaces of this node's pods: opened for those that are here, cleaned for the gone.

To make or remove hundreds of ends takes seconds, and whoever hears the kernel's news needs the lock
of the pod that they are about. So a namespace is taken from its pod first, and cleaned when nobody
else has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from ratchet import log
from ratchet.attachments import Attachment
from ratchet.errors import KernelError
from ratchet.links import Link, Uplink
from ratchet_child.kernel.devices import Devices
from ratchet_child.kernel.kinds.api import Kind, removed
from ratchet_child.kernel.netns import Namespace, Namespaces
from ratchet_child.metrics import figures
from ratchet_child.model.interfaces import Found, hardware_address
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import Side
from ratchet_child.pods.state import Gone, PodState
from ratchet_child.work import telling
from ratchet_child.work.panel import Panel, Room


class PodNamespaces:
    """Opens and cleans the namespaces; nothing is ever created or removed here."""

    def __init__(
        self,
        devices: Devices,
        kinds: Mapping[str, Kind],
        namespaces: Namespaces,
        panel: Panel,
        find: Callable[[PodKey], PodState | None],
        must_go_on: Callable[[], None],
    ) -> None:
        """`find` gives the state of another pod of this node.

        `must_go_on` raises when there is no time for more.
        """
        self._devices = devices
        self._kinds = kinds
        self._namespaces = namespaces
        self._panel = panel
        self._find = find
        self._must_go_on = must_go_on

    def open(self, state: PodState, attachment: Attachment) -> bool:
        """Open the pod's namespace; False when it is gone. *Raises* KernelError.

        Whoever calls this holds the pod's lock.
        """
        inside = state.inside
        if inside.namespace is not None:
            if inside.opened == attachment.container_id and inside.namespace.is_current():
                return True
            if inside.opened != attachment.container_id or inside.namespace.is_current():
                state.forget_kernel()
        known = attachment.netns_identity
        if known is None and inside.namespace is not None:
            known = inside.namespace.identity  # as it was when it was opened
        if not self._namespaces.exist(attachment.netns, known):
            return False
        state.forget_kernel()
        namespace = self._namespaces.open(attachment.netns, known)
        try:
            state.watch(self._namespaces.monitor(namespace))
        except BaseException:
            namespace.close()
            raise
        inside.namespace, inside.opened = namespace, attachment.container_id
        inside.moved.update(self._moved(namespace, state))
        return True

    def clean(self, gone: Gone, state: PodState, in_use: set[tuple[int, int]]) -> None:
        """Leave nothing of a container that was detached, if its namespace still exists.

        A leg whose other end lives on is parked, everything else of ours is removed. `in_use` are
        the namespaces of other pods: a path such as /proc/1/ns/net may by now lead to one of these,
        and not every record says which one it led to.
        Takes the pod's lock, and not for long; nobody else works on the pod meanwhile.
        *Safe to call twice.*
        """
        inside = state.inside
        # The label of a link with a long name does not tell its pods.
        peers = {end.side.peer for end in state.ends if isinstance(end.side, Side)}
        with inside.lock:
            is_here = inside.namespace is not None and inside.opened == gone.container
            taken = self._take(state, in_use) if is_here else None
        if taken is not None:
            self._clear(*taken, gone, state.key, peers)
        if is_here:
            return
        if gone.netns is None or not self._namespaces.exist(gone.netns, gone.netns_identity):
            return
        try:
            namespace = self._namespaces.open(gone.netns, gone.netns_identity)
        except KernelError:
            return  # it went meanwhile, and its interfaces with it
        if namespace.identity in in_use:
            namespace.close()
            return
        # A leg that waited in it may be in the pod's new namespace by now: it was not the pod.
        with self._current(state) as current:
            moved = self._moved(namespace, state, besides=current)
        self._clear(namespace, moved, gone, state.key, peers)

    @staticmethod
    def _take(
        state: PodState, in_use: set[tuple[int, int]]
    ) -> tuple[Namespace, dict[str, tuple[int, int]]] | None:
        """Take the namespace from the pod, with what the pod has moved out of it.

        None where another pod has it, such as the same one under another name.
        """
        inside = state.inside
        namespace, moved = inside.namespace, dict(inside.moved)
        if namespace is None or namespace.identity in in_use:
            state.forget_kernel()
            return None
        inside.namespace = None  # it stays open
        state.forget_kernel()
        return namespace, moved

    @contextlib.contextmanager
    def _current(self, state: PodState) -> Iterator[Namespace | None]:
        """Have the namespace of the pod's newest container; None when that is gone.

        A child that starts cleans up after the older ones before it has opened that.
        """
        attachment = state.heard.attachment
        if state.inside.namespace is not None or attachment is None:
            yield state.inside.namespace
            return
        try:
            opened = self._namespaces.open(attachment.netns, attachment.netns_identity)
        except KernelError:
            yield None
            return
        try:
            yield opened
        finally:
            opened.close()

    def _clear(
        self,
        namespace: Namespace,
        moved: Mapping[str, tuple[int, int]],
        gone: Gone,
        pod: PodKey,
        peers: set[PodKey],
    ) -> None:
        """Park or remove the interfaces of ours, and close the namespace when it can be.

        First legs are parked, all of them: whatever is left goes with the namespace, if this
        process ends before it is done and the runtime has let go of it.
        """
        removals = 0
        with self._panel.room(namespace) as room:
            for ifname, (nsid, index) in moved.items():
                self._devices.remove_elsewhere(namespace, nsid, index, ifname)
            ours = [found for found in self._devices.found(namespace) if found.ours]
            left = [found for found in ours if not self._park(room, found, gone, pod, peers)]
            for found in left:
                self._must_go_on()
                with figures.end_operation("remove"):
                    self._devices.remove(namespace, found.index)
                removed(self._kinds, found)
                if found.label is not None:
                    self._panel.drop(pod.namespace, found.label.link)
                removals += 1
                telling.cleaned(pod, gone.container, found.ifname, removals)
        telling.cleaned_more(pod, gone.container, removals)

    def _park(self, room: Room, found: Found, gone: Gone, pod: PodKey, peers: set[PodKey]) -> bool:
        """Have an interface wait if it is a leg whose other end lives on; say whether it does."""
        label = found.label
        if label is None or not self._is_leg(found):
            return False
        needed = partial(self._is_needed, label.link, gone, pod, peers)
        if not self._panel.park(pod, room, label, found, is_needed=needed):
            return False
        log.debug(
            "a leg waits for its pod",
            pod=pod,
            container=gone.container,
            link=label.link,
            ifname=found.ifname,
        )
        return True

    def _is_leg(self, found: Found) -> bool:
        kind = self._kinds.get(found.kind or "")
        return kind is not None and kind.makes_both_ends

    def _is_needed(self, link: str, gone: Gone, pod: PodKey, peers: set[PodKey]) -> bool:
        """Say whether the pod at the other end of a cable inside the node is there."""
        primary, _, ifname = link.rpartition(":")
        others = peers if not primary else {pod.sibling(primary)}
        if primary == pod.name:
            others = {pod.sibling(pair) for pair, own in gone.published.declared if own == ifname}
        there = [other for other in map(self._find, others) if other is not None]
        return any(
            end.label.kept.link == link
            for other in there
            for end in list(other.inside.given.values())
        )

    def _moved(
        self, namespace: Namespace, state: PodState, besides: Namespace | None = None
    ) -> dict[str, tuple[int, int]]:
        """Return the ends that the pod has moved, also those that an earlier child had made.

        An end is told from a peer's by its MAC address, which the pod's labels give, or which
        Ratchet makes of the pod's name. A leg that waits for the pod was moved by Ratchet, from one
        container of the pod to another.
        """
        return {
            found.label.ifname: (nsid, found.index)
            for nsid, found in self._devices.moved_away(namespace, besides)
            if found.label is not None
            and found.mac in _macs(state, found.label.ifname)
            and not self._panel.has(state.key.namespace, found.label.link)
        }


def _macs(state: PodState, ifname: str) -> set[str]:
    """Return the MAC addresses that an end of the pod may have been made with."""
    macs = {hardware_address(state.key, ifname)}
    attachment = state.heard.attachment
    if attachment is not None:
        own: tuple[Link | Uplink, ...] = (*attachment.links, *attachment.uplinks)
        macs.update(one.mac for one in own if one.ifname == ifname and one.mac is not None)
    return macs
