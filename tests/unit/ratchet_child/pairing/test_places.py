"""Whose a pod's name is, with two containers that bear one."""

from __future__ import annotations

from ratchet.cni.dataclasses import replace
from ratchet_child.model.keys import Published
from ratchet_child.model.local import LocalPod
from tests.unit.ratchet_child.hosts import Host, pair, primary
from tests.unit.ratchet_child.memory_store import MemoryStore


def test_a_pair_publishes_its_place_with_the_id_last(near: Host) -> None:
    near.attach(pair())
    found = near.etcd.contents()
    assert Published.loads(found.pop("nodes/10.0.0.1/pods/b")) == Published("b1", ())
    assert found == {
        "association/b/id": "b1",
        "association/b/parentaddr": "10.0.0.1",
        "association/b/parentiface": "eth1",
    }
    assert near.written()[0] == "nodes/10.0.0.1/pods/b"
    assert near.written()[-1] == "association/b/id"


def test_the_container_that_came_last_has_the_name(near: Host, far: Host) -> None:
    memory = near.attach(primary("a1"))
    far.attach(primary("a2"))
    near.again(primary("a1"), memory)
    assert memory.superseded
    assert near.etcd.contents()["association/a/parentaddr"] == "10.0.0.2"


def test_the_node_of_the_container_that_was_there_is_rung(near: Host, far: Host) -> None:
    near.attach(primary("a1"))
    far.attach(primary("a2"))
    assert near.etcd.contents()["nodes/10.0.0.1/bell/a"] == "a"


def test_a_superseded_pod_comes_back_when_the_name_is_free(near: Host, far: Host) -> None:
    memory = near.attach(primary("a1"))
    far.attach(primary("a2"))
    near.again(primary("a1"), memory)
    far.detach(primary("a2"))
    near.again(primary("a1"), memory)
    assert not memory.superseded
    assert near.etcd.contents()["association/a/id"] == "a1"
    assert memory.own["in1"].vni is not None


def waiting(container: str) -> LocalPod:
    return replace(primary(container), stands_by=True)


def there(host: Host) -> None:
    MemoryStore(host.etcd).set(f"machines/{host.address}@m1", '{"host": "h", "since": 1}')


def test_a_pod_that_stands_by_writes_nothing_while_another_node_has_the_name(
    near: Host, far: Host
) -> None:
    far.attach(primary("a1"))
    there(far)
    before = near.etcd.contents()
    memory = near.attach(waiting("a2"))
    near.again(waiting("a2"), memory)
    assert memory.superseded
    assert near.etcd.contents() == before


def test_a_pod_that_stands_by_no_longer_takes_the_name(near: Host, far: Host) -> None:
    older = far.attach(primary("a1"))
    there(far)
    memory = near.attach(waiting("a2"))
    memory = near.attach(primary("a2"))
    far.again(primary("a1"), older)
    assert not memory.superseded
    assert older.superseded
    assert near.etcd.contents()["association/a/parentaddr"] == "10.0.0.1"


def test_a_pod_that_stands_by_has_a_name_that_gets_free(near: Host, far: Host) -> None:
    far.attach(primary("a1"))
    there(far)
    memory = near.attach(waiting("a2"))
    far.detach(primary("a1"))
    near.again(waiting("a2"), memory)
    assert not memory.superseded
    assert near.etcd.contents()["association/a/id"] == "a2"


def test_a_pod_stands_by_for_no_node_that_is_gone(near: Host, far: Host) -> None:
    far.attach(primary("a1"))
    there(far)
    memory = near.attach(waiting("a2"))
    MemoryStore(near.etcd).remove_tree(f"machines/{far.address}@m1")
    near.again(waiting("a2"), memory)
    assert not memory.superseded
    assert near.etcd.contents()["association/a/id"] == "a2"


def test_a_pod_that_stands_by_keeps_a_name_that_it_has(near: Host) -> None:
    near.attach(primary("a1"))
    memory = near.attach(waiting("a1"))
    assert not memory.superseded


def test_a_place_that_was_disturbed_is_mended_and_told(near: Host, far: Host) -> None:
    far.attach(pair())
    memory = near.attach(primary())
    MemoryStore(near.etcd).remove_tree("association/a/parentiface")
    MemoryStore(near.etcd).remove_tree("nodes/10.0.0.2/bell")
    near.again(primary(), memory)
    assert near.etcd.contents()["association/a/parentiface"] == "eth1"
    assert "nodes/10.0.0.2/bell/a" in near.etcd.contents()


def test_a_late_withdrawal_never_touches_the_new_container(near: Host, far: Host) -> None:
    near.attach(primary("a1"))
    far.attach(primary("a2"))
    before = near.etcd.contents()
    near.detach(primary("a1"))
    after = near.etcd.contents()
    assert {key for key in before.keys() - after.keys() if not key.startswith("nodes/")} == set()
    assert "nodes/10.0.0.1/pods/a" not in after
