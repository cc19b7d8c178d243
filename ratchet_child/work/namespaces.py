"""The network namespaces of this node's pods: opened for those that are here, cleaned for the gone.

Whoever calls these methods holds the ends' lock.
"""

from __future__ import annotations

from ratchet import log
from ratchet.attachments import Attachment
from ratchet.errors import KernelError
from ratchet_child.kernel.devices import Devices
from ratchet_child.kernel.netns import Namespace, Namespaces
from ratchet_child.metrics import figures
from ratchet_child.pods.state import Gone, PodState


class PodNamespaces:
    """Opens and cleans the namespaces; nothing is ever created or removed here."""

    def __init__(self, devices: Devices, namespaces: Namespaces) -> None:
        self._devices = devices
        self._namespaces = namespaces

    def open(self, state: PodState, attachment: Attachment) -> bool:
        """Open the pod's namespace; False when it is gone. *Raises* KernelError."""
        inside = state.inside
        if inside.namespace is not None:
            if inside.opened == attachment.container_id and inside.namespace.is_current():
                return True
            state.forget_kernel()
        if not self._namespaces.exist(attachment.netns):
            return False
        namespace = self._namespaces.open(attachment.netns)
        try:
            state.watch(self._namespaces.monitor(namespace))
        except BaseException:
            namespace.close()
            raise
        inside.namespace, inside.opened = namespace, attachment.container_id
        return True

    def clean(self, gone: Gone, state: PodState, in_use: set[tuple[int, int]]) -> None:
        """Remove the interfaces of a container that was detached, if its namespace still exists.

        `in_use` are the namespaces of other pods: a path such as /proc/1/ns/net may by now lead to
        one of these. *Safe to call twice.*
        """
        inside = state.inside
        if inside.namespace is not None and inside.opened == gone.container:
            if inside.namespace.identity not in in_use:  # by the same pod under another name
                self._remove_ours(inside.namespace, gone, state)
            state.forget_kernel()
            return
        if gone.netns is None or not self._namespaces.exist(gone.netns):
            return
        try:
            namespace = self._namespaces.open(gone.netns)
        except KernelError:
            return  # it went meanwhile, and its interfaces with it
        try:
            if namespace.identity not in in_use | {self._namespaces.own_identity()}:
                self._remove_ours(namespace, gone, state)
        finally:
            namespace.close()

    def _remove_ours(self, namespace: Namespace, gone: Gone, state: PodState) -> None:
        for found in self._devices.found(namespace).values():
            if found.ours:
                with figures.end_operation("remove"):
                    self._devices.remove(namespace, found.ifname)
                log.info(
                    "end removed", pod=state.key, container=gone.container, ifname=found.ifname
                )
