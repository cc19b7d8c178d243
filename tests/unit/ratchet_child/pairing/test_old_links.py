"""Links with old primaries stay until these go, whatever v0.1.0 writes over them."""

from __future__ import annotations

import json

import pytest

from ratchet.cni.ip import Address
from ratchet_child.model.keys import OldLink, PodKey
from ratchet_child.model.local import LocalPod, Memory
from tests.unit.ratchet_child.hosts import LINK, Host, pair, primary
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore

OLD_NODE = "10.0.0.9"


def place(etcd: MemoryEtcd, pod: str, container: str, address: str = OLD_NODE) -> None:
    for key, value in (("id", container), ("parentiface", "eth0"), ("parentaddr", address)):
        MemoryStore(etcd).set(f"association/{pod}/{key}", value)


def old_primary(etcd: MemoryEtcd, name: str, vni: int, ifname: str, container: str = "") -> None:
    """Write what v0.1.0 writes for a primary of pod b."""
    place(etcd, name, container or f"{name}-1")
    for key, value in (
        ("vxlanid", str(vni)),
        ("pairip", "192.168.9.2"),
        ("pairifname", ifname),
        ("primaryname", name),
    ):
        MemoryStore(etcd).set(f"association/b/{key}", value)


def links(memory: Memory) -> list[tuple[str, int | None, str]]:
    """Return primary, VNI and interface of each link on a pod, the first one first."""
    in_order = sorted(memory.incoming, key=lambda one: one.created)
    return [(one.primary.name, one.vni, one.link.pair_ifname) for one in in_order]


@pytest.mark.parametrize("ifname", ["in2", "in9"])
def test_the_link_of_the_first_old_primary_stays_beside_the_second(near: Host, ifname: str) -> None:
    old_primary(near.etcd, "one", 41, "in2")
    memory = near.attach(pair())
    old_primary(near.etcd, "two", 42, ifname)
    near.again(pair(), memory)
    assert links(memory) == [("one", 41, "in2"), ("two", 42, ifname)]
    assert memory.deaf == {PodKey("default", "one"), PodKey("default", "two")}
    assert memory.incoming[0].link.pair_address == Address.parse("192.168.9.2/24")


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "seen for the first time"])
@pytest.mark.parametrize("words", [1, 2, 3])
def test_a_link_is_not_mixed_with_one_that_is_being_written_over_it(
    near: Host, words: int, is_known: bool
) -> None:
    old_primary(near.etcd, "one", 41, "in2")
    memory = near.attach(pair()) if is_known else None
    place(near.etcd, "two", "two-1")
    new = [("vxlanid", "42"), ("pairip", "192.168.8.2"), ("pairifname", "in9")]
    for key, value in new[:words]:
        MemoryStore(near.etcd).set(f"association/b/{key}", value)
    if memory is None:
        memory = near.attach(pair())
    else:
        near.again(pair(), memory)
    assert links(memory) == ([("one", 41, "in2")] if is_known else [])
    old_primary(near.etcd, "two", 42, "in9")
    near.again(pair(), memory)
    assert links(memory)[-1] == ("two", 42, "in9")
    assert len(links(memory)) == (2 if is_known else 1)


def test_it_stays_when_the_child_is_restarted(near: Host) -> None:
    old_primary(near.etcd, "one", 41, "in2")
    near.attach(pair())
    old_primary(near.etcd, "two", 42, "in2")
    near.restart()
    assert links(near.attach(pair())) == [("one", 41, "in2"), ("two", 42, "in2")]


@pytest.mark.parametrize("how", ["removed", "created again", "on a node of ours"])
def test_it_ends_when_its_primary_goes(near: Host, far: Host, how: str) -> None:
    old_primary(near.etcd, "one", 41, "in2")
    memory = near.attach(pair())
    old_primary(near.etcd, "two", 42, "in2")
    near.again(pair(), memory)
    if how == "removed":
        MemoryStore(near.etcd).remove_tree("association/one")
    elif how == "created again":
        place(near.etcd, "one", "one-2")
    else:
        far.attach(LocalPod(PodKey("default", "one"), "one-2", ()))
    near.again(pair(), memory)
    assert links(memory) == [("two", 42, "in2")]
    assert "association/b/v010/one" not in near.etcd.contents()


def test_a_first_primary_that_comes_again_has_one_link(near: Host) -> None:
    old_primary(near.etcd, "one", 41, "in2")
    memory = near.attach(pair())
    old_primary(near.etcd, "two", 42, "in2")
    near.again(pair(), memory)
    old_primary(near.etcd, "one", 43, "in2", "one-2")
    near.again(pair(), memory)
    assert links(memory) == [("two", 42, "in2"), ("one", 43, "in2")]


def test_a_primary_of_ours_gives_way_to_the_first_old_link(near: Host, far: Host) -> None:
    old_primary(near.etcd, "one", 41, "in2")
    memory = near.attach(pair())
    own = far.attach(primary())
    near.again(pair(), memory)
    assert links(memory)[0] == ("one", 41, "in2")
    assert own.rivals[LINK.ifname].primary == PodKey("default", "one")


def test_nothing_is_left_of_it_when_the_pair_goes(near: Host) -> None:
    old_primary(near.etcd, "one", 41, "in2")
    memory = near.attach(pair())
    old_primary(near.etcd, "two", 42, "in9")
    near.again(pair(), memory)
    near.detach(pair())
    assert not [key for key in near.etcd.contents() if "/v010/" in key]
    assert "association/b/v010" not in near.etcd.directories()
    assert near.etcd.contents()["association/b/primaryname"] == "two"  # the old node's
    assert links(near.attach(pair("b2"))) == [("two", 42, "in9")]


def test_another_container_of_the_pair_is_told_of_the_most_recent_link_only(
    near: Host, far: Host
) -> None:
    """The first old primary's tunnel leads to the node on which the pair was."""
    old_primary(near.etcd, "one", 41, "in2")
    near.attach(pair())
    old_primary(near.etcd, "two", 42, "in9")
    assert links(far.attach(pair("b2"))) == [("two", 42, "in9")]
    near.detach(pair())
    assert near.etcd.contents()["association/b/id"] == "b2"


def test_an_old_link_is_written_down_once(near: Host) -> None:
    old_primary(near.etcd, "one", 41, "in2")
    memory = near.attach(pair())
    near.log.clear()
    near.again(pair(), memory)
    assert near.written() == []


def test_a_node_that_is_set_back_to_v010_is_heard_in_its_words(near: Host, far: Host) -> None:
    """Its pods were not deleted before: what it had published stands for good."""
    memory = near.attach(pair())
    far.attach(primary())
    near.again(pair(), memory)
    assert not memory.deaf
    old_primary(near.etcd, "a", 42, "in2", "a-old")
    near.again(pair(), memory)
    assert links(memory) == [("a", 42, "in2")]
    assert memory.deaf == {PodKey("default", "a")}


SANE = {
    "container": "b1",
    "primary_container": "one-1",
    "vni": 5,
    "pair_ifname": "in2",
    "pair_address": None,
    "since": 1,
}
WRONG = {
    "container": "",
    "primary_container": 5,
    "vni": 0,
    "pair_ifname": "a/b",
    "pair_address": "x",
    "since": "1",
}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", *(json.dumps({**SANE, key: WRONG[key]}) for key in WRONG)]
)
def test_what_strangers_write_there_is_no_link(near: Host, text: str) -> None:
    place(near.etcd, "one", "one-1")
    MemoryStore(near.etcd).set("association/b/v010/one", text)
    with pytest.raises(ValueError):
        OldLink.loads(text)
    assert near.attach(pair()).incoming == []


def test_an_old_link_reads_as_it_was_written() -> None:
    for address in (None, Address.parse("192.168.9.2/24")):
        link = OldLink("b1", "one-1", 41, "in2", address, 7)
        assert OldLink.loads(link.dumps()) == link


def test_the_vni_of_a_link_of_ours_is_no_old_links(near: Host, far: Host) -> None:
    """Both nodes have written their words at the same moment, and the old one's VNI is lost."""
    memory = near.attach(pair())
    far.attach(primary())
    old_primary(near.etcd, "one", 11, "in9")
    near.again(pair(), memory)
    assert links(memory) == [("a", 11, "in2")]
    assert not [key for key in near.etcd.contents() if "/v010/" in key]
