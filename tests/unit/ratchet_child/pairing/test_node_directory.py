"""What a node knows of itself."""

from __future__ import annotations

from tests.unit.ratchet_child.hosts import A, B, Host, pair, primary
from tests.unit.ratchet_child.memory_store import MemoryStore


def test_a_node_with_pods_does_not_leave(near: Host) -> None:
    near.attach(pair())
    near.pairing.leave(near.address)
    assert "nodes/10.0.0.1/pods/b" in near.etcd.contents()


def test_a_node_reads_what_it_has_published_and_who_has_rung(near: Host, far: Host) -> None:
    near.attach(primary())
    far.attach(pair())
    MemoryStore(near.etcd).set("nodes/10.0.0.1/pods/spoilt", "{")
    found = near.pairing.node("10.0.0.1")
    assert {key: one.container for key, (one, _) in found.published.items()} == {A: "a1"}
    assert [(by, names) for _, by, names in found.bells] == [(B, [A, B])]
    assert found.index == near.etcd.index
