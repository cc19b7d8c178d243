"""What nodes of v0.1.0 write is heard of, and a link that they make no end of is known."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from ratchet.cni.ip import Address
from ratchet.links import Link
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import PodKey
from ratchet_child.model.local import LocalPod, Memory, Node
from ratchet_child.pairing.news import News
from ratchet_child.pairing.protocol import Pairing
from tests.unit.ratchet_child.hosts import LINK, A, B, Host, pair, primary
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore

OLD = PodKey("default", "old")
OLD_NODE = "10.0.0.9"
BEAT_S = 20.0


def place(etcd: MemoryEtcd, pod: str, container: str = "v010", address: str = OLD_NODE) -> None:
    for key, value in (("id", container), ("parentiface", "eth0"), ("parentaddr", address)):
        MemoryStore(etcd).set(f"association/{pod}/{key}", value)


def count(etcd: MemoryEtcd) -> int:
    """Take a VNI as v0.1.0 does."""
    store = MemoryStore(etcd)
    entry = store.get("vxlanid")
    vni = int(entry.value) if entry else 11
    store.set("vxlanid", str(vni + 1))
    return vni


def old_primary(
    etcd: MemoryEtcd, name: str, pair_name: str, ifname: str = "in2", address: str = "10.9.9.2"
) -> int:
    """Write what v0.1.0 writes for a primary."""
    place(etcd, name, f"{name}-1")
    vni = count(etcd)
    for key, value in (
        ("vxlanid", str(vni)),
        ("pairip", address),
        ("pairifname", ifname),
        ("primaryname", name),
    ):
        MemoryStore(etcd).set(f"association/{pair_name}/{key}", value)
    return vni


# Links of ours with a pair on an old node -------------------------------------------------------


def why(memory: Memory, ifname: str = LINK.ifname) -> str:
    return memory.own[ifname].no_far_end


def test_a_pair_on_an_old_node_has_an_end(near: Host) -> None:
    place(near.etcd, "b")
    assert why(near.attach(primary())) == ""


def test_a_primary_on_an_old_node_has_no_pairs_end(near: Host) -> None:
    old_primary(near.etcd, "b", "x")
    assert "is a primary itself" in why(near.attach(primary()))


def test_a_primary_that_comes_later_is_found_when_it_is_looked_at_again(near: Host) -> None:
    place(near.etcd, "b")
    memory = near.attach(primary())
    old_primary(near.etcd, "b", "x")
    near.again(primary(), memory)
    assert "is a primary itself" in why(memory)


def test_the_words_of_an_earlier_container_make_no_primary(near: Host) -> None:
    old_primary(near.etcd, "b", "x")
    place(near.etcd, "b", "b-2")
    assert why(near.attach(primary())) == ""


def test_a_primary_whose_words_another_one_has_written_over_is_known(near: Host) -> None:
    """Where its pair is ours."""
    ours = LocalPod(PodKey("default", "x"), "x1", ())
    old_primary(near.etcd, "b", "x")
    near.attach(ours)
    old_primary(near.etcd, "other", "x")
    assert "is a primary itself" in why(near.attach(primary()))


def test_an_old_pair_has_one_end_for_one_primary(near: Host) -> None:
    place(near.etcd, "b")
    memory = near.attach(primary("a1", LINK, Link("in3", None, "b", "in4", None)))
    assert why(memory) == ""
    assert "one link with a pair: a:in1" in why(memory, "in3")


def test_an_old_pair_that_was_created_again_has_the_end_that_it_was_told_of(
    near: Host, far: Host
) -> None:
    other = LocalPod(
        PodKey("default", "c"), "c1", (Link("x1", None, "b", "in3", LINK.pair_address),)
    )
    place(near.etcd, "b")
    memory = near.attach(primary())
    far.attach(other)
    near.again(primary(), memory)
    assert why(memory) == ""  # either may be there: v0.1.0 takes the first that it sees
    place(near.etcd, "b", "b-2")
    near.again(primary(), memory)
    assert "has made b the pair of 'c'" in why(memory)


def test_an_old_pair_without_an_address_has_no_end(near: Host) -> None:
    place(near.etcd, "b")
    assert "an address" in why(near.attach(primary("a1", Link("in1", None, "b", "in2", None))))


def test_all_links_have_far_ends_when_the_pair_comes_to_a_node_of_ours(
    near: Host, far: Host
) -> None:
    old_primary(near.etcd, "b", "x")
    memory = near.attach(primary())
    far.attach(pair())
    near.again(primary(), memory)
    assert why(memory) == ""


# Links of old primaries with a pair of ours -----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "address", "reason"),
    [
        ("ours", "10.9.9.2", ""),
        ("b", "10.9.9.2", "a name of one letter"),
        ("ours", "", "no link without addresses"),
    ],
)
def test_a_link_that_the_old_primary_makes_no_end_of_is_known(
    near: Host, name: str, address: str, reason: str
) -> None:
    old_primary(near.etcd, "old", name, address=address)
    (offer,) = near.attach(LocalPod(PodKey("default", name), "o1", ())).incoming
    assert bool(offer.no_far_end) == bool(reason)
    assert reason in offer.no_far_end


# What nobody rings for --------------------------------------------------------------------------


class Clock(SystemClock):
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Kept:
    """A node with an identity, whose time comes."""

    def __init__(self, etcd: MemoryEtcd) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.pairing = Pairing(
            MemoryStore(etcd, lambda name, key: self.asked.append(f"{name} {key}")),
            Node("10.0.0.1", "eth1", "/run/x", machine="aa", host="h"),
            is_local=lambda one: False,
            claimed_earlier=lambda one: None,
            clock=self.clock,
        )
        self.memory = Memory()

    def attach(self, pod: LocalPod) -> None:
        self.pairing.machines.register()
        self.look(pod)

    def look(self, pod: LocalPod) -> None:
        self.pairing.publish(pod, self.memory)
        assert self.pairing.look(pod, self.memory, None)

    def beat(self, far_nodes: Collection[str] = ()) -> News:
        self.clock.now += BEAT_S
        news = self.pairing.unrung.look(lambda: far_nodes)
        assert news is not None
        return news


def test_nothing_is_heard_before_it_is_time(etcd: MemoryEtcd) -> None:
    node = Kept(etcd)
    node.attach(pair())
    assert node.pairing.unrung.look(list) is None


def test_a_pod_hears_of_an_old_primary_that_comes_late(etcd: MemoryEtcd) -> None:
    node = Kept(etcd)
    node.attach(pair())
    assert not node.beat().is_for(B, node.memory)
    vni = count(etcd)
    assert not node.beat().is_for(B, node.memory)
    place(etcd, "old")  # it writes the rest some moments after the counter
    for key, value in (
        ("vxlanid", str(vni)),
        ("pairip", "10.9.9.2"),
        ("pairifname", "in2"),
        ("primaryname", "old"),
    ):
        MemoryStore(etcd).set(f"association/b/{key}", value)
    news = node.beat()
    assert news.is_for(B, node.memory)
    assert not news.is_for(A, node.memory)
    node.look(pair())
    assert [one.primary for one in node.memory.incoming] == [OLD]
    assert not node.beat().is_for(B, node.memory)


def test_hearing_of_old_primaries_costs_one_request_while_none_comes(etcd: MemoryEtcd) -> None:
    node = Kept(etcd)
    node.attach(pair())
    old_primary(etcd, "old", "x")
    for _ in range(3):
        node.beat()
    node.asked.clear()
    node.beat()
    assert node.asked == ["set machines/10.0.0.1@aa", "tree machines", "get vxlanid"]


def test_a_pod_knows_the_links_that_its_own_nodes_tell_old_ones_of(
    etcd: MemoryEtcd, far: Host
) -> None:
    node = Kept(etcd)
    node.attach(pair())
    far.attach(primary())
    node.look(pair())
    MemoryStore(etcd).set("vxlanid", "20")
    assert not node.beat().is_for(B, node.memory)


@pytest.mark.parametrize("is_drained", [True, False], ids=["drained", "with its pods"])
def test_a_node_that_was_set_back_to_v010_is_asked_again_whether_it_rings(
    etcd: MemoryEtcd, far: Host, is_drained: bool
) -> None:
    node = Kept(etcd)
    far.attach(pair())
    node.attach(primary())
    assert not node.memory.deaf
    if is_drained:
        far.detach(pair())
        far.pairing.leave("10.0.0.2")
    place(etcd, "b", "b-old", "10.0.0.2")
    assert node.beat().doubtful == {"10.0.0.2"}
    node.look(primary())
    assert node.memory.deaf == {B}


def test_a_node_that_is_there_is_not_doubted(etcd: MemoryEtcd, far: Host) -> None:
    node = Kept(etcd)
    far.attach(pair())
    MemoryStore(etcd).set("machines/10.0.0.2@bb", '{"host":"x","since":0}', ttl_s=60)
    node.attach(primary())
    assert node.beat().doubtful == frozenset()


def test_a_silent_node_of_ours_is_no_old_one(etcd: MemoryEtcd, far: Host) -> None:
    node = Kept(etcd)
    far.attach(pair())
    node.attach(primary())
    assert node.beat().doubtful == {"10.0.0.2"}
    node.look(primary())
    assert not node.memory.deaf


def test_words_of_strangers_are_passed_over(etcd: MemoryEtcd, near: Host) -> None:
    store = MemoryStore(etcd)
    for key in (
        "association/..x/vxlanid",
        "association/no pod/primaryname",
        "association/y/v010/z",
    ):
        store.set(key, "nonsense")
    store.set("association/y/vxlanid", "x")
    place(etcd, "b")
    assert why(near.attach(primary())) == ""


def test_the_address_of_an_old_links_end_is_kept(etcd: MemoryEtcd, near: Host) -> None:
    old_primary(etcd, "old", "ours")
    ours = LocalPod(PodKey("default", "ours"), "o1", ())
    (offer,) = near.attach(ours).incoming
    assert offer.link.pair_address == Address.parse("10.9.9.2/24")
