"""What is noted and logged of a pod's ends. Whoever calls these functions holds the ends' lock."""

from __future__ import annotations

from collections.abc import Mapping

from ratchet import log
from ratchet_child.model.interfaces import Change, Make, Setting
from ratchet_child.model.links import Side, UplinkSide
from ratchet_child.model.plan import End, Wanted
from ratchet_child.pods.history import ERROR, WAITING
from ratchet_child.pods.state import PodState, fault


def logger(state: PodState, end: End | None = None) -> log.Logger:
    """Return a logger that names the pod and, with an end, its link."""
    link = None if end is None else end.side.declared
    return log.Logger(pod=state.key, container=state.container, link=link)


def waiting(state: PodState, wanted: Wanted) -> None:
    """Note the links that wait, and say once which of them are refused, and why."""
    for one in wanted.waiting:
        note(state, one.side, WAITING if one.error is None else ERROR, one.error)
    errors = {one.side.ifname: one.error for one in wanted.waiting if one.error is not None}
    for ifname, error in errors.items():
        if state.inside.told_errors.get(ifname) != error:
            logger(state).warning("link refused", ifname=ifname, error=error)
    for end in wanted.ends:
        why = end.side.contradiction
        if why is not None:
            errors[end.ifname] = why
            if state.inside.told_errors.get(end.ifname) != why:
                logger(state, end).warning("link contradicted", ifname=end.ifname, error=why)
    state.inside.told_errors = errors


def note(state: PodState, side: Side | UplinkSide, link_state: str, error: str | None) -> None:
    """Note how a link is, and say once that it waits."""
    noted = state.inside.history.note(side, link_state, error)
    # Before etcd has been asked every far pod is unknown: that is not worth a line.
    if link_state == WAITING and state.progress.looked and not noted.is_told:
        noted.is_told = True
        logger(state).info("link waiting", link=side.declared, ifname=side.ifname, peer=side.far)


def faults(
    state: PodState, end: End, done: tuple[Change, ...], refused: Mapping[type[Setting], str]
) -> None:
    """Note what the kernel has refused of an end that is up all the same, and say it once.

    What was refused before and not tried again is as it was.
    """
    before = state.inside.faults.pop(end.ifname, {})
    tried = {type(one) for one in done}
    kept = {} if Make in tried else {one: why for one, why in before.items() if one not in tried}
    faults = {**kept, **refused}
    if faults:
        state.inside.faults[end.ifname] = faults
    told = fault(faults)
    if told is not None and told != fault(before):
        logger(state, end).warning(
            "the kernel refuses a property of a link", ifname=end.ifname, error=told
        )
