"""A running pod's links follow its labels, once and as an ADD would read them."""

from __future__ import annotations

from typing import Any

import pytest

from ratchet.attachments import Attachment
from ratchet.cni.dataclasses import replace
from ratchet.errors import StateError
from ratchet.labels import Wiring
from ratchet.links import Link
from ratchet_child.agent.follower import SETTLE_S, Done, Follower
from ratchet_child.agent.seen import SeenPod, SeenPods
from tests.unit.ratchet_child.agent.pods import LABELS, SECOND, attachment, seen, view


class Node:
    """A node with one pod; `written` are the links that its record was made to declare."""

    def __init__(self, pod: SeenPod, record: Attachment | None = None) -> None:
        self.seen = SeenPods()
        self.seen.put(pod)
        self.record = attachment(LABELS) if record is None else record
        self.written: list[tuple[Link, ...]] = []
        self.answers: list[bool | Exception] = []
        self.now = 100.0
        self.max_links = 256
        self.follower = Follower(self.seen, self._rewrite)

    def _rewrite(self, record: Attachment, wiring: Wiring) -> bool:
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        if answer:
            self.written.append(wiring.links)
            self.record = replace(
                record, links=wiring.links, uplinks=wiring.uplinks, expected=wiring.expected
            )
        return answer

    def follow(self, passes_s: float = SETTLE_S, **values: Any) -> list[Done]:
        found = self._follow(**values)
        self.now += passes_s
        return found + self._follow(**values)

    def _follow(self, **values: Any) -> list[Done]:
        there = [view(attachment=self.record, **values)]
        return list(self.follower.follow(there, self.now, self.max_links))


def test_labels_that_say_what_the_record_says_change_nothing() -> None:
    node = Node(seen(LABELS))
    assert node.follow() == []
    assert node.written == []
    assert node.follower.next_due() is None


def test_a_link_is_added_changed_and_removed() -> None:
    node = Node(seen(LABELS))
    node.follow()
    node.seen.put(seen({**LABELS, **SECOND}))
    assert [done.note.text for done in node.follow()] == [
        "The links follow the pod's labels: added in3."
    ]
    node.seen.put(seen({**LABELS, **SECOND}, {"ratchet.mtu": "1300"}))
    assert [done.note.text for done in node.follow()] == [
        "The links follow the pod's labels: changed in1."
    ]
    node.seen.put(seen({"ratchet": "true"}))
    assert [done.note.text for done in node.follow()] == [
        "The links follow the pod's labels: removed in1, in3."
    ]
    assert [len(links) for links in node.written] == [2, 2, 0]
    assert node.follow() == []


def test_uplinks_and_expected_links_follow_as_well() -> None:
    node = Node(seen(LABELS))
    node.follow()
    uplink = {
        "ratchet.4.kind": "macvlan",
        "ratchet.4.device": "eth0",
        "ratchet.4.local_ifname": "up",
    }
    node.seen.put(seen({**LABELS, **uplink}))
    assert [done.note.text for done in node.follow()] == [
        "The links follow the pod's labels: added up."
    ]
    assert [one.device for one in node.record.uplinks] == ["eth0"]
    node.seen.put(seen({**LABELS, **uplink, "ratchet.4.device": "eth1"}))
    assert [done.note.text for done in node.follow()] == [
        "The links follow the pod's labels: changed up."
    ]
    node.seen.put(seen(LABELS, {"ratchet.links": '[{"ifname": "in9"}]'}))
    assert [done.note.text for done in node.follow()] == [
        "The links follow the pod's labels: added in9; removed up."
    ]
    assert (node.record.uplinks, node.record.expected) == ((), ("in9",))
    assert node.follow() == []


def test_labels_that_change_in_turn_are_followed_once() -> None:
    node = Node(seen(LABELS))
    node.follow()
    for number in range(5):
        node.seen.put(seen({**LABELS, "ratchet.mtu": f"130{number}"}))
        assert node.follow(passes_s=SETTLE_S / 2) == []
    assert node.follower.next_due() is not None
    assert len(node.follow()) == 1
    assert [links[0].mtu_bytes for links in node.written] == [1304]


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({**LABELS, "ratchet.local_ip": "10.0.0.300"}, "ratchet.local_ip is '10.0.0.300'"),
        ({**LABELS, "ratchet": "false"}, "ratchet is 'false'"),
        ({"app": "web"}, "ratchet is missing"),
        ({**LABELS, "ratchet.pod_name": "z"}, "ratchet.pod_name is 'z'"),
    ],
)
def test_what_cannot_be_followed_is_said_once_and_changes_nothing(
    labels: dict[str, str], named: str
) -> None:
    node = Node(seen(LABELS))
    node.follow()
    node.seen.put(seen(labels))
    done = node.follow()
    assert [one.note.reason for one in done] == ["LabelRefused"]
    assert named in done[0].note.text
    assert node.follow() == []
    assert node.written == []
    node.seen.put(seen(LABELS))
    assert node.follow() == []


def test_a_running_pod_gets_no_more_links_than_an_add_would_allow() -> None:
    node = Node(seen(LABELS))
    node.max_links = 2
    node.follow()
    third = {
        key.replace(".2.", ".3."): value.replace("in3", "in5") for key, value in SECOND.items()
    }
    node.seen.put(seen({**LABELS, **SECOND, **third, "ratchet.3.pair_ifname": "in6"}))
    (done,) = node.follow()
    assert done.note.reason == "LabelRefused"
    assert "at most 2 links, which the configuration key max_links sets" in done.note.text
    assert node.written == []
    node.seen.put(seen({**LABELS, **SECOND}))
    assert len(node.follow()) == 1


def test_a_pod_whose_name_another_has_is_not_followed() -> None:
    """A record that is rewritten is published anew, which would take the name back."""
    node = Node(seen({**LABELS, **SECOND}))
    assert node.follow(superseded=True) == []
    assert node.follow(is_settled=False) == []
    assert node.written == []
    assert len(node.follow()) == 1


@pytest.mark.parametrize(
    "pod",
    [
        seen({**LABELS, **SECOND}, version=""),
        seen({**LABELS, **SECOND}, uids=("u2",)),
        seen({**LABELS, **SECOND}, name="z"),
        seen({**LABELS, **SECOND}, namespace="other"),
    ],
    ids=["told to an earlier agent", "another UID", "another name", "another namespace"],
)
def test_what_is_not_known_of_this_very_pod_is_not_followed(pod: SeenPod) -> None:
    node = Node(pod)
    assert node.follow() == []
    assert node.written == []


def test_annotations_that_the_runtime_passed_alone_are_what_was_attached() -> None:
    """The labels beside them counted for nothing at the ADD, and do not come to count by this."""
    alone = dict(LABELS)
    node = Node(seen(SECOND, alone))
    assert node.follow() == []
    assert node.written == []
    node.seen.put(seen(SECOND, {**alone, "ratchet.mtu": "1300"}))
    assert len(node.follow()) == 1


def test_a_del_in_between_is_no_error_and_the_next_container_is_looked_at_anew() -> None:
    node = Node(seen({**LABELS, **SECOND}))
    node.answers = [False]
    assert node.follow() == []
    assert node.written == []
    node.record = attachment(LABELS, "c2")
    assert len(node.follow()) == 1


def test_a_record_that_cannot_be_written_is_tried_again() -> None:
    node = Node(seen({**LABELS, **SECOND}))
    node.answers = [StateError("disk full")]
    assert node.follow() == []
    assert len(node.follow()) == 1
