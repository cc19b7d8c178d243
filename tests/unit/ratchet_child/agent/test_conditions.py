"""The condition `ratchet/links`, and the annotation network-status."""

from __future__ import annotations

import json

import pytest

from ratchet_child.agent.conditions import condition
from ratchet_child.agent.network_status import merged
from ratchet_child.agent.views import End, PodView
from tests.unit.ratchet_child.agent.pods import link, view


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (view(link()), ("True", "LinksUp", "1 link is up")),
        (view(link(), link(ifname="in3")), ("True", "LinksUp", "2 links are up")),
        (view(link(fault="mtu")), ("True", "LinksUp", "1 link is up")),
        (view(), ("False", "NoLink", "no other pod declares one with it yet")),
        (view(link(), link("waiting", "in3")), ("False", "LinkWaiting", "in3 waits for b")),
        (
            view(link("waiting", "in3", peer="")),
            ("False", "LinkWaiting", "in3 waits for a pod that declares a link with it"),
        ),
        (
            view(link("waiting"), link("error", "in3", error="taken")),
            ("False", "LinkFailed", "in3 to b: taken"),
        ),
        (view(link(), superseded=True), ("False", "NameTaken", "the name a")),
        (view(link(), superseded=True, stands_by=True), ("False", "StandsBy", "the name a")),
        # Links outlive etcd, and whatever else keeps the child from working on a pod.
        (view(link(), trouble="etcd is away"), ("True", "LinksUp", "1 link is up")),
    ],
)
def test_condition_is_true_when_every_link_is_up(pod: PodView, expected: tuple[str, ...]) -> None:
    found = condition(pod)
    assert found is not None
    assert (found.status, found.reason) == expected[:2]
    assert expected[2] in found.message


def test_nothing_is_said_before_etcd_has_been_asked() -> None:
    """A child that was started again knows nothing of far pods yet: the pod stays Ready."""
    assert condition(view(link("waiting"), is_settled=False)) is None


def test_a_message_is_not_without_end() -> None:
    links = [link("waiting", f"in{number}") for number in range(200)]
    found = condition(view(*links))
    assert found is not None
    assert len(found.message) < 300
    assert found.message.endswith("and 195 more")


END = End("a:in1", "in1", "10.0.0.1/24", "02:00:00:00:00:01", 1500)
ENTRY = {
    "name": "ratchet/a:in1",
    "interface": "in1",
    "ips": ["10.0.0.1"],
    "mac": "02:00:00:00:00:01",
    "mtu": 1500,
    "dns": {},
}
THEIRS = {"name": "cbr0", "interface": "eth0", "default": True}


def test_ends_come_after_what_others_wrote() -> None:
    assert json.loads(merged(json.dumps([THEIRS]), [END]) or "") == [THEIRS, ENTRY]
    assert json.loads(merged(None, [END]) or "") == [ENTRY]


def test_what_is_right_is_left_alone() -> None:
    assert merged(json.dumps([THEIRS, ENTRY], indent=4), [END]) is None
    assert merged(json.dumps([THEIRS]), []) is None
    assert merged(None, []) is None


def test_ends_that_are_gone_go_and_nothing_else_does() -> None:
    old = {**ENTRY, "name": "ratchet/z:in9"}
    assert json.loads(merged(json.dumps([old, THEIRS]), []) or "") == [THEIRS]


@pytest.mark.parametrize("present", ["{", "{}", '"a"', "5", "[" * 100_000])
def test_what_is_none_of_the_standard_is_left_alone(present: str) -> None:
    assert merged(present, [END]) is None


@pytest.mark.parametrize("entry", [5, None, [], {"name": 5}])
def test_strange_entries_of_others_stay(entry: object) -> None:
    assert json.loads(merged(json.dumps([entry]), [END]) or "") == [entry, ENTRY]


def test_an_end_without_address_and_mtu_has_none() -> None:
    found = json.loads(merged(None, [End("a:in1", "in1", None, "02::", None)]) or "")
    assert found == [{"name": "ratchet/a:in1", "interface": "in1", "mac": "02::", "dns": {}}]
