"""Bringing the ends in a pod's namespace to what is wanted: the kernel's side of a reconciliation.

A veth pair has two pods, and either's worker may make it; so everything in here happens under one
lock, which is held for milliseconds and never over a request to etcd. Which ends are wanted is
decided elsewhere, what each kind of interface needs is known to the kinds, and what is there
already is for the most part remembered.

An end lives as long as its pod. When the far pod goes, the cable is pulled out and the end stays,
without its carrier; it is made anew only where its cable turns from one kind into another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from ratchet.attachments import Attachment
from ratchet.errors import KernelError
from ratchet_child.kernel.devices import Applied, Devices
from ratchet_child.kernel.kinds.api import Kind, Site, VniInUseError
from ratchet_child.kernel.netns import Namespaces, News
from ratchet_child.metrics import figures
from ratchet_child.model.clock import Clock
from ratchet_child.model.interfaces import (
    Change,
    Found,
    Make,
    Setting,
    Unplug,
    changes,
    operation,
)
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import DeclaredLink, Side
from ratchet_child.model.plan import End, Wanted
from ratchet_child.pods.history import UP, WAITING
from ratchet_child.pods.state import Gone, PodState
from ratchet_child.work import telling
from ratchet_child.work.namespaces import PodNamespaces
from ratchet_child.work.observed import Observed
from ratchet_child.work.panel import Keeps, Panel

_VNI_BUSY_S = 3.0  # a namespace that is being taken down is gone by then


class Ends:
    """The interfaces of this node's pods."""

    def __init__(
        self,
        devices: Devices,
        kinds: Mapping[str, Kind],
        namespaces: Namespaces,
        clock: Clock,
        keeper: Keeps,
        *,
        find: Callable[[PodKey], PodState | None],
    ) -> None:
        """`find` gives the state of another pod of this node."""
        self._devices = devices
        self._kinds = kinds
        self._panel = Panel(devices, keeper, namespaces.open)
        self._namespaces = PodNamespaces(devices, kinds, namespaces, self._panel, find)
        self._clock = clock
        self._find = find
        self._observed = Observed(devices)
        self.lock = threading.RLock()

    def close(self) -> None:
        """Let go of the namespaces that no pod has any more; the keeper has them yet."""
        with self.lock:
            self._panel.close()

    # Namespaces -----------------------------------------------------------------------------------

    def open(self, state: PodState, attachment: Attachment) -> bool:
        """Open the pod's namespace; False when it is gone. *Raises* KernelError."""
        with self.lock:
            return self._namespaces.open(state, attachment)

    def remove_gone(self, gone: Gone, state: PodState, in_use: set[tuple[int, int]]) -> None:
        """Leave no end of a container that was detached. *Safe to call twice.*

        `in_use` are the namespaces of other pods.
        """
        with self.lock:
            self._namespaces.clean(gone, state, in_use)

    # What is heard --------------------------------------------------------------------------------

    def heard(self, state: PodState, news: News | None) -> bool:
        """Take up what has become of ends in a pod's namespace, None for anything.

        Return whether one has to be made again. What the pod does to an end that it was given is
        its own business: it is noted and left.
        """
        with self.lock:
            if news is None:
                self.forget(state)
                return True
            inside = state.inside
            if inside.found is None:
                return False
            wanted = {end.ifname: end for end in (inside.wanted.ends if inside.wanted else ())}
            keys = {found.index: key for key, found in inside.found.items()}
            is_lost = False
            for index in news.gone | news.moved.keys():
                key = keys.get(index)
                if key is None:
                    continue
                inside.found.pop(key, None)
                if index in news.moved:
                    inside.moved[key] = news.moved[index]
                    telling.logger(state, wanted.get(key)).info(
                        "the pod has moved an end", ifname=key
                    )
                    continue
                for known in (inside.right, inside.given, inside.faults):
                    known.pop(key, None)
                if key in wanted:
                    is_lost = True
                    inside.history.note(wanted[key].side, WAITING)
            for index in news.changed:
                self._look_at(state, keys.get(index), index)
            return is_lost

    def _look_at(self, state: PodState, key: str | None, index: int) -> None:
        """Read an interface that has changed: it may be down, renamed, or back from elsewhere."""
        inside = state.inside
        found = self._devices.find(state.opened_namespace, index)
        if found is None or inside.found is None:
            return  # it has gone or was moved: whichever it was is the next news
        if key is not None:
            inside.found[key] = found
        elif found.ours and found.label is not None:
            inside.found[found.key] = found
            inside.moved.pop(found.key, None)

    def forget(self, state: PodState) -> None:
        """Have everything in the pod's namespace read again."""
        with self.lock:
            self._observed.forget(state)

    def expects_vni(self, state: PodState) -> bool:
        """Say whether a VNI that is in use here is expected to be free at any moment."""
        with self.lock:
            now = self._clock.monotonic()
            # A little longer, so that it is tried once more when that time is over.
            return any(now - since < _VNI_BUSY_S + 1 for since in state.inside.busy_since.values())

    # The pod's ends -------------------------------------------------------------------------------

    def unwanted(self, state: PodState, wanted: Wanted) -> dict[str, PodKey]:
        """Return the ends that are there and that no link accounts for, with their primaries."""
        with self.lock:
            if state.inside.namespace is None:
                return {}
            names = {end.ifname for end in wanted.ends}
            names |= {one.side.ifname for one in wanted.waiting}
            return {
                key: state.key.sibling(found.label.link.rpartition(":")[0])
                for key, found in self._observed.all(state).items()
                if found.ours and found.label is not None and key not in names
            }

    def bring(
        self, state: PodState, wanted: Wanted, *, remove: bool, keep: Collection[str] = ()
    ) -> list[DeclaredLink]:
        """Make and change ends, and (if `remove`) unplug and remove them.

        `keep` are ends whose link nobody declares and which stay, unplugged. Return the links whose
        VNI cannot be used here. What fails is noted in the state's errors by interface and does not
        hold up the rest.
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
            telling.waiting(state, wanted)
            self._observed.all(state)
            if remove:
                self._unplug_and_remove(state, wanted, keep)
            for end in wanted.ends:
                right = inside.right.get(end.ifname)
                found = (inside.found or {}).get(end.ifname)
                is_right = right == end.interface and end.interface.has_cable_of(right, found)
                if is_right or end.ifname in inside.moved:
                    continue
                if not self._bring(state, end) and isinstance(end.side, Side):
                    unusable.append(end.side.declared)
                how, why = state.state_of(end)
                if how != UP:
                    telling.note(state, end.side, how, why)
        return unusable

    def _unplug_and_remove(self, state: PodState, wanted: Wanted, keep: Collection[str]) -> None:
        inside = state.inside
        for vni in inside.busy_since.keys() - {end.side.declared.vni for end in wanted.ends}:
            del inside.busy_since[vni]
        plugged = {end.ifname for end in wanted.ends}
        stays = {one.side.ifname for one in wanted.waiting if one.error is None}.union(keep)
        for key in [key for key in self._observed.all(state) if key not in plugged]:
            found = self._observed.read(state, key)
            if found is None or not found.ours:
                continue
            if key in stays:
                self._unplug(state, key, found)
            else:
                self._remove(state, key, found)

    def _unplug(self, state: PodState, key: str, found: Found) -> None:
        state.inside.right.pop(key, None)
        kind = self._kinds.get(found.kind or "")
        settings = () if kind is None else kind.unplugging(found)
        if settings:
            self._devices.apply(state.opened_namespace, found.ifname, settings, found.index)
            state.inside.stale.add(key)
            telling.logger(state).info("end unplugged", ifname=key)

    def _remove(self, state: PodState, key: str, found: Found) -> None:
        inside = state.inside
        with figures.end_operation("remove"):
            self._devices.remove(state.opened_namespace, found.index)
        if found.label is not None:
            self._panel.drop(state.key.namespace, found.label.link)
        self._observed.all(state).pop(key, None)
        for known in (inside.right, inside.given, inside.faults):
            known.pop(key, None)
        telling.logger(state).info("end removed", ifname=key)

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
            telling.logger(state, end).warning("end cannot be made", error=str(error))
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
        if kind.makes_both_ends:
            self._replug(pods)
        sites = [self._site(*one) for one in pods]
        for site in sites:
            if site.found is not None and not site.found.ours:
                raise KernelError(
                    f"make {site.wanted.ifname}",
                    "the pod has an interface of that name that is not Ratchet's",
                )
        here, there = sites[0], sites[1] if kind.makes_both_ends else None
        is_same = all(site.found is not None for site in sites) and kind.is_same(here, there)
        plans = []
        for (one, its_end), site in zip(pods, sites, strict=True):
            given = one.inside.given.get(its_end.ifname)
            plan = changes(site.wanted, site.found, is_same=is_same, given=given)
            plans.append((*kind.adjustments(site), *plan) if is_same else plan)
        if any(Make in map(type, plan) for plan in plans):
            self._make(kind, pods, here, there)
            sites = [replace(site, found=None) for site in sites]
        applied = self._apply(sites, plans)
        if any(plans):
            kind.settle(sites[0], sites[1] if kind.makes_both_ends else None)
        took_s = self._clock.monotonic() - started
        for (one, its_end), plan, result in zip(pods, plans, applied, strict=True):
            self._is_right(one, its_end, plan, result, took_s)

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
            if own is None and other is not None and other.ours:
                peer.inside.stale.add(far_end.ifname)  # whatever becomes of it now
                if self._panel.plug(state.key, state.opened_namespace, end.interface):
                    leg = self._devices.find(state.opened_namespace, end.ifname)
                    if leg is not None:
                        self._observed.all(state)[end.ifname] = leg
            elif own is None:
                self._panel.drop(state.key.namespace, end.interface.link)

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
                self._observed.all(state).pop(end.ifname, None)
            self._panel.drop(state.key.namespace, end.interface.link)
        kind.make(here, there)
        state, end = pods[0]
        if end.side.declared.vni is not None:
            state.inside.busy_since.pop(end.side.declared.vni, None)

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
        for other in peer.inside.wanted.ends:
            if (
                other.side.declared.cable == cable
                and other.interface.medium.kind == end.interface.medium.kind
            ):
                if other.ifname in peer.inside.moved:
                    self._plug_alone(state, end)
                    return None
                return None if peer.inside.namespace is None else (peer, other)
        for waiting in peer.inside.wanted.waiting:
            if waiting.side.declared.cable == cable and waiting.error is not None:
                state.inside.errors[end.ifname] = waiting.error
                state.inside.refused.add(end.ifname)
        return None

    def _plug_alone(self, state: PodState, end: End) -> None:
        """Have the leg of a link move in whose other end was moved by its pod."""
        if not self._panel.plug(state.key, state.opened_namespace, end.interface):
            return
        found = self._devices.find(state.opened_namespace, end.ifname)
        plan = changes(end.interface, found, is_same=True)
        settings = [one for one in plan if isinstance(one, Setting)]
        if found is not None:
            applied = self._devices.apply(state.opened_namespace, end.ifname, settings, found.index)
            self._is_right(state, end, tuple(settings), applied, 0.0)

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
        if name is not None or not was_up:
            telling.logger(state, end).info(
                "link up",
                ifname=ifname,
                peer=end.side.far,
                **end.interface.medium.details(),
                took_s=f"{took_s:.3f}",
                waited_s=f"{waited_s:.3f}",
            )


def _shown(done: tuple[Change, ...]) -> str:
    """Return changes as one word each, for the log."""
    return ",".join(type(one).__name__ for one in done)
