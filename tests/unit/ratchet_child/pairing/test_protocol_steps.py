"""One node's side of the protocol: what is written, in which order, for whom, and taken back."""

from __future__ import annotations

import pytest

from ratchet_child.model import keys
from ratchet_child.model.keys import Declaration, PodKey
from ratchet_child.model.links import Place
from ratchet_child.model.local import LocalPod
from tests.unit.ratchet_child.hosts import LINK, A, B, Host, pair, primary
from tests.unit.ratchet_child.memory_store import MemoryStore


def test_a_primary_declares_its_link_in_both_languages(near: Host) -> None:
    near.attach(primary())
    found = near.etcd.contents()
    assert {name: found[f"association/b/{name}"] for name in ("vxlanid", "pairip")} == {
        "vxlanid": "11",
        "pairip": "192.168.2.101",
    }
    assert found["association/b/pairifname"] == "in2"
    assert found["association/b/primaryname"] == "a"
    assert Declaration.loads(found["association/b/links/a:in1"], "b") == Declaration("a1", 11, LINK)
    assert found["vni/11"] == "a1 association/b/links/a:in1"
    assert found["vxlanid"] == "12"
    assert near.written()[-1] == "association/b/primaryname"


def test_a_primary_is_published_before_it_declares(near: Host) -> None:
    near.attach(primary())
    written = near.written()
    assert written.index("association/a/id") < written.index("association/b/links/a:in1")


def test_publishing_again_writes_nothing(near: Host) -> None:
    memory = near.attach(primary())
    before = near.etcd.contents()
    near.log.clear()
    near.again(primary(), memory)
    assert near.written() == []
    assert near.etcd.contents() == before


def test_a_restarted_process_writes_nothing_that_stands(near: Host) -> None:
    near.attach(primary())
    before = near.etcd.contents()
    near.earlier[A] = ("a1", near.etcd.index)
    near.log.clear()
    near.restart()
    near.attach(primary())
    assert near.etcd.contents() == before
    assert set(near.written()) <= {key for key in before if key.startswith(("assoc", "vni/"))}


def test_a_pair_sees_the_link_and_where_the_primary_is(near: Host, far: Host) -> None:
    near.attach(primary())
    memory = far.attach(pair())
    (offer,) = memory.incoming
    assert (offer.primary, offer.link, offer.vni) == (A, LINK, 11)
    assert memory.places == {A: Place("a1", "10.0.0.1")}


def test_a_primary_sees_where_the_pair_is(near: Host, far: Host) -> None:
    far.attach(pair())
    memory = near.attach(primary())
    assert memory.places == {B: Place("b1", "10.0.0.2")}
    assert memory.own["in1"].vni == 11


def test_pods_in_two_namespaces_do_not_see_each_other(near: Host, far: Host) -> None:
    far.attach(LocalPod(PodKey("blue", "b"), "b1", ()))
    assert near.attach(primary()).places == {}


@pytest.mark.parametrize("missing", ["id", "parentaddr", "parentiface"])
def test_a_pod_that_is_half_published_is_not_there(near: Host, far: Host, missing: str) -> None:
    far.attach(pair())
    MemoryStore(near.etcd).remove_tree(f"association/b/{missing}")
    assert near.attach(primary()).places == {}


def test_keys_that_somebody_removed_are_published_again(near: Host) -> None:
    memory = near.attach(primary())
    before = set(near.etcd.contents()) - {"vxlanid"}
    for directory in ("association", "nodes", "vni"):
        MemoryStore(near.etcd).remove_tree(directory)
    assert not near.pairing.look(primary(), memory, None)
    near.again(primary(), memory)
    after = {key.replace("vni/12", "vni/11") for key in near.etcd.contents()} - {"vxlanid"}
    assert after == before


def test_the_second_to_come_rings_the_first(near: Host, far: Host) -> None:
    near.attach(primary())
    assert not [key for key in near.etcd.contents() if "/bell/" in key]
    far.attach(pair())
    assert near.etcd.contents()["nodes/10.0.0.1/bell/b"] == "a,b"


def test_nobody_is_rung_twice_for_one_piece_of_news(near: Host, far: Host) -> None:
    near.attach(primary())
    memory = far.attach(pair())
    far.log.clear()
    far.again(pair(), memory)
    assert not [key for key in far.written() if "/bell/" in key]


def test_a_peer_that_turns_out_to_be_elsewhere_is_rung(near: Host, far: Host) -> None:
    """Its name was taken by a container on another node, which had looked before we declared."""
    near.attach(pair("b1"))
    far.attach(pair("b2"))
    memory = near.attach(primary())
    assert not [key for key in near.etcd.contents() if key.startswith("nodes/10.0.0.2/bell")]
    near.local.discard(B)
    near.again(primary(), memory)
    assert "nodes/10.0.0.2/bell/a" in near.etcd.contents()


def test_withdrawing_everything_leaves_the_counter(near: Host, far: Host) -> None:
    near.attach(primary())
    far.attach(pair())
    near.detach(primary())
    near.pairing.leave(near.address)
    far.detach(pair())
    far.pairing.leave(far.address)
    near.etcd.expire()
    assert near.etcd.contents() == {"vxlanid": "12"}
    assert near.etcd.directories() == []


def test_withdrawing_is_safe_twice_and_tells_the_peers(near: Host, far: Host) -> None:
    far.attach(pair())
    near.attach(primary())
    MemoryStore(near.etcd).remove_tree("nodes/10.0.0.2/bell")
    near.detach(primary())
    assert near.etcd.contents()["nodes/10.0.0.2/bell/a"] == "a,b"
    before = near.etcd.contents()
    near.detach(primary())
    assert near.etcd.contents() == before


def test_a_pair_that_goes_leaves_the_declaration_standing(near: Host, far: Host) -> None:
    near.attach(primary())
    far.attach(pair())
    far.detach(pair())
    found = near.etcd.contents()
    assert "association/b/links/a:in1" in found
    assert "association/b/id" not in found
    assert "association/b/parentaddr" not in found


def test_every_key_stays_below_the_pods_and_nodes_it_is_about(near: Host) -> None:
    near.attach(primary())
    roots = {key.partition("/")[0] for key in near.etcd.contents()}
    assert roots == {"association", "nodes", "vni", "vxlanid"}
    assert keys.association(A).count("/") == 1
