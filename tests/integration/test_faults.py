"""A short run of the fault suite, and the proof that its checks can fail.

`make faults` is the long run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.injectors import history_lost
from tests.faults.invariants import violations
from tests.faults.kernel import MARK, descriptors
from tests.faults.observed import PREFIX, cables, uplinks
from tests.faults.plan import Fault, Operation, Plan
from tests.faults.runner import run
from tests.faults.runtimes import Pulled, Sandbox
from tests.faults.topology import HOST, MACVLAN, Uplink
from tests.faults.world import World
from tests.lab.polling import wait_for
from tests.lab.runtime import request_config

Undo = Callable[[], object]

pytestmark = [pytest.mark.root, pytest.mark.slow]

SEED = 20
STEPS = 10
LOST = "lost its place in etcd's history"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("seed", "members"),
    [(SEED, 1), (secrets.randbelow(10**6), 1), (SEED, 3)],
    ids=["fixed seed", "random seed", "three members"],
)
def test_cluster_heals_and_leaks_nothing(seed: int, members: int) -> None:
    steps = STEPS if members == 1 else STEPS // 2
    print(f"python -m tests.faults --seed {seed} --members {members} --steps {steps}")
    report = run(seed=seed, steps=steps, members=members, say=print)
    assert report.steps == steps
    print(report.table())


@pytest.mark.timeout(240)
def test_cluster_heals_beside_a_hostile_pod() -> None:
    said: list[str] = []
    report = run(seed=SEED, steps=3, hostile=True, say=said.append)
    assert report.steps == 3
    # He has done something, and not to himself alone.
    summary = re.fullmatch(r"the stranger had up to (\d+) ends in a pod; (.*)", said[-1])
    assert summary is not None
    assert int(summary[1]) > 100
    assert summary[2].count(" times") >= 1


def test_plan_is_a_function_of_its_seed() -> None:
    def steps(seed: int) -> list[object]:
        planned = Plan(seed, nodes=4, pods=20, members=1).steps()
        return [next(planned) for _ in range(200)]

    assert steps(1) == steps(1)
    assert steps(1) != steps(2)


def test_clock_of_a_node_can_be_wrong(quiet: World) -> None:
    """The programs' own lines tell what they take for the time; nothing else is wrong for it."""
    node, pod = quiet.nodes[2], next(iter(quiet.attached.values())).pod
    wrong = request_config(node.config(), {"ratchet": "true", "ratchet.primary": "perhaps"}, None)
    Path(node.clock_file).write_text(f"{400 * 86400}", encoding="utf-8")
    try:
        call = node.execute(wrong, node.environ("ADD", pod))
        outcome = call.finish()
        node.calls.remove(call)
    finally:
        os.unlink(node.clock_file)
    (year,) = re.findall(rb"^time=(\d+)-", outcome.stderr, re.MULTILINE)
    assert int(year) > time.gmtime().tm_year
    library = node.lies.get("LD_PRELOAD")  # the child's clock is that of who started it
    loaded = Path(f"/proc/{node.running_child()}/maps").read_text(encoding="utf-8")
    assert library is None or library in loaded


def test_history_that_is_lost_is_lost_to_the_watch_that_stands(quiet: World) -> None:
    assert LOST in quiet.nodes[1].log()


# The checks must be able to fail


@pytest.fixture(scope="module")
def quiet() -> Iterator[World]:
    """Give a small cluster in which all is well and nothing heals, as its children are stopped."""
    plan = Plan(15, nodes=2, pods=4, members=1)
    world = World(plan.topology, nodes=2, members=1)
    try:
        for number, pod in enumerate(plan.topology.pods):
            world.run_operation(Operation("attach", pod, 1 + number % 2))
        wait_for("the cluster to be well", lambda: not violations(world), timeout_s=25)
        _lose_history(world)
        wait_for("the cluster to be well", lambda: not violations(world), timeout_s=25)
        time.sleep(1)
        children = [node.running_child() for node in world.nodes.values()]
        for pid in children:
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
        yield world
    finally:
        world.close()


def _lose_history(world: World) -> None:
    """Have the watch of the first node lose its place; a test tells whether it has.

    One that is just over, or for which a busy machine's etcd has forgotten too slowly, is followed
    by a list of the keys, and has lost nothing.
    """
    for _ in range(4):
        with history_lost(world, Fault("history lost", node=1)):
            pass
        with contextlib.suppress(AssertionError):
            wait_for(
                "the watch to lose its place", lambda: LOST in world.nodes[1].log(), timeout_s=10
            )
            return


def delete_a_key(world: World) -> Undo:
    key = f"{PREFIX}/association/{next(iter(world.attached))}/parentaddr"
    value = world.etcd.get(key)
    world.etcd.delete(key)
    return lambda: world.etcd.put(key, value or "")


def add_a_key(world: World) -> Undo:
    key = f"{PREFIX}/association/ghost/id"
    world.etcd.put(key, "x")
    return lambda: world.etcd.delete(f"{PREFIX}/association/ghost")


def add_a_machine(world: World) -> Undo:
    key = f"{PREFIX}/machines/{world.nodes[1].address}@0123456789abcdef"
    world.etcd.put(key, '{"host":"ghost","since":1}')
    return lambda: world.etcd.delete(key)


def claim_a_vni(world: World) -> Undo:
    world.etcd.put(f"{PREFIX}/vni/999", "x y")
    return lambda: world.etcd.delete(f"{PREFIX}/vni/999")


def change_an_id(world: World) -> Undo:
    key = f"{PREFIX}/association/{next(iter(world.attached))}/id"
    value = world.etcd.get(key)
    world.etcd.put(key, "somebody else")
    return lambda: world.etcd.put(key, value or "")


def leave_an_empty_directory(world: World) -> Undo:
    world.etcd.put(f"{PREFIX}/nodes/10.99.0.99/pods/x", "x")
    world.etcd.delete(f"{PREFIX}/nodes/10.99.0.99/pods/x")
    return lambda: world.etcd.delete(f"{PREFIX}/nodes/10.99.0.99")


def add_a_marked_interface(world: World) -> Undo:
    netns = next(iter(world.attached.values())).pod.netns
    netns.ip("link", "add", "ghost", "type", "bridge")
    netns.ip("link", "set", "ghost", "group", str(MARK))
    return lambda: netns.ip("link", "delete", "ghost")


def set_an_interface_down(world: World) -> Undo:
    cable = cables(world)[0]
    netns, ifname = cable.near.pod.netns, cable.link.ifname
    netns.ip("link", "set", ifname, "down")
    return lambda: netns.ip("link", "set", ifname, "up")


def change_an_mtu(world: World) -> Undo:
    cable = next(one for one in cables(world) if one.link.properties.mtu)
    netns, ifname = cable.near.pod.netns, cable.link.ifname
    netns.ip("link", "set", ifname, "mtu", "1200")
    return lambda: netns.ip("link", "set", ifname, "mtu", str(cable.link.properties.mtu))


def change_a_rate(world: World) -> Undo:
    cable = next(one for one in cables(world) if one.link.properties.rate_kbit)
    netns, ifname = cable.near.pod.netns, cable.link.ifname
    change = ("tc", "qdisc", "change", "dev", ifname, "root")
    shown = netns.command_output("tc", "-j", "qdisc", "show", "dev", ifname)
    before = json.loads(shown)[0]
    netns.command_output(*change, "handle", before["handle"], "tbf", *bucket("7mbit"))
    rate = f"{cable.link.properties.rate_kbit}kbit"
    return lambda: netns.command_output(*change, "handle", before["handle"], "tbf", *bucket(rate))


def bucket(rate: str) -> tuple[str, ...]:
    return ("rate", rate, "burst", "16kb", "latency", "50ms")


def believe_a_cable_pulled_out(world: World) -> Undo:
    cable = cables(world)[0]
    world.pulled[cable.link] = Pulled(cable.near.pod.container_id, is_out=True)
    return world.pulled.clear


def an_uplink(world: World, kind: str) -> tuple[Uplink, Sandbox]:
    return next(one for one in uplinks(world) if one[0].kind == kind)


def change_the_mode_of_a_macvlan(world: World) -> Undo:
    uplink, sandbox = an_uplink(world, MACVLAN)
    change = ("link", "set", uplink.ifname, "type", "macvlan", "mode")
    sandbox.pod.netns.ip(*change, "private")
    return lambda: sandbox.pod.netns.ip(*change, "bridge")


def take_the_address_at_the_node(world: World) -> Undo:
    uplink, sandbox = an_uplink(world, HOST)
    node = world.nodes[sandbox.node].namespace
    address = (f"{uplink.device_address}/24", "dev", uplink.device)
    node.ip("addr", "del", *address)
    return lambda: node.ip("addr", "add", *address)


def forget_a_pods_uplinks(world: World) -> Undo:
    """What is there of them is then nobody's."""
    before = world.topology
    world.topology = replace(before, uplinks=())

    def remember() -> None:
        world.topology = before

    return remember


def deafen_a_link(world: World) -> Undo:
    """Everything looks right, and nothing comes over it."""
    cable = next(one for one in cables(world) if one.link.pair_address)
    assert cable.link.pair_address is not None
    far, ifname = cable.link.pair_address.split("/")[0], cable.link.ifname
    netns = cable.near.pod.netns
    entry = ("neigh", "replace", far, "lladdr", "02:00:00:00:00:99", "dev", ifname)
    netns.ip(*entry, "nud", "permanent")
    return lambda: netns.ip("neigh", "delete", far, "dev", ifname)


def leave_a_file(world: World) -> Undo:
    path = Path(world.nodes[1].state_dir, "attachments", ".x.json.1")
    path.write_text("{}")
    return path.unlink


def lose_a_record(world: World) -> Undo:
    path = next(Path(world.nodes[1].state_dir, "attachments").iterdir())
    away = path.rename(path.with_name("away"))
    return lambda: away.rename(path)


def start_a_process(world: World) -> Undo:
    stray = subprocess.Popen(world.nodes[1].namespace.command("sleep", "100"))
    wait_for(
        "the process to be in the node",
        lambda: stray.pid in world.nodes[1].namespace.processes(),
    )

    def end() -> None:
        stray.kill()
        stray.wait()

    return end


def forget_a_container(world: World) -> Undo:
    """All that there is of a pod is then somebody's who is gone."""
    pod, sandbox = next(iter(world.attached.items()))
    del world.attached[pod]

    def remember() -> None:
        world.attached[pod] = sandbox

    return remember


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (delete_a_key, "is missing"),
        (add_a_key, "a key of nobody"),
        (add_a_machine, "a key of nobody"),
        (claim_a_vni, "a key of nobody"),
        (change_an_id, "is somebody else, not"),
        (leave_an_empty_directory, "an empty directory"),
        (add_a_marked_interface, "an interface of nobody"),
        (set_an_interface_down, "is down"),
        (change_an_mtu, "has the MTU 1200"),
        (change_a_rate, "sends 7000000 bits a second"),
        (believe_a_cable_pulled_out, "has a carrier"),
        (change_the_mode_of_a_macvlan, "of mode 1"),
        (take_the_address_at_the_node, "at the node lacks"),
        (forget_a_pods_uplinks, "an interface of nobody: macvlan"),
        (deafen_a_link, "nothing comes over it"),
        (leave_a_file, "a file of nobody"),
        (lose_a_record, "is missing on node"),
        (start_a_process, "a stray process"),
        (forget_a_container, "namespace of"),
    ],
)
def test_invariant_sees_harm(quiet: World, harm: Callable[[World], Undo], words: str) -> None:
    assert violations(quiet) == []
    undo = harm(quiet)
    try:
        found = violations(quiet)
    finally:
        undo()
    assert any(words in one for one in found), found
    wait_for("the cluster to be well again", lambda: not violations(quiet))


def test_a_node_whose_only_container_has_lost_its_name_keeps_its_own_key() -> None:
    plan = Plan(3, nodes=2, pods=4, members=1)
    pod = plan.topology.pods[0]
    world = World(plan.topology, nodes=2, members=1)
    try:
        world.run_operation(Operation("attach", pod, 1))
        world.run_operation(Operation("restart", pod, 2, del_when="late"))
        wait_for("the cluster to be well", lambda: not violations(world), timeout_s=25)
        undo = add_a_machine(world)
        assert any("a key of nobody" in one for one in violations(world))
        undo()
        ((sandbox, operation),) = world.late
        world.late.clear()
        world.detach(sandbox, operation)
        wait_for("the node's keys to go", lambda: not violations(world), timeout_s=25)
    finally:
        world.close()


def test_descriptors_that_are_counted_are_there(quiet: World) -> None:
    child = quiet.nodes[1].running_child()
    assert child is not None
    here = [one for one in quiet.attached.values() if one.node == 1]
    opened = descriptors(child)
    pods = [one for one in opened.namespaces if one != quiet.nodes[1].namespace.inode]
    assert len(pods) == len(here)
    assert opened.count > len(opened.namespaces)
