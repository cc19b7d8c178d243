"""The pairing protocol beside a node of v0.1.0, with its words in any order among our steps.

The nodes of ours run the real engine; see `protocol_model`. The old node writes its keys one by one
and does nothing else. Nobody rings for it: our pods look again where they would do so by
themselves, or when the counter of VNIs tells of it.
"""

from __future__ import annotations

import random

import pytest

from tests.unit.ratchet_child.memory_store import MemoryStore
from tests.unit.ratchet_child.protocol_model.kernel import Device
from tests.unit.ratchet_child.protocol_model.world import Pod, World, link

OLD_NODE = "10.0.0.9"
PRIMARY = Pod("aa", (link("in1", "bb", "in2"),))
PAIR = Pod("bb")  # v0.1.0 knows no names of one letter
Words = list[tuple[str, str]]


def words(name: str, vni: int, ifname: str) -> Words:
    """Return what v0.1.0 writes for a primary of pod bb, in its order."""
    return [
        (f"association/{name}/id", f"{name}-1"),
        (f"association/{name}/parentiface", "eth0"),
        (f"association/{name}/parentaddr", OLD_NODE),
        ("vxlanid", str(vni + 1)),
        ("association/bb/vxlanid", str(vni)),
        ("association/bb/pairip", "10.0.0.2"),
        ("association/bb/pairifname", ifname),
        ("association/bb/primaryname", name),
    ]


def write(world: World, what: Words) -> None:
    for key, value in what:
        MemoryStore(world.etcd).set(key, value)


def look(world: World) -> None:
    """Have every pod look again, and come to rest."""
    for node in world.nodes:
        if node.engine is not None:
            node.engine.look_again()
    world.settle()


def step(world: World, count: int) -> None:
    for _ in range(count):
        for choice in world.choices()[:1]:
            world.take(choice)


def ends(world: World, container: str = "bb1") -> dict[str, Device]:
    return world.spaces.by_path[f"/netns/{container}"].devices


def is_there(device: Device | None, vni: int) -> bool:
    return device is not None and (device.vni, str(device.remote), device.has_carrier) == (
        vni,
        OLD_NODE,
        True,
    )


@pytest.mark.parametrize("ifname", ["in2", "in9"])
def test_the_first_old_link_outlives_the_second_and_a_kill_at_any_step(ifname: str) -> None:
    for steps in range(30):
        with World(1) as world:
            (node,) = world.nodes
            write(world, words("one", 41, "in2"))
            world.attach(node, PAIR, "bb1")
            world.settle()
            device = ends(world)["in2"]
            write(world, words("two", 42, ifname))
            assert node.engine is not None
            node.engine.look_again()
            step(world, steps)
            world.crash(node)
            world.start(node)
            look(world)
            assert ends(world)["in2"] is device
            assert is_there(device, 41)
            assert ifname == "in2" or is_there(ends(world)[ifname], 42)

            write(world, [("association/one/id", "one-2")])  # it was created again, as a pair
            look(world)
            assert is_there(ends(world)[ifname], 42)
            world.detach(node, "bb1")
            world.settle()
            left = world.etcd.contents()
            assert not [key for key in left if "/v010/" in key or "bb1" in left[key]]


def test_a_kill_while_the_pair_goes_leaves_nothing_of_its_old_links() -> None:
    for steps in range(30):
        with World(1) as world:
            (node,) = world.nodes
            write(world, words("one", 41, "in2"))
            world.attach(node, PAIR, "bb1")
            world.settle()
            write(world, words("two", 42, "in9"))
            look(world)
            world.detach(node, "bb1")
            step(world, steps)
            world.crash(node)
            world.start(node)
            world.settle()
            left = world.etcd.contents()
            assert not [key for key in left if "/v010/" in key or "bb1" in left[key]]
            assert left["association/bb/primaryname"] == "two"


def test_old_primaries_that_write_at_any_moment_have_their_own_links() -> None:
    """Whoever is last is linked, and whoever was linked stays so; nobody has another's VNI."""
    for seed in range(150):
        with World(2) as world:
            seen = run(world, random.Random(seed))
            there = world.etcd.contents()
            found = {ifname: one for ifname, one in ends(world).items() if one.has_carrier}
            # Ours may be the last to write, or in the middle of it.
            told = [there[f"association/bb/{word}"] for word in ("primaryname", "vxlanid")]
            seen |= {"two"} if told == ["two", "60"] else set()
            assert ("one" in seen) == is_there(found.get("in7"), 41), seed
            assert ("two" in seen) == is_there(found.get("in8"), 60), seed
            assert found["in2"].vni == ends(world, "aa1")["in1"].vni, seed
            assert found["in2"].vni not in (41, 60), seed
            assert set(found) <= {"in2", "in7", "in8"}, seed


def run(world: World, chance: random.Random) -> set[str]:
    """Have two old primaries and two pods of ours come, and return which old links there were."""
    first, second = world.nodes
    to_write = [*words("one", 41, "in7"), *words("two", 60, "in8")]
    pods = [(first, PAIR, "bb1"), (second, PRIMARY, "aa1")]
    seen: set[str] = set()
    while to_write or pods or world.choices():
        kind = chance.random()
        if kind < 0.15 and to_write:
            write(world, [to_write.pop(0)])
        elif kind < 0.2 and pods:
            world.attach(*pods.pop(chance.randrange(len(pods))))
        elif kind < 0.21 and first.engine is not None and world.crashes < 2:
            world.crash(first)
            world.start(first)
        elif kind < 0.25 and first.engine is not None and (to_write or pods):
            first.engine.look_again()
        elif choices := world.choices():
            world.take(chance.choice(choices))
        if "/netns/bb1" in world.spaces.by_path:
            seen |= {"one"} if is_there(ends(world).get("in7"), 41) else set()
            seen |= {"two"} if is_there(ends(world).get("in8"), 60) else set()
    look(world)
    look(world)
    return seen
