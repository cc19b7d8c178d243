"""What pods say of their links."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from ratchetctl.topo import reports
from ratchetctl.topo.model import End

ENDS = [
    End("a", "eth1", ipaddress.ip_interface("10.0.0.1/24")),
    End("a", "eth2"),
]


def entry(ifname: str, address: str | None = None, name: str = "ratchet/a:eth1") -> dict[str, Any]:
    return {"name": name, "interface": ifname} | ({"ips": [address]} if address else {})


def pod(
    *entries: dict[str, Any], phase: str = "Running", condition: Any = None, **status: Any
) -> dict[str, Any]:
    annotations = {reports.NETWORK_STATUS: json.dumps(entries)} if entries else {}
    conditions = [condition] if condition else []
    return {
        "metadata": {"name": "a", "annotations": annotations},
        "spec": {"nodeName": "m1"},
        "status": {"phase": phase, "conditions": conditions, **status},
    }


def links(status: str, reason: str = "LinkWaiting") -> dict[str, Any]:
    return {"type": "ratchet/links", "status": status, "reason": reason, "message": "eth2 waits"}


BOTH = (entry("eth1", "10.0.0.1"), entry("eth2"))


@pytest.mark.parametrize(
    ("found", "up", "state"),
    [
        (pod(*BOTH), 2, reports.UP),
        (pod(*BOTH, phase="Pending"), 2, reports.WAITING),
        (pod(BOTH[0]), 1, reports.WAITING),
        # Another address than the file's: the agent has not followed yet.
        (pod(entry("eth1", "10.0.0.9"), BOTH[1]), 1, reports.WAITING),
        (pod(entry("eth1", "10.0.0.1", name="default/net")), 0, reports.WAITING),
        (pod(), 0, reports.WAITING),
        (pod(condition=links("True")), 2, reports.UP),
        (pod(*BOTH, condition=links("True")), 2, reports.UP),
        (pod(*BOTH, condition=links("False")), 1, reports.WAITING),
        (pod(*BOTH, condition=links("False", "LinkFailed")), 1, reports.ERROR),
        # The condition is of the links from before.
        (pod(BOTH[0], condition=links("True")), 1, reports.WAITING),
        (pod(phase="Failed", reason="Evicted"), 0, reports.ERROR),
    ],
)
def test_an_end_is_up_when_it_is_listed_and_nobody_says_otherwise(
    found: dict[str, Any], up: int, state: str
) -> None:
    got = reports.report(found, "a", ENDS)
    assert (got.up, got.state) == (up, state)


def test_who_has_told_is_known() -> None:
    assert not reports.report(pod(), "a", ENDS).is_told
    assert reports.report(pod(condition=links("False")), "a", ENDS).is_told
    assert reports.report(pod(*BOTH), "a", ENDS).is_told


@pytest.mark.parametrize("text", ["", "{", "null", '{"a": 1}', "[1, null]"])
def test_an_annotation_that_is_none_of_the_standard_is_no_report(text: str) -> None:
    found = pod()
    found["metadata"]["annotations"][reports.NETWORK_STATUS] = text
    assert reports.report(found, "a", ENDS).up == 0


def test_what_keeps_a_pod_from_running_is_told() -> None:
    waiting = {"name": "node", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}
    got = reports.report(pod(phase="Pending", containerStatuses=[waiting]), "a", ENDS)
    assert (got.trouble, got.state) == ("ErrImagePull: no", reports.ERROR)
    waiting["state"] = {"waiting": {"reason": "ContainerCreating"}}
    got = reports.report(pod(phase="Pending", containerStatuses=[waiting]), "a", ENDS)
    assert (got.trouble, got.state) == ("", reports.WAITING)
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }
    got = reports.report(pod(phase="Pending", condition=unscheduled), "a", ENDS)
    assert got.trouble == "Unschedulable: 0/3 nodes are available"


def test_a_pod_that_is_not_there_has_no_link() -> None:
    got = reports.report(None, "a", ENDS)
    assert (got.phase, got.up, got.ends, got.state) == ("missing", 0, 2, reports.WAITING)
