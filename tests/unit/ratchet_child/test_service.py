"""What the child answers, with an engine that does as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import CniError, PodUnknownError
from ratchet.status import AgentStatus, Links, LinkStatus, NodeStatus, PodStatus
from ratchet_child.model.keys import PodKey
from ratchet_child.service import BadRequestError, Service, decode, failure
from ratchet_child.store.health import Health

KEY = PodKey("default", "a")
LINK = LinkStatus(ifname="in1", peer="b", state="up", primary=True)
POD = PodStatus("default", "a", "c1", "/run/netns/x", superseded=False, links=(LINK,))


class FakeEngine:
    """One pod, whose record is `c1.eth0`; the engine with its parts."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.node = SimpleNamespace(address="10.0.0.1", interface="eth1")
        self.trouble: str | None = None
        self.is_cut_off = False
        self.guard = SimpleNamespace(state="on")
        self.served = 0
        self.asked = 0
        self.scans = 0
        self.named: list[str] = []
        self.checks = 0
        self.etcd = Health(clock)
        self.etcd.answered()
        self.registry = self.status = self

    def attached(self, name: str) -> tuple[PodKey, int] | None:
        if name != "c1.eth0":
            return None
        self.asked += 1
        return KEY, self.asked

    def check(self, key: PodKey) -> int | None:
        self.checks += 1
        self.asked += 1
        return self.asked

    def is_served(self, key: PodKey, number: int, mode: str) -> bool:
        return key == KEY and self.served >= number

    def links(self, key: PodKey) -> tuple[LinkStatus, ...]:
        return (LINK,)

    def scan(self) -> None:
        self.scans += 1

    def deleted(self, name: str) -> None:
        self.named.append(name)

    def pods(self) -> tuple[PodStatus, ...]:
        return (POD,)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Replies(list[dict[str, Any]]):
    """The answers; some come from another thread."""

    def __init__(self) -> None:
        super().__init__()
        self._came = threading.Semaphore(0)

    def __call__(self, answer: dict[str, Any]) -> None:
        json.dumps(answer)
        self.append(answer)
        self._came.release()

    def wait(self) -> dict[str, Any]:
        assert self._came.acquire(timeout=5)
        return self[-1]


@pytest.fixture
def engine(clock: Clock) -> FakeEngine:
    return FakeEngine(clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(engine: FakeEngine) -> Iterator[Service]:
    made = Service(engine, None)  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.fixture
def replies() -> Replies:
    return Replies()


def attached(wait: str = "present", timeout_s: object = 5.0) -> dict[str, Any]:
    return {"op": "attached", "attachment": "c1.eth0", "wait": wait, "timeout_s": timeout_s}


def test_an_attachment_is_answered_when_its_links_are_there(
    service: Service, engine: FakeEngine, replies: Replies
) -> None:
    service.handle(attached(), replies)
    assert replies == []
    engine.served = 1
    service.settle()
    assert replies == [{"ok": True, "complete": True}]
    service.settle()
    assert len(replies) == 1


def test_links_that_are_there_already_are_answered_at_once(
    service: Service, engine: FakeEngine, replies: Replies
) -> None:
    engine.served = 1
    service.handle(attached(), replies)
    assert replies == [{"ok": True, "complete": True}]


def test_a_request_is_not_served_by_what_was_done_before_it(
    service: Service, engine: FakeEngine, replies: Replies
) -> None:
    engine.served = 1
    engine.asked = 1
    service.handle(attached(), replies)
    assert replies == []


def test_past_its_time_a_request_is_answered_as_incomplete(
    service: Service, clock: Clock, replies: Replies
) -> None:
    service.handle(attached(timeout_s=5), replies)
    assert service.next_deadline() == 105.0
    clock.now = 104.9
    service.settle()
    assert replies == []
    clock.now = 105.0
    service.settle()
    assert [Links.from_json(one) for one in replies] == [Links(False, (LINK,))]
    assert service.next_deadline() is None


def test_who_does_not_wait_is_answered_at_once(service: Service, replies: Replies) -> None:
    service.handle(attached(wait="none"), replies)
    assert [answer["complete"] for answer in replies] == [False]


@pytest.mark.parametrize("timeout_s", [-5, 0])
def test_no_time_to_wait_is_no_waiting(
    service: Service, replies: Replies, timeout_s: object
) -> None:
    service.handle(attached(timeout_s=timeout_s), replies)
    assert len(replies) == 1


def test_nobody_waits_longer_than_a_runtime_does(
    service: Service, clock: Clock, replies: Replies
) -> None:
    service.handle(attached(timeout_s=10**9), replies)
    clock.now += 121
    service.settle()
    assert len(replies) == 1


def test_without_etcd_the_present_links_are_not_waited_for(
    service: Service, engine: FakeEngine, clock: Clock, replies: Replies
) -> None:
    engine.etcd.failed("away")
    service.handle(attached(), replies)
    deadline = service.next_deadline()
    assert deadline is not None
    assert deadline < clock.now + 1
    clock.now += 1.1
    service.settle()
    assert [answer["complete"] for answer in replies] == [False]


def test_without_etcd_all_links_are_still_waited_for(
    service: Service, engine: FakeEngine, clock: Clock, replies: Replies
) -> None:
    engine.etcd.failed("away")
    service.handle(attached(wait="all"), replies)
    clock.now += 4.9
    service.settle()
    assert replies == []


def test_a_check_looks_at_the_kernel_and_waits_for_that(
    service: Service, engine: FakeEngine, replies: Replies
) -> None:
    engine.served = 1
    service.handle({"op": "check", "attachment": "c1.eth0", "timeout_s": 3}, replies)
    assert engine.checks == 1
    assert replies == []
    engine.served = 2
    service.settle()
    assert [answer["complete"] for answer in replies] == [True]


def test_a_detachment_is_answered_at_once(
    service: Service, engine: FakeEngine, replies: Replies
) -> None:
    service.handle({"op": "deleted", "attachment": "c1.eth0"}, replies)
    assert replies == [{"ok": True}]
    assert (engine.named, engine.scans) == (["c1.eth0"], 0)


def test_an_older_parent_does_not_say_what_is_detached(
    service: Service, engine: FakeEngine, replies: Replies
) -> None:
    service.handle({"op": "deleted"}, replies)
    assert replies == [{"ok": True}]
    assert (engine.named, engine.scans) == ([], 1)


@pytest.mark.parametrize("error", [None, "connection refused"])
def test_health_is_what_is_known_of_etcd(
    service: Service, engine: FakeEngine, replies: Replies, error: str | None
) -> None:
    if error is not None:
        engine.etcd.failed(error)
    service.handle({"op": "health"}, replies)
    answer = replies.wait()
    assert answer["ok"] is True
    assert (answer["etcd"] is None) == (error is None)


def test_status_tells_the_node_and_its_pods(service: Service, replies: Replies) -> None:
    service.handle({"op": "status"}, replies)
    assert replies[0]["node"] == "10.0.0.1"
    assert NodeStatus.from_json(replies[0]).pods == (POD,)


class FakeLookups:
    """Keeps the question; answers nothing by itself."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.settled = 0
        self.deadline: float | None = None
        self.refusal: CniError | None = None
        self.error: CniError | None = None

    def refused(self) -> CniError | None:
        return self.refusal

    def ask(self, *question: Any) -> None:
        self.asked.append(question)

    def settle(self) -> None:
        self.settled += 1

    def next_deadline(self) -> float | None:
        return self.deadline

    def close(self) -> None:
        pass


@pytest.fixture
def lookups(service: Service, monkeypatch: pytest.MonkeyPatch) -> FakeLookups:
    fake = FakeLookups()
    monkeypatch.setattr(service, "_lookups", fake)
    return fake


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (({"x": "y"}, {}), {"ok": True, "labels": {"x": "y"}, "annotations": {}}),
        (CniError(11, "away", "why"), {"ok": False, "code": 11, "msg": "away", "details": "why"}),
    ],
)
def test_labels_are_told_when_they_have_been_looked_up(
    service: Service, replies: Replies, lookups: FakeLookups, found: Any, told: dict[str, Any]
) -> None:
    service.handle({"op": "labels", "namespace": "n", "name": "p", "uid": None}, replies)
    assert replies == []
    (question,) = lookups.asked
    assert question[:3] == ("n", "p", None)
    question[3](found)
    assert replies == [told]


class FakeAgent:
    """Knows one pod; `is_fresh`: what it knows is as good as what the API server would say."""

    def __init__(self) -> None:
        self.is_fresh = True
        self.watching = True

    def recall(self, *pod: Any, at_any_price: bool) -> Any:
        known = pod == ("n", "p", "u1") and (self.is_fresh or at_any_price)
        return ({"x": "y"}, {}) if known else None

    def status(self) -> AgentStatus:
        return AgentStatus("node-1", self.watching, 1)


@pytest.fixture
def agent(service: Service, monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    fake = FakeAgent()
    monkeypatch.setattr(service, "_agent", fake)
    return fake


LABELS = {"op": "labels", "namespace": "n", "name": "p", "uid": "u1"}


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (LABELS, {"ok": True, "labels": {"x": "y"}, "annotations": {}}),
        ({**LABELS, "uid": "u2"}, None),
        ({"op": "labels"}, None),
        ({"op": "health"}, None),
    ],
)
def test_labels_that_the_agent_knows_are_all_that_needs_no_loop(
    service: Service, agent: FakeAgent, request_: dict[str, Any], told: dict[str, Any] | None
) -> None:
    assert service.known(request_) == told
    agent.is_fresh = False
    assert service.known(request_) is None


def test_without_an_agent_all_is_left_to_the_loop(service: Service) -> None:
    assert service.known(LABELS) is None


def labels_of(uid: str | None) -> dict[str, Any]:
    return {"op": "labels", "namespace": "n", "name": "p", "uid": uid}


KNOWN = {"ok": True, "labels": {"x": "y"}, "annotations": {}}


def test_what_the_agent_knows_is_not_asked_for(
    service: Service, replies: Replies, lookups: FakeLookups, agent: FakeAgent
) -> None:
    service.handle(labels_of("u1"), replies)
    assert replies == [KNOWN]
    assert lookups.asked == []


@pytest.mark.parametrize("uid", [None, "u2"])
def test_a_pod_that_the_agent_cannot_tell_from_another_is_asked_for(
    service: Service, replies: Replies, lookups: FakeLookups, agent: FakeAgent, uid: str | None
) -> None:
    service.handle(labels_of(uid), replies)
    assert replies == []
    lookups.asked[0][3](CniError(11, "away"))
    assert replies[0]["code"] == 11


def test_what_was_known_long_ago_counts_when_nobody_can_be_asked(
    service: Service, replies: Replies, lookups: FakeLookups, agent: FakeAgent
) -> None:
    agent.is_fresh = False
    for found in (CniError(102, "refused"), PodUnknownError("pod", "away")):
        service.handle(labels_of("u1"), replies)
        lookups.asked[-1][3](found)
    service.handle(labels_of("u1"), replies)
    lookups.asked[-1][3](({"new": "one"}, {}))
    assert replies == [KNOWN, KNOWN, {"ok": True, "labels": {"new": "one"}, "annotations": {}}]


def test_that_a_pod_is_gone_is_an_answer(
    service: Service, replies: Replies, lookups: FakeLookups, agent: FakeAgent
) -> None:
    agent.is_fresh = False
    service.handle(labels_of("u1"), replies)
    lookups.asked[0][3](PodUnknownError.no_such_pod("pod n/p", "it is gone"))
    assert replies[0]["code"] == 11


def test_a_node_whose_pods_are_watched_is_well_although_one_was_refused(
    service: Service, replies: Replies, lookups: FakeLookups, agent: FakeAgent
) -> None:
    """A runtime would take the whole node down for it."""
    lookups.refusal = CniError(102, "refused", "403")
    service.handle({"op": "health"}, replies)
    agent.watching = False
    service.handle({"op": "health"}, replies)
    assert [answer["labels"] is None for answer in replies] == [True, False]


def test_status_tells_of_the_agent(service: Service, replies: Replies, agent: FakeAgent) -> None:
    service.handle({"op": "status"}, replies)
    assert NodeStatus.from_json(replies[0]).agent == agent.status()


def test_health_says_that_labels_are_refused(
    service: Service, replies: Replies, lookups: FakeLookups
) -> None:
    service.handle({"op": "health"}, replies)
    lookups.refusal = CniError(102, "refused", "401")
    service.handle({"op": "health"}, replies)
    told = {"ok": False, "code": 102, "msg": "refused", "details": "401"}
    assert [answer["labels"] for answer in replies] == [None, told]


def test_status_says_why_labels_cannot_be_read(
    service: Service, replies: Replies, lookups: FakeLookups
) -> None:
    service.handle({"op": "status"}, replies)
    lookups.error = CniError(11, "away", "no route")
    service.handle({"op": "status"}, replies)
    assert [answer["labels"] for answer in replies] == [None, "away (no route)"]


def test_lookups_have_their_time_looked_at(service: Service, lookups: FakeLookups) -> None:
    lookups.deadline = 103.0
    assert service.next_deadline() == 103.0
    service.settle()
    assert lookups.settled == 1


def test_labels_without_a_kubeconfig_are_an_error(service: Service, replies: Replies) -> None:
    service.handle({"op": "labels", "namespace": "n", "name": "p"}, replies)
    assert replies.wait()["ok"] is False


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"op": None},
        {"op": "reboot"},
        {"op": ["attached"]},
        {"op": "attached"},
        {"op": "attached", "attachment": 5, "wait": "all"},
        {"op": "attached", "attachment": "", "wait": "all"},
        {"op": "attached", "attachment": "other.eth0", "wait": "all"},
        attached(wait="some"),
        {**attached(), "wait": None},
        attached(timeout_s="5"),
        attached(timeout_s=None),
        attached(timeout_s=True),
        attached(timeout_s=[]),
        {"op": "check"},
        {"op": "check", "attachment": "other.eth0"},
    ],
)
def test_a_request_that_no_parent_sends_is_answered_as_an_error(
    service: Service, replies: Replies, request_: dict[str, Any]
) -> None:
    service.handle(request_, replies)
    (answer,) = replies
    assert answer["ok"] is False
    assert isinstance(answer["code"], int)
    assert isinstance(answer["msg"], str)
    assert service.next_deadline() is None


def test_whoever_waits_is_answered_when_the_service_closes(
    engine: FakeEngine, replies: Replies
) -> None:
    service = Service(engine, None)  # type: ignore[arg-type]
    service.handle(attached(), replies)
    service.close()
    assert [answer["complete"] for answer in replies] == [False]


@given(st.binary())
def test_a_line_is_a_request_or_a_bad_request(line: bytes) -> None:
    try:
        assert isinstance(decode(line), dict)
    except BadRequestError as error:
        json.dumps(failure(error))


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_what_json_does_not_know_is_a_bad_request(number: bytes) -> None:
    """A deadline made of NaN would never come."""
    with pytest.raises(BadRequestError):
        decode(b'{"timeout_s": ' + number + b"}")


def test_a_line_nested_beyond_reason_is_a_bad_request() -> None:
    with pytest.raises(BadRequestError):
        decode(b"[" * 100_000)
