"""Bringing the ends in a pod's namespace to what is wanted: the kernel's side of a reconciliation.

A veth pair has two pods, and either's worker may make it; so everything in here happens under one
lock, which is held for milliseconds and never over a request to etcd. Which ends are wanted is
decided elsewhere, and what is there already is for the most part remembered.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from ratchet import log
from ratchet.attachments import Attachment
from ratchet.errors import KernelError
from ratchet_child.kernel.devices import Devices, VniInUseError
from ratchet_child.kernel.netns import Monitor, Namespace
from ratchet_child.metrics import figures
from ratchet_child.model.keys import PodKey
from ratchet_child.model.plan import (
    DeclaredLink,
    End,
    Side,
    Step,
    Veth,
    Vxlan,
    Wanted,
    compare,
    hardware_address,
    superfluous,
)
from ratchet_child.pods.history import ERROR, UP, WAITING
from ratchet_child.pods.state import Gone, PodState
from ratchet_child.work.observed import Observed

_DOWN_S = 2.0  # an end that was set down by hand stays so for a moment: routing notices
_VNI_BUSY_S = 3.0  # a namespace that is being taken down is gone by then


class Ends:
    """The interfaces of this node's pods."""

    def __init__(
        self,
        devices: Devices,
        *,
        port: int,
        parent_interface: str,
        find: Callable[[PodKey], PodState | None],
    ) -> None:
        """`find` gives the state of another pod of this node."""
        self._devices = devices
        self._port = port
        self._parent_interface = parent_interface
        self._find = find
        self._observed = Observed(devices)
        self.lock = threading.RLock()

    # Namespaces -----------------------------------------------------------------------------------

    def open(self, state: PodState, attachment: Attachment) -> bool:
        """Open the pod's namespace; False when it is gone. *Raises* KernelError."""
        with self.lock:
            if state.namespace is not None:
                if state.opened == attachment.container_id and state.namespace.is_current():
                    return True
                state.forget_kernel()
            if not os.path.exists(attachment.netns):
                return False
            namespace = Namespace(attachment.netns)
            try:
                state.watch(Monitor(namespace))
            except BaseException:
                namespace.close()
                raise
            state.namespace, state.opened = namespace, attachment.container_id
            return True

    def remove_gone(self, gone: Gone, state: PodState, in_use: set[tuple[int, int]]) -> None:
        """Remove the interfaces of a container that was detached, if its namespace still exists.

        `in_use` are the namespaces of other pods: a path such as /proc/1/ns/net may by now lead to
        one of these. *Safe to call twice.*
        """
        with self.lock:
            if state.namespace is not None and state.opened == gone.container:
                if state.namespace.identity not in in_use:  # by the same pod under another name
                    self._remove_ours(state.namespace, gone, state)
                state.forget_kernel()
                return
            if gone.netns is None or not os.path.exists(gone.netns):
                return
            try:
                namespace = Namespace(gone.netns)
            except KernelError:
                return  # it went meanwhile, and its interfaces with it
            try:
                if namespace.identity not in in_use | {_own_namespace()}:
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

    # The pod's ends -------------------------------------------------------------------------------

    def lost(self, state: PodState, ifnames: set[str] | None) -> float | None:
        """Note interfaces that have gone or gone down, None for any.

        The delay in seconds after which they are to be mended, None when none is the pod's end.
        """
        with self.lock:
            if ifnames is None:
                self.forget(state)
                return 0.0
            wanted = {end.side.ifname: end for end in (state.wanted.ends if state.wanted else ())}
            delay_s = None
            for ifname in ifnames - wanted.keys():
                # Not every end is known to be wanted yet: it must not count as found for that.
                if state.found is not None and ifname in state.found:
                    self._observed.read_again(state, ifname)
            for ifname in ifnames & wanted.keys():
                before = state.right.get(ifname)
                found = self._observed.read_again(state, ifname)
                if found is None:
                    delay_s = 0.0
                    state.history.note(wanted[ifname].side, WAITING)
                elif found.up and before is not None:
                    state.right[ifname] = before  # it was on its way up when it was heard
                else:
                    state.history.note(wanted[ifname].side, WAITING)
                    state.lowered.setdefault(ifname, time.monotonic() + _DOWN_S)
                    delay_s = _DOWN_S if delay_s is None else delay_s
            return delay_s

    def forget(self, state: PodState) -> None:
        """Have everything in the pod's namespace read again."""
        with self.lock:
            self._observed.forget(state)

    def bring(self, state: PodState, wanted: Wanted, *, remove: bool) -> list[DeclaredLink]:
        """Make, mend and (if `remove`) remove ends; the links whose VNI cannot be used here.

        What fails is noted in `state.errors` by interface and does not hold up the rest.
        """
        unusable: list[DeclaredLink] = []
        with self.lock:
            if state.namespace is None:
                return unusable
            state.wanted = wanted
            state.errors.clear()
            state.refused.clear()
            state.history.keep(wanted)
            self._tell_waiting(state, wanted)
            found = self._observed.all(state)
            if remove:
                vnis = {end.vni for end in wanted.ends if isinstance(end, Vxlan)}
                for vni in state.busy_since.keys() - vnis:
                    del state.busy_since[vni]
                for one in superfluous(wanted, found.values()):
                    with figures.end_operation("remove"):
                        self._devices.remove(state.namespace, one.ifname)
                    found.pop(one.ifname, None)
                    state.right.pop(one.ifname, None)
                    log.info(
                        "end removed",
                        pod=state.key,
                        container=state.container,
                        ifname=one.ifname,
                    )
            for end in wanted.ends:
                ifname = end.side.ifname
                if state.right.get(ifname) == end.form or self._rests(state, ifname):
                    continue
                try:
                    if isinstance(end, Veth):
                        self._bring_veth(state, end)
                    else:
                        self._bring_vxlan(state, end)
                except VniInUseError as error:
                    state.errors[ifname] = str(error)
                    since = state.busy_since.setdefault(error.vni, time.monotonic())
                    if error.visible or time.monotonic() - since > _VNI_BUSY_S:
                        unusable.append(end.side.declared)
                except (KernelError, OSError) as error:
                    self._failed(state, end, error)
                link_state, why = state.state_of(end)
                if link_state != UP:
                    self._note(state, end.side, link_state, why)
        return unusable

    def expects_vni(self, state: PodState) -> bool:
        """Whether a VNI that is in use here is expected to be free at any moment."""
        with self.lock:
            now = time.monotonic()
            # A little longer, so that it is tried once more when that time is over.
            return any(now - since < _VNI_BUSY_S + 1 for since in state.busy_since.values())

    def rests_for(self, state: PodState) -> float | None:
        """The seconds until an end that was set down by hand is due, None without one."""
        with self.lock:
            wanted = {end.side.ifname for end in (state.wanted.ends if state.wanted else ())}
            now = time.monotonic()
            left = [due - now for ifname, due in state.lowered.items() if ifname in wanted]
            return max(min(left), 0.0) if left else None

    def _rests(self, state: PodState, ifname: str) -> bool:
        """Whether an end was set down by hand a moment ago, and is still there."""
        due = state.lowered.get(ifname)
        if due is None:
            return False
        if time.monotonic() < due and ifname in self._observed.all(state):
            return True
        del state.lowered[ifname]
        return False

    def _tell_waiting(self, state: PodState, wanted: Wanted) -> None:
        for one in wanted.waiting:
            self._note(state, one.side, WAITING if one.error is None else ERROR, one.error)
        errors = {one.side.ifname: one.error for one in wanted.waiting if one.error is not None}
        for ifname, error in errors.items():
            if state.told_errors.get(ifname) != error:
                log.warning(
                    "link refused",
                    pod=state.key,
                    container=state.container,
                    ifname=ifname,
                    error=error,
                )
        state.told_errors = errors

    def _note(self, state: PodState, side: Side, link_state: str, error: str | None) -> None:
        note = state.history.note(side, link_state, error)
        # Before etcd has been asked every far pod is unknown: that is not worth a line.
        if link_state == WAITING and state.looked and not note.is_told:
            note.is_told = True
            log.info(
                "link waiting",
                pod=state.key,
                container=state.container,
                link=side.declared,
                ifname=side.ifname,
                peer=side.peer,
            )

    def _failed(self, state: PodState, end: End, error: Exception) -> None:
        ifname = end.side.ifname
        figures.end_failed()
        log.warning(
            "end cannot be made",
            pod=state.key,
            container=state.container,
            link=end.side.declared,
            error=str(error),
        )
        state.errors[ifname] = str(error)
        state.found = None  # whatever it was, look before the next try

    def _bring_vxlan(self, state: PodState, end: Vxlan) -> None:
        started = time.monotonic()
        namespace, found = state.opened_namespace, self._observed.all(state)
        side = end.side
        lower = self._devices.lower(self._parent_interface)
        there = self._observed.read(state, side.ifname)
        step = compare(end, there, paired=False, port=self._port, lower=lower)
        self._refuse_foreign(step, side.ifname)
        if step is Step.MEND:
            self._devices.finish(namespace, side.ifname, side.address)
        if step is Step.REPLACE:
            self._devices.remove(namespace, side.ifname)
            found.pop(side.ifname, None)
        if step in (Step.REPLACE, Step.MAKE):
            self._devices.make_vxlan(
                namespace,
                side.ifname,
                side.address,
                hardware_address(state.key, side.ifname),
                end.vni,
                end.remote,
                lower,
            )
            state.busy_since.pop(end.vni, None)
        self._is_right(state, end, step, time.monotonic() - started)

    def _bring_veth(self, state: PodState, end: Veth) -> None:
        side = end.side
        peer = self._find(side.peer)
        far_end = None if peer is None else _matching(peer, end)
        if peer is None or peer.namespace is None or far_end is None:
            refusal = None if peer is None else _refusal(peer, end)
            if refusal is not None:
                state.errors[side.ifname] = refusal
                state.refused.add(side.ifname)
            return  # otherwise the other pod's turn: it makes both ends
        started = time.monotonic()
        here, there = state.opened_namespace, peer.namespace
        a, b = self._observed.read(state, side.ifname), self._observed.read(peer, side.peer_ifname)
        paired = (
            a is not None
            and b is not None
            and a.kind == b.kind == "veth"
            and self._devices.are_joined(here, a, there, b)
        )
        step = compare(end, a, paired=paired, port=self._port)
        far_step = compare(far_end, b, paired=paired, port=self._port)
        self._refuse_foreign(step, side.ifname)
        self._refuse_foreign(far_step, side.peer_ifname)
        if paired:
            if step is Step.MEND:
                self._devices.finish(here, side.ifname, side.address)
            if far_step is Step.MEND:
                self._devices.finish(there, side.peer_ifname, side.peer_address)
            if Step.MEND in (step, far_step):
                self._devices.settle(here, side.ifname)
                self._devices.settle(there, side.peer_ifname)
        else:
            if a is not None:
                self._devices.remove(here, side.ifname)
            if b is not None:
                self._devices.remove(there, side.peer_ifname)
            self._devices.make_veth(
                here,
                side.ifname,
                side.address,
                hardware_address(state.key, side.ifname),
                there,
                side.peer_ifname,
                side.peer_address,
                hardware_address(side.peer, side.peer_ifname),
            )
        took_s = time.monotonic() - started
        self._is_right(state, end, step, took_s)
        self._is_right(peer, far_end, far_step, took_s)
        peer.errors.pop(side.peer_ifname, None)

    def _refuse_foreign(self, step: Step, ifname: str) -> None:
        if step is Step.REFUSE:
            raise KernelError(
                f"make {ifname}", "the pod has an interface of that name that is not Ratchet's"
            )

    def _is_right(self, state: PodState, end: End, step: Step, took_s: float) -> None:
        ifname = end.side.ifname
        state.right[ifname] = end.form
        state.lowered.pop(ifname, None)
        is_new = step in (Step.MAKE, Step.REPLACE)
        came_at = None if state.attachment is None else state.attachment.attached_at
        waited_s = state.history.note_up(end.side, came_at, is_new=is_new)
        if is_new:
            self._observed.made(state, ifname)
        if step is not Step.NOTHING:
            figures.end_done(step.value, took_s)
            log.info(
                "link up",
                pod=state.key,
                container=state.container,
                link=end.side.declared,
                ifname=ifname,
                peer=end.side.peer,
                vni=end.vni if isinstance(end, Vxlan) else None,
                remote=end.remote if isinstance(end, Vxlan) else None,
                took_s=f"{took_s:.3f}",
                waited_s=f"{waited_s:.3f}",
            )


def _matching(peer: PodState, end: Veth) -> Veth | None:
    """The peer's end of the same cable, if the peer wants it, too."""
    for other in peer.wanted.ends if peer.wanted is not None else ():
        if isinstance(other, Veth) and other.side.declared.cable == end.side.declared.cable:
            return other
    return None


def _refusal(peer: PodState, end: Veth) -> str | None:
    """Why the peer does not want its end of the same cable."""
    for waiting in peer.wanted.waiting if peer.wanted is not None else ():
        if waiting.side.declared.cable == end.side.declared.cable:
            return waiting.error
    return None


def _own_namespace() -> tuple[int, int]:
    status = os.stat("/proc/self/ns/net")
    return status.st_dev, status.st_ino
