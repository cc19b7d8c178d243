"""Which machine has an address, and which ones are heard of."""

from __future__ import annotations

import hashlib
import json

import pytest

from ratchet.errors import StoreError
from ratchet_child.model import keys
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.local import LocalPod, Node
from ratchet_child.pairing.machines import Machines
from ratchet_child.pairing.node_directory import NodeDirectory
from ratchet_child.store.api import Store
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore

HERE, THERE = "10.0.0.1", "10.0.0.2"
BEAT_S = 20.0


class Clock(SystemClock):
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class World:
    """Machines over one etcd, with one clock."""

    def __init__(self) -> None:
        self.etcd = MemoryEtcd()
        self.clock = Clock()
        self.asked: list[str] = []
        self.refuses: str | None = None
        self.store: Store = MemoryStore(self.etcd, self._ask)

    def _ask(self, name: str, _key: str) -> None:
        self.asked.append(name)
        if name == self.refuses:
            raise StoreError("no answer", "")

    def machine(self, identity: str, address: str = HERE) -> Machines:
        return Machines(self.store, self.node(identity, address), self.clock)

    def node(self, identity: str, address: str = HERE) -> Node:
        return Node(address, "eth0", "/run/x", machine=identity, host=f"host-{identity}")

    def keys(self) -> list[str]:
        return [key for key in self.etcd.contents() if key.startswith("machines/")]

    def add_many(self) -> None:
        """Have 999 other machines there, for good."""
        for number in range(999):
            key = keys.machine(f"10.1.{number // 250}.{number % 250}", "m")
            self.store.set(key, '{"host":"h","since":1}')

    def publish(self, identity: str, address: str) -> None:
        pod = LocalPod(PodKey("default", "far"), "c1", ())
        NodeDirectory(self.store, self.node(identity, address)).enlist(pod)


@pytest.fixture
def world() -> World:
    return World()


def nobody() -> list[str]:
    return []


def test_the_later_of_two_machines_with_one_address_waits_and_both_say_so(world: World) -> None:
    first, second = world.machine("aa"), world.machine("bb")
    first.register()
    second.register()
    assert (first.waits, second.waits) == (False, True)
    world.clock.now += BEAT_S
    assert first.keep(nobody) is False
    assert not first.waits
    for one, other in ((first, "host-bb (bb)"), (second, "host-aa (aa)")):
        assert one.trouble is not None
        assert other in one.trouble
        assert f"parent_address {HERE}" in one.trouble


def test_the_order_stays_when_keys_are_renewed_and_when_a_child_is_restarted(world: World) -> None:
    first, second = world.machine("bb"), world.machine("aa")
    first.register()
    second.register()
    for _ in range(3):
        world.clock.now += BEAT_S
        first.keep(nobody)
        second.keep(nobody)
    again = world.machine("bb")
    again.register()
    assert not again.waits
    second.keep(nobody)
    assert second.waits


def test_of_two_that_register_at_the_same_moment_one_waits(world: World) -> None:
    """Each has read before either has written."""
    first, second = world.machine("aa"), world.machine("bb")
    for one in (first, second, first):
        one._write()
        one._read_everybody()
    assert (first.waits, second.waits) == (False, True)


@pytest.mark.parametrize("ends_by", ["leaving", "expiring"])
def test_the_one_that_waits_goes_on_when_the_other_has_gone(world: World, ends_by: str) -> None:
    first, second = world.machine("aa"), world.machine("bb")
    first.register()
    second.register()
    if ends_by == "leaving":
        first.leave(HERE)
    else:
        world.etcd.expire()
    world.clock.now += BEAT_S
    assert second.keep(nobody) is True
    assert not second.waits
    assert second.trouble is None


def test_a_machine_with_pods_of_another_network_stays(world: World) -> None:
    own = world.machine("aa")
    own.register()
    world.publish("aa", HERE)
    own.leave(HERE)
    assert world.keys() == [f"machines/{HERE}@aa"]
    world.clock.now += BEAT_S
    assert own.is_due


def test_a_machine_leaves_though_another_one_has_pods_at_its_address(world: World) -> None:
    own = world.machine("aa")
    own.register()
    world.publish("bb", HERE)
    own.leave(HERE)
    assert world.keys() == []


def test_a_pod_that_is_published_while_the_machine_leaves_registers_it_again(
    world: World,
) -> None:
    """It is written after the look at the pods, and before the key is removed."""

    def publish(name: str, _key: str) -> None:
        if name == "remove_tree":
            world.publish("aa", HERE)

    leaving = Machines(MemoryStore(world.etcd, publish), world.node("aa"), world.clock)
    leaving.register()
    leaving.leave(HERE)
    assert world.keys() == []
    assert f"nodes/{HERE}/pods/far" in world.etcd.contents()
    leaving.register()
    assert world.keys() == [f"machines/{HERE}@aa"]


def test_other_addresses_and_nonsense_are_no_rivals(world: World) -> None:
    world.machine("bb", THERE).register()
    for name, value in (
        (f"{HERE}@cc", "no JSON"),
        (f"{HERE}@dd", "[]"),
        (f"{HERE}@ee", json.dumps({"host": 1, "since": 1})),
        (f"{HERE}@ff", json.dumps({"host": "h", "since": True})),
        (HERE, json.dumps({"host": "h", "since": 1})),
    ):
        world.store.set(f"machines/{name}", value)
    own = world.machine("aa")
    own.register()
    assert own.trouble is None


def test_a_machine_keeps_one_key_which_goes_when_it_leaves(world: World) -> None:
    own = world.machine("aa")
    own.register()
    own.register()
    assert world.keys() == [f"machines/{HERE}@aa"]
    own.leave(HERE)
    assert world.keys() == []
    assert "machines" not in world.etcd.directories()


def test_nothing_is_asked_before_it_is_time_nor_without_pods(world: World) -> None:
    own = world.machine("aa")
    world.clock.now += BEAT_S
    own.keep(nobody)
    assert world.asked == []
    own.register()
    world.asked.clear()
    world.clock.now += 1
    own.keep(nobody)
    assert world.asked == []
    world.clock.now += BEAT_S
    own.keep(lambda: [f"10.0.1.{n}" for n in range(200)] and [])
    assert len(world.asked) == 2


def test_many_machines_take_turns_in_reading_each_others_keys(world: World) -> None:
    own = world.machine("aa")
    world.add_many()
    own.register()
    world.asked.clear()
    for _ in range(10):
        world.clock.now += BEAT_S
        own.keep(nobody)
        assert (own.alive is not None) == (world.asked[-1] == "tree")
    # 1,000 machines: each of them once in 100 seconds, and it is heard of each time.
    assert world.asked.count("set") == 10
    assert world.asked.count("tree") == 2


def test_many_machines_that_start_together_do_not_read_together(world: World) -> None:
    world.add_many()
    identities = [hashlib.sha256(bytes([n])).hexdigest()[:16] for n in range(20)]
    some = [world.machine(one, f"10.2.0.{n}") for n, one in enumerate(identities)]
    for one in some:
        one.register()
    reading = []
    for _ in range(5):
        world.clock.now += BEAT_S
        for one in some:
            one.keep(nobody)
        reading.append(sum(one.alive is not None for one in some))
    assert max(reading) < len(some) / 2
    assert sum(reading) >= len(some)


def test_one_of_many_that_could_not_renew_its_key_in_time_reads_at_once(world: World) -> None:
    """By then another machine may have its address, and publish."""
    world.add_many()
    own = world.machine("aa")
    own.register()
    world.clock.now += BEAT_S
    own.keep(nobody)
    world.clock.now += 3 * BEAT_S
    own.keep(nobody)
    assert own.alive is not None


def test_a_reading_that_fails_is_tried_again_at_the_next_look(world: World) -> None:
    own = world.machine("aa")
    own.register()
    world.clock.now += BEAT_S
    world.refuses = "tree"
    with pytest.raises(StoreError):
        own.keep(nobody)
    assert own.is_due
    world.refuses = None
    own.keep(nobody)
    assert own.alive == frozenset({HERE})
    assert not own.is_due


def test_one_that_waits_among_many_machines_goes_on_at_once(world: World) -> None:
    first, second = world.machine("aa"), world.machine("bb")
    world.add_many()
    first.register()
    second.register()
    first.leave(HERE)
    world.clock.now += BEAT_S
    assert second.waits
    assert second.keep(nobody)
    assert not second.waits


def test_a_node_that_has_come_since_the_last_reading_is_not_silent(world: World) -> None:
    own, far = world.machine("aa"), world.machine("bb", THERE)
    world.add_many()
    own.register()
    world.publish("bb", THERE)
    far.register()
    for _ in range(10):
        world.clock.now += BEAT_S
        own.keep(lambda: [THERE])
        assert own.silent_since(THERE) is None


def test_a_node_that_is_heard_no_more_is_silent_until_it_is_heard_again(world: World) -> None:
    own, far = world.machine("aa"), world.machine("bb", THERE)
    world.publish("bb", THERE)
    own.register()
    far.register()
    for _ in range(3):
        world.clock.now += BEAT_S
        own.keep(lambda: [THERE])
        assert own.silent_since(THERE) is None
    world.etcd.expire()
    world.clock.now += BEAT_S
    own.keep(lambda: [THERE])
    since = own.silent_since(THERE)
    assert since == world.clock.now
    world.asked.clear()
    world.clock.now += BEAT_S
    own.keep(lambda: [THERE])
    assert world.asked == ["set", "tree", "tree"]  # it may have been set back to v0.1.0
    assert own.silent_since(THERE) == since
    far.register()
    world.clock.now += BEAT_S
    far.keep(nobody)
    own.keep(lambda: [THERE])
    assert own.silent_since(THERE) is None


def test_a_node_that_was_set_back_to_v010_is_not_silent(world: World) -> None:
    """It keeps no key, and what it had published went when it was drained."""
    own, far = world.machine("aa"), world.machine("bb", THERE)
    world.publish("bb", THERE)
    own.register()
    far.register()
    world.etcd.expire()
    for _ in range(2):
        world.clock.now += BEAT_S
        own.keep(lambda: [THERE])
    assert own.silent_since(THERE) is not None
    MemoryStore(world.etcd).remove_tree(f"nodes/{THERE}")
    world.clock.now += BEAT_S
    own.keep(lambda: [THERE])
    assert own.silent_since(THERE) is None


def test_a_node_of_v010_that_is_upgraded_can_be_silent(world: World) -> None:
    own, far = world.machine("aa"), world.machine("bb", THERE)
    own.register()
    world.clock.now += BEAT_S
    own.keep(lambda: [THERE])
    world.publish("bb", THERE)
    far.register()
    world.clock.now += BEAT_S
    own.keep(lambda: [THERE])
    world.etcd.expire()
    world.clock.now += BEAT_S
    own.keep(lambda: [THERE])
    assert own.silent_since(THERE) is not None


def test_a_silence_while_etcd_was_away_means_nothing(world: World) -> None:
    own, far = world.machine("aa"), world.machine("bb", THERE)
    world.publish("bb", THERE)
    own.register()
    far.register()
    world.etcd.expire()
    world.clock.now += 120
    own.keep(lambda: [THERE])
    assert own.silent_since(THERE) is None


def test_a_node_of_an_earlier_version_is_not_silent(world: World) -> None:
    world.publish("", THERE)
    own = world.machine("aa")
    own.register()
    for _ in range(3):
        world.clock.now += BEAT_S
        own.keep(lambda: [THERE])
    assert own.silent_since(THERE) is None


def test_what_another_machine_has_published_is_not_this_ones(world: World) -> None:
    one, other = (NodeDirectory(world.store, world.node(name)) for name in ("aa", "bb"))
    one.enlist(LocalPod(PodKey("default", "a"), "c1", ()))
    other.enlist(LocalPod(PodKey("default", "b"), "c2", ()))
    world.store.set(f"nodes/{HERE}/pods/c", Published("c3", ()).dumps())  # of an earlier version
    assert {key.name for key in one.read(HERE).published} == {"a", "c"}
    assert {key.name for key in other.read(HERE).published} == {"b", "c"}
