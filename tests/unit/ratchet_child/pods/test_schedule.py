"""Who is looked at next, and never by two threads."""

from __future__ import annotations

import threading
import time

import pytest

from ratchet_child.pods.schedule import Rank, Schedule


@pytest.fixture
def schedule() -> Schedule[str]:
    return Schedule()


def test_what_is_due_is_taken_in_the_order_of_its_time(schedule: Schedule[str]) -> None:
    schedule.put("late", 0.02)
    schedule.put("first")
    schedule.put("second")
    assert [schedule.take(), schedule.take(), schedule.take()] == ["first", "second", "late"]


def test_an_item_put_twice_is_taken_once(schedule: Schedule[str]) -> None:
    schedule.put("a")
    schedule.put("a")
    schedule.put("b", 0.01)
    assert schedule.take() == "a"
    schedule.done("a")
    assert schedule.take() == "b"


def test_the_earlier_moment_counts_whichever_comes_first(schedule: Schedule[str]) -> None:
    schedule.put("a", 60)
    schedule.put("a")
    assert schedule.take() == "a"
    schedule.done("a")
    schedule.put("b")
    schedule.put("b", 60)
    schedule.put("end", 0.05)
    assert schedule.take() == "b"
    schedule.done("b")
    assert schedule.take() == "end"


def test_an_item_at_work_is_not_taken_again_until_it_is_done(schedule: Schedule[str]) -> None:
    schedule.put("a")
    assert schedule.take() == "a"
    schedule.put("a")
    schedule.put("b", 0.01)
    assert schedule.take() == "b"
    schedule.done("a")
    assert schedule.take() == "a"


def test_a_delay_passes_before_an_item_is_taken(schedule: Schedule[str]) -> None:
    started = time.monotonic()
    schedule.put("a", 0.05)
    assert schedule.take() == "a"
    assert time.monotonic() - started >= 0.05


def test_a_sooner_item_wakes_who_waits_for_a_later_one(schedule: Schedule[str]) -> None:
    schedule.put("later", 60)
    threading.Timer(0.02, schedule.put, ("now",)).start()
    assert schedule.take() == "now"


def test_stop_ends_all_who_wait(schedule: Schedule[str]) -> None:
    taken: list[str | None] = []
    threads = [threading.Thread(target=lambda: taken.append(schedule.take())) for _ in range(3)]
    for thread in threads:
        thread.start()
    schedule.stop()
    for thread in threads:
        thread.join(5)
    assert taken == [None] * 3
    schedule.put("a")
    assert schedule.take() is None


def test_many_threads_never_work_on_one_item_at_once(schedule: Schedule[str]) -> None:
    at_work: set[str] = set()
    counts: dict[str, int] = dict.fromkeys("abc", 0)
    lock = threading.Lock()
    clashes: list[str] = []

    def work() -> None:
        while (item := schedule.take()) is not None:
            with lock:
                if item in at_work:
                    clashes.append(item)
                at_work.add(item)
            time.sleep(0.0005)
            with lock:
                at_work.discard(item)
                counts[item] += 1
                again = counts[item] < 50
                done = all(count >= 50 for count in counts.values())
            if again:
                schedule.put(item)
            schedule.done(item)
            if done:
                schedule.stop()

    for item in counts:
        schedule.put(item)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not clashes
    assert all(count >= 50 for count in counts.values())


# Behind everything else


def test_what_is_put_behind_waits_for_all_that_is_due(schedule: Schedule[str]) -> None:
    for number in range(100):
        schedule.put(f"trace{number}", rank=Rank.TRACE)
    schedule.put("pod")
    assert schedule.take() == "pod"
    assert schedule.take() == "trace0"
    schedule.put("other")
    assert schedule.take() == "other"


def test_two_threads_at_most_are_at_what_stands_behind(schedule: Schedule[str]) -> None:
    for number in range(3):
        schedule.put(f"trace{number}", rank=Rank.TRACE)
    schedule.put("pod", 0.05)
    assert [schedule.take(), schedule.take(), schedule.take()] == ["trace0", "trace1", "pod"]
    schedule.done("trace1")
    assert schedule.take() == "trace2"


def test_a_pod_that_comes_is_taken_from_behind(schedule: Schedule[str]) -> None:
    schedule.put("first", rank=Rank.TRACE)
    schedule.put("pod", rank=Rank.TRACE)
    schedule.put("pod")
    schedule.put("pod", rank=Rank.TRACE)  # and is not put there again
    assert [schedule.take(), schedule.take()] == ["pod", "first"]
    schedule.done("pod")
    schedule.put("end", 0.02)
    assert schedule.take() == "end"  # once is enough


def test_what_is_put_behind_while_at_work_is_taken_again(schedule: Schedule[str]) -> None:
    schedule.put("trace", rank=Rank.TRACE)
    assert schedule.take() == "trace"
    schedule.put("trace", rank=Rank.TRACE)
    schedule.done("trace")
    assert schedule.take() == "trace"


def test_large_pods_leave_threads_to_small_ones_and_go_before_what_only_etcd_knows(
    schedule: Schedule[str],
) -> None:
    for number in range(4):
        schedule.put(f"trace{number}", rank=Rank.TRACE)
        schedule.put(f"large{number}", rank=Rank.LARGE)
    schedule.put("small")
    taken = [schedule.take() for _ in range(5)]
    assert taken == ["small", "large0", "large1", "trace0", "trace1"]
    schedule.put("other", 0.02)
    assert schedule.take() == "other"
    schedule.done("large1")
    assert schedule.take() == "large2"


def test_a_large_pod_that_has_become_small_goes_first(schedule: Schedule[str]) -> None:
    for name in "ab":
        schedule.put(name, rank=Rank.LARGE)
    schedule.put("b")
    assert [schedule.take(), schedule.take()] == ["b", "a"]
