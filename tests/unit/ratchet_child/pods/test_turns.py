"""When a pod is looked at next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni.dataclasses import replace
from ratchet_child.pods.turns import (
    Pauses,
    Situation,
    Turn,
    after_failure,
    after_success,
    backoff,
)

NOW = 100.0
QUIET = Situation(now=NOW)
PAUSES = Pauses()


def turn(**what: object) -> Turn:
    return after_success(replace(QUIET, **what), PAUSES)  # type: ignore[arg-type]


def test_a_pod_whose_links_are_up_waits_to_be_told() -> None:
    assert turn() == Turn(None, None, 0)


def test_news_that_came_meanwhile_is_looked_at_at_once() -> None:
    assert turn(has_news=True).delay_s == 0.0


def test_a_pod_that_waits_looks_again_less_and_less_often() -> None:
    found, waits, look_all_at = [], 0, None
    for _ in range(12):
        next_one = turn(
            is_waiting=True, looked_at_everyone=True, waits=waits, look_all_at=look_all_at
        )
        assert next_one.delay_s is not None
        found.append(next_one.delay_s)
        waits, look_all_at = next_one.waits, next_one.look_all_at
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1.0, 15.0)


def test_what_happens_in_between_does_not_postpone_the_next_look() -> None:
    assert turn(is_waiting=True, waits=3, look_all_at=NOW + 2) == Turn(2.0, NOW + 2, 3)


def test_a_pod_that_no_longer_waits_forgets_how_long_it_has() -> None:
    assert turn(waits=7, look_all_at=NOW + 2) == Turn(None, None, 0)


def test_a_superseded_pod_looks_whether_its_name_is_free() -> None:
    assert turn(is_superseded=True) == Turn(2.0, NOW + 2.0, 0)


def test_what_may_not_be_removed_yet_is_looked_at_when_it_may() -> None:
    assert turn(keep_until=NOW + 3, is_superseded=True) == Turn(3.0, NOW + 3, 0)


@pytest.mark.parametrize(
    ("what", "delay_s"),
    [
        ({"settle_s": 1.5}, 1.5),
        ({"withdraw_again_at": NOW + 10}, 10.0),
        ({"withdraw_again_at": NOW - 1}, 0.0),
        ({"expects_vni": True, "has_errors": True}, 0.05),
        ({"has_errors": True, "failures": 1}, 0.1),
        ({"has_errors": True, "failures": 100}, 5.0),
        ({"settle_s": 1.5, "is_waiting": True, "look_all_at": NOW + 0.5}, 0.5),
    ],
)
def test_the_soonest_reason_counts(what: dict[str, object], delay_s: float) -> None:
    assert turn(**what).delay_s == pytest.approx(delay_s)


def test_a_failure_is_repeated_less_and_less_often() -> None:
    delays = [after_failure(times, PAUSES) for times in range(1, 50)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0.1, 2.0)


@given(st.integers(0, 10_000))
def test_a_pause_stays_within_its_bounds(times: int) -> None:
    assert 1.0 <= backoff((1.0, 15.0), times) <= 15.0


@given(
    st.builds(
        Situation,
        now=st.floats(0, 1e6),
        has_news=st.booleans(),
        looked_at_everyone=st.booleans(),
        look_all_at=st.none() | st.floats(0, 1e6),
        waits=st.integers(0, 200),
        is_waiting=st.booleans(),
        is_superseded=st.booleans(),
        keep_until=st.floats(0, 1e6),
        settle_s=st.none() | st.floats(0, 10),
        withdraw_again_at=st.none() | st.floats(0, 1e6),
        expects_vni=st.booleans(),
        has_errors=st.booleans(),
        failures=st.integers(0, 200),
    )
)
def test_nothing_that_is_due_is_forgotten(one: Situation) -> None:
    found = after_success(one, PAUSES)
    is_open = one.has_news or one.is_waiting or one.is_superseded or one.has_errors
    is_open = is_open or one.expects_vni or one.now < one.keep_until
    is_open = is_open or None not in (one.settle_s,) or one.withdraw_again_at is not None
    assert (found.delay_s is not None) == is_open
    assert found.delay_s is None or found.delay_s >= 0
