"""Which pods leave their name to another one until they are ready."""

from __future__ import annotations

from typing import Any

import pytest

from ratchet.cni.dataclasses import replace
from ratchet_child.agent.notes import of_pod
from ratchet_child.agent.seen import SeenPods, read_pod
from ratchet_child.agent.standing import READY_S, Standing
from ratchet_child.model.keys import PodKey
from tests.unit.ratchet_child.agent.pods import LABELS, attachment, view

NOW = 1_700_000_000.0
DEPLOYMENT = attachment({**LABELS, "ratchet.pod_name": "web"})


class Clock:
    now = NOW

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def pod(ready: str | None = None, since: str = "2023-11-14T22:13:20Z") -> dict[str, Any]:
    condition = {"type": "ContainersReady", "status": ready, "lastTransitionTime": since}
    return {
        "metadata": {"namespace": "default", "name": "a", "uid": "u1", "resourceVersion": "1"},
        "status": {"conditions": [] if ready is None else [condition]},
    }


class Bed:
    def __init__(self, obj: dict[str, Any] | None, *, knows: bool = True) -> None:
        self.seen, self.clock = SeenPods(), Clock()
        if obj is not None:
            self.seen.put(read_pod(obj))
        self.standing = Standing(self.seen, self.clock, lambda: knows)


@pytest.mark.parametrize(
    ("obj", "later_s", "expected"),
    [
        (pod(), 0, True),
        (pod("False"), 60, True),
        (None, 60, True),  # bound a moment ago, or deleted
        (pod("True"), READY_S - 1, True),
        (pod("True"), READY_S, False),
        (pod("True", since="what"), 0, False),
        (pod("True"), -3600, False),  # a clock that was set back
    ],
)
def test_a_pod_stands_by_until_its_containers_have_been_ready(
    obj: dict[str, Any] | None, later_s: float, expected: bool
) -> None:
    bed = Bed(obj)
    bed.clock.now += later_s
    assert bed.standing.stands_by(DEPLOYMENT) is expected


def test_a_pod_with_its_own_name_stands_by_for_nobody() -> None:
    assert not Bed(pod()).standing.stands_by(attachment(LABELS))


def test_nobody_stands_by_before_pods_are_known() -> None:
    assert not Bed(None, knows=False).standing.stands_by(DEPLOYMENT)


def test_each_change_is_told_once_and_the_next_one_is_announced() -> None:
    bed = Bed(pod("True"))
    assert bed.standing.changed([DEPLOYMENT]) == {PodKey("default", "web")}
    assert bed.standing.changed([DEPLOYMENT]) == set()
    assert bed.standing.next_due() == NOW + READY_S
    bed.clock.now += READY_S
    assert bed.standing.changed([DEPLOYMENT]) == {PodKey("default", "web")}
    assert bed.standing.next_due() is None


def test_the_event_says_who_has_the_name_and_when_that_changes() -> None:
    one = replace(view(superseded=True), stands_by=True, holder="web-1")
    (noted,) = of_pod(one, NOW)
    assert (noted.note.reason, noted.note.is_warning) == ("StandsBy", False)
    assert noted.note.text.startswith("Pod web-1 has the name a and keeps the links.")
    assert "ready for 5 seconds" in noted.note.text
