"""The messages between parent, child and `ratchetctl`, also those of other versions."""

from __future__ import annotations

from typing import Any

import pytest

from ratchet import messages
from ratchet.messages import Attached, Check, Deleted, Failure, Labels, NodeHealth

# As parents sent them before there was a module of messages.
OF_BEFORE: tuple[tuple[dict[str, Any], messages.Request], ...] = (
    (
        {"op": "attached", "attachment": "c1.eth0", "wait": "all", "timeout_s": 5.0},
        Attached("c1.eth0", "all", 5.0),
    ),
    ({"op": "check", "attachment": "c1.eth0", "timeout_s": 3.0}, Check("c1.eth0", 3.0)),
    ({"op": "labels", "namespace": "n", "name": "a", "uid": None}, Labels("n", "a", None)),
    ({"op": "health"}, messages.Health()),
    ({"op": "status"}, messages.Status()),
)


@pytest.mark.parametrize(("spelt", "request_"), OF_BEFORE, ids=lambda value: str(value)[:20])
def test_a_request_is_what_it_has_always_been(
    spelt: dict[str, Any], request_: messages.Request
) -> None:
    assert messages.request_to_json(request_) == spelt
    assert messages.request_from_json(spelt) == request_
    later = {**spelt, "settings": {}, "started_s": 1.0, "colour": "red"}
    assert messages.request_from_json(later) == request_


def test_deleted_names_its_attachment_and_that_of_an_older_parent_none() -> None:
    assert messages.request_from_json({"op": "deleted"}) == Deleted(None)
    named = messages.request_to_json(Deleted("c1.eth0"))
    assert named == {"op": "deleted", "attachment": "c1.eth0"}
    assert messages.request_from_json(named) == Deleted("c1.eth0")


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        ({}, "op"),
        ({"op": ["health"]}, "op"),
        ({"op": "reboot"}, "op 'reboot'"),
        ({"op": "attached", "wait": "all"}, "attachment"),
        ({"op": "attached", "attachment": "a", "wait": "often"}, "wait 'often'; allowed is one of"),
        ({"op": "check", "attachment": "a", "timeout_s": True}, "timeout_s"),
        ({"op": "check", "attachment": "a", "timeout_s": "5"}, "timeout_s"),
        ({"op": "deleted", "attachment": 5}, "attachment"),
        ({"op": "labels", "namespace": "n"}, "name None"),
        ({"op": "labels", "namespace": "n", "name": "a", "uid": 7}, "uid"),
    ],
)
def test_what_no_parent_sends_is_refused_by_its_key(request_: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        messages.request_from_json(request_)


def test_answers_are_what_they_have_always_been() -> None:
    assert messages.done() == {"ok": True}
    well = {"ok": True, "etcd": None, "labels": None}
    assert NodeHealth(None).to_json() == well
    assert NodeHealth.from_json({"ok": True, "etcd": None}) == NodeHealth(None)
    refused = NodeHealth("away", Failure(102, "refused", "401"))
    assert NodeHealth.from_json(refused.to_json()) == refused
    labels = {"ok": True, "labels": {"a": "b"}, "annotations": {}}
    assert messages.PodLabels.from_json(labels).to_json() == labels
    failure = {"ok": False, "code": 11, "msg": "m", "details": "d"}
    found = Failure.from_json(failure)
    assert found is not None
    assert found.to_json() == failure
    assert Failure.from_json({"ok": True}) is None


@pytest.mark.parametrize("answer", [{}, {"ok": False, "code": True}, {"ok": None, "msg": []}])
def test_an_answer_that_makes_no_sense_is_a_failure(answer: dict[str, Any]) -> None:
    found = Failure.from_json(answer)
    assert found is not None
    assert found.code == 0
    assert found.msg


@pytest.mark.parametrize("labels", [None, [], {"a": 1}])
def test_labels_that_are_no_strings_are_refused(labels: object) -> None:
    with pytest.raises(ValueError, match="labels"):
        messages.PodLabels.from_json({"ok": True, "labels": labels, "annotations": {}})
