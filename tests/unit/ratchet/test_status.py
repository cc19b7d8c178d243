"""What the child answers about links, pods and the node, also as another version has it."""

from __future__ import annotations

from typing import Any

import pytest

from ratchet.status import Links, LinkStatus, NodeStatus, PodStatus

# What a child says of a link, a pod and the node.
LINK: dict[str, Any] = {
    "ifname": "in1",
    "address": "192.168.2.100/24",
    "peer": "b",
    "peer_ifname": "in2",
    "peer_address": None,
    "peer_node": "10.0.0.2",
    "silent_since": 1200.0,
    "primary": True,
    "vni": 11,
    "kind": "vxlan",
    "state": "up",
    "since": 1000.5,
    "error": None,
    "fault": "mtu 9000: Invalid argument",
    "by_pod": None,
    "last_error": "etcd does not answer",
    "last_error_at": 900.0,
}
POD: dict[str, Any] = {
    "namespace": "default",
    "name": "a",
    "kubernetes_name": "a-0",
    "container": "c1",
    "netns": "/run/netns/x",
    "attached_at": 800.0,
    "superseded": False,
    "error": None,
    "last_error": None,
    "last_error_at": None,
    "links": [LINK],
}
NODE: dict[str, Any] = {
    "ok": True,
    "node": "10.0.0.1",
    "parent_interface": "eth0",
    "trouble": "there is no default route",
    "etcd": None,
    "etcd_away": False,
    "labels": None,
    "guard": "on",
    "etcd_since": 700.0,
    "front": {"calls": {"answered": 3}, "fallbacks": {"late": 2}},
    "agent": {"node": "n1", "watching": True, "known": 3, "troubles": ["the token has expired"]},
    "pods": [POD],
}


def test_links_are_what_they_have_always_been() -> None:
    assert Links(True).to_json() == {"ok": True, "complete": True}
    assert Links.from_json({"ok": True, "complete": True}) == Links(True)
    waiting = {"ok": True, "complete": False, "links": [LINK]}
    assert Links.from_json(waiting) == Links(False, (LinkStatus(**LINK),))
    assert Links(False, (LinkStatus(**LINK),)).to_json() == waiting


def test_status_is_what_it_has_always_been() -> None:
    found = NodeStatus.from_json(NODE)
    assert found.to_json() == NODE
    assert isinstance(found.pods[0], PodStatus)
    assert found.pods[0].links == (LinkStatus(**LINK),)


def test_what_a_child_of_another_version_does_not_say_is_not_known() -> None:
    needed = ("ifname", "peer", "state", "primary")
    short = {key: value for key, value in LINK.items() if key in needed}
    found = LinkStatus.from_json({**short, "colour": "red"})
    assert found.to_json() == {**dict.fromkeys(LINK), **short}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ifname", None),
        ("peer", 5),
        ("state", "upside down"),
        ("primary", 1),
        ("vni", True),
        ("since", float("nan")),
        ("since", -1),
        ("last_error_at", "now"),
        ("fault", ["mtu"]),
        ("by_pod", 1),
    ],
)
def test_link_that_no_child_sends_is_refused_by_its_key(key: str, value: object) -> None:
    spelt = {**NODE, "pods": [{**POD, "links": [{**LINK, key: value}]}]}
    with pytest.raises(ValueError, match=rf"^{key} "):
        NodeStatus.from_json(spelt)


@pytest.mark.parametrize("pods", [None, {}, "a", [3], [{**POD, "links": {}}], [{**POD, "name": 1}]])
def test_pods_that_no_child_sends_are_refused(pods: object) -> None:
    with pytest.raises(ValueError, match=r"pod|links|name"):
        NodeStatus.from_json({**NODE, "pods": pods})


@pytest.mark.parametrize(
    "agent",
    [5, [], {}, {"node": "n1", "watching": 1}, {"node": "n", "watching": True, "troubles": [3]}],
)
def test_an_agent_that_no_child_sends_is_refused(agent: object) -> None:
    with pytest.raises(ValueError, match=r"agent|node|watching|troubles"):
        NodeStatus.from_json({**NODE, "agent": agent})


@pytest.mark.parametrize("front", [5, [], {"calls": {}}, {"calls": {"a": "b"}, "fallbacks": {}}])
def test_counts_of_the_front_that_no_child_sends_are_refused(front: object) -> None:
    with pytest.raises(ValueError, match=r"front|calls|fallbacks"):
        NodeStatus.from_json({**NODE, "front": front})
