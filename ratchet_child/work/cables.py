"""Bringing the ends of one cable to their specification: both of them where the kernel makes both.

Whoever calls these methods holds the locks of the pods that the cable joins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ratchet.cni.dataclasses import replace
from ratchet.errors import KernelError
from ratchet_child.kernel.devices import Applied, Devices
from ratchet_child.kernel.kinds.api import Kind, Site, removed
from ratchet_child.metrics import figures
from ratchet_child.model.clock import Clock
from ratchet_child.model.interfaces import (
    Change,
    Make,
    Setting,
    Unplug,
    changes,
    operation,
)
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import Side
from ratchet_child.model.plan import End
from ratchet_child.pods.history import UP
from ratchet_child.pods.state import PodState
from ratchet_child.work import telling
from ratchet_child.work.observed import Observed
from ratchet_child.work.panel import Panel

_TOLD_LOSSES = 3  # an end that is lost more often in a row is made again without a line each time


class Cables:
    """Makes and changes ends by what their kinds ask for."""

    def __init__(
        self,
        devices: Devices,
        kinds: Mapping[str, Kind],
        panel: Panel,
        observed: Observed,
        clock: Clock,
        find: Callable[[PodKey], PodState | None],
    ) -> None:
        """`find` gives the state of another pod of this node."""
        self._devices = devices
        self._kinds = kinds
        self._panel = panel
        self._observed = observed
        self._clock = clock
        self._find = find

    def bring(self, state: PodState, end: End) -> None:
        """Bring an end to its specification. *Raises* KernelError, VniInUseError, OSError."""
        kind = self._kinds[end.interface.medium.kind]
        pods = [(state, end)]
        if kind.makes_both_ends:
            far = self._far_end(state, end)
            if far is None:
                return  # the other pod's turn: it makes both ends
            pods = _with_one_cable((state, end), far)
        started = self._clock.monotonic()
        if kind.makes_both_ends:
            self._replug(pods)
        sites = [self._site(*one) for one in pods]
        here, there = sites[0], sites[1] if kind.makes_both_ends else None
        is_same = all(site.found is not None for site in sites) and kind.is_same(here, there)
        plans = []
        for (one, its_end), site in zip(pods, sites, strict=True):
            given = one.inside.given.get(its_end.ifname)
            plan = changes(site.wanted, site.found, is_same=is_same, given=given)
            plans.append((*kind.adjustments(site), *plan) if is_same else plan)
        if any(Make in map(type, plan) for plan in plans):
            is_made_anew = any(site.found and site.found.kind != kind.name for site in sites)
            if is_made_anew and not all(one.is_certain for one, _ in pods):
                return  # an end of the other kind stays until etcd has said where the pods are
            self._make(kind, pods, here, there)
            sites = [replace(site, found=None) for site in sites]
        kind.admit(here)
        applied = self._apply(sites, plans)
        if any(plans):
            kind.settle(sites[0], sites[1] if kind.makes_both_ends else None)
        took_s = self._clock.monotonic() - started
        for (one, its_end), plan, result in zip(pods, plans, applied, strict=True):
            self._is_right(one, its_end, plan, result, took_s)

    def plug_far_end(self, end: End) -> None:
        """Plug the far pod in that has come back to an end which its own pod has moved.

        The end itself is out of reach. *Raises* KernelError.
        """
        if not isinstance(end.side, Side):
            return
        if not self._kinds[end.interface.medium.kind].makes_both_ends:
            return
        peer = self._find(end.side.peer)
        far_end = None if peer is None else peer.inside.cables.get(end.side.declared.cable)
        if (
            peer is not None
            and far_end is not None
            and peer.inside.namespace is not None
            and peer.inside.right.get(far_end.ifname) != far_end.interface
        ):
            self._bring_alone(peer, far_end)

    def _site(self, state: PodState, end: End) -> Site:
        found = self._observed.read(state, end.ifname)
        given = state.inside.given.get(end.ifname)
        if found is not None and given is not None and given.address in found.addresses:
            # Kernels before 5.18 do not remember who has set an address.
            found = replace(found, given=found.given | {given.address})
        return Site(state.opened_namespace, end.interface, found)

    def _replug(self, pods: list[tuple[PodState, End]]) -> None:
        """Where only one end is there, have the leg at its other end move to where it belongs."""
        found = [self._observed.read(state, end.ifname) for state, end in pods]
        ends = zip(pods, found, reversed(pods), reversed(found), strict=True)
        for (state, end), own, (peer, far_end), other in ends:
            if own is None and other is not None:
                peer.inside.stale.add(far_end.ifname)  # whatever becomes of it now
                self._plug(state, end)
            elif own is None:
                self._panel.drop(state.key.namespace, end.interface.label.kept.link)
            elif self._panel.give_back(
                state.key, state.opened_namespace, end.interface.label.kept.link
            ):
                # The pod was attached again where it was: its end was set down, and not by it.
                self._observed.all(state)[end.ifname] = replace(own, label=None)

    def _plug(self, state: PodState, end: End) -> None:
        """Have the leg that waits for an end move in, if there is one."""
        self._must_be_free(state, end)
        if self._panel.plug(state.key, state.opened_namespace, end.interface):
            leg = self._devices.find(state.opened_namespace, end.ifname)
            if leg is not None:
                self._observed.all(state)[end.ifname] = leg

    def _make(
        self, kind: Kind, pods: list[tuple[PodState, End]], here: Site, there: Site | None
    ) -> None:
        """Make an interface where another one of that name may be, which goes first."""
        for (state, end), site in zip(pods, (here, there), strict=False):
            if site is not None and site.found is not None:
                telling.logger(state, end).info(
                    "end made anew", ifname=end.ifname, was=site.found.kind, now=kind.name
                )
                self._devices.remove(site.namespace, site.found.index)
                removed(self._kinds, site.found)
                self._observed.all(state).pop(end.ifname, None)
            self._panel.drop(state.key.namespace, end.interface.label.kept.link)
        try:
            kind.make(here, there)
        except KernelError:
            for state, end in pods:
                self._must_be_free(state, end)
            raise
        state, end = pods[0]
        if end.side.declared.vni is not None:
            state.inside.busy_since.pop(end.side.declared.vni, None)

    def _must_be_free(self, state: PodState, end: End) -> None:
        """Raise KernelError if something that is not Ratchet's has the name of an end."""
        found = self._devices.find(state.opened_namespace, end.ifname)
        if found is not None and not found.ours:
            raise KernelError(
                f"make {end.ifname} in {state.opened_namespace.path}",
                f"{state.key} has an interface of that name that is not Ratchet's",
            )

    def _apply(self, sites: list[Site], plans: list[tuple[Change, ...]]) -> list[Applied | None]:
        """Change all sites; what was just made and cannot be finished goes again.

        *Raises* KernelError.
        """
        applied: list[Applied | None] = []
        try:
            for site, plan in zip(sites, plans, strict=True):
                settings = [one for one in plan if isinstance(one, Setting)]
                index = None if site.found is None else site.found.index
                if settings and isinstance(settings[0], Unplug):
                    self._devices.apply(site.namespace, site.ifname, settings[:1], index)
                    self._devices.settle(site.namespace, site.ifname)  # it is seen before the rest
                    del settings[0]
                applied.append(
                    self._devices.apply(site.namespace, site.ifname, settings, index)
                    if settings
                    else None
                )
        except KernelError:
            made = self._devices.find(sites[0].namespace, sites[0].wanted.ifname)
            if any(Make in map(type, plan) for plan in plans) and made is not None:
                self._devices.remove(sites[0].namespace, made.index)
            raise
        return applied

    def _far_end(self, state: PodState, end: End) -> tuple[PodState, End] | None:
        """Return the pod at the other end, and its end, if both are ready for the cable."""
        peer = self._find(end.side.peer) if isinstance(end.side, Side) else None
        if peer is None or peer.inside.wanted is None:
            return None
        cable = end.side.declared.cable
        far_end = peer.inside.cables.get(cable)
        if far_end is None:
            why = peer.inside.refusals.get(cable)
            if why is not None:
                state.inside.errors[end.ifname] = why
                state.inside.refused.add(end.ifname)
            return None
        if far_end.interface.medium.kind != end.interface.medium.kind:
            return None
        if far_end.ifname in peer.inside.moved:
            self._bring_alone(state, end)
            return None
        return None if peer.inside.namespace is None else (peer, far_end)

    def _bring_alone(self, state: PodState, end: End) -> None:
        """Bring an end to its specification whose other end was moved by its pod.

        Where it is not there its leg may be waiting; a new one cannot be made.
        """
        started = self._clock.monotonic()
        if self._observed.read(state, end.ifname) is None:
            self._plug(state, end)
        site = self._site(state, end)
        if site.found is None:
            return
        given = state.inside.given.get(end.ifname)
        plan = changes(end.interface, site.found, is_same=True, given=given)
        (applied,) = self._apply([site], [plan])
        self._is_right(state, end, plan, applied, self._clock.monotonic() - started)

    def _is_right(
        self,
        state: PodState,
        end: End,
        done: tuple[Change, ...],
        applied: Applied | None,
        took_s: float,
    ) -> None:
        inside, ifname = state.inside, end.ifname
        inside.right[ifname] = inside.given[ifname] = end.interface
        inside.errors.pop(ifname, None)
        name = operation(done)
        is_new = name in ("make", "replace")
        attachment = state.heard.attachment
        came_at = None if attachment is None else attachment.attached_at
        before = inside.history.get(end.side)
        was_up = before is None or before.state == UP
        waited_s = inside.history.note_up(end.side, came_at, is_new=is_new)
        if applied is not None:
            self._observed.changed(state, end.interface, applied.index)
            telling.faults(state, end, done, applied.refused)
        if name is not None:
            figures.end_done(name, took_s)
            telling.logger(state, end).debug("end changed", ifname=ifname, changes=_shown(done))
        times = inside.losses.get(ifname, (0, 0.0))[0]
        if times == _TOLD_LOSSES:
            telling.logger(state, end).warning(
                "an end is removed again and again; it is made again less and less often",
                ifname=ifname,
            )
        elif times < _TOLD_LOSSES and (name is not None or not was_up):
            telling.logger(state, end).info(
                "link up",
                ifname=ifname,
                peer=end.side.far,
                **end.interface.medium.details(),
                took_s=f"{took_s:.3f}",
                waited_s=f"{waited_s:.3f}",
            )


def _with_one_cable(
    one: tuple[PodState, End], other: tuple[PodState, End]
) -> list[tuple[PodState, End]]:
    """Return two ends, with their cable in or out at both as the later declaration has it.

    Each pod looks in its own time: one may still know the declaration of a container that has gone,
    or none. What is set of one declaration is for each of them to hear.
    """
    pods = [one, other]
    known = [end.side for _, end in pods if end.side.is_pulled is not None]
    if not known:
        return pods
    last = max(known, key=lambda side: side.declared.created)
    return [
        (state, end)
        if end.side.is_pulled is not None and end.side.declared.created == last.declared.created
        else (state, replace(end, interface=replace(end.interface, is_pulled=last.is_pulled)))
        for state, end in pods
    ]


def _shown(done: tuple[Change, ...]) -> str:
    """Return changes as one word each, for the log."""
    return ",".join(type(one).__name__ for one in done)
