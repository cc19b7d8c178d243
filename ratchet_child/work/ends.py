"""Bringing the ends in a pod's namespace to what is wanted: the kernel's side of a reconciliation.

A veth pair has two pods, and either's worker may make it; so what is inside a pod has a lock of its
own, and an end is brought up under those of the pods that it joins. A lock is held for one end at a
time, and never over a request to etcd: a pod with many links holds up nobody else. Which ends are
wanted is decided elsewhere, what each kind of interface needs is known to the kinds, and what is
there already is for the most part remembered.

An end lives as long as its pod. When the far pod goes, the cable is pulled out and the end stays,
without its carrier; it is made anew only where its cable turns from one kind into another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping

from ratchet.attachments import Attachment
from ratchet.errors import KernelError
from ratchet_child.kernel.devices import Devices
from ratchet_child.kernel.kinds.api import Kind, VniInUseError, removed
from ratchet_child.kernel.netns import Namespaces, News
from ratchet_child.metrics import figures
from ratchet_child.model.clock import Clock
from ratchet_child.model.interfaces import Found
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import DeclaredLink, Side
from ratchet_child.model.plan import End, Wanted
from ratchet_child.pods.history import UP, WAITING
from ratchet_child.pods.state import Gone, PodState
from ratchet_child.pods.turns import backoff
from ratchet_child.work import telling
from ratchet_child.work.cables import Cables
from ratchet_child.work.namespaces import PodNamespaces
from ratchet_child.work.observed import Observed
from ratchet_child.work.panel import Keeps, Panel

_VNI_BUSY_S = 3.0  # a namespace that is being taken down is gone by then
_LOST_S = (0.1, 30.0)  # until an end that was lost again is made again
_FORGIVEN_S = 60.0  # an end that was there for so long is made again at once


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
        self._is_ending = False
        self._panel = Panel(devices, keeper, namespaces.open, namespaces.make)
        self._namespaces = PodNamespaces(
            devices, kinds, namespaces, self._panel, find, self._must_go_on
        )
        self._clock = clock
        self._find = find
        self._observed = Observed(devices)
        self._cables = Cables(devices, kinds, self._panel, self._observed, clock, find)

    @property
    def _now(self) -> float:
        return self._clock.monotonic()

    def end(self) -> None:
        """Have work on pods with many ends stop after the end that is in hand. From any thread."""
        self._is_ending = True

    def _must_go_on(self) -> None:
        """Raise KernelError if this process is to end: the next one does what is left."""
        if self._is_ending:
            raise KernelError("go on with a pod's ends", "this child ends, and the next one does")

    def close(self) -> None:
        """Let go of the namespaces that no pod has any more; the keeper has them yet."""
        self._panel.close()

    # Namespaces -----------------------------------------------------------------------------------

    def open(self, state: PodState, attachment: Attachment) -> bool:
        """Open the pod's namespace; False when it is gone. *Raises* KernelError."""
        with state.inside.lock:
            return self._namespaces.open(state, attachment)

    def remove_gone(self, gone: Gone, state: PodState, in_use: set[tuple[int, int]]) -> None:
        """Leave no end of a container that was detached. *Safe to call twice.*

        `in_use` are the namespaces of other pods.
        """
        self._namespaces.clean(gone, state, in_use)

    def tidy(self, in_use: Callable[[], set[tuple[int, int]]]) -> None:
        """Leave nothing with containers that live on after they were detached.

        `in_use` gives the namespaces of pods that are attached. For who calls it every few seconds.
        *Raises* KernelError when it is interrupted.
        """
        self._panel.tidy(in_use, self._must_go_on)

    @property
    def may_be_untidy(self) -> threading.Event:
        """Set while something may be with a container that lives on, so that `tidy` is needed."""
        return self._panel.may_be_untidy

    # What is heard --------------------------------------------------------------------------------

    def heard(self, state: PodState, news: News | None) -> float | None:
        """Take up what has become of ends in a pod's namespace, None for anything.

        Return the seconds after which those that were lost have to be made again; None when none
        was. What the pod does to an end that it was given is its own business: it is noted and
        left.
        """
        with state.inside.lock:
            inside = state.inside
            if news is None:
                self._observed.forget(state)
                return 0.0
            if inside.found is None:
                return None
            wanted = {end.ifname: end for end in (inside.wanted.ends if inside.wanted else ())}
            keys = {found.index: key for key, found in inside.found.items()}
            lost: list[float] = []
            for index in news.gone | news.moved.keys():
                key = keys.get(index)
                if key is None:
                    continue
                inside.found.pop(key, None)
                if index in news.moved:
                    inside.moved[key] = news.moved[index]
                    inside.right.pop(key, None)
                    end = wanted.get(key)
                    telling.by_pod(state, "the pod has moved an end", key, self._now, end)
                    continue
                for known in (inside.right, inside.given, inside.faults):
                    known.pop(key, None)
                if key in wanted:
                    lost.append(self._lost(state, wanted[key]))
        for index in news.changed:
            with state.inside.lock:
                self._look_at(state, keys.get(index), index)
        return max(lost, default=None)

    def _lost(self, state: PodState, end: End) -> float:
        """Return the seconds after which an end is made again: a pod may remove it in a loop."""
        inside, now = state.inside, self._clock.monotonic()
        times, before = inside.losses.get(end.ifname, (0, now))
        times = 1 if now - before > _FORGIVEN_S else times + 1
        inside.losses[end.ifname] = times, now
        inside.history.note(end.side, WAITING)
        return 0.0 if times == 1 else backoff(_LOST_S, times - 1)

    def _look_at(self, state: PodState, key: str | None, index: int) -> None:
        """Read an interface that has changed: it may be down, renamed, or back from elsewhere."""
        inside = state.inside
        if inside.found is None or inside.namespace is None:
            return  # all of it is read when it matters
        found = self._devices.find(inside.namespace, index)
        if found is None:
            return  # it has gone or was moved: whichever it was is the next news
        if key is not None:
            inside.found[key] = found
        elif found.ours and found.label is not None:
            inside.found[found.key] = found
            inside.moved.pop(found.key, None)

    def forget(self, state: PodState) -> None:
        """Have everything in the pod's namespace read again."""
        with state.inside.lock:
            self._observed.forget(state)

    def expects_vni(self, state: PodState) -> bool:
        """Say whether a VNI that is in use here is expected to be free at any moment."""
        with state.inside.lock:
            now = self._clock.monotonic()
            # A little longer, so that it is tried once more when that time is over.
            return any(now - since < _VNI_BUSY_S + 1 for since in state.inside.busy_since.values())

    # The pod's ends -------------------------------------------------------------------------------

    def unwanted(self, state: PodState, wanted: Wanted) -> dict[str, tuple[PodKey, str]]:
        """Return the ends that are there and that no link accounts for.

        By interface: the primary of the link that it was made for, and the primary's interface.
        """
        with state.inside.lock:
            if not state.is_open():
                return {}
            names = {end.ifname for end in wanted.ends}
            names |= {one.side.ifname for one in wanted.waiting}
            links = {
                key: found.label.link.rpartition(":")
                for key, found in self._observed.all(state).items()
                if found.ours and found.label is not None and key not in names
            }
            return {
                key: (state.key.sibling(primary), ifname)
                for key, (primary, _, ifname) in links.items()
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
        inside = state.inside
        with inside.lock:
            if not state.is_open():
                return unusable
            inside.want(wanted)
            inside.history.keep(wanted)
            if remove:  # then all is known that others have declared
                inside.history.note_unknown(wanted)
            telling.waiting(state, wanted)
            self._observed.all(state)
        if remove:
            self._unplug_and_remove(state, wanted, keep)
        for end in wanted.ends:
            if _is_right(state, end):
                continue
            self._must_go_on()
            with self._locked(state, end):
                if not state.is_open():
                    break
                is_usable = _is_right(state, end) or self._bring(state, end)
                if not is_usable and isinstance(end.side, Side):
                    unusable.append(end.side.declared)
                how, why = state.state_of(end)
                if how != UP:
                    telling.note(state, end.side, how, why)
        return unusable

    @contextlib.contextmanager
    def _locked(self, state: PodState, end: End) -> Iterator[None]:
        """Hold the locks of the pods whose ends are made together, in an order that all keep to."""
        pods = [state]
        if self._kinds[end.interface.medium.kind].makes_both_ends:
            peer = self._find(end.side.peer) if isinstance(end.side, Side) else None
            pods += [] if peer is None or peer is state else [peer]
        with contextlib.ExitStack() as stack:
            for one in sorted(pods, key=lambda one: one.key):
                stack.enter_context(one.inside.lock)
            yield

    def _unplug_and_remove(self, state: PodState, wanted: Wanted, keep: Collection[str]) -> None:
        inside = state.inside
        plugged = {end.ifname for end in wanted.ends}
        stays = {one.side.ifname for one in wanted.waiting if one.error is None}.union(keep)
        with inside.lock:
            for vni in inside.busy_since.keys() - {end.side.declared.vni for end in wanted.ends}:
                del inside.busy_since[vni]
            left = [key for key in self._observed.all(state) if key not in plugged]
        for key in left:
            self._must_go_on()
            with inside.lock:
                found = self._observed.read(state, key) if state.is_open() else None
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
        if kind is not None and settings:
            self._devices.apply(state.opened_namespace, found.ifname, settings, found.index)
            kind.dismiss(found, is_removed=False)
            state.inside.stale.add(key)
            telling.logger(state).info("end unplugged", ifname=key)

    def _remove(self, state: PodState, key: str, found: Found) -> None:
        inside = state.inside
        is_given = key in inside.given
        with figures.end_operation("remove"):
            self._devices.remove(state.opened_namespace, found.index)
        removed(self._kinds, found)
        if found.label is not None:
            self._panel.drop(state.key.namespace, found.label.link)
        self._observed.all(state).pop(key, None)
        for known in (inside.right, inside.given, inside.faults, inside.losses):
            known.pop(key, None)
        if is_given:
            telling.logger(state).info("end removed", ifname=key)
        else:  # a pod can mark what it makes
            telling.by_pod(state, "end removed", key, self._now)

    def _bring(self, state: PodState, end: End) -> bool:
        """Bring one end to its specification; False when its VNI cannot be used here."""
        inside = state.inside
        inside.refused.discard(end.ifname)
        inside.errors.pop(end.ifname, None)
        moved = inside.moved.get(end.ifname)
        if moved is not None and not self._devices.is_elsewhere(
            state.opened_namespace, *moved, end.ifname
        ):
            telling.by_pod(state, "an end that was moved is gone", end.ifname, self._now, end)
            del inside.moved[end.ifname]
            self._lost(state, end)
        try:
            if end.ifname in inside.moved:
                inside.given.setdefault(end.ifname, end.interface)
                self._cables.plug_far_end(end)
            else:
                self._cables.bring(state, end)
        except VniInUseError as error:
            inside.errors[end.ifname] = str(error)
            now = self._clock.monotonic()
            since = inside.busy_since.setdefault(error.vni, now)
            return not (error.visible or now - since > _VNI_BUSY_S)
        except (KernelError, OSError) as error:
            figures.end_failed()
            telling.logger(state, end).warning("end cannot be made", error=str(error))
            inside.errors[end.ifname] = str(error)
            self._observed.doubt(state, end.ifname)
        return True


def _is_right(state: PodState, end: End) -> bool:
    """Say whether the kernel is known to have an end as it should be, and its cable in or out."""
    right = state.inside.right.get(end.ifname)
    found = (state.inside.found or {}).get(end.ifname)
    return right == end.interface and end.interface.has_cable_of(right, found)
