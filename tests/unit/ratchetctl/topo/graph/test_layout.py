"""Where nodes stand: clear of each other, the same every time, and as their links say."""

from __future__ import annotations

import functools
import math
from itertools import combinations

import pytest

from ratchetctl.topo import generate
from ratchetctl.topo.graph import layout, looks
from ratchetctl.topo.graph.layout import Point

Network = tuple[list[str], list[tuple[str, str]]]


def random(count: int, extra: int) -> Network:
    names = generate.numbered(count, "r")
    links = generate.random_links(count, extra, 3)
    return names, [(names[a], names[b]) for a, b in links]


def star(count: int) -> Network:
    names = generate.numbered(count, "r")
    return names, [(names[0], name) for name in names[1:]]


def ring(count: int) -> Network:
    names = generate.numbered(count, "r")
    return names, list(generate.ring(names))


def mesh(count: int) -> Network:
    names = generate.numbered(count, "r")
    return names, list(generate.mesh(names))


def places(network: Network) -> dict[str, Point]:
    names, pairs = network
    number = {name: index for index, name in enumerate(names)}
    links = [(number[a], number[b]) for a, b in pairs]
    sizes = [looks.size(name) for name in names]
    return dict(zip(names, layout.layout(names, links, sizes), strict=True))


SHAPES = {
    "one node": (["r1"], []),
    "two nodes": (["r1", "r2"], [("r1", "r2")]),
    "no links": (generate.numbered(30, "r"), []),
    "a link with itself": (["r1", "r2"], [("r1", "r1"), ("r1", "r2")]),
    "the same link twice": (["r1", "r2"], [("r1", "r2"), ("r2", "r1")]),
    "10 random": random(10, 5),
    "200 random": random(200, 100),
    "420 random": random(420, 150),
    "a star": star(150),
    "a ring": ring(24),
    "a mesh": mesh(25),
    "a grid": generate.grid(5, 7),
    "spines and leaves": generate.clos(4, 8, 2),
    "a fat tree": generate.fat_tree(4),
    "long names": ([f"a-router-of-a-long-name-{n}" for n in range(40)], []),
    "two parts": (["a", "b", "c", "x", "y"], [("a", "b"), ("b", "c"), ("x", "y")]),
}


@functools.cache
def drawn(shape: str) -> dict[str, Point]:
    return places(SHAPES[shape])


@pytest.mark.parametrize("shape", SHAPES)
def test_no_node_or_label_is_on_another(shape: str) -> None:
    found = drawn(shape)
    for (one, (x1, y1)), (other, (x2, y2)) in combinations(found.items(), 2):
        width = (looks.size(one)[0] + looks.size(other)[0]) / 2
        height = (looks.size(one)[1] + looks.size(other)[1]) / 2
        assert abs(x1 - x2) >= width - 0.01 or abs(y1 - y2) >= height - 0.01, (one, other)


@pytest.mark.parametrize("name", ["200 random", "420 random", "a fat tree"])
def test_same_network_is_drawn_the_same_every_time(name: str) -> None:
    assert places(SHAPES[name]) == drawn(name)


def test_nothing_has_no_places() -> None:
    assert layout.layout([], [], []) == []


@pytest.mark.parametrize("name", ["200 random", "420 random"])
def test_linked_nodes_stand_nearer_than_others(name: str) -> None:
    network, found = SHAPES[name], drawn(name)
    linked = [math.dist(found[a], found[b]) for a, b in network[1]]
    every = [math.dist(a, b) for a, b in combinations(list(found.values())[::5], 2)]
    assert sum(linked) / len(linked) < 0.55 * sum(every) / len(every)


def test_ring_is_drawn_round() -> None:
    found = list(drawn("a ring").values())
    middle = (sum(x for x, _ in found) / len(found), sum(y for _, y in found) / len(found))
    distances = [math.dist(middle, one) for one in found]
    assert max(distances) < 1.15 * min(distances)


def test_grid_is_drawn_level() -> None:
    network, found = SHAPES["a grid"], drawn("a grid")
    for a, b in network[1]:
        dx, dy = (abs(one - other) for one, other in zip(found[a], found[b], strict=True))
        assert min(dx, dy) < 0.2 * max(dx, dy), (a, b)


@pytest.mark.parametrize(
    ("name", "tiers"),
    [
        ("spines and leaves", ["spine", "leaf", "host"]),
        ("a fat tree", ["core", "agg", "edge", "host"]),
    ],
)
def test_tiers_are_drawn_in_rows_from_the_top(name: str, tiers: list[str]) -> None:
    found = drawn(name)
    rows = [{y for node, (_, y) in found.items() if node.startswith(tier)} for tier in tiers]
    assert all(len(row) == 1 for row in rows)
    heights = [row.pop() for row in rows]
    assert heights == sorted(heights)


def test_hosts_stand_below_their_leaf() -> None:
    found = drawn("spines and leaves")
    for host, leaf in SHAPES["spines and leaves"][1]:
        if host.startswith("host"):
            assert abs(found[host][0] - found[leaf][0]) < 60


def test_names_alone_make_no_tiers() -> None:
    names = ["core1", "core2", "edge1", "edge2", "edge3"]
    pairs = [("core1", "edge1"), ("core2", "edge2"), ("edge2", "edge3"), ("core1", "core2")]
    assert len({y for _, y in places((names, pairs)).values()}) > 2


def test_parts_stand_beside_each_other() -> None:
    found = drawn("two parts")
    left = max(found[name][0] for name in "abc")
    below = max(found[name][1] for name in "abc")
    assert all(found[name][0] > left or found[name][1] > below for name in "xy")


def test_crowd_is_drawn_as_wide_as_a_screen() -> None:
    found = list(drawn("420 random").values())
    wide = max(x for x, _ in found) - min(x for x, _ in found)
    high = max(y for _, y in found) - min(y for _, y in found)
    assert 1.1 < wide / high < 2.2
