"""What has been observed in a pod's namespace, remembered until the kernel tells of a change.

A pod with a thousand links does not have them read again because one was added. So `found` is what
was read or made, and `right` the specifications that are known to hold; whatever is in doubt is
left out of `right` before it is read again. This module only reads: what to do about it is the
ends' business.
"""

from __future__ import annotations

from ratchet_child.kernel.devices import Devices
from ratchet_child.model.interfaces import Found
from ratchet_child.pods.state import PodState

_UNREAD = 0  # the index of an interface that was changed just now and not read back


class Observed:
    """The `found` and `right` of every pod. Whoever calls these methods holds the ends' lock."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def all(self, state: PodState) -> dict[str, Found]:
        """Return the interfaces in the pod's namespace, which is open, by name."""
        if state.inside.found is None:
            state.inside.found = self._devices.found(state.opened_namespace)
            state.inside.right.clear()
        return state.inside.found

    def read(self, state: PodState, ifname: str) -> Found | None:
        """Return an interface as the kernel has it."""
        found = self.all(state).get(ifname)
        if found is not None and found.index == _UNREAD:
            found = self.read_again(state, ifname)
        return found

    def read_again(self, state: PodState, ifname: str) -> Found | None:
        """Return the same, whatever is remembered. None also when nothing has been read yet."""
        inside = state.inside
        inside.right.pop(ifname, None)
        if inside.found is None or inside.namespace is None:
            return None
        found = self._devices.find(inside.namespace, ifname)
        if found is None:
            inside.found.pop(ifname, None)
        else:
            inside.found[ifname] = found
        return found

    def changed(self, state: PodState, ifname: str) -> None:
        """Note that an interface was made or changed. What it is now is read when it matters."""
        if state.inside.found is not None:
            state.inside.found[ifname] = Found(ifname, _UNREAD, None, ours=True, up=True)

    def forget(self, state: PodState) -> None:
        """Have everything in the pod's namespace read again."""
        state.inside.found = None
        state.inside.right.clear()
