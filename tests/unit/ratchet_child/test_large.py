"""One large answer at a time, while small ones pass; and what stands behind everything else."""

from __future__ import annotations

import threading

import pytest

from ratchet_child.store import large
from ratchet_child.store.large import BusyError, LargeReads


def test_one_thread_at_a_time_has_a_large_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_LONGEST_WAIT_S", 0.05)
    reads = LargeReads()
    refused: list[BusyError] = []

    def other() -> None:
        try:
            reads.enter()
        except BusyError as error:
            refused.append(error)
        reads.leave()

    reads.enter()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(refused) == 1
    reads.leave()
    reads.leave()  # safe to call twice
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(refused) == 1


def test_who_leaves_without_a_large_answer_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_LONGEST_WAIT_S", 0.05)
    reads = LargeReads()
    reads.enter()
    thread = threading.Thread(target=reads.leave)
    thread.start()
    thread.join()
    assert not _can_enter(reads)


def test_one_thread_may_have_several_large_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_LONGEST_WAIT_S", 0.05)
    reads = LargeReads()
    reads.enter()
    reads.enter()
    assert not _can_enter(reads)
    reads.leave()
    assert _can_enter(reads)


def _can_enter(reads: LargeReads) -> bool:
    """Say whether another thread may have a large answer now."""
    entered: list[bool] = []

    def other() -> None:
        try:
            reads.enter()
        except BusyError:
            return
        entered.append(True)
        reads.leave()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    return bool(entered)


def test_memory_is_given_back_a_few_times_and_then_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    collected: list[float] = []
    monkeypatch.setattr("ratchet_child.store.large.time.monotonic", lambda: now[0])
    monkeypatch.setattr("ratchet_child.store.large.gc.collect", lambda: collected.append(now[0]))
    reads = LargeReads()
    reads.give_back()
    assert collected == []
    reads.enter()
    reads.leave()
    for second in range(300):
        now[0] = 100.0 + second / 2
        reads.give_back()
    assert collected == [101.0, 104.0, 115.0, 160.0]
