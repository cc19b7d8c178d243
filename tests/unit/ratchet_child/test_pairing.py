"""One node's side of the protocol, step by step: what is written, in which order, for whom."""

from __future__ import annotations

import json

import pytest

from ratchet.cni.ip import Address
from ratchet.labels import Link
from ratchet_child import keys
from ratchet_child.keys import Declaration, PodKey, Published
from ratchet_child.local import LocalPod, Memory, Node
from ratchet_child.pairing import Pairing
from ratchet_child.plan import Place
from ratchet_child.ringing import targets
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore

A, B, C = (PodKey("default", name) for name in "abc")
LINK = Link(
    "in1",
    Address.parse("192.168.2.100/24"),
    "b",
    "in2",
    Address.parse("192.168.2.101/24"),
)


class Host:
    """A node with its pairing; `log` has the requests that it has made."""

    def __init__(self, etcd: MemoryEtcd, address: str) -> None:
        self.etcd = etcd
        self.address = address
        self.local: set[PodKey] = set()
        self.earlier: dict[PodKey, tuple[str, int]] = {}
        self.log: list[tuple[str, str]] = []
        self.restart()

    def restart(self) -> None:
        store = MemoryStore(self.etcd, lambda name, key: self.log.append((name, key)))
        self.pairing = Pairing(
            store,  # type: ignore[arg-type]
            Node(self.address, "eth1"),
            is_local=self.local.__contains__,
            claimed_earlier=self.earlier.get,
        )

    def attach(self, pod: LocalPod) -> Memory:
        """Publish, look, ring."""
        memory = Memory()
        self.local.add(pod.key)
        self.again(pod, memory)
        return memory

    def again(self, pod: LocalPod, memory: Memory) -> None:
        self.pairing.publish(pod, memory)
        while not self.pairing.look(pod, memory, None):
            self.pairing.publish(pod, memory)
        self.pairing.ring(pod, memory)

    def detach(self, pod: LocalPod) -> None:
        self.local.discard(pod.key)
        declared = tuple((link.pair, link.ifname) for link in pod.links)
        self.pairing.withdraw(pod.key, Published(pod.container, declared), self.address)

    def written(self) -> list[str]:
        return [key for name, key in self.log if name in ("set", "create", "swap")]


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd()


@pytest.fixture
def near(etcd: MemoryEtcd) -> Host:
    return Host(etcd, "10.0.0.1")


@pytest.fixture
def far(etcd: MemoryEtcd) -> Host:
    return Host(etcd, "10.0.0.2")


def primary(container: str = "a1", *links: Link) -> LocalPod:
    return LocalPod(A, container, links or (LINK,))


def pair(container: str = "b1") -> LocalPod:
    return LocalPod(B, container, ())


# Publish ------------------------------------------------------------------------------------------


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


def test_v010_hears_of_the_first_of_two_links_with_one_pair(near: Host) -> None:
    second = Link("in3", None, "b", "in4", None)
    near.attach(primary("a1", LINK, second))
    found = near.etcd.contents()
    assert found["association/b/pairifname"] == "in2"
    assert "association/b/links/a:in3" in found


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


def test_a_new_container_keeps_the_vni_of_its_link(near: Host) -> None:
    near.attach(primary("a1"))
    near.attach(primary("a2"))
    found = near.etcd.contents()
    assert Declaration.loads(found["association/b/links/a:in1"], "b").vni == 11
    assert found["vni/11"].startswith("a2 ")
    assert "vni/12" not in found


def test_two_links_never_have_one_vni_although_the_counter_is_set_back(near: Host) -> None:
    near.attach(primary())
    MemoryStore(near.etcd).set("vxlanid", "11")
    near.attach(LocalPod(C, "c1", (Link("x", None, "b", "y", None),)))
    found = near.etcd.contents()
    assert Declaration.loads(found["association/b/links/c:x"], "b").vni != 11


# Look ---------------------------------------------------------------------------------------------


def test_a_pair_sees_the_link_and_where_the_primary_is(near: Host, far: Host) -> None:
    near.attach(primary())
    memory = far.attach(pair())
    (offer,) = memory.offered
    assert (offer.primary, offer.link, offer.vni) == (A, LINK, 11)
    assert memory.places == {A: Place("a1", "10.0.0.1")}


def test_a_primary_sees_where_the_pair_is(near: Host, far: Host) -> None:
    far.attach(pair())
    memory = near.attach(primary())
    assert memory.places == {B: Place("b1", "10.0.0.2")}
    assert memory.declared["in1"].vni == 11


def test_pods_in_two_namespaces_do_not_see_each_other(near: Host, far: Host) -> None:
    far.attach(LocalPod(PodKey("blue", "b"), "b1", ()))
    assert near.attach(primary()).places == {}


@pytest.mark.parametrize("missing", ["id", "parentaddr", "parentiface"])
def test_a_pod_that_is_half_published_is_not_there(near: Host, far: Host, missing: str) -> None:
    far.attach(pair())
    MemoryStore(near.etcd).remove_tree(f"association/b/{missing}")
    assert near.attach(primary()).places == {}


@pytest.mark.parametrize(
    "value", ["", "{", "[]", '{"container": "c"}', '{"container":"c","vni":0,"ifname":"x"}']
)
def test_a_declaration_that_is_not_one_is_passed_over(near: Host, value: str) -> None:
    MemoryStore(near.etcd).set("association/b/links/a:in1", value)
    assert near.attach(pair()).offered == []


def test_a_declaration_that_contradicts_its_key_is_passed_over(near: Host) -> None:
    text = Declaration("c", 11, LINK).dumps()
    MemoryStore(near.etcd).set("association/b/links/a:other", text)
    MemoryStore(near.etcd).set("association/b/links/:in1", text)
    assert near.attach(pair()).offered == []


def test_ones_own_unreadable_declaration_is_written_anew(near: Host) -> None:
    MemoryStore(near.etcd).set("association/b/links/a:in1", "nonsense")
    memory = near.attach(primary())
    text = near.etcd.contents()["association/b/links/a:in1"]
    assert Declaration.loads(text, "b") == Declaration("a1", memory.declared["in1"].vni or 0, LINK)


def test_a_v010_primary_is_understood(near: Host) -> None:
    for name, value in (
        ("vxlanid", "42"),
        ("pairip", "192.168.2.101"),
        ("pairifname", "in2"),
        ("primaryname", "old"),
    ):
        MemoryStore(near.etcd).set(f"association/b/{name}", value)
    (offer,) = near.attach(pair()).offered
    assert (offer.primary, offer.vni) == (PodKey("default", "old"), 42)
    assert (offer.link.pair_ifname, offer.link.pair_address) == (
        "in2",
        Address.parse("192.168.2.101/24"),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vxlanid", ""),
        ("vxlanid", "0"),
        ("vxlanid", "16777216"),
        ("vxlanid", "-5"),
        ("vxlanid", "x"),
        ("pairip", "x"),
        ("pairifname", ""),
        ("primaryname", ""),
    ],
)
def test_v010_keys_that_make_no_sense_are_no_link(near: Host, name: str, value: str) -> None:
    right = {
        "vxlanid": "42",
        "pairip": "192.168.2.101",
        "pairifname": "in2",
        "primaryname": "old",
    }
    for key, text in {**right, name: value}.items():
        MemoryStore(near.etcd).set(f"association/b/{key}", text)
    assert near.attach(pair()).offered == []


def test_a_primary_of_ours_is_not_seen_twice_for_its_v010_keys(near: Host, far: Host) -> None:
    near.attach(primary())
    assert len(far.attach(pair()).offered) == 1


def test_keys_that_somebody_removed_are_published_again(near: Host) -> None:
    memory = near.attach(primary())
    before = set(near.etcd.contents()) - {"vxlanid"}
    for directory in ("association", "nodes", "vni"):
        MemoryStore(near.etcd).remove_tree(directory)
    assert not near.pairing.look(primary(), memory, None)
    near.again(primary(), memory)
    after = {key.replace("vni/12", "vni/11") for key in near.etcd.contents()} - {"vxlanid"}
    assert after == before


# Two containers of one name -----------------------------------------------------------------------


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
    assert memory.declared["in1"].vni is not None


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


# Ring ---------------------------------------------------------------------------------------------


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


# Withdraw -----------------------------------------------------------------------------------------


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


def test_undeclaring_one_of_two_links_leaves_the_other(near: Host) -> None:
    second = Link("in3", None, "b", "in4", None)
    pod = primary("a1", LINK, second)
    near.attach(pod)
    near.pairing.undeclare(pod, [("b", "in3")])
    found = near.etcd.contents()
    assert "association/b/links/a:in1" in found
    assert "association/b/links/a:in3" not in found
    assert found["association/b/primaryname"] == "a"


def test_a_node_with_pods_does_not_leave(near: Host) -> None:
    near.attach(pair())
    near.pairing.leave(near.address)
    assert "nodes/10.0.0.1/pods/b" in near.etcd.contents()


# Renumber -----------------------------------------------------------------------------------------


def test_either_node_may_give_a_link_another_vni(near: Host, far: Host) -> None:
    near_memory = near.attach(primary())
    far_memory = far.attach(pair())
    far.pairing.renumber(pair(), far_memory, far_memory.offered[0])
    found = near.etcd.contents()
    assert Declaration.loads(found["association/b/links/a:in1"], "b") == Declaration("a1", 12, LINK)
    assert found["association/b/vxlanid"] == "12"
    assert "vni/11" not in found
    near.again(primary(), near_memory)
    assert near_memory.declared["in1"].vni == 12
    assert near.etcd.contents()["vni/12"].startswith("a1 ")


def test_a_link_that_was_renumbered_by_the_far_node_is_left_alone(near: Host, far: Host) -> None:
    near_memory = near.attach(primary())
    far_memory = far.attach(pair())
    far.pairing.renumber(pair(), far_memory, far_memory.offered[0])
    before = near.etcd.contents()
    near.pairing.renumber(primary(), near_memory, near_memory.declared["in1"])
    assert near.etcd.contents() == before


# What a node hears --------------------------------------------------------------------------------


def test_a_node_reads_what_it_has_published_and_who_has_rung(near: Host, far: Host) -> None:
    near.attach(primary())
    far.attach(pair())
    MemoryStore(near.etcd).set("nodes/10.0.0.1/pods/spoilt", "{")
    found = near.pairing.node("10.0.0.1")
    assert {key: one.container for key, (one, _) in found.published.items()} == {A: "a1"}
    assert [(by, names) for _, by, names in found.bells] == [(B, [A, B])]
    assert found.index == near.etcd.index


def test_every_key_stays_below_the_pods_and_nodes_it_is_about(near: Host) -> None:
    near.attach(primary())
    roots = {key.partition("/")[0] for key in near.etcd.contents()}
    assert roots == {"association", "nodes", "vni", "vxlanid"}
    assert keys.association(A).count("/") == 1
