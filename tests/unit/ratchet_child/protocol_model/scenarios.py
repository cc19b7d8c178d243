"""What can happen to a few nodes and pods at the same moment, and what broke the protocol once."""

from __future__ import annotations

from collections.abc import Sequence

from tests.unit.ratchet_child.protocol_model.explore import Happening, Scenario
from tests.unit.ratchet_child.protocol_model.world import Pod, World, link

# a - b - c: b is the pair of one link and the primary of another.
A = Pod("a", (link("in1", "b", "in2"),))
B = Pod("b")
MIDDLE = Pod("b", (link("out1", "c", "out2"),))
C = Pod("c")
TWICE = Pod("a", (link("in1", "b", "in2"), link("in3", "b", "in4")))
ALSO = Pod("c", (link("x1", "b", "in3"),))  # a second primary at b
SAME_CABLE = Pod("b", (link("in2", "a", "in1"),))
OWN = Pod("b", (link("in2", "c", "out2"),))  # has another link at the interface that a wants
BACK = Pod("b", (link("in9", "a", "in8"),))


def attach(node: str, pod: Pod, container: str) -> Happening:
    return Happening(node, lambda world: world.attach(world.node(node), pod, container))


def detach(node: str, container: str) -> Happening:
    return Happening(node, lambda world: world.detach(world.node(node), container))


def reboot(node: str) -> Happening:
    """The node comes back with nothing, and its child is started."""

    def action(world: World) -> None:
        world.reboot(world.node(node))
        world.start(world.node(node))

    return Happening(node, action)


def readdress(node: str, address: str) -> Happening:
    return Happening(node, lambda world: world.readdress(world.node(node), address))


def lose_history() -> Happening:
    return Happening("A", lambda world: world.etcd.forget_history())


def ring_twice() -> Happening:
    """Every bell that can still be heard is heard once more."""
    return Happening("A", lambda world: world.repeat_bells())


def pass_time() -> Happening:
    return Happening("A", lambda world: world.pass_time(31))


def occupy(node: str, *vnis: int) -> Happening:
    """Another overlay on the node uses these VNIs."""
    return Happening(node, lambda world: world.node(node).kernel.foreign_vnis.update(vnis))


def _linked(*more: Happening) -> Sequence[Happening]:
    return (attach("A", A, "a1"), attach("B", B, "b1"), *more)


SCENARIOS = {
    "both pods start at the same moment": Scenario(
        2, [[attach("A", A, "a1")], [attach("B", B, "b1")]], crashes=1
    ),
    "a child is killed in the middle of netlink": Scenario(
        2, [[attach("A", TWICE, "a1")], [attach("B", B, "b1")]], crashes=2, kernel_steps=True
    ),
    "both pods go at the same moment": Scenario(
        2, [[detach("A", "a1")], [detach("B", "b1")]], before=_linked(), crashes=1
    ),
    "the pair moves to another node": Scenario(
        3,
        [[detach("B", "b1")], [attach("C", B, "b2")]],
        before=_linked(),
        crashes=1,
        stay=[("a1", "in1")],
    ),
    "the primary moves to another node": Scenario(
        3,
        [[detach("A", "a1")], [attach("C", A, "a2")]],
        before=_linked(),
        crashes=1,
        stay=[("b1", "in2")],
    ),
    "of two pods that declare one link the one whose word counts is created again": Scenario(
        2,
        [[detach("A", "a1"), attach("A", A, "a2")]],
        before=(attach("A", A, "a1"), attach("B", SAME_CABLE, "b1")),
        crashes=1,
        stay=[("b1", "in2")],
    ),
    "of two pods that declare one link the other one is created again": Scenario(
        2,
        [[detach("B", "b1"), attach("B", SAME_CABLE, "b2")]],
        before=(attach("A", A, "a1"), attach("B", SAME_CABLE, "b1")),
        crashes=1,
        stay=[("a1", "in1")],
    ),
    "the primary comes elsewhere long before its DEL": Scenario(
        3, [[attach("C", A, "a2")]], before=_linked(), crashes=1
    ),
    "the pair comes elsewhere long before its DEL": Scenario(
        3, [[attach("C", B, "b2")]], before=_linked(), crashes=1
    ),
    "the primary moves to its pair's node": Scenario(
        2, [[detach("A", "a1")], [attach("B", A, "a2")]], before=_linked(), crashes=1
    ),
    "both pods come back with late DELs": Scenario(
        2,
        [[attach("A", A, "a2"), detach("A", "a1")], [attach("B", B, "b2"), detach("B", "b1")]],
        before=_linked(),
        crashes=1,
    ),
    "both pods are deleted and come back": Scenario(
        2,
        [[detach("A", "a1"), attach("A", A, "a2")], [detach("B", "b1"), attach("B", B, "b2")]],
        before=_linked(),
        crashes=1,
    ),
    "two ADDs for one primary overlap": Scenario(
        3,
        [[attach("A", A, "a1"), detach("A", "a1")], [attach("C", A, "a2")]],
        before=[attach("B", B, "b1")],
        crashes=1,
    ),
    "two ADDs for one pair overlap": Scenario(
        3,
        [[attach("A", B, "b1"), detach("A", "b1")], [attach("C", B, "b2")]],
        before=[attach("B", A, "a1")],
        crashes=1,
    ),
    "a primary comes while its pair's name is taken elsewhere": Scenario(
        2,
        [[attach("B", A, "a1")], [attach("A", B, "b2")]],
        before=[attach("B", B, "b1")],
    ),
    "three nodes start in a row": Scenario(
        3, [[attach("A", A, "a1")], [attach("B", MIDDLE, "b1")], [attach("C", C, "c1")]]
    ),
    "the middle of three is on another node": Scenario(
        2,
        [[attach("A", A, "a1")], [attach("B", MIDDLE, "b1")], [attach("A", C, "c1")]],
        crashes=1,
    ),
    "three pods on one node": Scenario(
        1,
        [[attach("A", A, "a1")], [attach("A", MIDDLE, "b1")], [attach("A", C, "c1")]],
        crashes=1,
        kernel_steps=True,
    ),
    "a pod starts while the other goes": Scenario(
        2, [[attach("A", A, "a1")], [attach("B", B, "b1"), detach("B", "b1")]], crashes=1
    ),
    "everything starts and goes": Scenario(
        2,
        [[attach("A", TWICE, "a1"), detach("A", "a1")], [attach("B", B, "b1"), detach("B", "b1")]],
        crashes=1,
        kernel_steps=True,
    ),
    "two primaries share a pair": Scenario(
        3,
        [
            [attach("A", A, "a1"), detach("A", "a1")],
            [attach("C", ALSO, "c1"), detach("C", "c1")],
        ],
        before=[attach("B", B, "b1")],
        crashes=1,
    ),
    "two primaries of one node share a pair": Scenario(
        2,
        [
            [attach("A", A, "a1"), detach("A", "a1")],
            [attach("A", ALSO, "c1"), detach("A", "c1")],
        ],
        before=[attach("B", B, "b1")],
        crashes=1,
    ),
    "both pods declare the same cable": Scenario(
        2, [[attach("A", A, "a1")], [attach("B", SAME_CABLE, "b1")]], crashes=1
    ),
    "each pod is the other's primary": Scenario(
        2,
        [
            [attach("A", A, "a1"), detach("A", "a1"), attach("A", A, "a2")],
            [attach("B", BACK, "b1")],
        ],
        crashes=1,
    ),
    "VNIs are in use by somebody else on both nodes": Scenario(
        2,
        [[attach("A", A, "a1")], [attach("B", B, "b1")]],
        before=[occupy("A", 11, 12), occupy("B", 13)],
        crashes=1,
    ),
    "a link is renumbered by one node while the other takes it back": Scenario(
        2,
        [[attach("A", A, "a1"), detach("A", "a1")], [attach("B", B, "b1")]],
        before=[occupy("B", 11, 12)],
        crashes=1,
        crashing="A",
    ),
    "a node reboots": Scenario(
        2,
        [[reboot("A"), attach("A", A, "a2")], [detach("B", "b1"), attach("B", B, "b2")]],
        before=_linked(),
        crashes=1,
    ),
    "the middle of three comes back elsewhere after a reboot": Scenario(
        3,
        [[reboot("B")], [attach("C", MIDDLE, "b2")]],
        before=[attach("A", A, "a1"), attach("B", MIDDLE, "b1"), attach("A", C, "c1")],
        crashes=1,
    ),
    "the pair's own link has the interface": Scenario(
        2,
        [[attach("A", A, "a1")], [attach("B", OWN, "b1")], [attach("A", C, "c1")]],
        crashes=1,
    ),
    "the pair has the interface for another link only at first": Scenario(
        2,
        [[detach("B", "b1"), attach("B", B, "b2")], [attach("A", C, "c1")]],
        before=[attach("A", A, "a1"), attach("B", OWN, "b1")],
        crashes=1,
    ),
    "the pair has the interface for another link later": Scenario(
        3,
        [[attach("C", OWN, "b2"), detach("B", "b1")], [detach("A", "a1"), attach("A", A, "a2")]],
        before=_linked(),
        crashes=1,
    ),
    "a node gets another address": Scenario(
        2, [[readdress("A", "10.0.0.9")], [detach("B", "b1")]], before=_linked(), crashes=1
    ),
    "a node gets another address while its pod comes back elsewhere": Scenario(
        2,
        [[attach("B", A, "a2")], [readdress("A", "10.0.0.9")]],
        before=_linked(),
        crashes=1,
    ),
    "a node gets another address and the former one again": Scenario(
        2,
        [
            [readdress("A", "10.0.0.9"), readdress("A", "10.0.0.1"), detach("A", "a1")],
            [attach("B", A, "a2")],
        ],
        before=_linked(),
        crashes=1,
    ),
    "watches lose their place and bells fade": Scenario(
        3,
        [
            [attach("A", TWICE, "a1"), detach("A", "a1"), attach("C", TWICE, "a2")],
            [attach("B", B, "b1")],
            [lose_history(), ring_twice(), lose_history(), pass_time()],
        ],
        crashes=1,
    ),
    "pods wander between three nodes": Scenario(
        3,
        [
            [
                attach("A", A, "a1"),
                attach("B", A, "a2"),
                detach("A", "a1"),
                attach("C", A, "a3"),
                detach("B", "a2"),
            ],
            [attach("B", B, "b1"), attach("A", B, "b2"), detach("B", "b1")],
        ],
        crashes=2,
    ),
    "a row of three is rearranged": Scenario(
        3,
        [
            [attach("A", TWICE, "a1"), attach("B", MIDDLE, "b1")],
            [attach("C", C, "c1"), detach("A", "a1"), attach("C", TWICE, "a2")],
            [detach("B", "b1"), attach("A", MIDDLE, "b2")],
        ],
        crashes=2,
    ),
}
