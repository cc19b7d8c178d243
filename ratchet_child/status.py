"""What the node tells of its pods and links: to parents that wait, `ratchetctl status`, metrics.

Reads the states that others work on, and decides nothing. An answer is made from what is known now:
neither etcd nor the kernel is asked for it, and no pod's lock is taken, so that no answer waits for
work. What is told of a pod that is being worked on may be of a moment ago.
"""

from __future__ import annotations

from typing import Any

from ratchet import status
from ratchet.attachments import Attachment
from ratchet.cni.dataclasses import replace
from ratchet_child.metrics import figures
from ratchet_child.model.clock import Clock
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import Place, Side, UplinkSide
from ratchet_child.model.local import Node
from ratchet_child.model.plan import End
from ratchet_child.pairing import v010
from ratchet_child.pairing.machines import Machines
from ratchet_child.pods.history import ERROR, UP, WAITING
from ratchet_child.pods.registry import Registry
from ratchet_child.pods.state import PodState, fault
from ratchet_child.store.health import Health


class Status:
    """Every method may be called from any thread, which must not hold the registry's lock."""

    def __init__(
        self,
        node: Node,
        registry: Registry,
        machines: Machines,
        etcd: Health,
        clock: Clock,
    ) -> None:
        self._node = node
        self._registry = registry
        self._machines = machines
        self._etcd = etcd
        self._clock = clock

    def is_served(self, key: PodKey, number: int, mode: str) -> bool:
        """Say whether request `number` has been served and the pod's links are complete."""
        state = self._registry.get(key)
        if state is None or state.progress.served < number:
            return False
        return _is_complete(state, mode, self._registry.places(state))

    def links(self, key: PodKey) -> tuple[status.LinkStatus, ...]:
        """Return a pod's links; none when there is no such pod."""
        state = self._registry.get(key)
        return () if state is None else self._links(state)

    def counts(self) -> figures.Counts:
        """Return how many pods and links there are in each state."""
        silent = [self._machines.silent_since(one) for one in self._registry.far_nodes()]
        counts = figures.Counts(
            dict.fromkeys((UP, WAITING, ERROR), 0),
            etcd=self._etcd.error is None,
            has_address=bool(self._node.address),
            is_address_shared=self._machines.trouble is not None,
            silent_nodes=sum(1 for since in silent if since is not None),
        )
        with self._registry.lock:
            states = self._registry.states()
            counts.superseded = len(self._registry.replaced())
        for state in states:
            if state.heard.attachment is None:
                continue
            _count(state, counts)
            if state.progress.memory.superseded:
                counts.superseded += 1
            elif state.trouble is not None:
                counts.troubled += 1
            else:
                counts.attached += 1
        return counts

    def pods(self) -> tuple[status.PodStatus, ...]:
        """Return every pod of the node with its links.

        Containers whose name another container has taken over come last.
        """
        with self._registry.lock:
            states = sorted(self._registry.states(), key=lambda state: state.key)
            replaced = self._registry.replaced()
        shown = []
        for state in states:
            attachment = state.heard.attachment
            if attachment is None:
                continue
            links = self._links(state)
            shown.append(
                _pod(
                    attachment,
                    superseded=state.progress.memory.superseded,
                    error=state.trouble,
                    last_error=state.progress.last_error,
                    last_error_at=state.progress.last_error_at,
                    links=links,
                )
            )
        return (*shown, *(_pod(one, superseded=True, links=()) for one in replaced))

    def _links(self, state: PodState) -> tuple[status.LinkStatus, ...]:
        places = self._registry.places(state)
        shown, now = [], self._clock.time()
        for end in state.ends:
            how, error = state.state_of(end)
            one = _link(state, end.side, how, error, end, places, now)
            place = _place(end.side, places)
            since = None if place is None else self._machines.silent_since(place.address)
            shown.append(replace(one, silent_since=since, by_pod=_by_pod(state, end)))
        for waiting in state.waiting:
            how = WAITING if waiting.error is None else ERROR
            shown.append(_link(state, waiting.side, how, waiting.error, None, places, now))
        known = {one.ifname for one in shown}
        shown += [_expected(ifname) for ifname in _expectations(state) if ifname not in known]
        return tuple(shown)


def _count(state: PodState, counts: figures.Counts) -> None:
    """Add the number of links in each state, and of those with a fault."""
    for end in state.ends:
        how = state.state_of(end)[0]
        counts.links[how] += 1
        counts.faults += _fault(state, end, how) is not None
    for waiting in state.waiting:
        counts.links[WAITING if waiting.error is None else ERROR] += 1


def _fault(state: PodState, end: End, how: str) -> str | None:
    """Return what is wrong with a link that is up: what the kernel refused, what contradicts."""
    if how != UP:
        return None
    pulled = status.PULLED if end.side.is_pulled else None
    refused = fault(state.inside.faults.get(end.ifname, {}))
    said = None if refused is None else f"the kernel refuses {refused}"
    found = pulled, said, end.side.contradiction
    return "; ".join(one for one in found if one is not None) or None


def _is_complete(state: PodState, mode: str, places: dict[PodKey, Place]) -> bool:
    """Say whether a parent that waits for `mode` ("present" or "all") can go on."""
    wanted = state.inside.wanted
    if not state.progress.looked or wanted is None:
        return False
    for end in wanted.ends:
        ifname = end.ifname
        if state.state_of(end)[0] != UP and not (
            mode == "present" and ifname in state.inside.refused
        ):
            return False
    if mode == "all":
        there = {end.ifname for end in wanted.ends}
        return not wanted.waiting and there.issuperset(_expectations(state))
    # A link whose far pod is there but which waits is not complete, and neither is a wrong one.
    return not any(_place(one.side, places) and not one.error for one in wanted.waiting)


def _expectations(state: PodState) -> tuple[str, ...]:
    """Return the pod's interfaces that others are to declare links on."""
    return () if state.heard.attachment is None else state.heard.attachment.expected


def _expected(ifname: str) -> status.LinkStatus:
    """Return a link that the pod expects and nobody has declared yet."""
    return status.LinkStatus(ifname=ifname, peer="", state=WAITING, primary=False)


def _place(side: Side | UplinkSide, places: dict[PodKey, Place]) -> Place | None:
    return places.get(side.peer) if isinstance(side, Side) else None


def _by_pod(state: PodState, end: End) -> str | None:
    """Return what the pod has done to its end that concerns the link."""
    if end.ifname in state.inside.moved:
        return "moved"
    found = (state.inside.found or {}).get(end.ifname)
    return "down" if found is not None and not found.up else None


def _link(
    pod: PodState,
    side: Side | UplinkSide,
    state: str,
    error: str | None,
    end: End | None,
    places: dict[PodKey, Place],
    now: float,
) -> status.LinkStatus:
    note = pod.inside.history.get(side) or pod.inside.history.note(side, state, error)
    place = _place(side, places)
    return status.LinkStatus(
        ifname=side.ifname,
        address=None if side.address is None else str(side.address),
        peer=side.far,
        peer_ifname=None if side.peer_ifname == v010.UNTOLD else side.peer_ifname,
        peer_address=None if side.peer_address is None else str(side.peer_address),
        peer_node=None if place is None else place.address,
        primary=side.declared.primary == pod.key,
        vni=side.declared.vni,
        kind=None if end is None else end.interface.medium.kind,
        state=state,
        # Between two notes: it is being looked at, and will be noted at once.
        since=note.since if note.state == state else now,
        error=error,
        fault=None if end is None else _fault(pod, end, state),
        last_error=note.error,
        last_error_at=note.error_at,
    )


def _pod(attachment: Attachment, **how: Any) -> status.PodStatus:
    return status.PodStatus(
        namespace=attachment.namespace,
        name=attachment.pod,
        kubernetes_name=attachment.kubernetes_name,
        container=attachment.container_id,
        netns=attachment.netns,
        attached_at=attachment.attached_at,
        **how,
    )
