"""What is noted and logged: of a pod's ends, and of what comes by the thousand.

Whoever calls the functions about ends holds the pod's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ratchet import log
from ratchet_child.model.clock import Clock
from ratchet_child.model.interfaces import Change, Make, Setting
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import Side, UplinkSide
from ratchet_child.model.plan import End, Wanted
from ratchet_child.pods.history import ERROR, WAITING
from ratchet_child.pods.state import PodState, fault

_MANY_S = 10.0
_MINUTE_S = 60.0
_MOST_LINES = 50  # of one pod's links, at a time
_MOST_REMOVALS = 256  # of one container, which has no more links as a rule


class Many:
    """One line for many: the first at once, and then one in a while that says how many it is for.

    Whoever writes in etcd decides how many there are. Safe to use from many threads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._told_at: float | None = None  # monotonic seconds

    def note(self, message: str, **fields: object) -> None:
        """Log one more, or count it for the next line."""
        with self._lock:
            self._count += 1
            now = self._clock.monotonic()
            if self._told_at is not None and now < self._told_at + _MANY_S:
                return
            count, self._count, self._told_at = self._count, 0, now
        log.info(message, **fields, count=count if count > 1 else None)


def cleaned(pod: PodKey, container: str, ifname: str, number: int) -> None:
    """Say that an end of a container that has gone was removed; `number` counts from 1."""
    if number <= _MOST_REMOVALS:
        log.info("end removed", pod=pod, container=container, ifname=ifname)


def cleaned_more(pod: PodKey, container: str, number: int) -> None:
    """Count in one line what was too much for a line each: the pod may have made them itself."""
    if number > _MOST_REMOVALS:
        count = number - _MOST_REMOVALS
        log.info("more ends removed", pod=pod, container=container, count=count)


def by_pod(state: PodState, message: str, ifname: str, now: float, end: End | None = None) -> None:
    """Say something that the pod can have said again and again, but only so often a minute."""
    inside = state.inside
    times, since = inside.told_lately
    if now >= since + _MINUTE_S:
        if times > _MOST_LINES:
            logger(state).info("more of the like", count=times - _MOST_LINES)
        times, since = 0, now
    if times < _MOST_LINES:
        logger(state, end).info(message, ifname=ifname)
    inside.told_lately = times + 1, since


def logger(state: PodState, end: End | None = None) -> log.Logger:
    """Return a logger that names the pod and, with an end, its link."""
    link = None if end is None else end.side.declared
    return log.Logger(pod=state.key, container=state.container, link=link)


def waiting(state: PodState, wanted: Wanted) -> None:
    """Note the links that wait, and say once which of them are refused, and why."""
    news = [
        one.side
        for one in wanted.waiting
        if _note(state, one.side, WAITING if one.error is None else ERROR, one.error)
    ]
    for side in news[:_MOST_LINES]:
        _tell_waiting(state, side)
    _tell_rest(state, "more links wait", len(news))
    errors = {one.side.ifname: one.error for one in wanted.waiting if one.error is not None}
    contradictions = {
        end.ifname: end.side.contradiction
        for end in wanted.ends
        if end.side.contradiction is not None
    }
    told = state.inside.told_errors
    refused = [(ifname, error) for ifname, error in errors.items() if told.get(ifname) != error]
    for ifname, error in refused[:_MOST_LINES]:
        logger(state).warning("link refused", ifname=ifname, error=error)
    _tell_rest(state, "more links are refused", len(refused))
    differ = [(ifname, why) for ifname, why in contradictions.items() if told.get(ifname) != why]
    for ifname, why in differ[:_MOST_LINES]:
        logger(state).warning("link contradicted", ifname=ifname, error=why)
    _tell_rest(state, "more links are contradicted", len(differ))
    state.inside.told_errors = {**errors, **contradictions}


def _tell_rest(state: PodState, message: str, count: int) -> None:
    """Count in one line what is too much for a line each: others may declare it, in etcd."""
    if count > _MOST_LINES:
        logger(state).info(message, count=count - _MOST_LINES)


def note(state: PodState, side: Side | UplinkSide, link_state: str, error: str | None) -> None:
    """Note how a link is, and say once that it waits."""
    if _note(state, side, link_state, error):
        _tell_waiting(state, side)


def _tell_waiting(state: PodState, side: Side | UplinkSide) -> None:
    logger(state).info("link waiting", link=side.declared, ifname=side.ifname, peer=side.far)


def _note(state: PodState, side: Side | UplinkSide, link_state: str, error: str | None) -> bool:
    """Note how a link is; return whether it is to be said, once, that it waits."""
    noted = state.inside.history.note(side, link_state, error)
    # Before etcd has been asked every far pod is unknown: that is not worth a line.
    is_news = link_state == WAITING and state.progress.looked and not noted.is_told
    noted.is_told = noted.is_told or is_news
    return is_news


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
