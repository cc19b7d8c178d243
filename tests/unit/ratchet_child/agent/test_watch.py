"""The watch, against a server that says what it is told to, in no time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ratchet_child.agent.errors import AwayError, ExpiredError, ForbiddenError
from ratchet_child.agent.seen import SeenPods
from ratchet_child.agent.watch import Backoff, Watch


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Server:
    """Answers requests in turn: an error, or bytes."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []
        self.clock = Clock()
        self.done: Callable[[], None] = lambda: None

    @contextmanager
    def stream(
        self, path: str, query: dict[str, str], needs: str, *, lasts_s: float
    ) -> Iterator[Any]:
        self.asked.append(query)
        answer = self.answers.pop(0)
        if isinstance(answer, tuple):
            passes_s, answer = answer
            self.clock.now += passes_s
        try:
            if isinstance(answer, Exception):
                raise answer
            yield io.BytesIO(answer if isinstance(answer, bytes) else b"")
        except ValueError as error:  # as a connection does it
            raise AwayError("nonsense") from error
        finally:
            if not self.answers:
                self.done()

    def abort(self) -> None: ...

    def close(self) -> None: ...

    @property
    def versions(self) -> list[tuple[str, str | None]]:
        return [
            ("watch" if "watch" in one else "list", one.get("resourceVersion"))
            for one in self.asked
        ]


def pod(uid: str, version: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "d", "name": uid, "uid": uid, "resourceVersion": version}}


def listed(version: str, *uids: str) -> bytes:
    items = [pod(uid, version) for uid in uids]
    return json.dumps({"metadata": {"resourceVersion": version}, "items": items}).encode()


def said(*events: tuple[str, dict[str, Any]]) -> bytes:
    return b"".join(json.dumps({"type": k, "object": o}).encode() + b"\n" for k, o in events)


def run(
    monkeypatch: pytest.MonkeyPatch, *answers: object
) -> tuple[Server, Watch, SeenPods, list[float]]:
    """Watch until the answers are used up; also the pauses that were made."""
    server, seen = Server(*answers), SeenPods()
    watch = Watch(server, "n", seen, server.clock, lambda: None)
    server.done = watch.stop
    pauses: list[float] = []
    monkeypatch.setattr(watch._stopping, "wait", pauses.append)
    watch.run()
    return server, watch, seen, pauses


def uids(seen: SeenPods) -> list[str]:
    return sorted(one.uid for one in seen.all())


GONE = ("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})


def test_a_watch_goes_on_from_the_list_and_from_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    first = said(("ADDED", pod("b", "11")), ("DELETED", pod("a", "12")))
    server, _, seen, _ = run(
        monkeypatch,
        listed("10", "a"),
        first,
        said(("BOOKMARK", {"metadata": {"resourceVersion": "30"}})),
        b"",
    )
    assert uids(seen) == ["b"]
    assert server.versions == [("list", "0"), ("watch", "10"), ("watch", "12"), ("watch", "30")]
    assert all(one["fieldSelector"] == "spec.nodeName=n" for one in server.asked)


@pytest.mark.parametrize("gone", [said(GONE), ExpiredError("gone")], ids=["event", "status"])
def test_gone_has_the_pods_listed_from_etcd(monkeypatch: pytest.MonkeyPatch, gone: object) -> None:
    server, _, seen, _ = run(monkeypatch, listed("10", "a"), gone, listed("50", "b"), b"")
    assert server.versions == [("list", "0"), ("watch", "10"), ("list", None), ("watch", "50")]
    assert uids(seen) == ["b"]


def test_what_was_seen_stays_while_nothing_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    away = AwayError("away")
    _, watch, seen, _ = run(monkeypatch, listed("10", "a"), said(GONE), away, away)
    assert uids(seen) == ["a"]
    assert not watch.is_live
    assert watch.error is away


def test_a_list_that_ends_too_soon_replaces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, seen, _ = run(monkeypatch, listed("10", "a"), said(GONE), listed("11", "b")[:-20], b"")
    assert uids(seen) == ["a"]


def test_a_list_is_never_older_than_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash of ours the version that was seen is asked for, and etcd where that is late."""
    late = AwayError("too large resource version", status=504)
    server, _, _, _ = run(monkeypatch, listed("10"), (250.0, b""), late, listed("4", "z"), b"")
    assert server.versions[2:] == [("list", "10"), ("list", None), ("watch", "4")]


def test_a_server_that_is_mute_is_listed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server, _, _, _ = run(monkeypatch, listed("10"), (100.0, b""), (250.0, b""), listed("12"), b"")
    kinds = [kind for kind, _ in server.versions]
    assert kinds == ["list", "watch", "watch", "list", "watch"]


def test_a_cut_after_news_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    _, watch, _, pauses = run(monkeypatch, listed("10"), said(("ADDED", pod("a", "11"))), b"")
    assert watch.error is None
    assert pauses[0] <= 0.2


def test_pauses_grow_and_are_never_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    away = [AwayError("away") for _ in range(12)]
    pauses = run(monkeypatch, *away)[3]
    assert pauses[0] <= 0.5
    assert all(15 <= pause <= 30 for pause in pauses[7:])
    assert len(set(pauses)) == len(pauses)


def test_a_server_that_asks_for_time_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = run(monkeypatch, AwayError("busy", status=429, retry_after_s=7.0), b"")[3]
    assert 7.0 <= pauses[0] <= 7.5


def test_a_right_that_is_missing_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ForbiddenError("list pods")
    _, watch, _, _ = run(monkeypatch, refused)
    assert watch.error is refused
    assert not watch.has_listed


@pytest.mark.parametrize(
    "line", [b"{\n", b"[]\n", b"5\n", b'{"type": "ADDED"}\n', b"\xff\n", b"[" * 100_000 + b"\n"]
)
def test_nonsense_in_a_watch_is_a_server_that_is_away(
    monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    _, watch, seen, _ = run(monkeypatch, listed("10", "a"), line)
    assert isinstance(watch.error, AwayError)
    assert uids(seen) == ["a"]


def test_a_pod_that_is_not_understood_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {"metadata": {"name": 5}}
    items = [bad, pod("a", "1")]
    raw = json.dumps({"metadata": {"resourceVersion": "10"}, "items": items}).encode()
    _, _, seen, _ = run(monkeypatch, raw, said(("ADDED", bad), ("ADDED", pod("b", "11"))))
    assert uids(seen) == ["a", "b"]


def test_backoff_forgets_failures_once_it_works() -> None:
    backoff = Backoff(first_s=1.0, most_s=8.0)
    assert [backoff.failed() >= least for least in (0.5, 1.0, 2.0, 4.0, 4.0)] == [True] * 5
    backoff.worked()
    assert backoff.failed() <= 1.0
