"""What is said of nodes, and of the frames between them."""

from __future__ import annotations

from typing import Any

import pytest

from ratchet.annotations import Heard, NodeTold
from ratchetctl.kube.cluster import Agent
from ratchetctl.kube.nodes import Problem, problems, states

TOLD: dict[str, Any] = {
    "version": "0.2.0",
    "network": "net",
    "interface": "eth0",
    "vxlan_port": 4789,
    "mtu_bytes": 1450,
    "etcd": "reachable",
    "watching": True,
    "guard": "on",
}


def agent(number: int, *, ready: bool = True, **changes: Any) -> Agent:
    told = NodeTold(**{**TOLD, "address": f"10.0.0.{number}", **changes})
    name = f"node-{number}"
    return Agent(f"ratchet-{number}", name, name, None, ready, told=told)


def found(
    *agents: Agent, names: tuple[str, ...] = (), results: dict[str, Heard] | None = None
) -> list[Problem]:
    return problems(states(agents, names, results or {}), results)


def heard(number: int, **what: Any) -> dict[str, Heard]:
    return {f"node-{number}": Heard("n", **what)}


def test_nodes_that_are_well_give_no_word() -> None:
    both = {**heard(1), **heard(2)}
    agents = (agent(1), agent(2))
    assert found(*agents, names=("node-1", "node-2"), results=both) == []
    assert [(node.frames, node.others) for node in states(agents, None, both)] == [(1, 1), (1, 1)]


@pytest.mark.parametrize(
    ("changes", "words", "is_grave"),
    [
        ({"address": ""}, "no address for tunnels", True),
        ({"etcd": "away", "etcd_error": "no route"}, "etcd does not answer it: no route", True),
        ({"watching": False}, "the API server does not tell it of pods", True),
        ({"troubles": ("a token ends",)}, "a token ends", True),
        ({"mtu_bytes": None}, "there is no interface eth0", True),
        ({"guard": "off: no nftables"}, "off: no nftables", False),
        ({"vxlan_port": 8472}, "differ in vxlan_port: 4789 on node-1; 8472 on node-2", True),
        ({"mtu_bytes": 1400}, "differ in MTU", False),
        ({"version": "0.1.9"}, "differ in version", False),
        ({"address": "10.0.0.1"}, "the same address for tunnels, 10.0.0.1", True),
    ],
)
def test_what_is_wrong_with_a_node_is_named(
    changes: dict[str, Any], words: str, is_grave: bool
) -> None:
    (one,) = found(agent(1), agent(2, **changes))
    assert words in one.what
    assert one.is_grave is is_grave
    assert one.todo


def test_a_node_without_an_agent_may_be_meant_so() -> None:
    (one,) = found(agent(1), names=("node-1", "node-9"))
    assert (one.where, one.is_grave) == ("node node-9", False)


def test_an_agent_that_is_not_ready_or_says_nothing_is_named() -> None:
    silent = Agent("ratchet-3", "u", "node-3", None, is_ready=True)
    said = found(agent(2, ready=False), silent)
    assert ["not ready" in one.what for one in said] == [True, False]
    assert "older version" in said[1].todo


@pytest.mark.parametrize(
    ("results", "where", "what"),
    [
        (heard(1, silent=("10.0.0.2",)), "from node-2 to node-1", "no frame passes"),
        (heard(1, small_only=("10.0.0.2",)), "from node-2 to node-1", "as the links' MTU do not"),
        (heard(1, fragmented=("10.0.0.2",)), "from node-2 to node-1", "fragmented"),
        (heard(1, unsent={"10.0.0.2": "no route"}), "node node-1", "cannot send to node-2"),
        (heard(1, error="not permitted"), "node node-1", "cannot check: not permitted"),
        ({}, "node node-1", "has not answered"),
    ],
)
def test_the_direction_in_which_frames_do_not_pass_is_named(
    results: dict[str, Heard], where: str, what: str
) -> None:
    (one,) = found(agent(1), agent(2), results={**heard(2), **results})
    assert one.where == where
    assert what in one.what


def test_a_cluster_behind_a_firewall_does_not_fill_the_screen() -> None:
    agents = [agent(number) for number in range(1, 31)]
    results = {
        one.node: Heard(
            "n", silent=tuple(f"10.0.0.{n}" for n in range(1, 31) if f"node-{n}" != one.node)
        )
        for one in agents
    }
    said = found(*agents, results=results)
    assert len(said) == 21
    assert said[-1].where == "850 more directions"
