"""No VNI is ever used twice, whatever becomes of the counter."""

from __future__ import annotations

import threading

import pytest

from ratchet.errors import StoreError
from ratchet_child.model import keys
from ratchet_child.model.keys import OldLink
from ratchet_child.pairing.vni import Vnis
from ratchet_child.store.api import Entry
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd()


def vnis_of(etcd: MemoryEtcd) -> Vnis:
    return Vnis(MemoryStore(etcd))


class _OneByOne(MemoryStore):
    """For several threads: the in-memory etcd itself carries out one request at a time."""

    _lock = threading.Lock()

    def get(self, key: str) -> Entry | None:
        with self._lock:
            return super().get(key)

    def create(self, key: str, value: str) -> Entry | None:
        with self._lock:
            return super().create(key, value)

    def swap(self, key: str, value: str, modified: int, ttl_s: int | None = None) -> Entry | None:
        with self._lock:
            return super().swap(key, value, modified, ttl_s)

    def tree(self, key: str, *, recursive: bool = False) -> tuple[dict[str, Entry], int]:
        with self._lock:
            return super().tree(key, recursive=recursive)


def test_the_first_is_11_and_then_they_count_up(etcd: MemoryEtcd) -> None:
    vnis = vnis_of(etcd)
    assert [vnis.take("c", f"k{number}") for number in range(3)] == [11, 12, 13]
    assert etcd.contents()["vxlanid"] == "14"
    assert etcd.contents()["vni/12"] == "c k1"


def test_two_nodes_never_take_the_same(etcd: MemoryEtcd) -> None:
    one, other = vnis_of(etcd), vnis_of(etcd)
    taken = [node.take("c", f"k{number}") for number in range(20) for node in (one, other)]
    assert len(set(taken)) == 40


def test_nodes_that_meet_take_some_in_stock(etcd: MemoryEtcd) -> None:
    class Late(MemoryStore):
        swaps = 0

        def swap(
            self, key: str, value: str, modified: int, ttl_s: int | None = None
        ) -> Entry | None:
            Late.swaps += 1
            if Late.swaps == 1:
                taken.append(other.take("d", "k"))
            return super().swap(key, value, modified, ttl_s)

    other, late = vnis_of(etcd), Vnis(Late(etcd))
    taken = [other.take("d", "first")]
    taken += [late.take("c", f"k{number}") for number in range(8)]
    assert Late.swaps == 2
    assert sorted(taken) == [*range(11, 21)]


def test_a_node_by_itself_leaves_no_gaps(etcd: MemoryEtcd) -> None:
    vnis = vnis_of(etcd)
    assert [vnis.take("c", f"k{number}") for number in range(30)] == [*range(11, 41)]


def test_many_threads_take_different_ones(etcd: MemoryEtcd) -> None:
    vnis = Vnis(_OneByOne(etcd))
    taken: list[int] = []
    threads = [
        threading.Thread(target=lambda number=number: taken.append(vnis.take("c", f"k{number}")))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 12


@pytest.mark.parametrize("text", ["11", "", "x", "-1", "0", "3", "99999999999", "12.5", "१२"])
def test_a_counter_set_back_or_spoilt_does_not_repeat_vnis_in_use(
    etcd: MemoryEtcd, text: str
) -> None:
    vnis = vnis_of(etcd)
    before = [vnis.take("c", f"k{number}") for number in range(3)]
    MemoryStore(etcd).set("vxlanid", text)
    after = [vnis.take("c", f"l{number}") for number in range(3)]
    assert len({*before, *after}) == 6
    assert all(keys.FIRST_VNI <= one <= keys.LAST_VNI for one in after)


def test_a_lost_counter_does_not_repeat_vnis_in_use(etcd: MemoryEtcd) -> None:
    first = vnis_of(etcd).take("c", "k")
    MemoryStore(etcd).remove_tree("vxlanid")
    assert vnis_of(etcd).take("c", "l") != first


def test_the_counter_goes_round_past_the_last_vni(etcd: MemoryEtcd) -> None:
    vnis = vnis_of(etcd)
    assert vnis.take("c", "k") == 11
    MemoryStore(etcd).set("vxlanid", str(keys.LAST_VNI))
    assert vnis.take("c", "l") == keys.LAST_VNI
    assert vnis.take("c", "m") == 12


def test_when_all_are_in_use_it_is_an_error(
    etcd: MemoryEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LAST_VNI", 13)
    vnis = vnis_of(etcd)
    assert [vnis.take("c", f"k{number}") for number in range(3)] == [11, 12, 13]
    with pytest.raises(StoreError):
        vnis.take("c", "one too many")


def test_release_never_harms_another_containers_claim(etcd: MemoryEtcd) -> None:
    vnis = vnis_of(etcd)
    taken = vnis.take("c", "k")
    vnis.release(taken, "other", "k")
    vnis.release(taken, "c", "l")
    assert f"vni/{taken}" in etcd.contents()
    vnis.release(taken, "c", "k")
    vnis.release(taken, "c", "k")
    assert f"vni/{taken}" not in etcd.contents()


def test_a_released_vni_is_not_taken_at_once(etcd: MemoryEtcd) -> None:
    """The kernel may still have a device with it, in a namespace that is being taken down."""
    vnis = vnis_of(etcd)
    first = vnis.take("c", "k")
    vnis.release(first, "c", "k")
    assert vnis.take("c", "k") != first


def test_what_a_killed_process_had_claimed_is_found_again(etcd: MemoryEtcd) -> None:
    first = vnis_of(etcd).take("c", "k")
    assert vnis_of(etcd).take("c", "k", again=True) == first
    assert vnis_of(etcd).take("c", "l", again=True) != first


def test_release_all_gives_back_what_one_container_has_claimed(etcd: MemoryEtcd) -> None:
    vnis = vnis_of(etcd)
    for key in ("k", "l"):
        vnis.take("c", key)
    kept = [vnis.take("cc", "k"), vnis.take("c", "other"), vnis.take("c", "l")]
    vnis.release_all("c", lambda key: key != "other", but=(kept[2],))
    assert [key for key in etcd.contents() if key.startswith("vni/")] == [
        f"vni/{vni}" for vni in kept
    ]


def test_going_round_past_many_claims_takes_one_listing(
    etcd: MemoryEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LAST_VNI", 60)
    asked: list[str] = []
    vnis = Vnis(MemoryStore(etcd, lambda name, key: asked.append(f"{name} {key}")))
    taken = [vnis.take("c", f"k{number}") for number in range(50)]
    vnis.release(taken[0], "c", "k0")
    MemoryStore(etcd).set("vxlanid", "30")
    asked.clear()
    assert vnis.take("c", "new") == taken[0]
    assert asked.count("tree vni") == 1


def test_a_claim_passes_to_the_heir_of_who_declared_the_link(etcd: MemoryEtcd) -> None:
    vnis = vnis_of(etcd)
    taken = vnis.take("old", "k")
    assert vnis.claim_again(taken, "new", "k", predecessor="old")
    assert etcd.contents()[f"vni/{taken}"] == "new k"
    assert vnis.claim_again(taken, "new", "k", predecessor="old")


def test_a_claim_never_passes_to_another_link_nor_past_another_heir(etcd: MemoryEtcd) -> None:
    vnis = vnis_of(etcd)
    taken = vnis.take("old", "k")
    assert not vnis.claim_again(taken, "old", "l", predecessor="old")
    assert vnis.claim_again(taken, "first", "k", predecessor="old")
    assert not vnis.claim_again(taken, "second", "k", predecessor="old")
    assert etcd.contents()[f"vni/{taken}"] == "first k"


def test_a_lost_claim_is_made_again(etcd: MemoryEtcd) -> None:
    assert vnis_of(etcd).claim_again(11, "c", "k")
    assert etcd.contents() == {"vni/11": "c k"}


# Beside nodes of v0.1.0 --------------------------------------------------------------------------


def old_primary(etcd: MemoryEtcd, pair: str) -> int:
    """Take a VNI as v0.1.0 does: read, write without comparing, and claim nothing."""
    store = MemoryStore(etcd)
    entry = store.get("vxlanid")
    vni = int(entry.value) if entry else 11
    store.set("vxlanid", str(vni + 1))
    store.set(f"association/{pair}/vxlanid", str(vni))
    return vni


def test_the_vni_of_an_old_link_is_not_taken_when_the_counter_is_set_back(
    etcd: MemoryEtcd,
) -> None:
    """An old node that has read before others took theirs sets it back so."""
    vnis = vnis_of(etcd)
    assert vnis.take("c", "k0") == 11
    old = [old_primary(etcd, f"p{number}") for number in range(3)]
    assert old == [12, 13, 14]
    MemoryStore(etcd).set("vxlanid", "12")
    assert [vnis.take("c", f"k{number}") for number in range(1, 4)] == [15, 16, 17]


def test_a_process_that_starts_knows_of_the_old_links(etcd: MemoryEtcd) -> None:
    assert old_primary(etcd, "p") == 11
    MemoryStore(etcd).set("vxlanid", "11")
    assert vnis_of(etcd).take("c", "k") == 12


def test_what_is_no_vni_is_passed_over(etcd: MemoryEtcd) -> None:
    store = MemoryStore(etcd)
    store.set("vxlanid", "11")
    for number, value in enumerate(("", "x", "9" * 40, "-1")):
        store.set(f"association/p{number}/vxlanid", value)
    assert vnis_of(etcd).take("c", "k") == 11


def test_old_links_are_listed_once_for_as_long_as_no_old_node_takes_another(
    etcd: MemoryEtcd,
) -> None:
    old_primary(etcd, "p")
    asked: list[str] = []
    vnis = Vnis(MemoryStore(etcd, lambda name, key: asked.append(f"{name} {key}")))
    for number in range(5):
        vnis.take("c", f"k{number}")
    assert asked.count("tree recursively association") == 1
    old_primary(etcd, "q")
    vnis.take("c", "k5")
    assert asked.count("tree recursively association") == 2


def test_without_old_nodes_nothing_is_listed(etcd: MemoryEtcd) -> None:
    asked: list[str] = []
    vnis = Vnis(MemoryStore(etcd, lambda name, key: asked.append(f"{name} {key}")))
    for number in range(5):
        vnis.take("c", f"k{number}")
    assert not [one for one in asked if one.startswith("tree")]


def test_a_vni_that_an_old_node_took_at_the_same_moment_is_found_shared(etcd: MemoryEtcd) -> None:
    vnis, store = vnis_of(etcd), MemoryStore(etcd)
    for pair in ("p", "q"):
        vni = vnis.take("c", f"association/{pair}/links/a:in1")
        store.set(f"association/{pair}/vxlanid", str(vni))  # as ours tell old nodes of a link
    assert vnis.shared() == frozenset()
    store.set("vxlanid", "13")  # the old node had read 12 before
    assert vnis.shared() == frozenset()
    store.set("association/r/vxlanid", "12")
    assert vnis.shared() == {12}


def test_shared_vnis_cost_one_request_while_no_old_node_takes_one(etcd: MemoryEtcd) -> None:
    asked: list[str] = []
    vnis = Vnis(MemoryStore(etcd, lambda name, key: asked.append(name)))
    vnis.take("c", "association/p/links/a:in1")
    vnis.shared()
    vnis.shared()
    asked.clear()
    for _ in range(5):
        vnis.shared()
    assert asked == ["get"] * 5


def wipe(etcd: MemoryEtcd) -> None:
    """Do what the clean-up job does."""
    for key in ("vxlanid", "association", "vni"):
        MemoryStore(etcd).remove_tree(key)


@pytest.mark.parametrize("next_is", ["ours", "another node of ours", "an old node"])
def test_vnis_that_old_tunnels_may_have_are_not_taken_when_all_keys_were_removed(
    etcd: MemoryEtcd, next_is: str
) -> None:
    vnis, other = vnis_of(etcd), vnis_of(etcd)
    vnis.take("c", "k")
    old = [old_primary(etcd, f"p{number}") for number in range(3)]
    assert old == [12, 13, 14]
    vnis.shared()  # as every node asks now and then
    wipe(etcd)
    if next_is == "another node of ours":  # which has just been started
        other.take("c", "l0")
    elif next_is == "an old node":
        old_primary(etcd, "q")
    assert [vnis.take("c", f"l{number}") for number in range(1, 3)] == [15, 16]
    assert other.take("c", "l3") == 17


def test_the_vni_of_an_old_link_that_another_one_was_written_over_is_not_taken(
    etcd: MemoryEtcd,
) -> None:
    store = MemoryStore(etcd)
    store.set("association/p/v010/one", OldLink("b1", "one-1", 11, "in2", None, 1).dumps())
    store.set("vxlanid", "11")
    assert vnis_of(etcd).take("c", "k") == 12


def test_the_vni_of_an_old_link_that_another_one_was_written_over_is_found_shared(
    etcd: MemoryEtcd,
) -> None:
    vnis, store = vnis_of(etcd), MemoryStore(etcd)
    assert vnis.take("c", "association/q/links/a:in1") == 11
    store.set("association/p/v010/one", OldLink("b1", "one-1", 11, "in2", None, 1).dumps())
    assert vnis.shared() == {11}
