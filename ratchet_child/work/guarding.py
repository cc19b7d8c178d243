"""Looking after the guard, now and then, in a thread of its own.

An end that is plugged in, unplugged or removed is told to the guard at once, by its kind. This is
for what nobody tells: somebody has emptied nftables, a namespace has died with its tunnels. It
only reads the states that others work on, and takes no lock of theirs.
"""

from __future__ import annotations

import threading

from ratchet import log
from ratchet.cni.ip import Host
from ratchet.errors import KernelError
from ratchet_child.kernel.guard import Guard, Tunnels
from ratchet_child.kernel.guard_table import Tunnel
from ratchet_child.kernel.kinds.vxlan import FoundVxlan
from ratchet_child.model.interfaces import Vxlan
from ratchet_child.pods.registry import Registry
from ratchet_child.pods.state import PodState

_EVERY_S = 2.0
_WITHOUT_TUNNELS_S = 10.0  # on top: a first tunnel is told at once, and ends this pause


class Guarding:
    """Compares the guard with the tunnels that there are."""

    def __init__(self, guard: Guard, registry: Registry, port: int) -> None:
        """`port` is that of the tunnels."""
        self._guard = guard
        self._registry = registry
        self._port = port
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._error: str | None = None

    def start(self) -> None:
        self._guard.start()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the guard stays. *Blocks at most* a look."""
        self._end.set()
        self._guard.has_tunnels.set()  # wakes the thread
        if self._thread.is_alive():
            self._thread.join()
        self._guard.close()

    def leave(self) -> None:
        """Have no guard any more, if this node has no pods."""
        if not self._registry.states():
            self._guard.leave()

    def _run(self) -> None:
        self._guard.has_tunnels.set()  # what an earlier child has left is compared soon
        while not self._end.is_set():
            self._guard.has_tunnels.wait(_WITHOUT_TUNNELS_S)
            if self._end.wait(_EVERY_S):
                return
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - a surprise must not end the rest
                log.crash("the guard could not be looked after", error)

    def _look(self) -> None:
        error = None
        try:
            self._guard.check(self._tunnels())
        except KernelError as failed:
            error = str(failed)
            if error != self._error:
                log.error("the guard cannot be mended", error=error)
        self._error = error

    def _tunnels(self) -> Tunnels:
        seen: dict[Tunnel, Host | None] = {}
        is_complete, unmarked = True, 0
        with self._registry.lock:
            states = list(self._registry.states())
        for state in states:
            found = state.inside.found
            is_complete = is_complete and (_is_gone(state) or _is_known(state))
            for key, one in list((found or {}).items()):
                details = one.details
                if not one.ours or not isinstance(details, FoundVxlan):
                    continue
                if details.port is not None and details.vni is not None:
                    # What was changed since it was read is told by the specification it was given.
                    is_so = details.is_plugged and key not in state.inside.stale
                    seen[details.port, details.vni] = details.remote if is_so else None
                    unmarked += details.source_ports != self._guard.ports
            self._add_told(state, seen)
        return Tunnels(seen, is_complete, unmarked)

    def _add_told(self, state: PodState, seen: dict[Tunnel, Host | None]) -> None:
        """Add the tunnels of links whose ends are right, were not read, or were moved."""
        wanted = state.inside.wanted
        if wanted is None:
            return
        for end in wanted.ends:
            medium = end.interface.medium
            if isinstance(medium, Vxlan):
                if state.inside.right.get(end.ifname) == end.interface:
                    seen[self._port, medium.vni] = medium.remote
                elif end.ifname in state.inside.moved:
                    seen.setdefault((self._port, medium.vni), medium.remote)
        for waiting in wanted.waiting:
            vni = waiting.side.declared.vni
            if waiting.side.ifname in state.inside.moved and vni is not None:
                seen.setdefault((self._port, vni), None)


def _is_known(state: PodState) -> bool:
    """Say whether all is known of a pod's tunnels."""
    return state.progress.looked and state.inside.found is not None


def _is_gone(state: PodState) -> bool:
    """Say whether a pod has no tunnels any more."""
    return state.container is None or state.progress.vanished == state.container
