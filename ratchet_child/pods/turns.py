"""When a pod is looked at next without being asked for. Pure.

What goes wrong is tried again, sooner at first and then less often; nothing is ever given up. A pod
also looks again by itself where nobody would ring: when it waits for a pod of a v0.1.0 node, when a
bell may have been lost, when a name may have become free.
"""

from __future__ import annotations

from ratchet.cni.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long is waited for what, in seconds: at first, and at most."""

    retry_s: tuple[float, float] = (0.1, 2.0)  # a reconciliation that has failed
    error_s: tuple[float, float] = (0.1, 5.0)  # an end that cannot be made
    waiting_s: tuple[float, float] = (1.0, 15.0)  # a link whose far pod is not there
    superseded_s: float = 2.0  # nobody rings when a name is free again
    vni_s: float = 0.05  # a VNI that is in use and will be free at any moment


@dataclass(frozen=True, slots=True)
class Situation:
    """A pod after it has been worked on with success. Moments are monotonic seconds."""

    now: float
    has_news: bool = False  # something was heard meanwhile
    looked_at_everyone: bool = False  # in the run that has just ended
    look_all_at: float | None = None  # as planned before that run
    waits: int = 0  # looks in a row that have found a link waiting
    is_waiting: bool = False  # a link waits, there is none, or a peer's node rings no bells
    is_superseded: bool = False
    keep_until: float = 0.0  # nothing is removed before this moment
    settle_s: float | None = None  # until an end whose link nobody declares any more may go
    withdraw_again_at: float | None = None
    expects_vni: bool = False
    has_errors: bool = False
    failures: int = 0  # runs in a row that have left errors


@dataclass(frozen=True, slots=True)
class Turn:
    """What comes of it: the delay until the next turn (None: when something is heard), the plan."""

    delay_s: float | None
    look_all_at: float | None
    waits: int


def after_success(one: Situation, pauses: Pauses) -> Turn:
    """Return when the pod is worked on next."""
    look_all_at, waits = _next_look(one, pauses)
    delays = [0.0] if one.has_news else []
    if look_all_at is not None:
        delays.append(look_all_at - one.now)
    if one.settle_s is not None:
        delays.append(one.settle_s)
    if one.withdraw_again_at is not None:
        delays.append(one.withdraw_again_at - one.now)
    if one.expects_vni:
        delays.append(pauses.vni_s)
    elif one.has_errors:
        delays.append(backoff(pauses.error_s, one.failures))
    return Turn(max(min(delays), 0.0) if delays else None, look_all_at, waits)


def after_failure(failures: int, pauses: Pauses) -> float:
    """Return the delay until a reconciliation that failed so many times in a row is repeated."""
    return backoff(pauses.retry_s, failures)


def backoff(pause_s: tuple[float, float], times: int) -> float:
    """Return a pause that grows by half each time, within its bounds."""
    first_s, longest_s = pause_s
    return float(min(longest_s, first_s * 1.5 ** min(max(times, 1) - 1, 30)))


def _next_look(one: Situation, pauses: Pauses) -> tuple[float | None, int]:
    """Return when the pod looks at all of its links unasked, and how often it has waited by then.

    A second apart at first, then less often. What happens in between neither counts nor postpones
    the next look.
    """
    if one.now < one.keep_until:
        return one.keep_until, one.waits
    if one.is_superseded:
        return one.now + pauses.superseded_s, one.waits
    if not one.is_waiting:
        return None, 0
    if one.looked_at_everyone or one.look_all_at is None:
        waits = min(one.waits + 1, 100)
        return one.now + backoff(pauses.waiting_s, waits), waits
    return one.look_all_at, one.waits
