"""Links as their primaries' nodes write them: VNIs, heirs, what is taken back."""

from __future__ import annotations

import json

import pytest

from ratchet.errors import StoreError
from ratchet.links import Link
from ratchet_child.model.keys import Declaration
from ratchet_child.model.local import LocalPod, Memory
from tests.unit.ratchet_child.hosts import LINK, A, C, Host, pair, primary
from tests.unit.ratchet_child.memory_store import MemoryStore


def test_a_new_container_keeps_the_vni_of_its_link(near: Host) -> None:
    near.attach(primary("a1"))
    near.attach(primary("a2"))
    found = near.etcd.contents()
    assert Declaration.loads(found["association/b/links/a:in1"], "b").vni == 11
    assert found["vni/11"].startswith("a2 ")
    assert "vni/12" not in found


def test_a_container_that_is_attached_again_claims_nothing_meanwhile(near: Host) -> None:
    near.attach(primary())
    before = near.etcd.contents()
    near.log.clear()
    near.attach(primary())
    assert near.etcd.contents() == before
    assert not any(key.startswith("vni/") and key != "vni/11" for _, key in near.log)
    assert ("swap", "vxlanid") not in near.log


def test_a_claim_whose_answer_was_lost_is_given_back_also_when_it_is_attached_again(
    near: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MemoryStore.create

    def lose_the_answer(store: MemoryStore, key: str, value: str) -> None:
        create(store, key, value)
        raise StoreError(f"create {key}", "timed out")

    memory = Memory()
    near.local.add(A)
    with monkeypatch.context() as patch:
        patch.setattr(
            MemoryStore,
            "create",
            lambda store, key, value: (lose_the_answer if key.startswith("vni/") else create)(
                store, key, value
            ),
        )
        with pytest.raises(StoreError):
            near.pairing.publish(primary(), memory)
    assert "vni/11" in near.etcd.contents()
    MemoryStore(near.etcd).set("association/b/links/a:in1", "nonsense")  # so it takes another
    near.attach(primary())
    near.detach(primary())
    assert not any(key.startswith("vni/") for key in near.etcd.contents())


def test_two_links_never_have_one_vni_although_the_counter_is_set_back(near: Host) -> None:
    near.attach(primary())
    MemoryStore(near.etcd).set("vxlanid", "11")
    near.attach(LocalPod(C, "c1", (Link("x", None, "b", "y", None),)))
    found = near.etcd.contents()
    assert Declaration.loads(found["association/b/links/c:x"], "b").vni != 11


def test_ones_own_unreadable_declaration_is_written_anew(near: Host) -> None:
    MemoryStore(near.etcd).set("association/b/links/a:in1", "nonsense")
    memory = near.attach(primary())
    text = near.etcd.contents()["association/b/links/a:in1"]
    assert Declaration.loads(text, "b") == Declaration("a1", memory.own["in1"].vni or 0, LINK)


def test_undeclaring_one_of_two_links_leaves_the_other(near: Host) -> None:
    second = Link("in3", None, "b", "in4", None)
    pod = primary("a1", LINK, second)
    near.attach(pod)
    near.pairing.undeclare(pod, [("b", "in3")])
    found = near.etcd.contents()
    assert "association/b/links/a:in1" in found
    assert "association/b/links/a:in3" not in found
    assert found["association/b/primaryname"] == "a"


def test_withdrawing_one_primary_leaves_the_other_ones_link(near: Host, far: Host) -> None:
    other = LocalPod(C, "c1", (Link("x1", None, "b", "in9", None),))
    near.attach(primary())
    far.attach(other)
    near.detach(primary())
    found = near.etcd.contents()
    assert "association/b/links/c:x1" in found
    assert found["association/b/primaryname"] == "c"
    assert json.loads(found["association/b/links/c:x1"])["vni"] == int(
        found["association/b/vxlanid"]
    )


def test_either_node_may_give_a_link_another_vni(near: Host, far: Host) -> None:
    near_memory = near.attach(primary())
    far_memory = far.attach(pair())
    far.pairing.renumber(pair(), far_memory, far_memory.incoming[0])
    found = near.etcd.contents()
    assert Declaration.loads(found["association/b/links/a:in1"], "b") == Declaration("a1", 12, LINK)
    assert found["association/b/vxlanid"] == "12"
    assert "vni/11" not in found
    near.again(primary(), near_memory)
    assert near_memory.own["in1"].vni == 12
    assert near.etcd.contents()["vni/12"].startswith("a1 ")


def test_a_link_that_was_renumbered_by_the_far_node_is_left_alone(near: Host, far: Host) -> None:
    near_memory = near.attach(primary())
    far_memory = far.attach(pair())
    far.pairing.renumber(pair(), far_memory, far_memory.incoming[0])
    before = near.etcd.contents()
    near.pairing.renumber(primary(), near_memory, near_memory.own["in1"])
    assert near.etcd.contents() == before
