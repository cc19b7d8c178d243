"""Which keys are nobody's: never one of a node or a pod that lives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ratchet_child.model.keys import PodKey
from ratchet_child.store.api import Entry
from ratchetctl.kube.stale import Living, Snapshot, Stale, find, twice

A, B, C = ("a" * 64), ("b" * 64), ("c" * 64)
HERE, THERE = "10.0.0.1", "10.0.0.2"


def entry(value: str, modified: int = 5) -> Entry:
    return Entry(value, modified, 5)


def published(container: str, *declared: tuple[str, str]) -> Entry:
    return entry(json.dumps({"container": container, "declared": [list(one) for one in declared]}))


def declaration(container: str, **more: Any) -> Entry:
    link = {"ifname": "in1", "pair_ifname": "in2", "vni": 11, "container": container}
    return entry(json.dumps({**link, **more}))


class Keys:
    """Pod `a` on node HERE declares a link on `b` on node THERE; both nodes are heard of."""

    def __init__(self) -> None:
        self.nodes = {f"{HERE}/pods/a": published(A, ("b", "in1")), f"{THERE}/pods/b": published(B)}
        self.association = {
            "a/id": entry(A),
            "a/parentaddr": entry(HERE),
            "a/parentiface": entry("eth0"),
            "b/id": entry(B),
            "b/parentaddr": entry(THERE),
            "b/parentiface": entry("eth0"),
            "b/links/a:in1": declaration(A),
            "b/primaryname": entry("a"),
            "b/vxlanid": entry("11"),
        }
        self.vni = {"11": entry(f"{A} association/b/links/a:in1")}
        self.machines = {f"{HERE}@m1": entry("{}"), f"{THERE}@m2": entry("{}")}
        self.pods: set[str] | None = {"a", "b"}
        self.named: set[str] = set()

    def find(self) -> Stale:
        pods = None if self.pods is None else frozenset(map(PodKey.parse, self.pods))
        snapshot = Snapshot(self.nodes, self.association, self.vni, self.machines)
        return find(snapshot, Living(pods, frozenset(self.named)))

    def names(self) -> set[str]:
        return {f"{one.node} {one.pod}" for one in self.find().pods}


@pytest.fixture
def there() -> Keys:
    return Keys()


def test_what_lives_is_nobodys_business(there: Keys) -> None:
    assert not there.find()


def test_a_node_that_is_heard_of_takes_its_keys_back_itself(there: Keys) -> None:
    there.pods = set()
    assert not there.find()


def test_a_node_that_is_away_keeps_the_pods_that_kubernetes_has(there: Keys) -> None:
    del there.machines[f"{THERE}@m2"]
    assert not there.find()


def test_a_pod_that_no_longer_exists_on_a_node_that_is_gone_is_left(there: Keys) -> None:
    del there.machines[f"{THERE}@m2"]
    there.pods = {"a"}
    assert there.names() == {f"{THERE} b"}


def test_a_pod_that_came_back_elsewhere_leaves_what_the_node_before_had(there: Keys) -> None:
    del there.machines[f"{THERE}@m2"]
    there.association |= {"b/id": entry(C), "b/parentaddr": entry(HERE)}
    there.nodes[f"{HERE}/pods/b"] = published(C)
    assert there.names() == {f"{THERE} b"}
    # But as long as nobody hears of the node to which it has gone, nobody knows.
    there.association["b/parentaddr"] = entry("10.0.0.3")
    assert there.names() == set()


def test_without_kubernetes_only_nodes_that_were_named_count(there: Keys) -> None:
    there.machines.clear()
    there.pods = None
    assert not there.find()
    there.named = {THERE}
    assert there.names() == {f"{THERE} b"}


def test_a_node_that_was_named_by_mistake_and_lives_stays(there: Keys) -> None:
    there.pods, there.named = None, {HERE}
    assert not there.find()


def test_of_two_machines_with_one_address_either_keeps_it(there: Keys) -> None:
    del there.machines[f"{THERE}@m2"]
    there.machines[f"{THERE}@m3"] = entry("{}")
    there.pods = set()
    assert there.names() == set()


def test_a_namespace_is_part_of_a_pods_name(there: Keys) -> None:
    del there.machines[f"{THERE}@m2"]
    there.nodes = {f"{THERE}/pods/lab:b": published(B)}
    there.pods = {"b"}
    assert there.names() == {f"{THERE} lab:b"}


def test_declarations_and_claims_without_a_container_are_left(there: Keys) -> None:
    there.nodes.pop(f"{HERE}/pods/a")
    assert not there.find().declarations  # Kubernetes has the pod
    there.pods = {"b"}
    assert [key for key, _ in there.find().declarations] == ["association/b/links/a:in1"]
    assert not there.find().claims  # which goes by its declaration
    del there.association["b/links/a:in1"]
    assert [key for key, _ in there.find().claims] == ["vni/11"]


def test_what_is_reserved_expires_by_itself(there: Keys) -> None:
    there.nodes.pop(f"{HERE}/pods/a")
    there.pods = {"b"}
    there.association["b/links/a:in1"] = declaration(A, gone=True)
    assert not there.find().declarations
    assert not there.find().claims


def test_v010s_keys_are_told_apart(there: Keys) -> None:
    there.association |= {
        "old/id": entry("d" * 64),
        "old/parentaddr": entry("10.0.0.9"),
        "old/parentiface": entry("eth0"),
        "far/primaryname": entry("old"),
        "far/vxlanid": entry("20"),
        "far/pairip": entry(""),
        "far/pairifname": entry("in2"),
    }
    there.pods = {"a", "b", "old"}
    assert not there.find()
    there.pods = {"a", "b"}
    found = there.find()
    assert not found.pods
    assert set(found.old) == {PodKey("default", "old")}
    assert {key for key, _ in found.old[PodKey("default", "old")]} == {
        *(f"association/old/{one}" for one in ("id", "parentaddr", "parentiface")),
        *(f"association/far/{one}" for one in ("primaryname", "vxlanid", "pairip", "pairifname")),
    }
    # What a node of ours copies for v0.1.0 is the node's.
    there.association["b/primaryname"] = entry("a")
    assert set(there.find().old) == {PodKey("default", "old")}
    there.pods = None
    assert not there.find()


def test_a_name_of_ours_is_never_taken_for_v010s(there: Keys) -> None:
    # A pod that is being published: its node lists it first, and its ID comes last.
    there.pods = set()
    there.nodes.pop(f"{THERE}/pods/b")
    assert set(there.find().old) == set()  # the node that is heard of writes it again


def test_only_what_was_so_twice_and_has_not_changed_is_taken(there: Keys) -> None:
    there.machines.clear()
    there.pods = set()
    there.nodes[f"{THERE}/pods/old"] = published(C)
    first = there.find()
    there.machines[f"{HERE}@m1"] = entry("{}")
    there.nodes[f"{THERE}/pods/b"] = published("e" * 64)
    second = there.find()
    assert {f"{one.node} {one.pod}" for one in twice(first, second).pods} == {f"{THERE} old"}
    changed = Stale(declarations=frozenset({("association/b/links/a:in1", 6)}))
    before = Stale(declarations=frozenset({("association/b/links/a:in1", 5)}))
    assert not twice(before, changed)


@pytest.mark.parametrize("value", ["", "no", "{}", "[1]"])
def test_what_others_have_written_is_left_to_them(there: Keys, value: str) -> None:
    there.machines.clear()
    there.pods = set()
    there.nodes = {f"{THERE}/pods/b": entry(value), f"{THERE}/pods/B!": entry(value)}
    there.association = {"b/links/a:in1": entry(value), "B!/id": entry(value)}
    there.vni = {"11": entry(value), "x": entry("a b")}
    assert not there.find()
