"""Whoever may write below etcd's prefix: what that costs a node, and what it does not cost.

The attacker writes keys; the witnesses are pods of the same node, whose links have to come up as if
nothing were there. What they wait for is counted, as machines differ in their speed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping

import pytest

from tests.integration.test_hostile import declared, lie, resident, states
from tests.lab.cluster import Cluster
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, Node, in1_in2, primary

pytestmark = pytest.mark.root

MEBI = 1 << 20


def write(cluster: Cluster, keys: Mapping[str, str]) -> None:
    """Write many keys, over a few connections."""
    items = list(keys.items())
    parts = [dict(items[number::4]) for number in range(4)]
    threads = [threading.Thread(target=lie, args=(cluster.etcd, part)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def entries(node: Node, count: int, **changes: object) -> dict[str, str]:
    """Return forged entries of a node, each of a pod that it does not have."""
    value = {"container": "forged", "declared": [["x", "x1"]], "state_dir": "", **changes}
    return {f"nodes/{node.address}/pods/forged{n}": json.dumps(value) for n in range(count)}


def left(cluster: Cluster, node: Node) -> int:
    """Count the forged entries that are there, for a part of a second of a processor."""
    pods = f"/ratchet/nodes/{node.address}/pods"
    return sum(key.startswith(f"{pods}/forged") for key in cluster.etcd.tree(pods))


def wait_until_none_is_left(cluster: Cluster, node: Node) -> None:
    wait_for(
        "the forged entries to go",
        lambda: left(cluster, node),
        until=lambda number: number == 0,
        timeout_s=120,
        interval_s=1,
    )


def test_forged_entries_of_a_node_are_taken_back_behind_its_pods(
    cluster: Cluster, node: Node
) -> None:
    count = 1200
    a, b = cluster.pod("a"), cluster.pod("b")
    config = node.config(log_level="info", wait="all", wait_seconds=30)
    write(cluster, entries(node, count))
    first = cluster.pod("first")
    node.add(first, PAIR, config={**config, "wait": "none"}).succeeded()  # a child that starts
    wait_for("it to be at it", lambda: left(cluster, node) < count)
    adding = node.start_add(a, in1_in2("b"), config=config)
    node.add(b, PAIR, config=config).succeeded()
    adding.finish().succeeded()
    assert a.netns.pings("192.168.2.101")
    waited_for = count - left(cluster, node)
    assert waited_for < count // 3, "the link has waited for what somebody wrote"
    wait_until_none_is_left(cluster, node)
    # Each has cost its writer a request, and the node's disk next to nothing.
    log = node.log()
    assert log.count('msg="withdrawn"') < 20
    assert len(log) < 20_000
    assert a.netns.pings("192.168.2.101")


NO_CONTAINER_IDS = ["x" * 8000, "a b", "../../etc", "", "a\nlevel=error", "é", "-a"]


def test_what_is_no_container_id_is_told_in_one_line(cluster: Cluster, node: Node) -> None:
    config = node.config(log_level="info")
    a, b = cluster.pod("a"), cluster.pod("b")
    node.add(a, in1_in2("b"), config=config).succeeded()
    forged = entries(node, 50 * len(NO_CONTAINER_IDS))
    for number, key in enumerate(forged):
        said = json.loads(forged[key])
        said["container"] = NO_CONTAINER_IDS[number % len(NO_CONTAINER_IDS)]
        forged[key] = json.dumps(said)
    write(cluster, forged)
    node.kill_all()  # the next child reads them all
    node.add(b, PAIR, config=config).succeeded()
    a.netns.wait_ping("192.168.2.101")
    wait_for("the line", lambda: "published pods cannot be read" in node.log())
    log = node.log()
    assert log.count("published pods cannot be read") <= 2
    assert f"count={len(forged)}" in log  # each of them
    assert "is not a container ID" in log
    assert len(log) < 20_000
    assert left(cluster, node) == len(forged)  # nothing of it was done
    lie(cluster.etcd, forged, method="DELETE")


def test_an_answer_that_is_too_large_costs_its_own_pod_alone(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """A pod with 12 MB of declarations, again and again, while others' bells ring."""
    victim, witness, other = cluster.pod("victim"), cluster.pod("w"), cluster.pod("o")
    node.add(witness, primary("w1", "10.7.0.1", "o", "w2", "10.7.0.2")).succeeded()
    child = node.wait_child()
    wait_for("quiet", lambda: "link waiting" in node.log())
    before = resident(child)
    links = "association/victim/links"
    padding = "x" * 100_000
    write(cluster, {f"{links}/l:x{n}": declared(f"x{n}", f"y{n}", pad=padding) for n in range(120)})
    # Now that all is there: an answer with half of it would be read.
    node.add(victim, PAIR, wait="none").succeeded()
    wait_for(
        "the answer to be refused",
        lambda: "an answer of more than 8 MiB" in node.log(),
        timeout_s=40,  # on a busy machine etcd takes its time for so much
    )
    for _ in range(3):
        far.add(other, PAIR).succeeded()
        witness.netns.wait_ping("10.7.0.2")
        far.delete(other).succeeded()
        other = cluster.pod("o")
        hold_for(
            "the child to be small", lambda: resident(child) < before + 48 * MEBI, duration_s=0.5
        )
    assert "the watch was cut" not in node.log()
    assert node.wait_child() == child
    cluster.etcd.delete(f"/ratchet/{links}")


def read_and_forgotten(
    cluster: Cluster, node: Node, links: str, declarations: Mapping[str, str]
) -> None:
    """Write declarations for the pod `victim`, and take them away when its child has read them."""
    write(cluster, declarations)
    lie(cluster.etcd, {f"nodes/{node.address}/bell/l": "victim"})
    wait_for(
        "the declarations to be read",
        lambda: len(states(node, "victim")),
        until=lambda n: n == len(declarations),
        timeout_s=60,
    )
    cluster.etcd.delete(f"/ratchet/{links}")
    lie(cluster.etcd, {f"nodes/{node.address}/bell/l": "victim"})
    wait_for("them to be forgotten", lambda: not states(node, "victim"), timeout_s=60)


def test_the_memory_of_a_large_answer_is_given_back(cluster: Cluster, node: Node) -> None:
    victim = cluster.pod("victim")
    node.add(victim, PAIR, log_level="info").succeeded()
    child = node.wait_child()
    links = "association/victim/links"
    read_and_forgotten(cluster, node, links, {f"{links}/l:x0": declared("x0", "y0")})
    before = resident(child)  # of one that has done all this before
    count, padding = 2000, "x" * 3000
    many = {f"{links}/l:x{n}": declared(f"x{n}", f"y{n}", pad=padding) for n in range(count)}
    read_and_forgotten(cluster, node, links, many)
    seen = wait_for(
        "the memory to be given back",
        lambda: resident(child) - before,
        until=lambda more: more < 24 * MEBI,
        timeout_s=80,  # it is tried for the last time after a minute
    )
    assert seen < 24 * MEBI  # what was read takes several times that
    assert len(node.log()) < 60_000
