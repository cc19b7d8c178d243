"""What has been observed in a pod's namespace, remembered until the kernel tells of a change.

A pod with a thousand links does not have them read again because one was added. So `found` is what
was read or made, and `right` the specifications that are known to hold; whatever is in doubt is
left out of `right` before it is read again. An end goes by the name that its link has for it, also
when the pod has renamed it. This module only reads: what to do about it is the ends' business.
"""

from __future__ import annotations

from ratchet.cni.dataclasses import replace
from ratchet_child.kernel.devices import Devices
from ratchet_child.model.interfaces import Found, Interface
from ratchet_child.pods.state import PodState


class Observed:
    """The `found` and `right` of every pod. Whoever calls these methods holds the pod's lock."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def all(self, state: PodState) -> dict[str, Found]:
        """Return Ratchet's interfaces in the pod's namespace, which is open, by end or name."""
        inside = state.inside
        if inside.found is None:
            found: dict[str, Found] = {}
            for one in self._devices.found(state.opened_namespace):
                found[one.key] = one
            inside.found = found
            inside.right.clear()
            inside.stale.clear()
        return inside.found

    def read(self, state: PodState, key: str) -> Found | None:
        """Return an interface of Ratchet's as the kernel has it."""
        found = self.all(state).get(key)
        if found is not None and key in state.inside.stale:
            found = self.read_again(state, key)
        return found

    def read_again(self, state: PodState, key: str) -> Found | None:
        """Return the same, whatever is remembered. None also when nothing has been read yet."""
        inside = state.inside
        inside.stale.discard(key)
        if inside.found is None or inside.namespace is None:
            return None
        known = inside.found.get(key)
        found = self._devices.find(inside.namespace, known.index if known is not None else key)
        if found is None or not found.ours:
            inside.found.pop(key, None)
            inside.right.pop(key, None)
        else:
            inside.found[key] = found
        return found

    def changed(self, state: PodState, end: Interface, index: int) -> None:
        """Note that an end was made or changed. What it is now is read when it matters."""
        inside = state.inside
        if inside.found is not None:
            known = inside.found.get(end.ifname)
            if known is None or known.index != index:
                known = Found(end.ifname, index, end.medium.kind, ours=True, up=True)
            inside.found[end.ifname] = replace(known, label=end.label)
            inside.stale.add(end.ifname)

    def doubt(self, state: PodState, key: str) -> None:
        """Have one interface read again before anything is done to it."""
        state.inside.right.pop(key, None)
        if state.inside.found is not None:
            state.inside.stale.add(key)
            self.read_again(state, key)

    def forget(self, state: PodState) -> None:
        """Have everything in the pod's namespace read again."""
        state.inside.found = None
        state.inside.right.clear()
