"""Who is rung, and what a bell says."""

from __future__ import annotations

from ratchet_child.model.keys import PodKey
from ratchet_child.pairing.ringing import targets
from tests.unit.ratchet_child.hosts import A, Host, primary
from tests.unit.ratchet_child.memory_store import MemoryStore


def test_a_bell_names_those_who_are_to_look() -> None:
    assert targets("a,blue:b") == [A, PodKey("blue", "b")]
    assert targets("") == []


def test_no_bell_is_left_for_a_node_without_ears(near: Host) -> None:
    """A node of v0.1.0: nobody there would remove the bell or its directory."""
    for name, value in (("parentiface", "e"), ("parentaddr", "10.0.0.9"), ("id", "v010")):
        MemoryStore(near.etcd).set(f"association/b/{name}", value)
    near.attach(primary())
    assert not [key for key in near.etcd.contents() if key.startswith("nodes/10.0.0.9")]
    assert not [one for one in near.etcd.directories() if "10.0.0.9" in one]
