"""Links in the words of Ratchet CNI v0.1.0, in both directions."""

from __future__ import annotations

import pytest

from ratchet.cni.ip import Address
from ratchet.links import Link
from ratchet_child.model.keys import PodKey
from ratchet_child.model.local import LocalPod
from tests.unit.ratchet_child.hosts import LINK, A, C, Host, pair, primary
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore

OLD = PodKey("default", "old")


def test_v010_hears_of_the_first_of_two_links_with_one_pair(near: Host) -> None:
    second = Link("in3", None, "b", "in4", None)
    near.attach(primary("a1", LINK, second))
    found = near.etcd.contents()
    assert found["association/b/pairifname"] == "in2"
    assert "association/b/links/a:in3" in found


WORDS = ("vxlanid", "pairip", "pairifname", "primaryname")


def two_primaries(near: Host, far: Host) -> dict[str, str]:
    """Have a declare a link on b, and then c, each on a node of its own; v0.1.0's words on b."""
    near.attach(primary())
    to_b = Link("in1", None, "b", "in3", Address.parse("192.168.3.101/24"))
    far.attach(LocalPod(C, "c1", (to_b,)))
    return words(near)


def words(host: Host) -> dict[str, str]:
    found = host.etcd.contents()
    return {one: found[f"association/b/{one}"] for one in WORDS}


def start_again(host: Host) -> None:
    """Have the child of pod a's node start again; `log` has what it does."""
    index = MemoryStore(host.etcd).get(f"nodes/{host.address}/pods/a")
    assert index is not None
    host.earlier[A] = "a1", index.modified
    host.restart()
    host.log.clear()
    host.attach(primary())


def test_v010s_words_of_another_primary_stay_when_a_child_starts_again(
    near: Host, far: Host
) -> None:
    told = two_primaries(near, far)
    assert told["primaryname"] == "c"
    start_again(near)
    assert not [key for key in near.written() if key.startswith("association/b/")]
    assert words(near) == told


def test_v010s_words_are_written_once_when_a_child_starts_again(near: Host) -> None:
    near.attach(primary())
    start_again(near)
    assert not [key for key in near.written() if key.startswith("association/b/")]


@pytest.mark.parametrize("word", WORDS)
def test_v010s_words_that_were_half_written_are_put_right_by_a_child_that_starts_again(
    near: Host, far: Host, word: str
) -> None:
    """Two primaries have written at the same moment, and the child of one has died over it."""
    two_primaries(near, far)
    its_own = {"vxlanid": "11", "pairip": "192.168.2.101", "pairifname": "in2", "primaryname": "a"}
    MemoryStore(near.etcd).set(f"association/b/{word}", its_own[word])
    start_again(near)
    assert words(near) == its_own


def test_a_v010_primary_is_understood(near: Host) -> None:
    for name, value in (
        ("vxlanid", "42"),
        ("pairip", "192.168.2.101"),
        ("pairifname", "in2"),
        ("primaryname", "old"),
    ):
        MemoryStore(near.etcd).set(f"association/b/{name}", value)
    (offer,) = near.attach(pair()).incoming
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
    assert near.attach(pair()).incoming == []


def v010_place(etcd: MemoryEtcd, pod: str) -> None:
    for key, value in (("id", "v010"), ("parentiface", "eth0"), ("parentaddr", "10.0.0.9")):
        MemoryStore(etcd).set(f"association/{pod}/{key}", value)


def v010_primary(etcd: MemoryEtcd, pair_ifname: str) -> None:
    """Write what a node of v0.1.0 does for a primary of pod b."""
    v010_place(etcd, "old")
    for key, value in (
        ("vxlanid", "42"),
        ("pairip", "192.168.9.2"),
        ("pairifname", pair_ifname),
        ("primaryname", "old"),
    ):
        MemoryStore(etcd).set(f"association/b/{key}", value)


def test_a_link_with_v010_stays_when_another_interface_gets_one(near: Host, far: Host) -> None:
    v010_primary(near.etcd, "in9")
    memory = near.attach(pair())
    far.attach(primary())
    near.again(pair(), memory)
    assert {str(one.primary): one.vni for one in memory.incoming} == {"a": 11, "old": 42}

    far.detach(primary())
    near.again(pair(), memory)
    assert [one.primary for one in memory.incoming] == [OLD]


@pytest.mark.parametrize(
    "case", ["same interface", "pair on an old node", "pair not there", "primary moved to ours"]
)
def test_v010_hears_of_the_most_recent_link_otherwise(near: Host, far: Host, case: str) -> None:
    v010_primary(near.etcd, "in2" if case == "same interface" else "in9")
    if case == "pair on an old node":
        v010_place(near.etcd, "b")
    elif case != "pair not there":
        near.attach(pair())
    if case == "primary moved to ours":
        near.attach(LocalPod(OLD, "o1", ()))
    far.attach(primary())
    written = near.etcd.contents()
    assert written["association/b/primaryname"] == "a"
    assert written["association/b/vxlanid"] == "11"


@pytest.mark.parametrize("place", [0, 1], ids=["same node", "other node"])
def test_a_v010_link_ends_when_its_primary_moves_to_a_node_of_ours(
    near: Host, far: Host, place: int
) -> None:
    v010_primary(near.etcd, "in2")
    memory = near.attach(pair())
    assert memory.incoming
    (near, far)[place].attach(LocalPod(OLD, "o1", ()))
    near.again(pair(), memory)
    assert memory.incoming == []


def test_a_v010_link_gets_no_other_vni(near: Host) -> None:
    v010_primary(near.etcd, "in2")
    memory = near.attach(pair())
    before = near.etcd.contents()
    assert not near.pairing.renumber(pair(), memory, memory.incoming[0])
    assert near.etcd.contents() == before


@pytest.mark.parametrize("ours_is", ["primary", "pair"])
def test_peers_on_nodes_of_v010_are_known_to_be_deaf(near: Host, far: Host, ours_is: str) -> None:
    if ours_is == "pair":
        v010_primary(near.etcd, "in2")
        pod, peer = pair(), LocalPod(OLD, "o1", ())
    else:
        v010_place(near.etcd, "b")
        pod, peer = primary(), pair()
    memory = near.attach(pod)
    assert memory.deaf == {peer.key}
    far.attach(peer)
    near.again(pod, memory)
    assert memory.deaf == set()
