"""What is said of a pod without its links: the reason, and who has to do what."""

from __future__ import annotations

from typing import Any

import pytest

from ratchet.cni.dataclasses import replace
from ratchetctl.kube.explaining import Finding, explain, not_ratchets
from ratchetctl.kube.shown import explanation, explanation_object, pod_state
from tests.unit.ratchetctl.kube.clusters import FAR, OWN, R1, R2, agent, cluster, pod

WAITS = replace(OWN, state="waiting", kind=None, peer_node=None)


def findings(
    first: Any, *others: Any, strangers: dict[str, str] | None = None, **values: Any
) -> list[Finding]:
    found = cluster(first, *others, **values)
    name = first["metadata"]["name"]
    one = next(each for each in found.pods if each.name == name)
    return list(explain(found, one, strangers or {}).findings)


def the(found: list[Finding]) -> str:
    (one,) = found
    return f"{one.about}: {one.what} -> {one.todo}"


def test_nothing_is_said_of_what_is_there() -> None:
    first, second = pod("r1", R1, OWN), pod("r2", R2, FAR, node="node-2")
    assert findings(first, second) == []
    found = cluster(first, second)
    text = explanation(explain(found, found.pods[0], {}), 4600.0)
    assert "eth1 10.0.0.1/24 to r2:eth2: up for 59m (vxlan 11)" in text
    assert text.endswith("Everything is there.")


def test_a_pod_without_the_label_is_told_what_to_write() -> None:
    assert 'ratchet: "true"' in not_ratchets("web", None).what
    assert "'yes'" in not_ratchets("web", "yes").what


@pytest.mark.parametrize(
    ("first", "others", "words"),
    [
        # Labels.
        (
            pod("r1", {**R1, "ratchet.local_ifname": "much/too/bad"}, phase="Pending"),
            [],
            ("a label is wrong", "ratchet.local_ifname", "much/too/bad", "correct the label"),
        ),
        (
            pod("r1", R1, spec={"hostNetwork": True}),
            [],
            ("host's network", "leave hostNetwork out"),
        ),
        (pod("r1", R1, OWN, phase="Succeeded"), [], ("has ended (Succeeded)",)),
        # Node and start.
        (pod("r1", R1, node=None, phase="Pending"), [pod("r2", R2, is_told=True)], ("no node",)),
        (
            pod("r2", R2, is_told=True),
            [],
            ("declare no link", "ratchet.pair_name", "name of this one is r2"),
        ),
        (
            pod("r2", R2, is_told=True, superseded=True),
            [pod("r9", {**R2, "ratchet.pod_name": "r2"}, FAR)],
            ("pod r9 has the name r2", "delete one of the two"),
        ),
        # The far pod.
        (pod("r1", R1, WAITS), [], ("no pod r2 in namespace default", 'ratchet: "true"')),
        (
            pod("r1", R1, WAITS),
            [pod("r2", {**R2, "ratchet.pod_name": "router"}, is_told=True)],
            ("pod r2 is known to others as router", "write router for ratchet.pair_name"),
        ),
        (
            pod("r1", R1, WAITS),
            [pod("r2", R2, phase="Failed")],
            ("pod r2 has ended (Failed)", "whoever owns r2: start it again"),
        ),
        (
            pod("r1", R1, WAITS),
            [pod("r2", R2, is_told=True, namespace="lab")],
            ("only in lab", "links do not cross"),
        ),
        (
            pod("r1", R1, WAITS),
            [pod("r2", {**R2, "ratchet.2.local_ifname": "x"}, phase="Pending")],
            ("a label of pod r2 is wrong", "whoever owns r2"),
        ),
        (
            pod("r1", R1, WAITS),
            [pod("r2", R2, phase="Pending", node="node-2")],
            ("r2 is not attached yet", "explain r2 -n default"),
        ),
        (
            pod("r1", R1, WAITS),
            [pod("r2", R2, is_told=True, node="node-3")],
            ("node node-3 has no agent", "the administrator"),
        ),
        # Errors.
        (
            pod("r1", R1, replace(OWN, state="error", kind=None, error="eth2 of r2 is taken")),
            [pod("r2", R2, is_told=True)],
            ("eth2 of r2 is taken", "change the labels of one of them"),
        ),
        (
            pod("r1", R1, replace(OWN, state="error", error="the port is held")),
            [pod("r2", R2, is_told=True)],
            ("the port is held", "administrator of the node"),
        ),
    ],
)
def test_the_reason_and_the_remedy_are_said(
    first: Any, others: list[Any], words: tuple[str, ...]
) -> None:
    said = findings(first, *others, namespace=None)
    assert any(all(word in the([one]) for word in words) for one in said), said


def test_a_pod_of_the_name_without_the_label_is_pointed_at() -> None:
    said = the(findings(pod("r1", R1, WAITS), strangers={"r2": "its label ratchet is 'yes'"}))
    assert "pod r2 is there, but its label ratchet is 'yes'" in said


def test_trouble_of_the_node_is_the_administrators() -> None:
    there = [agent("node-1", etcd="away", etcd_error="no route", troubles=("a token ends",))]
    said = findings(pod("r1", R1, OWN), pod("r2", R2, FAR), agents=there)
    assert [one.about for one in said] == ["node node-1"] * 2
    assert "no route" in said[0].what
    assert said[1].what == "a token ends"
    assert all("administrator" in str(one.todo) for one in said)


def test_a_pod_that_waits_for_its_containers_says_for_what() -> None:
    status = {
        "containerStatuses": [
            {"name": "frr", "state": {"waiting": {"reason": "ImagePullBackOff"}}, "ready": False}
        ]
    }
    first = pod("r1", R1, phase="Pending", status=status)
    assert "container frr: ImagePullBackOff" in findings(first)[0].what
    found = cluster(first)
    assert pod_state(found, found.pods[0])[0] == "unknown"


def test_a_program_gets_the_same() -> None:
    found = cluster(pod("r1", R1, WAITS))
    obj = explanation_object(explain(found, found.pods[0], {}))
    assert obj["links"][0]["state"] == "waiting"
    assert obj["findings"][0]["todo"]
