"""What a cluster has against what a topology wants: what is made, changed, made anew, removed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ratchetctl.errors import TopologyError
from ratchetctl.topo import fields, plan, render
from ratchetctl.topo.model import End, File, Link, Node, Port, Topology
from tests.lab import api_apply, api_kinds

A = Node("a", "a", "linux", "alpine:3", env=(("X", "1"),), node_selector=(("side", "left"),))
B = Node("b", "b", "frr", "frr:1", files=(File("/etc/frr/frr.conf", "x\n"),), ports=(Port(80),))
LAB = Topology("lab", (A, B), (Link(End("a", "eth1"), End("b", "eth1"), mtu=1400),))


def objects(topology: Topology = LAB) -> list[dict[str, Any]]:
    return [dict(one) for one in render.objects(topology, "default")]


def live(topology: Topology = LAB, manager: str = plan.MANAGER) -> list[dict[str, Any]]:
    """Return what the API server makes of the objects, with its defaults and its managedFields."""
    found = []
    for one in objects(topology):
        plain = api_kinds.plain(one)
        made = api_apply.apply(None, plain, manager, False)
        api_kinds.default(f"{one['kind'].lower()}s", made)
        made["metadata"]["uid"] = one["metadata"]["name"]
        found.append(made)
    return found


def pods(topology: Topology) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in live(topology) if one["kind"] == "Pod"}


def test_what_is_there_with_the_servers_defaults_is_unchanged() -> None:
    made = plan.plan("lab", objects(), live())
    assert not made
    assert len(made.unchanged) == 4


def test_what_others_added_is_none_of_our_business() -> None:
    there = live()
    there[0]["metadata"]["labels"]["team"] = "blue"
    there[0]["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"] = "[]"
    assert not plan.plan("lab", objects(), there)


def changed(before: Topology, after: Topology, manager: str = plan.MANAGER) -> plan.Plan:
    return plan.plan("lab", objects(after), live(before, manager))


def with_node(node: Node) -> Topology:
    return Topology("lab", (node, B), LAB.links)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (Node("a", "a", "linux", "alpine:3", node_selector=A.node_selector), "env[X]"),
        (Node("a", "a", "linux", "alpine:3", env=(("X", "2"),), node_selector=A.node_selector),
         "spec.containers[node].env[X].value"),
        (Node("a", "a", "linux", "alpine:3", env=A.env), "spec.nodeSelector.side"),
        (Node("a", "a", "linux", "alpine:3", ("sh",), env=A.env, node_selector=A.node_selector),
         "spec.containers[node].command"),
    ],
)  # fmt: skip
def test_what_a_running_pod_cannot_change_makes_it_anew(node: Node, why: str) -> None:
    found = changed(LAB, with_node(node))
    (remade,) = found.remade
    assert why in remade.why
    assert not found.changed


def test_an_image_and_links_change_in_place() -> None:
    node = Node("a", "a", "linux", "alpine:4", env=A.env, node_selector=A.node_selector)
    after = Topology("lab", (node, B), (Link(End("a", "eth1"), End("b", "eth1"), mtu=1300),))
    found = changed(LAB, after)
    assert not found.remade
    (line,) = found.lines()
    assert line == (
        "~ pod a: metadata.labels[ratchet.mtu] 1400 -> 1300,"
        " spec.containers[node].image alpine:3 -> alpine:4"
    )


def test_a_link_that_goes_is_a_field_that_goes() -> None:
    found = changed(LAB, Topology("lab", (A, B), ()))
    (change,) = found.changed
    gone = {fields.shown(path) for path in change.paths}
    assert "metadata.labels[ratchet.pair_name]" in gone
    assert change.contested == ()


def test_what_kubectl_made_is_taken_over_by_force_only() -> None:
    found = changed(LAB, Topology("lab", (A, B), ()), "kubectl-client-side-apply")
    (change,) = [one for one in found.changed if one.obj["metadata"]["name"] == "a"]
    assert (
        ("metadata", "labels", "ratchet.pair_name"),
        "kubectl-client-side-apply",
    ) in change.contested


def test_files_of_a_running_pod_are_told_or_make_it_anew() -> None:
    node = Node("b", "b", "frr", "frr:1", files=(File("/etc/frr/frr.conf", "y\n"),), ports=B.ports)
    after = Topology("lab", (A, node), LAB.links)
    found = changed(LAB, after)
    assert found.stale_files == ["b"]
    assert not found.remade
    found = plan.plan("lab", objects(after), live(LAB), restart=True)
    assert [one.why for one in found.remade] == ["its files changed"]


def test_a_pod_on_its_way_out_is_made_when_it_has_gone() -> None:
    there = live()
    for one in there:
        if one["metadata"]["name"] == "a":
            one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = plan.plan("lab", objects(), there)
    assert [one["metadata"]["name"] for one in found.going] == ["a"]
    assert [plan.named(one) for one in found.created] == ["pod a"]


def test_only_the_topologys_own_is_removed() -> None:
    there = live()
    stranger, other, owned = (copy.deepcopy(there[0]) for _ in range(3))
    for one, name in ((stranger, "stranger"), (other, "other"), (owned, "owned")):
        one["metadata"]["name"] = name
    stranger["metadata"]["labels"] = {}
    other["metadata"]["labels"][render.TOPOLOGY] = "another"
    owned["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "controller": True}]
    found = plan.plan("lab", objects(Topology("lab", (A,), ())), [*there, stranger, other, owned])
    assert {plan.named(one) for one in found.removed} == {"pod b", "ConfigMap b-files", "service b"}


def test_a_name_of_somebody_elses_is_an_error() -> None:
    there = live()
    there[0]["metadata"]["labels"] = {}
    with pytest.raises(TopologyError, match="pod a is in the namespace default already, and no"):
        plan.plan("lab", objects(), there)
