"""The pairing protocol, in many orders of its steps, with kills between any two of them.

The nodes run the real engine over the in-memory etcd; see `model`. At rest every link whose two
pods are attached is there at both ends, with one VNI and the right remotes, and nothing else is;
when every pod is gone only the counter is left. Bells alone bring that about: looking again
unasked is switched off.

RATCHET_MODEL_SECONDS gives each scenario and the state machine that long (a minute each is an
hour's run that has found what shorter ones had not).
"""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from ratchet_child.model.keys import Declaration
from tests.unit.ratchet_child.protocol_model.explore import explore, walk
from tests.unit.ratchet_child.protocol_model.scenarios import (
    ALSO,
    BACK,
    MIDDLE,
    OWN,
    SAME_CABLE,
    SCENARIOS,
    TWICE,
    A,
    B,
    C,
)
from tests.unit.ratchet_child.protocol_model.world import Pod, World

LONG_S = float(os.environ.get("RATCHET_MODEL_SECONDS") or 0)
WALKS = 15

# Small enough to be gone through whole, in a second or two, with one departure from the plain order
# (and a kill is one).
WHOLE = [
    "both pods start at the same moment",
    "both pods go at the same moment",
    "the pair moves to another node",
    "the primary moves to another node",
    "the primary comes elsewhere long before its DEL",
    "the pair comes elsewhere long before its DEL",
    "the primary moves to its pair's node",
    "of two pods that declare one link the one whose word counts is created again",
    "the pair's own link has the interface",
    "two ADDs for one primary overlap",
    "two ADDs for one pair overlap",
    "a primary comes while its pair's name is taken elsewhere",
    "three nodes start in a row",
    "a pod starts while the other goes",
    "a node gets another address",
    "a node gets another address while its pod comes back elsewhere",
]


@pytest.mark.parametrize("name", WHOLE)
def test_every_order_with_one_departure_comes_to_the_same_end(name: str) -> None:
    assert explore(SCENARIOS[name], limit_s=60, departures=1).is_complete


@pytest.mark.parametrize("name", SCENARIOS)
def test_orders_drawn_at_random_come_to_the_same_end(name: str) -> None:
    for seed in range(WALKS):
        walk(SCENARIOS[name], seed)


@pytest.mark.parametrize("how", ["refused", "unanswered"])
def test_any_one_request_may_fail(how: str) -> None:
    """Carried out all the same, or not: what follows leaves nothing too many."""
    for steps in range(40):
        with World(2) as world:
            first, second = world.nodes
            world.attach(second, B, "b1")
            world.settle()
            world.attach(first, TWICE, "a1")
            for _ in range(steps):
                for choice in world.choices()[:1]:
                    world.take(choice)
            first.fails = how
            world.check()
            world.detach(first, "a1")
            world.detach(second, "b1")
            world.check_empty()


@pytest.mark.parametrize("node", [0, 1], ids=["its own pods", "its peers"])
def test_what_etcd_carries_out_when_the_pod_is_gone_is_taken_back(node: int) -> None:
    for steps in range(40):
        with World(2) as world:
            first, second = world.nodes
            world.attach(second, BACK, "b1")
            world.settle()
            world.attach(first, TWICE, "a1")
            for _ in range(steps):
                for choice in world.choices()[:1]:
                    world.take(choice)
            world.nodes[node].fails = "late"
            world.rest()
            world.detach(first, "a1")
            world.detach(second, "b1")
            world.rest()
            world.carry_out_late()
            world.crashes += 1  # a bell leaves its directory to a node that has left, as a kill may
            world.check_empty()


@pytest.mark.parametrize("node", [0, 1], ids=["same node", "two nodes"])
def test_an_end_that_is_removed_while_its_child_starts_is_made_again(node: int) -> None:
    for steps in range(20):
        with World(2) as world:
            first, second = world.nodes[0], world.nodes[node]
            world.attach(second, B, "b1")
            world.attach(first, A, "a1")
            world.settle()
            world.crash(first)
            world.start(first)
            for _ in range(steps):
                for choice in world.choices()[:1]:
                    world.take(choice)
            for _ in range(2):  # down, then away
                world.lower("a1", "in1")
            world.check()


def test_a_link_that_is_dropped_while_its_pod_is_worked_on_is_taken_back() -> None:
    """Also when that begins with what another container has left."""
    for steps in range(40):
        with World(2) as world:
            first, second = world.nodes
            world.attach(second, B, "b1")
            world.attach(first, A, "a1")
            world.settle()
            world.attach(first, TWICE, "a2")
            for _ in range(steps):
                for choice in world.choices()[:1]:
                    world.take(choice)
            world.redeclare(first, A, "a2")
            world.check()
            for container in ("a1", "a2"):
                world.detach(first, container)
            world.detach(second, "b1")
            world.check_empty()


def test_an_older_container_takes_no_name_from_a_newer_one() -> None:
    """Also when it finds the name free in the moment in which the newer one comes."""
    for steps in range(12):
        with World(3) as world:
            first, second, third = world.nodes
            world.attach(first, A, "a1")
            world.attach(second, B, "b1")
            world.settle()
            world.attach(third, A, "a2")
            world.settle()
            world.detach(third, "a2")
            world.settle()
            world.look_unasked()
            world.attach(third, A, "a3")
            for node, most in (first, steps), (third, 100):
                for _ in range(most):
                    mine = [choice for choice in world.choices() if choice[1] == node.name]
                    for choice in mine[:1]:
                        world.take(choice)
            world.check()
            assert world.etcd.contents()["association/a/id"] == "a3"


def test_another_address_makes_no_container_a_newer_one() -> None:
    with World(2) as world:
        first, second = world.nodes
        world.attach(first, A, "a1")
        world.attach(second, B, "b1")
        world.settle()
        world.attach(second, A, "a2")
        world.settle()
        world.readdress(first, "10.0.0.9")
        world.settle()
        assert world.etcd.contents()["association/a/id"] == "a2"
        world.crash(first)
        world.start(first)
        world.settle()
        assert world.etcd.contents()["association/a/id"] == "a2"
        world.detach(second, "a2")  # the older one, whose DEL has not come, has the name then
        world.check()
        assert world.etcd.contents()["association/a/parentaddr"] == "10.0.0.9"
        world.detach(first, "a1")
        world.detach(second, "b1")
        world.check_empty()


def test_a_link_that_only_one_pod_declares_any_more_has_that_ones_vni() -> None:
    """The other pod's word has counted, and it has come back without the link."""
    with World(2) as world:
        first, second = world.nodes
        world.attach(first, A, "a1")
        world.attach(second, SAME_CABLE, "b1")
        world.settle()
        world.detach(first, "a1")
        world.settle()
        world.attach(first, Pod("a"), "a2")
        world.rest(1.0)
        index = world.index_of("b1", "in2")
        world.rest(1.5)
        world.check()
        assert index != world.index_of("b1", "in2")
        last = world.index_of("b1", "in2")
        world.rest(60.0)
        assert world.index_of("b1", "in2") == last


def test_links_stay_as_they_are_when_their_node_gets_another_address() -> None:
    with World(2) as world:
        first, second = world.nodes
        world.attach(first, TWICE, "a1")
        world.attach(second, B, "b1")
        world.check()
        before = _vnis(world)
        world.readdress(second, "10.0.0.9")
        world.readdress(first, "10.0.0.8")
        world.check()
        assert len(before) == 2
        assert _vnis(world) == before


def _vnis(world: World) -> dict[str, int]:
    return {
        key: Declaration.loads(value, "b").vni
        for key, value in world.etcd.contents().items()
        if "/links/" in key
    }


if LONG_S:  # RATCHET_MODEL_SECONDS

    @pytest.mark.slow
    @pytest.mark.timeout(4 * LONG_S + 60)
    @pytest.mark.parametrize("name", SCENARIOS)
    def test_a_long_run_comes_to_the_same_end(name: str) -> None:
        for departures in (2, 3, None):
            explore(SCENARIOS[name], limit_s=LONG_S / 4, departures=departures)
        deadline = time.monotonic() + LONG_S / 4
        seed = WALKS
        while time.monotonic() < deadline:
            walk(SCENARIOS[name], seed)
            seed += 1


PODS = {"a": [A, TWICE], "b": [B, MIDDLE, BACK, SAME_CABLE, OWN], "c": [C, ALSO]}


class Protocol(RuleBasedStateMachine):
    """Three nodes to which anything may happen at any step.

    What a pod declares is drawn once for a run: two containers of one name say the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World(3, kernel_steps=True)
        self.world.__enter__()
        self.pods: dict[str, Pod] = {}
        self.containers = 0

    def teardown(self) -> None:
        """Bring everything to rest, take everything away, look."""
        try:
            self.world.check()
            for node in self.world.nodes:
                for name in list(node.disk.live):
                    self.world.detach(node, name.partition(".")[0])
            self.world.check_empty()
        finally:
            self.world.__exit__()

    @rule(name=st.sampled_from("abc"), node=st.integers(0, 2), kind=st.integers(0, 4))
    @precondition(lambda self: self.containers < 8)
    def attach(self, name: str, node: int, kind: int) -> None:
        pod = self.pods.setdefault(name, PODS[name][kind % len(PODS[name])])
        self.containers += 1
        self.world.attach(self.world.nodes[node], pod, f"{name}{self.containers}")

    @rule(node=st.integers(0, 2), which=st.integers(0, 7), late=st.booleans())
    def detach(self, node: int, which: int, late: bool) -> None:
        there = self.world.nodes[node]
        containers = sorted(there.disk.live)
        if containers:
            name = containers[which % len(containers)].partition(".")[0]
            self.world.detach(there, name, keep_namespace=late)

    @rule(node=st.integers(0, 2), starts=st.booleans())
    def crash(self, node: int, starts: bool) -> None:
        self.world.crash(self.world.nodes[node])
        if starts:
            self.world.start(self.world.nodes[node])

    @rule(node=st.integers(0, 2))
    def reboot(self, node: int) -> None:
        self.world.reboot(self.world.nodes[node])
        self.world.start(self.world.nodes[node])

    @rule(node=st.integers(0, 2), how=st.sampled_from(["refused", "unanswered"]))
    def fail(self, node: int, how: str) -> None:
        """A request of that node fails: it is carried out all the same, or not."""
        self.world.nodes[node].fails = how

    @rule()
    def lose_history(self) -> None:
        self.world.etcd.forget_history()

    @rule()
    def ring_twice(self) -> None:
        self.world.repeat_bells()

    @rule()
    def pass_time(self) -> None:
        self.world.pass_time(31)

    @rule(which=st.lists(st.integers(0, 5), min_size=1, max_size=30))
    def step(self, which: list[int]) -> None:
        for number in which:
            choices = self.world.choices()
            if choices:
                self.world.take(choices[number % len(choices)])

    @rule()
    def rest(self) -> None:
        self.world.check()


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=int(LONG_S * 20) or 40,
    derandomize=not LONG_S,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["same node", "two nodes", "primary elsewhere"])
@pytest.mark.parametrize("gone", ["a", "b"])
def test_the_end_of_the_pod_that_stays_is_the_same_one(place: int, gone: str) -> None:
    with World(3) as world:
        first, second = world.nodes[0], world.nodes[min(place, 1)]
        world.attach(second, B, "b1")
        world.attach(first, A, "a1")
        world.settle()
        stays, ifname = ("b1", "in2") if gone == "a" else ("a1", "in1")
        device = world.spaces.by_path[f"/netns/{stays}"].devices[ifname]
        index = device.index
        for number in (2, 3):
            world.detach(first if gone == "a" else second, f"{gone}{number - 1}")
            world.settle()
            assert world.spaces.by_path[f"/netns/{stays}"].devices[ifname] is device
            assert not device.has_carrier
            if gone == "a":
                first = world.nodes[2] if place == 2 else first
                world.attach(first, A, f"a{number}")
            else:
                second = world.nodes[2] if place == 2 else second
                world.attach(second, B, f"b{number}")
            world.check()
            assert world.spaces.by_path[f"/netns/{stays}"].devices[ifname] is device
            assert (device.index, device.has_carrier) == (index, True)
