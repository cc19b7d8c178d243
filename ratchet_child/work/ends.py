"""Bringing the ends in a pod's namespace to what is wanted: the kernel's side of a reconciliation.

A veth pair has two pods, and either's worker may make it; so everything in here happens under one
lock, which is held for milliseconds and never over a request to etcd. Which ends are wanted is
decided elsewhere, what each kind of interface needs is known to the kinds, and what is there
already is for the most part remembered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from ratchet import log
from ratchet.attachments import Attachment
from ratchet.errors import KernelError
from ratchet_child.kernel.devices import Devices
from ratchet_child.kernel.kinds.api import Kind, Site, VniInUseError
from ratchet_child.kernel.netns import Namespaces
from ratchet_child.metrics import figures
from ratchet_child.model.clock import Clock
from ratchet_child.model.interfaces import (
    Change,
    Make,
    Setting,
    changes,
    operation,
    superfluous,
)
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import DeclaredLink, Side
from ratchet_child.model.plan import End, Wanted
from ratchet_child.pods.history import ERROR, UP, WAITING
from ratchet_child.pods.state import Gone, PodState
from ratchet_child.work.namespaces import PodNamespaces
from ratchet_child.work.observed import Observed

_DOWN_S = 2.0  # an end that was set down by hand stays so for a moment: routing notices
_VNI_BUSY_S = 3.0  # a namespace that is being taken down is gone by then


class Ends:
    """The interfaces of this node's pods."""

    def __init__(
        self,
        devices: Devices,
        kinds: Mapping[str, Kind],
        namespaces: Namespaces,
        clock: Clock,
        *,
        find: Callable[[PodKey], PodState | None],
    ) -> None:
        """`find` gives the state of another pod of this node."""
        self._devices = devices
        self._kinds = kinds
        self._namespaces = PodNamespaces(devices, namespaces)
        self._clock = clock
        self._find = find
        self._observed = Observed(devices)
        self.lock = threading.RLock()

    # Namespaces -----------------------------------------------------------------------------------

    def open(self, state: PodState, attachment: Attachment) -> bool:
        """Open the pod's namespace; False when it is gone. *Raises* KernelError."""
        with self.lock:
            return self._namespaces.open(state, attachment)

    def remove_gone(self, gone: Gone, state: PodState, in_use: set[tuple[int, int]]) -> None:
        """Remove the interfaces of a container that was detached. *Safe to call twice.*

        `in_use` are the namespaces of other pods.
        """
        with self.lock:
            self._namespaces.clean(gone, state, in_use)

    # What is heard --------------------------------------------------------------------------------

    def lost(self, state: PodState, ifnames: set[str] | None) -> float | None:
        """Note interfaces that have gone or gone down, None for any.

        Return the delay in seconds after which they are to be mended, None when none is the pod's
        end.
        """
        with self.lock:
            if ifnames is None:
                self.forget(state)
                return 0.0
            inside = state.inside
            wanted = {end.ifname: end for end in (inside.wanted.ends if inside.wanted else ())}
            delay_s = None
            for ifname in ifnames - wanted.keys():
                # Not every end is known to be wanted yet: it must not count as found for that.
                if inside.found is not None and ifname in inside.found:
                    self._observed.read_again(state, ifname)
            for ifname in ifnames & wanted.keys():
                before = inside.right.get(ifname)
                found = self._observed.read_again(state, ifname)
                if found is None:
                    delay_s = 0.0
                    inside.history.note(wanted[ifname].side, WAITING)
                elif found.up and before is not None:
                    inside.right[ifname] = before  # it was on its way up when it was heard
                else:
                    inside.history.note(wanted[ifname].side, WAITING)
                    inside.lowered.setdefault(ifname, self._clock.monotonic() + _DOWN_S)
                    delay_s = _DOWN_S if delay_s is None else delay_s
            return delay_s

    def forget(self, state: PodState) -> None:
        """Have everything in the pod's namespace read again."""
        with self.lock:
            self._observed.forget(state)

    # When it is due again -------------------------------------------------------------------------

    def expects_vni(self, state: PodState) -> bool:
        """Say whether a VNI that is in use here is expected to be free at any moment."""
        with self.lock:
            now = self._clock.monotonic()
            # A little longer, so that it is tried once more when that time is over.
            return any(now - since < _VNI_BUSY_S + 1 for since in state.inside.busy_since.values())

    def rests_for(self, state: PodState) -> float | None:
        """Return the seconds until an end that was set down by hand is due, None without one."""
        with self.lock:
            inside = state.inside
            wanted = {end.ifname for end in (inside.wanted.ends if inside.wanted else ())}
            now = self._clock.monotonic()
            left = [due - now for ifname, due in inside.lowered.items() if ifname in wanted]
            return max(min(left), 0.0) if left else None

    def _rests(self, state: PodState, ifname: str) -> bool:
        """Say whether an end was set down by hand a moment ago, and is still there."""
        due = state.inside.lowered.get(ifname)
        if due is None:
            return False
        if self._clock.monotonic() < due and ifname in self._observed.all(state):
            return True
        del state.inside.lowered[ifname]
        return False

    # The pod's ends -------------------------------------------------------------------------------

    def bring(self, state: PodState, wanted: Wanted, *, remove: bool) -> list[DeclaredLink]:
        """Make, mend and (if `remove`) remove ends.

        Return the links whose VNI cannot be used here. What fails is noted in the state's errors by
        interface and does not hold up the rest.
        """
        unusable: list[DeclaredLink] = []
        with self.lock:
            inside = state.inside
            if inside.namespace is None:
                return unusable
            inside.wanted = wanted
            inside.errors.clear()
            inside.refused.clear()
            inside.history.keep(wanted)
            self._tell_waiting(state, wanted)
            self._observed.all(state)
            if remove:
                self._remove_superfluous(state, wanted)
            for end in wanted.ends:
                if inside.right.get(end.ifname) == end.interface or self._rests(state, end.ifname):
                    continue
                if not self._bring(state, end):
                    unusable.append(end.side.declared)
                how, why = state.state_of(end)
                if how != UP:
                    self._note(state, end.side, how, why)
        return unusable

    def _remove_superfluous(self, state: PodState, wanted: Wanted) -> None:
        inside = state.inside
        vnis = {end.side.declared.vni for end in wanted.ends}
        for vni in inside.busy_since.keys() - vnis:
            del inside.busy_since[vni]
        found = self._observed.all(state)
        names = [end.ifname for end in wanted.ends]
        for one in superfluous(names, found.values()):
            with figures.end_operation("remove"):
                self._devices.remove(state.opened_namespace, one.ifname)
            found.pop(one.ifname, None)
            for known in (inside.right, inside.given, inside.faults):
                known.pop(one.ifname, None)
            self._log(state).info("end removed", ifname=one.ifname)

    def _bring(self, state: PodState, end: End) -> bool:
        """Bring one end to its specification; False when its VNI cannot be used here."""
        inside = state.inside
        try:
            self._bring_end(state, end)
        except VniInUseError as error:
            inside.errors[end.ifname] = str(error)
            now = self._clock.monotonic()
            since = inside.busy_since.setdefault(error.vni, now)
            return not (error.visible or now - since > _VNI_BUSY_S)
        except (KernelError, OSError) as error:
            figures.end_failed()
            self._log(state, end).warning("end cannot be made", error=str(error))
            inside.errors[end.ifname] = str(error)
            inside.found = None  # whatever it was, look before the next try
        return True

    def _bring_end(self, state: PodState, end: End) -> None:
        kind = self._kinds[end.interface.medium.kind]
        pods = [(state, end)]
        if kind.makes_both_ends:
            far = self._far_end(state, end)
            if far is None:
                return  # the other pod's turn: it makes both ends
            pods.append(far)
        started = self._clock.monotonic()
        sites = [self._site(*one) for one in pods]
        for site in sites:
            if site.found is not None and not site.found.ours:
                raise KernelError(
                    f"make {site.wanted.ifname}",
                    "the pod has an interface of that name that is not Ratchet's",
                )
        here, there = sites[0], sites[1] if kind.makes_both_ends else None
        is_same = all(site.found is not None for site in sites) and kind.is_same(here, there)
        plans = [changes(site.wanted, site.found, is_same=is_same) for site in sites]
        if any(Make in map(type, plan) for plan in plans):
            self._make(kind, pods, here, there)
        refused = self._apply(sites, plans)
        if any(plans):
            kind.settle(here, there)
        took_s = self._clock.monotonic() - started
        for (one, its_end), plan, faults in zip(pods, plans, refused, strict=True):
            self._is_right(one, its_end, plan, faults, took_s)

    def _site(self, state: PodState, end: End) -> Site:
        found = self._observed.read(state, end.ifname)
        given = state.inside.given.get(end.ifname)
        if found is not None and given is not None and given.address in found.addresses:
            # Kernels before 5.18 do not remember who has set an address.
            found = replace(found, given=found.given | {given.address})
        return Site(state.opened_namespace, end.interface, found)

    def _make(
        self, kind: Kind, pods: list[tuple[PodState, End]], here: Site, there: Site | None
    ) -> None:
        """Make an interface where another one of that name may be, which goes first."""
        for (state, end), site in zip(pods, (here, there), strict=False):
            if site is not None and site.found is not None:
                self._devices.remove(site.namespace, end.ifname)
                self._observed.all(state).pop(end.ifname, None)
        kind.make(here, there)
        state, end = pods[0]
        if end.side.declared.vni is not None:
            state.inside.busy_since.pop(end.side.declared.vni, None)

    def _apply(self, sites: list[Site], plans: list[tuple[Change, ...]]) -> list[list[str]]:
        """Change all sites; what the kernel has refused of each. What was just made goes again.

        *Raises* KernelError.
        """
        refused = []
        try:
            for site, plan in zip(sites, plans, strict=True):
                settings = [one for one in plan if isinstance(one, Setting)]
                applied = (
                    self._devices.apply(site.namespace, site.wanted.ifname, settings)
                    if settings
                    else []
                )
                refused.append(applied)
        except KernelError:
            if any(Make in map(type, plan) for plan in plans):
                self._devices.remove(sites[0].namespace, sites[0].wanted.ifname)
            raise
        return refused

    def _far_end(self, state: PodState, end: End) -> tuple[PodState, End] | None:
        """Return the pod at the other end, and its end, if both are ready for the cable."""
        peer = self._find(end.side.peer)
        if peer is None or peer.inside.wanted is None:
            return None
        cable = end.side.declared.cable
        for other in peer.inside.wanted.ends:
            if (
                other.side.declared.cable == cable
                and other.interface.medium.kind == end.interface.medium.kind
            ):
                return None if peer.inside.namespace is None else (peer, other)
        for waiting in peer.inside.wanted.waiting:
            if waiting.side.declared.cable == cable and waiting.error is not None:
                state.inside.errors[end.ifname] = waiting.error
                state.inside.refused.add(end.ifname)
        return None

    def _is_right(
        self,
        state: PodState,
        end: End,
        done: tuple[Change, ...],
        faults: list[str],
        took_s: float,
    ) -> None:
        inside, ifname = state.inside, end.ifname
        inside.right[ifname] = inside.given[ifname] = end.interface
        inside.lowered.pop(ifname, None)
        inside.errors.pop(ifname, None)
        name = operation(done)
        is_new = name in ("make", "replace")
        attachment = state.heard.attachment
        came_at = None if attachment is None else attachment.attached_at
        waited_s = inside.history.note_up(end.side, came_at, is_new=is_new)
        if name is not None:
            self._observed.changed(state, ifname)
        self._note_faults(state, end, faults, is_known=name is not None)
        if name is not None:
            figures.end_done(name, took_s)
            self._log(state, end).info(
                "link up",
                ifname=ifname,
                peer=end.side.peer,
                **end.interface.medium.details(),
                took_s=f"{took_s:.3f}",
                waited_s=f"{waited_s:.3f}",
            )
            self._log(state, end).debug("end changed", ifname=ifname, changes=_shown(done))

    def _note_faults(self, state: PodState, end: End, faults: list[str], *, is_known: bool) -> None:
        """Note what the kernel has refused of an end that is up all the same; told once."""
        if not is_known:
            return
        before = state.inside.faults.pop(end.ifname, None)
        if faults:
            told = state.inside.faults[end.ifname] = "; ".join(faults)
            if told != before:
                self._log(state, end).warning(
                    "the kernel refuses a property of a link", ifname=end.ifname, error=told
                )

    # What is told ---------------------------------------------------------------------------------

    def _tell_waiting(self, state: PodState, wanted: Wanted) -> None:
        for one in wanted.waiting:
            self._note(state, one.side, WAITING if one.error is None else ERROR, one.error)
        errors = {one.side.ifname: one.error for one in wanted.waiting if one.error is not None}
        for ifname, error in errors.items():
            if state.inside.told_errors.get(ifname) != error:
                self._log(state).warning("link refused", ifname=ifname, error=error)
        state.inside.told_errors = errors

    def _note(self, state: PodState, side: Side, link_state: str, error: str | None) -> None:
        note = state.inside.history.note(side, link_state, error)
        # Before etcd has been asked every far pod is unknown: that is not worth a line.
        if link_state == WAITING and state.progress.looked and not note.is_told:
            note.is_told = True
            self._log(state).info(
                "link waiting", link=side.declared, ifname=side.ifname, peer=side.peer
            )

    def _log(self, state: PodState, end: End | None = None) -> log.Logger:
        link = None if end is None else end.side.declared
        return log.Logger(pod=state.key, container=state.container, link=link)


def _shown(done: tuple[Change, ...]) -> str:
    """Return changes as one word each, for the log."""
    return ",".join(type(one).__name__ for one in done)
