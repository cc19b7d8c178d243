"""Questions about labels, with a reader that does as it is told."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ratchet import log
from ratchet.errors import CniError, PodSourceError, PodUnknownError
from ratchet_child.lookups import TIMEOUT_S, Labels, Lookups

FOUND: Labels = ({"ratchet": "true"}, {"note": "x"})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Reader:
    """Each question takes one of `answers`, and waits until there is one."""

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Labels | Exception] = queue.SimpleQueue()
        self.threads: set[int] = set()

    def fetch(self, *question: Any) -> Labels:
        self.threads.add(threading.get_ident())
        self.asked.put(question)
        answer = self.answers.get(timeout=10)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def lookups(clock: Clock, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lookups]:
    made = Lookups("/kubeconfig", clock)
    monkeypatch.setattr(made, "_reader", reader)
    yield made
    made.close()
    for _ in range(40):
        reader.answers.put(FOUND)


@pytest.fixture
def answers() -> queue.SimpleQueue[Labels | CniError]:
    return queue.SimpleQueue()


Answers = queue.SimpleQueue[Labels | CniError]


def test_a_pods_labels_are_told(
    lookups: Lookups, reader: Reader, clock: Clock, answers: Answers
) -> None:
    lookups.ask("n", "p", "u", answers.put)
    assert reader.asked.get(timeout=5) == ("n", "p", "u", clock.now + TIMEOUT_S)
    assert lookups.next_deadline() == clock.now + TIMEOUT_S
    reader.answers.put(FOUND)
    assert answers.get(timeout=5) == FOUND
    lookups.settle()
    assert lookups.next_deadline() is None


@pytest.mark.parametrize(
    ("error", "code"), [(PodSourceError("pod n/p", "why"), 102), (RuntimeError("surprise"), 199)]
)
def test_what_goes_wrong_is_told(
    lookups: Lookups,
    reader: Reader,
    answers: Answers,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
) -> None:
    monkeypatch.setattr(log, "crash", lambda *_, **__: None)
    reader.answers.put(error)
    lookups.ask("n", "p", None, answers.put)
    answer = answers.get(timeout=5)
    assert isinstance(answer, CniError)
    assert answer.code == code


def test_whose_time_is_over_is_told_so_once(
    lookups: Lookups, reader: Reader, clock: Clock, answers: Answers
) -> None:
    lookups.ask("n", "p", None, answers.put)
    reader.asked.get(timeout=5)
    clock.now += TIMEOUT_S - 0.1
    lookups.settle()
    assert answers.empty()
    clock.now += 0.1
    lookups.settle()
    answer = answers.get_nowait()
    assert isinstance(answer, CniError)
    assert answer.code == 11
    assert "pod n/p" in str(answer)
    assert lookups.next_deadline() is None
    reader.answers.put(FOUND)
    reader.answers.put(FOUND)
    lookups.ask("n", "q", None, answers.put)
    assert answers.get(timeout=5) == FOUND
    assert answers.empty()


def test_threads_are_kept_and_are_never_more_than_sixteen(
    lookups: Lookups, reader: Reader, clock: Clock, answers: Answers
) -> None:
    for number in range(20):
        lookups.ask("n", f"p{number}", None, answers.put)
    for _ in range(16):
        reader.asked.get(timeout=5)
    assert reader.asked.empty()
    clock.now += TIMEOUT_S
    lookups.settle()  # also those that no thread has begun
    assert sum(isinstance(answers.get_nowait(), CniError) for _ in range(20)) == 20
    for _ in range(20):
        reader.answers.put(FOUND)
    for _ in range(4):
        reader.asked.get(timeout=5)
    assert len(reader.threads) == 16


def test_what_is_under_way_when_it_closes_is_answered(
    lookups: Lookups, reader: Reader, answers: Answers
) -> None:
    lookups.ask("n", "p", None, answers.put)
    lookups.close()
    reader.answers.put(FOUND)
    assert answers.get(timeout=5) == FOUND


def test_a_source_that_refuses_is_remembered_and_asked_again(
    lookups: Lookups, reader: Reader, answers: Answers
) -> None:
    assert lookups.refused() is None
    refusal = PodSourceError("pod n/p", "401")
    reader.answers.put(refusal)
    lookups.ask("n", "p", "u", answers.put)
    assert answers.get(timeout=5) is refusal
    reader.asked.get(timeout=5)
    assert lookups.error is refusal
    assert lookups.refused() is refusal
    assert reader.asked.get(timeout=5)[:3] == ("n", "p", None)
    assert lookups.refused() is refusal  # one question at a time
    assert reader.asked.empty()
    reader.answers.put(PodUnknownError.no_such_pod("pod n/p", "it is gone"))
    wait_until(lambda: lookups.refused() is None)
    assert lookups.error is None


def test_a_source_that_is_away_does_not_refuse(
    lookups: Lookups, reader: Reader, answers: Answers
) -> None:
    away = PodUnknownError("pod n/p", "no route")
    reader.answers.put(away)
    lookups.ask("n", "p", "u", answers.put)
    answers.get(timeout=5)
    wait_until(lambda: lookups.error is away)
    assert lookups.refused() is None


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
