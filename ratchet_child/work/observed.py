"""What has been seen in a pod's namespace, remembered until the kernel tells of a change.

A pod with a thousand links does not have them read again because one was added. So `found` is what
was read or made, `right` the ends among it that are as they should be; whatever is in doubt is left
out of `right` before it is read again. Reading only: what to do about it is the ends' business.
"""

from __future__ import annotations

from ratchet_child.kernel.devices import Devices
from ratchet_child.model.plan import Found
from ratchet_child.pods.state import PodState

_UNREAD = 0  # the index of an interface that was made just now and not read back


class Observed:
    """The `found` and `right` of every pod. Whoever calls these methods holds the ends' lock."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def all(self, state: PodState) -> dict[str, Found]:
        """The interfaces in the pod's namespace, which is open, by name."""
        if state.found is None:
            state.found = self._devices.found(state.opened_namespace)
            state.right.clear()
        return state.found

    def read(self, state: PodState, ifname: str) -> Found | None:
        """An interface as the kernel has it."""
        found = self.all(state).get(ifname)
        if found is not None and found.index == _UNREAD:
            found = self.read_again(state, ifname)
        return found

    def read_again(self, state: PodState, ifname: str) -> Found | None:
        """The same, whatever is remembered. None also when nothing has been read yet."""
        state.right.pop(ifname, None)
        if state.found is None or state.namespace is None:
            return None
        found = self._devices.find(state.namespace, ifname)
        if found is None:
            state.found.pop(ifname, None)
        else:
            state.found[ifname] = found
        return found

    def made(self, state: PodState, ifname: str) -> None:
        """An interface is there now. What else there is to know of it is read when it matters."""
        if state.found is not None:
            state.found[ifname] = Found(ifname, _UNREAD, None, True, True, frozenset())

    def forget(self, state: PodState) -> None:
        """Have everything in the pod's namespace read again."""
        state.found = None
        state.right.clear()
