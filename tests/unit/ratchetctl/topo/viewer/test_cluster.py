"""What is known of a topology on a cluster, from what the nodes' agents write into its pods."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ratchet import annotations as telling
from ratchet.annotations import PodTold
from ratchet.status import PULLED, LinkStatus
from ratchetctl.kube.cluster import Agent
from ratchetctl.topo.graph.seen import EndSeen, PodSeen
from ratchetctl.topo.viewer.cluster import seen

AGENTS = (Agent("agent-1", "u1", "m1", None, is_ready=True),)


def pod(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "lab",
            "labels": {"ratchet": "true"},
            "annotations": changes.get("annotations", {}),
            **changes.get("metadata", {}),
        },
        "spec": {"nodeName": "m1", **changes.get("spec", {})},
        "status": changes.get("status", {"phase": "Running", "podIP": "10.244.0.7"}),
    }


def told(*links: LinkStatus, **more: Any) -> dict[str, str]:
    return {telling.POD: PodTold("a", "m1", "192.0.2.1", links, **more).dumps()}


def link(**more: Any) -> LinkStatus:
    return LinkStatus(**{"ifname": "eth1", "peer": "b", "state": "up", "primary": True, **more})


def test_machines_addresses_kinds_and_tunnels_are_seen() -> None:
    links = link(kind="vxlan", vni=12), link(ifname="eth2", kind="veth")
    found = seen([pod("a", annotations=told(*links))], AGENTS, "lab")
    assert found.pods == {"a": PodSeen("m1", ("10.244.0.7",))}
    assert found.ends == {
        ("a", "eth1"): EndSeen("up", None, "vxlan", 12),
        ("a", "eth2"): EndSeen("up", None, "veth"),
    }


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        ({"fault": PULLED}, "down", PULLED),
        ({"fault": "an MTU of 9000"}, "fault", "an MTU of 9000"),
        ({"state": "waiting"}, "waiting", "b is not there yet, or is not ready"),
        ({"state": "error", "error": "no such device"}, "error", "no such device"),
        ({"by_pod": "down"}, "down", "the pod has set its interface down"),
    ],
)
def test_an_end_that_is_not_up_says_why(said: dict[str, Any], state: str, reason: str) -> None:
    found = seen([pod("a", annotations=told(link(**said)))], AGENTS, "lab")
    end = found.ends["a", "eth1"]
    assert (end.state, end.reason) == (state, reason)


def test_what_an_agent_told_that_is_away_is_not_taken_for_the_present() -> None:
    away = [Agent("agent-1", "u1", "m1", None, is_ready=False)]
    found = seen([pod("a", annotations=told(link()))], away, "lab")
    why = "the agent of node m1 is not ready"
    assert found.ends["a", "eth1"] == EndSeen("unknown", why)
    assert found.pods["a"].reason == why
    # Who may not list agents is shown what they told last.
    assert seen([pod("a", annotations=told(link()))], None, "lab").ends["a", "eth1"].state == "up"


def test_network_status_alone_tells_of_ends_that_are_up() -> None:
    entries = [{"name": "ratchet/a:eth1", "interface": "eth1"}, {"name": "cbr", "interface": "x"}]
    status = {"k8s.v1.cni.cncf.io/network-status": json.dumps(entries)}
    found = seen([pod("a", annotations=status)], AGENTS, "lab")
    assert found.ends == {("a", "eth1"): EndSeen("up")}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "no agent has told of its links yet"),
        ({"spec": {"nodeName": None}, "status": {"phase": "Pending"}}, "has no machine yet"),
        ({"annotations": {telling.POD: "{"}}, "is not understood"),
        ({"annotations": told(superseded=True)}, "superseded"),
        ({"annotations": told(error="etcd is away")}, "etcd is away"),
        ({"annotations": {"ratchet.links": "nonsense"}}, "a label is wrong"),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "is being deleted"),
        ({"status": {"phase": "Failed"}}, "has ended (Failed)"),
    ],
)
def test_a_pod_that_is_not_well_says_why(changes: dict[str, Any], reason: str) -> None:
    found = seen([pod("a", **changes)], AGENTS, "lab")
    assert reason in str(found.pods["a"].reason)
    assert found.ends == {}


def test_pods_that_are_not_ratchets_are_left_out() -> None:
    other = pod("web")
    other["metadata"]["labels"] = {}
    assert seen([other], AGENTS, "lab").pods == {}
