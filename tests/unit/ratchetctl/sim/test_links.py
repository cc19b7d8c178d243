"""Which ends a simulation's links have, and the exit status that says how they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ratchetctl.sim import links
from ratchetctl.sim.directory import PodState


def pod(name: str, pair: str, namespace: str = "default") -> PodState:
    labels = {"ratchet": "true", "ratchet.primary": "true", "ratchet.local_ifname": "in1"}
    labels |= {"ratchet.pair_name": pair, "ratchet.pair_ifname": "in2"}
    labels |= {"ratchet.pod_name": f"the-{name}"}
    return PodState(namespace, name, "u", name, "node1", labels, {}, "/x")


def test_a_link_has_two_ends_and_one_whose_far_pod_is_missing_none_or_its_own() -> None:
    pods = [pod("a", "the-b"), pod("b", "the-c"), pod("c", "the-a", "other")]
    present = {("default", "the-a", "in1"), ("default", "the-b", "in2")}
    assert links.ends(pods, all_pods=False) == present
    missing = {("default", "the-b", "in1"), ("other", "the-c", "in1")}
    assert links.ends(pods, all_pods=True) == present | missing


@pytest.mark.parametrize(
    ("states", "superseded", "status"),
    [
        ((), False, 0),
        (("up", "up"), False, 0),
        (("up", "waiting"), False, 3),
        (("declared",), False, 3),
        (("waiting", "error"), False, 4),
        (("up",), True, 4),
    ],
)
def test_the_exit_status_is_that_of_the_worst_link(
    states: Sequence[str], superseded: bool, status: int
) -> None:
    found: list[dict[str, Any]] = [
        {"superseded": False, "links": [{"state": state}]} for state in states
    ]
    found.append({"superseded": superseded, "links": []})
    assert links.exit_status(found) == status
