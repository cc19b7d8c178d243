"""What is written, how often, and what becomes of it when the API server does not take it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from ratchet import annotations as told
from ratchet.annotations import PodTold
from ratchet.cni.dataclasses import replace
from ratchet.status import PULLED
from ratchet_child import command
from ratchet_child.agent import reporter as reporting
from ratchet_child.agent.errors import (
    ApiError,
    AwayError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    MissingError,
    RefusedError,
)
from ratchet_child.agent.events import About, EventLog
from ratchet_child.agent.notes import GRACE_S, LONGEST, Note
from ratchet_child.agent.reporter import REPORTS, Reporter
from ratchet_child.agent.seen import Condition, SeenPods
from ratchet_child.agent.views import End, PodView
from tests.lab.api_objects import Objects
from tests.unit.ratchet_child.agent.pods import LABELS, attachment, link, seen, view

POST, PATCH = "POST", "PATCH"


class Clock:
    now = 5000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Server:
    """Takes what is written; `errors` are raised in turn."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.written: list[tuple[str, str, Mapping[str, Any]]] = []
        self.errors: list[ApiError | None] = []

    def post(self, path: str, body: Mapping[str, Any], needs: str) -> dict[str, Any]:
        self._write(POST, path, body)
        return self.objects.create_event(path.split("/")[5], json.loads(json.dumps(body)))

    def patch(self, path: str, body: Mapping[str, Any], needs: str) -> dict[str, Any]:
        self._write(PATCH, path, body)
        if "/events/" not in path:
            return {}
        parts = path.split("/")
        return self.objects.patch_event(parts[5], parts[7], dict(body))

    def _write(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.written.append((method, path, body))

    @property
    def notes(self) -> list[tuple[str, str]]:
        return [
            (body["reason"], body["note"]) for method, _, body in self.written if method == POST
        ]

    @property
    def statuses(self) -> list[Mapping[str, Any]]:
        return [body for _, path, body in self.written if path.endswith("/status")]


class Bed:
    def __init__(self, *reports: str) -> None:
        self.clock, self.server, self.seen = Clock(), Server(), SeenPods()
        self.refused = 0
        self.reporter = Reporter(
            self.server,
            self.seen,
            EventLog("node-1"),
            frozenset(reports or REPORTS),
            self.clock,
            self._refused,
        )

    def _refused(self) -> None:
        self.refused += 1

    def report(self, *views: PodView, passes_s: float = 0.0) -> float | None:
        self.clock.now += passes_s
        return self.reporter.report(list(views))


@pytest.fixture
def bed() -> Bed:
    return Bed()


def new(*links: Any, **values: Any) -> PodView:
    """Return a pod that was attached after the agent had started."""
    return view(*links, attachment=attachment(LABELS, attached_at=6000.0), **values)


# Events -----------------------------------------------------------------------------------------


def test_what_is_up_is_said_once(bed: Bed) -> None:
    for _ in range(3):
        bed.report(new(link()), passes_s=1000)
    assert bed.server.notes == [("LinkUp", "Link in1 to b is up (veth, on this node).")]
    assert len(bed.server.written) == 1


def test_what_was_up_before_the_agent_came_is_not_said(bed: Bed) -> None:
    bed.report(view(link()))
    assert bed.server.written == []
    bed.report(view(link("waiting", since=5000.0)), passes_s=GRACE_S)
    bed.report(view(link(since=5010.0)), passes_s=10)
    assert [reason for reason, _ in bed.server.notes] == ["LinkWaiting", "LinkUp"]


def test_a_link_that_waits_is_said_after_a_while(bed: Bed) -> None:
    waits = view(link("waiting", since=5000.0))
    assert bed.report(waits) == 5000.0 + GRACE_S
    assert bed.server.written == []
    bed.report(waits, passes_s=GRACE_S)
    assert [reason for reason, _ in bed.server.notes] == ["LinkWaiting"]
    assert "since 1970-01-01T01:23:20Z" in bed.server.notes[0][1]


def test_what_goes_on_is_said_again_before_it_is_forgotten(bed: Bed) -> None:
    wrong = view(link("error", error="in1 is taken"))
    bed.report(wrong)
    due = bed.report(wrong)
    assert due is not None
    bed.clock.now = due
    bed.report(wrong)
    assert [method for method, _, _ in bed.server.written] == [POST, PATCH]
    assert bed.server.written[1][2]["series"]["count"] == 2
    assert due - 5000 < 3600


def test_refused_and_failed_say_what_to_do(bed: Bed) -> None:
    failed = link("error", "in3", error="the kernel says no", kind="vxlan", since=1.0)
    bed.report(view(link("error", error="taken"), failed))
    bed.report(view(link("error", error="taken"), failed), passes_s=GRACE_S)
    notes = dict(bed.server.notes)
    assert "taken" in notes["LinkRefused"]
    assert "Change the labels" in notes["LinkRefused"]
    assert "the kernel says no" in notes["LinkFailed"]
    assert "goes on trying" in notes["LinkFailed"]


def test_a_fault_is_a_warning_although_the_link_is_up(bed: Bed) -> None:
    bed.report(new(link(fault="the kernel refuses mtu 9000")))
    assert bed.server.written[0][2]["type"] == "Warning"
    assert "mtu 9000" in bed.server.notes[0][1]


def test_a_cable_that_was_pulled_out_is_no_trouble(bed: Bed) -> None:
    bed.report(new(link(fault=f"{PULLED}; the kernel refuses mtu 9000")))
    (_, _, event), ((reason, said),) = bed.server.written[0], bed.server.notes
    assert (event["type"], reason) == ("Normal", "LinkPulled")
    assert "Plug it in again with `ratchetctl link up`" in said


def test_nothing_is_said_of_far_pods_before_etcd_has_been_asked(bed: Bed) -> None:
    bed.report(view(link("waiting", since=1.0), is_settled=False))
    assert bed.server.written == []


def test_a_note_of_any_length_is_taken(bed: Bed) -> None:
    bed.reporter.note(About("Pod", "default", "a" * 253, "u1"), Note("R", "A", "ä" * 3000))
    bed.report()
    assert len(bed.server.notes[0][1].encode()) <= LONGEST


def test_a_pod_that_is_talked_about_without_end_costs_a_few_events(bed: Bed) -> None:
    about = About("Pod", "default", "a", "u1")
    for number in range(100):
        bed.reporter.note(about, Note("LabelRefused", "Follow", f"{number}"))
        bed.report()
    assert len(bed.server.written) == 20
    other = About("Pod", "default", "z", "u2")
    bed.reporter.note(other, Note("LinkUp", "Link", "up"))
    for _ in range(6):
        bed.report(passes_s=60)
    assert len(bed.server.written) <= 27


def test_an_event_that_was_forgotten_is_made_anew(bed: Bed) -> None:
    wrong = view(link("error", error="taken"))
    bed.report(wrong)
    bed.server.objects.events.clear()
    bed.server.errors = [MissingError("gone")]
    bed.report(wrong, passes_s=46 * 60)
    assert [method for method, _, _ in bed.server.written] == [POST, POST]


def test_without_the_right_to_change_events_others_are_made(bed: Bed) -> None:
    wrong = view(link("error", error="taken"))
    bed.report(wrong)
    bed.server.errors = [ForbiddenError("patch")]
    bed.report(wrong, passes_s=46 * 60)
    assert [method for method, _, _ in bed.server.written] == [POST, POST]


def test_without_the_right_to_make_events_they_are_made_later(bed: Bed) -> None:
    bed.server.errors = [ForbiddenError("create")]
    due = bed.report(new(link()))
    assert bed.refused == 1
    assert due == bed.clock.now + 60
    bed.report(new(link()), passes_s=30)
    assert bed.server.written == []
    bed.report(new(link()), passes_s=31)
    assert len(bed.server.notes) == 1


def test_a_right_that_is_given_back_is_used_at_once(bed: Bed) -> None:
    bed.seen.put(seen(LABELS, has_gate=True))
    bed.server.errors = [ForbiddenError("patch pods/status"), ForbiddenError("create")]
    bed.report(new(link()))
    bed.reporter.resume()
    bed.report(new(link()), passes_s=1)
    assert len(bed.server.statuses) == 1
    assert len(bed.server.notes) == 1


@pytest.mark.parametrize("error", [AwayError("away"), RefusedError("401")])
def test_when_nothing_can_be_written_nothing_is_lost(bed: Bed, error: ApiError) -> None:
    bed.reporter.note(About("Pod", "default", "z", "u2"), Note("LinksChanged", "Follow", "x"))
    bed.server.errors = [error, error]
    for _ in range(2):
        with pytest.raises(type(error)):
            bed.report(new(link()))
    bed.report(new(link()))
    assert [reason for reason, _ in bed.server.notes] == ["LinksChanged", "LinkUp"]


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(bed: Bed) -> None:
    bed.server.errors = [AwayError("busy", status=429, retry_after_s=9.0)]
    assert bed.report(new(link())) == bed.clock.now + 9
    bed.report(new(link()), passes_s=8)
    assert bed.server.written == []
    bed.report(new(link()), passes_s=2)
    assert len(bed.server.notes) == 1


def test_what_the_server_does_not_take_is_not_repeated(bed: Bed) -> None:
    bed.server.errors = [InvalidError("422")]
    bed.report(new(link()))
    bed.report(new(link()), passes_s=100)
    assert bed.server.written == []


# The status of pods -----------------------------------------------------------------------------


def test_a_condition_is_written_until_it_is_seen_and_then_no_more() -> None:
    bed = Bed("conditions")
    bed.seen.put(seen(LABELS, has_gate=True))
    bed.report(view(link()))
    bed.report(view(link()), passes_s=1)
    assert len(bed.server.statuses) == 1
    written = bed.server.statuses[0]
    assert written["metadata"] == {"uid": "u1"}
    assert written["status"]["conditions"][0]["status"] == "True"
    assert "lastTransitionTime" in written["status"]["conditions"][0]
    up = Condition("True", "LinksUp", "1 link is up")
    bed.seen.put(seen(LABELS, has_gate=True, condition=up, version="2"))
    bed.report(view(link()), passes_s=1000)
    assert len(bed.server.statuses) == 1


def test_the_time_of_a_condition_is_that_of_its_status() -> None:
    bed = Bed("conditions")
    before = Condition("False", "LinkWaiting", "in1 waits for b")
    bed.seen.put(seen(LABELS, has_gate=True, condition=before))
    bed.report(view(link("error", error="taken")))
    assert "lastTransitionTime" not in bed.server.statuses[0]["status"]["conditions"][0]


def test_the_annotation_never_overwrites_what_was_not_seen() -> None:
    bed = Bed("network-status")
    end = End("a:in1", "in1", None, "02::", 1500)
    bed.seen.put(seen(LABELS, has_address=True, version="41"))
    bed.server.errors = [ConflictError("another has written")]
    bed.report(view(link(), ends=(end,)))
    bed.report(view(link(), ends=(end,)), passes_s=1)
    assert bed.server.statuses == []
    multus = json.dumps([{"name": "cbr0"}])
    bed.seen.put(seen(LABELS, has_address=True, version="42", network_status=multus))
    bed.report(view(link(), ends=(end,)), passes_s=1)
    metadata = bed.server.statuses[0]["metadata"]
    assert metadata["resourceVersion"] == "42"
    listed = json.loads(metadata["annotations"]["k8s.v1.cni.cncf.io/network-status"])
    assert [one["name"] for one in listed] == ["cbr0", "ratchet/a:in1"]


def test_nothing_is_written_before_the_runtime_has_finished() -> None:
    bed = Bed("network-status")
    bed.seen.put(seen(LABELS))
    bed.report(view(link(), ends=(End("a:in1", "in1", None, "02::", 1500),)))
    assert bed.server.statuses == []


@pytest.mark.parametrize(
    "pod", [seen(LABELS, has_gate=True, is_over=True), seen(LABELS, has_gate=True, version=""),
            seen(LABELS)]
)  # fmt: skip
def test_pods_that_are_over_or_not_told_of_or_do_not_ask_are_left_alone(pod: Any) -> None:
    bed = Bed("conditions")
    bed.seen.put(pod)
    bed.report(view(link()))
    assert bed.server.statuses == []


def test_a_status_that_is_refused_does_not_keep_events_back(bed: Bed) -> None:
    bed.seen.put(seen(LABELS, has_gate=True))
    bed.server.errors = [ForbiddenError("patch pods/status")]
    bed.report(new(link()))
    assert len(bed.server.notes) == 1
    assert bed.refused == 1
    bed.report(new(link()), passes_s=61)
    assert len(bed.server.statuses) == 1


def test_a_full_node_is_told_of_in_turn() -> None:
    bed = Bed()
    pods = []
    for number in range(50):
        uid = f"u{number}"
        record = attachment(LABELS, f"c{number}", uid=uid, attached_at=6000.0)
        pods.append(view(link(), attachment=record, uid=uid, name=f"p{number}"))
        bed.seen.put(seen(LABELS, uids=(uid,), name=f"p{number}", has_gate=True))
    assert bed.report(*pods) == bed.clock.now + 1
    assert len(bed.server.written) == 20
    for _ in range(10):
        bed.report(*pods, passes_s=1)
    assert len(bed.server.statuses) == 50
    assert len(bed.server.notes) == 50


def test_a_pod_that_lost_its_name_is_told_so_while_it_is_there(bed: Bed) -> None:
    old = view(superseded=True)
    bed.report(old)
    assert bed.server.written == []
    bed.seen.put(seen(LABELS))
    bed.report(old)
    assert [reason for reason, _ in bed.server.notes] == ["NameTaken"]


def test_a_clock_that_is_set_back_keeps_nothing_back(bed: Bed) -> None:
    bed.server.errors = [ForbiddenError("create")]
    bed.report(new(link()))
    bed.report(new(link()), passes_s=-4000)
    assert len(bed.server.notes) == 1


def test_the_program_offers_what_can_be_written() -> None:
    assert command.REPORTS == reporting.REPORTS


# How links are, for `kubectl ratchet` -----------------------------------------------------------


class Told:
    """A pod whose links are told, as the API server shows it."""

    def __init__(self) -> None:
        self.bed = Bed("links")
        self.pod = seen(LABELS)
        self.bed.seen.put(self.pod)

    def report(self, *links: Any, passes_s: float = 0.0, **values: Any) -> list[PodTold]:
        """Report, have the watch bring what was written, and return it."""
        before = len(self.bed.server.statuses)
        self.due = self.bed.report(view(*links, address="10.0.0.9", **values), passes_s=passes_s)
        written = [
            body["metadata"]["annotations"][told.POD] for body in self.bed.server.statuses[before:]
        ]
        for text in written:
            version = str(int(self.pod.version) + 1)
            self.pod = replace(self.pod, version=version, told={told.POD: text})
            self.bed.seen.put(self.pod)
        return [PodTold.loads(text) for text in written]


def test_links_are_told_when_they_have_been_so_for_a_second() -> None:
    one = Told()
    assert one.report(link("waiting", since=5000.0)) == []
    assert one.due == 5001.0
    assert one.report(link()) == []
    (found,) = one.report(link(), passes_s=1)
    assert (found.name, found.node, found.address) == ("a", "node-1", "10.0.0.9")
    assert [(each.ifname, each.peer, each.state) for each in found.links] == [("in1", "b", "up")]
    assert one.report(link(), passes_s=100) == []


def test_a_link_that_flaps_costs_a_few_requests() -> None:
    one = Told()
    written = 0
    for number in range(60):
        state = link("waiting" if number % 2 else "up", since=5000.0 + number)
        written += len(one.report(state))
        written += len(one.report(state, passes_s=1))
    assert 5 <= written <= 12
    assert len(one.report(link(), passes_s=1) + one.report(link(), passes_s=10)) == 1


def test_since_when_a_link_is_up_outlives_the_agent() -> None:
    one = Told()
    one.pod = replace(
        one.pod, told={told.POD: PodTold("a", "node-1", "10.0.0.9", (link(since=99.0),)).dumps()}
    )
    one.bed.seen.put(one.pod)
    one.report(link(since=5000.0))
    assert one.report(link(since=5000.0), passes_s=1) == []
    one.report(link(since=5100.0), passes_s=99)
    (found,) = one.report(link(since=5100.0), passes_s=1)
    assert found.links[0].since == 5100.0


def test_what_is_not_known_of_links_leaves_what_was_told() -> None:
    one = Told()
    one.report(link())
    one.report(link(), passes_s=1)
    assert one.report(link("waiting"), is_settled=False) == []
    assert one.report(link("waiting"), is_settled=False, passes_s=10) == []


def test_a_pod_without_its_name_says_so() -> None:
    one = Told()
    one.report(superseded=True)
    (found,) = one.report(superseded=True, passes_s=1)
    assert found.superseded
    assert found.links == ()
