"""What is known of a running topology, from what a simulation's status and its kernel say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ratchetctl.errors import SimError
from ratchetctl.sim import status
from ratchetctl.topo.graph.seen import EndSeen, PodSeen
from ratchetctl.topo.viewer import interfaces, reasons, simulation
from ratchetctl.topo.viewer.interfaces import Interface

UP = {"ifname": "eth1", "peer": "b", "state": "up", "kind": "veth"}
# As the kernel writes it: names of 15 characters leave no blank before their numbers.
TABLE = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0
  eth1:    1234      12    1    2    0     0          0         0     5678      56    0    0    0
a234567890.1234:9999999999 1 0    0    0     0          0         0        7       8    0    0    0
"""


@pytest.mark.parametrize(
    ("link", "carrier", "wanted"),
    [
        ({}, True, ("up", None)),
        ({}, None, ("up", None)),
        ({"state": "error", "error": "no such device"}, None, ("error", "no such device")),
        ({"state": "error"}, None, ("error", "the child could not make the interface")),
        ({"state": "waiting"}, None, ("waiting", "b is not there yet, or is not ready")),
        ({"state": "waiting", "error": "etcd is away"}, None, ("waiting", "etcd is away")),
        (
            {"state": "declared"},
            None,
            (
                "unknown",
                "no child answers on the pod's node; this is what its labels declare",
            ),
        ),
        ({"by_pod": "down"}, False, ("down", "the pod has set its interface down")),
        (
            {"by_pod": "moved"},
            None,
            ("down", "the pod has moved its interface to another namespace"),
        ),
        (
            {"silent_since": 1.0, "peer_node": "10.0.0.2"},
            True,
            ("down", "10.0.0.2 has not been heard of: the link may lead nowhere"),
        ),
        ({"fault": "its cable is pulled out"}, False, ("down", "its cable is pulled out")),
        ({}, False, ("down", "no carrier: b has gone, or has set its end down")),
        ({"fault": "an MTU of 9000"}, True, ("fault", "an MTU of 9000")),
    ],
)
def test_every_state_has_its_reason(
    link: dict[str, Any], carrier: bool | None, wanted: tuple[str, str | None]
) -> None:
    assert reasons.of({**UP, **link}, carrier) == wanted


def test_counters_are_read_from_the_kernels_table() -> None:
    found = interfaces.parse(TABLE)
    assert found["eth1"] == Interface(1234, 12, 5678, 56)
    assert found["a234567890.1234"] == Interface(9999999999, 1, 7, 8)
    assert len(found) == 3


def pod(name: str, **more: Any) -> dict[str, Any]:
    return {
        "namespace": "default",
        "name": name,
        "node": "node1",
        "netns": f"/x/{name}",
        "attached": True,
        "superseded": False,
        "addresses": ["10.244.0.2/24"],
        "links": [UP],
        **more,
    }


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(status, "collect", lambda directory: {"pods": found})
    counted = Interface(1, 2, 3, 4, True)
    monkeypatch.setattr(
        interfaces, "read", lambda paths: {name: {"eth1": counted} for name in paths}
    )
    return found


def test_simulation_is_seen_with_machines_states_and_counters(pods: list[dict[str, Any]]) -> None:
    pods += [pod("a"), pod("a", namespace="other", node="node2"), pod("c", links=[])]
    found = simulation.Simulation("x", "default").look()
    assert found.pods == {
        "a": PodSeen("node1", ("10.244.0.2/24",)),
        "c": PodSeen("node1", ("10.244.0.2/24",)),
    }
    end = EndSeen("up", None, "veth")
    wanted = replace(end, received_bytes=1, received_packets=2, sent_bytes=3, sent_packets=4)
    assert found.ends == {("a", "eth1"): wanted}
    assert found.trouble is None


def test_pods_that_are_not_well_say_why(pods: list[dict[str, Any]]) -> None:
    pods += [pod("a", attached=False), pod("b", superseded=True)]
    found = simulation.Simulation("x", "default").look().pods
    assert "is not attached" in str(found["a"].reason)
    assert "superseded" in str(found["b"].reason)


def test_simulation_that_has_ended_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(directory: object) -> object:
        raise SimError("no simulation 'x' is running")

    monkeypatch.setattr(status, "collect", gone)
    found = simulation.Simulation("x", "default").look()
    assert found.trouble == "no simulation 'x' is running"
    assert found.pods == {}
