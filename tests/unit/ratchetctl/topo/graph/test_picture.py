"""What a drawing shows: machines, kinds, states, and why a link is not up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ratchetctl.topo.graph import looks, picture
from ratchetctl.topo.graph.picture import Picture
from ratchetctl.topo.graph.seen import EndSeen, Seen, worst
from ratchetctl.topo.model import Node, Topology

from .networks import broken, network, outside, random, seen

TWO = network([("a", "b"), ("b", "c")])


def kinds(found: Picture) -> list[str]:
    return [line.kind for line in found.lines]


def test_file_alone_tells_no_machine_and_no_state() -> None:
    found = picture.draw(TWO)
    assert found.machines == ()
    assert kinds(found) == ["cable", "cable"]
    assert not found.is_live
    assert [line.ends for line in found.lines] == [(None, None), (None, None)]


def test_nodes_that_ask_for_a_machine_are_drawn_on_it() -> None:
    def on(node: Node) -> Node:
        machine = "m1" if node.name in "ab" else "m2"
        return replace(node, node_selector=(("kubernetes.io/hostname", machine),))

    found = picture.draw(replace(TWO, nodes=tuple(map(on, TWO.nodes))))
    assert found.machines == ("m1", "m2")
    assert kinds(found) == ["veth", "vxlan"]


def test_machines_are_in_the_order_that_people_count() -> None:
    topology = random(22, 0)
    found = picture.draw(topology, seen(topology, 11))
    assert found.machines == tuple(f"node{number}" for number in range(1, 12))


def test_what_runs_is_drawn_as_it_is() -> None:
    found = picture.draw(TWO, seen(TWO))
    assert kinds(found) == ["vxlan", "vxlan"]
    assert [line.state for line in found.lines] == ["up", "up"]
    assert [spot.machine for spot in found.spots] == ["node1", "node2", "node1"]


def test_uplinks_lead_outside() -> None:
    topology = outside()
    found = picture.draw(topology, seen(topology))
    assert kinds(found) == ["vxlan", "macvlan", "host"]
    assert [(spot.title, spot.role) for spot in found.spots[2:]] == [
        ("eth0", "outside"),
        ("to-b", "outside"),
    ]
    assert [spot.machine for spot in found.spots[2:]] == [None, None]


def test_link_is_as_bad_as_its_worse_end() -> None:
    found = picture.draw(TWO, broken(TWO, "down", "pulled out"))
    assert [line.state for line in found.lines] == ["down", "up"]
    first = found.lines[0].ends[0]
    assert first is not None
    assert first.reason == "pulled out"


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        (["up", "error"], "error"),
        (["waiting", "down"], "down"),
        (["fault", "up"], "fault"),
        (["unknown", "up"], "unknown"),
        ([], "unknown"),
    ],
)
def test_worst_of_states(states: list[str], wanted: str) -> None:
    assert worst(states) == wanted


def test_pod_that_is_not_there_is_why_its_links_wait() -> None:
    there = seen(TWO)
    gone = replace(
        there,
        pods={name: pod for name, pod in there.pods.items() if name != "a"},
        ends={key: end for key, end in there.ends.items() if key[0] != "a"},
    )
    found = picture.draw(TWO, gone)
    assert found.lines[0].state == "waiting"
    end = found.lines[0].ends[0]
    assert end == EndSeen("waiting", "the pod a is not there")
    assert found.spots[0].machine is None


def test_trouble_is_why_nothing_is_known() -> None:
    found = picture.draw(TWO, Seen(trouble="no simulation"))
    assert {line.state for line in found.lines} == {"unknown"}
    assert found.trouble == "no simulation"
    assert found.lines[0].ends[0] == EndSeen("unknown", "no simulation")


def test_looking_again_moves_nothing() -> None:
    before = picture.draw(TWO)
    after = picture.look(before, seen(TWO))
    assert [(one.x, one.y) for one in before.spots] == [(one.x, one.y) for one in after.spots]
    # What has been seen once is not kept.
    assert picture.look(after, Seen()).machines == ()


def test_links_of_the_same_two_nodes_are_bent_apart() -> None:
    found = picture.draw(network([("a", "b"), ("b", "a"), ("a", "b"), ("b", "c")]))
    one, other, third, straight = (found.towards(line) for line in found.lines)
    assert len({one, other, third}) == 3
    assert found.lines[3].bend == 0
    b, c = found.spots[1], found.spots[2]
    assert straight == ((b.x + c.x) / 2, (b.y + c.y) / 2)


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        ("frr", "x", "router"),
        ("arista_ceos", "x", "switch"),
        ("nokia_srlinux", "x", "switch"),
        ("juniper_crpd", "x", "router"),
        ("linux", "r12", "router"),
        ("linux", "leaf3", "switch"),
        ("linux", "host1", "host"),
        ("linux", "anything", "host"),
    ],
)
def test_role_is_told_by_kind_and_name(kind: str, name: str, wanted: str) -> None:
    assert picture.role(Node(name, name, kind, "")) == wanted


def test_every_machine_has_a_colour_of_its_own() -> None:
    colours = [looks.machine(number) for number in range(60)]
    assert len(set(colours)) == 60
    assert looks.machine(None) not in colours


def test_labels_are_one_short_line() -> None:
    assert looks.label("a\nb\x1b\u202e" + "c" * 40) == "a�b��" + "c" * 18 + "…"
    assert looks.size("日本語のルーター")[0] > looks.size("abcdefgh")[0]


def test_empty_topology_can_be_drawn() -> None:
    found = picture.draw(Topology("empty", (), ()))
    assert found.bounds == (0.0, 0.0, 0.0, 0.0)
