"""The network namespaces of this node's pods: opened for those that are here, cleaned for the gone.

Whoever calls these methods holds the ends' lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ratchet import log
from ratchet.attachments import Attachment
from ratchet.errors import KernelError
from ratchet_child.kernel.devices import Devices
from ratchet_child.kernel.kinds.api import Kind
from ratchet_child.kernel.netns import Namespace, Namespaces
from ratchet_child.metrics import figures
from ratchet_child.model.interfaces import Found, Label
from ratchet_child.model.keys import PodKey
from ratchet_child.pods.state import Gone, PodState
from ratchet_child.work.panel import Panel


class PodNamespaces:
    """Opens and cleans the namespaces; nothing is ever created or removed here."""

    def __init__(
        self,
        devices: Devices,
        kinds: Mapping[str, Kind],
        namespaces: Namespaces,
        panel: Panel,
        find: Callable[[PodKey], PodState | None],
    ) -> None:
        """`find` gives the state of another pod of this node."""
        self._devices = devices
        self._kinds = kinds
        self._namespaces = namespaces
        self._panel = panel
        self._find = find

    def open(self, state: PodState, attachment: Attachment) -> bool:
        """Open the pod's namespace; False when it is gone. *Raises* KernelError."""
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
        return True

    def clean(self, gone: Gone, state: PodState, in_use: set[tuple[int, int]]) -> None:
        """Leave nothing of a container that was detached, if its namespace still exists.

        A leg whose other end lives on is parked, everything else of ours is removed. `in_use` are
        the namespaces of other pods: a path such as /proc/1/ns/net may by now lead to one of these,
        and not every record says which one it led to.
        *Safe to call twice.*
        """
        inside = state.inside
        if inside.namespace is not None and inside.opened == gone.container:
            if inside.namespace.identity not in in_use:  # by the same pod under another name
                self._remove_moved(state)
                if self._clear(inside.namespace, gone, state):
                    inside.namespace = None  # the panel's
            state.forget_kernel()
            return
        if gone.netns is None or not self._namespaces.exist(gone.netns, gone.netns_identity):
            return
        try:
            namespace = self._namespaces.open(gone.netns, gone.netns_identity)
        except KernelError:
            return  # it went meanwhile, and its interfaces with it
        is_parked = False
        try:
            if namespace.identity not in in_use:
                is_parked = self._clear(namespace, gone, state)
        finally:
            if not is_parked:
                namespace.close()

    def _clear(self, namespace: Namespace, gone: Gone, state: PodState) -> bool:
        """Park or remove the interfaces of ours; True when the panel has the namespace now."""
        legs: list[tuple[Label, Found]] = []
        for found in self._devices.found(namespace):
            if not found.ours:
                continue
            label = found.label
            if label is not None and self._outlives(found, label, gone, state.key):
                legs.append((label, found))
                continue
            with figures.end_operation("remove"):
                self._devices.remove(namespace, found.index)
            if label is not None:
                self._panel.drop(state.key.namespace, label.link)
            log.info("end removed", pod=state.key, container=gone.container, ifname=found.ifname)
        if legs:
            self._panel.park(state.key, namespace, legs)
        return bool(legs)

    def _outlives(self, found: Found, label: Label, gone: Gone, pod: PodKey) -> bool:
        """Say whether the other end of a cable inside the node lives on."""
        kind = self._kinds.get(found.kind or "")
        if kind is None or not kind.makes_both_ends:
            return False
        primary, _, ifname = label.link.rpartition(":")
        others = [pod.sibling(primary)]
        if primary == pod.name:
            others = [pod.sibling(pair) for pair, own in gone.published.declared if own == ifname]
        for other in others:
            peer = self._find(other)
            if peer is not None and any(
                end.link == label.link for end in peer.inside.given.values()
            ):
                return True
        return False

    def _remove_moved(self, state: PodState) -> None:
        """Remove what the pod has moved into a namespace of its own."""
        for ifname, (nsid, index) in state.inside.moved.items():
            self._devices.remove_elsewhere(state.opened_namespace, nsid, index, ifname)
