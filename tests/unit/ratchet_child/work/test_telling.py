"""What a pod can have logged again and again is told so often, and then counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest

from ratchet import log
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import PodKey
from ratchet_child.pods.state import PodState
from ratchet_child.work import telling

POD = PodKey("default", "a")


@pytest.fixture
def lines() -> Iterator[list[bytes]]:
    """Collect what is logged."""
    written: list[bytes] = []
    before, own = log.sink(), log.Sink(written.append)
    log.use_sink(own)
    log.configure(None, "info", "test", to_stderr=True)
    yield written
    log.use_sink(before)


@pytest.fixture
def state() -> PodState:
    return PodState(POD, deque(), SystemClock())


def test_what_a_pod_does_without_end_costs_fifty_lines_a_minute(
    lines: list[bytes], state: PodState
) -> None:
    for number in range(1000):
        telling.by_pod(state, "the pod has moved an end", f"in{number}", now=100 + number / 100)
    assert len(lines) == 50
    assert b"ifname=in49" in lines[-1]
    telling.by_pod(state, "the pod has moved an end", "last", now=160)
    assert [b"count=950" in line for line in lines[50:]] == [True, False]
    assert b"ifname=last" in lines[-1]


def test_a_pod_that_does_something_now_and_then_has_a_line_each_time(
    lines: list[bytes], state: PodState
) -> None:
    for number in range(200):
        telling.by_pod(state, "end removed", "in1", now=number * 2)
    assert len(lines) == 200


def test_a_container_has_a_line_for_as_many_ends_as_it_may_have_links(lines: list[bytes]) -> None:
    for number in range(1, 1001):
        telling.cleaned(POD, "c1", f"x{number}", number)
    telling.cleaned_more(POD, "c1", 1000)
    assert len(lines) == 257
    assert b"count=744" in lines[-1]
    telling.cleaned_more(POD, "c1", 256)
    assert len(lines) == 257
