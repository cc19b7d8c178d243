"""What a node knows of itself."""

from __future__ import annotations

import pytest

from ratchet_child.model.links import Place
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


def test_a_node_that_has_published_a_primary_says_which_links_it_is_going_to_declare(
    near: Host, far: Host
) -> None:
    far.attach(primary())
    memory = near.attach(pair())
    ifname = primary().links[0].ifname
    assert near.pairing.is_declaring(A, ifname, B, memory)
    assert not near.pairing.is_declaring(A, "other0", B, memory)
    assert not near.pairing.is_declaring(A, ifname, A, memory)


def test_what_a_node_wrote_of_an_earlier_container_says_nothing_of_the_next(
    near: Host, far: Host
) -> None:
    far.attach(primary())
    memory = near.attach(pair())
    memory.places[A] = Place("a2", far.address)
    assert not near.pairing.is_declaring(A, primary().links[0].ifname, B, memory)


@pytest.mark.parametrize("address", ["10.0.0.2", "10.0.0.9"], ids=["nonsense", "nothing"])
def test_a_node_that_wrote_nothing_readable_is_declaring_nothing(
    near: Host, far: Host, address: str
) -> None:
    far.attach(primary())
    memory = near.attach(pair())
    MemoryStore(near.etcd).set("nodes/10.0.0.2/pods/a", "{")
    memory.places[A] = Place("a1", address)
    assert not near.pairing.is_declaring(A, primary().links[0].ifname, B, memory)
