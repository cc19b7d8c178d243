"""One search in the log finds a pod's life, from ADD to DEL, in the order in which it happened."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2

pytestmark = pytest.mark.root

Line = dict[str, str]
FIELD = re.compile(r'(\w+)=(?:"((?:[^"\\\x00-\x1f]|\\.)*)"|([^\s"=]+))(?: |$)')
LABELS = {**in1_in2("b-name"), "ratchet.pod_name": "a-name"}
# What each program says, and about which interface.
Fact = tuple[str, str]
PARENT, CHILD = "ratchet", "ratchet-child"


def parsed(line: str) -> Line:
    """A line as logfmt; nothing of it may be left over."""
    fields, end = {}, 0
    while end < len(line):
        found = FIELD.match(line, end)
        assert found, f"not logfmt from {line[end:]!r} on: {line}"
        key, quoted, plain = found.groups()
        assert key not in fields, line
        fields[key] = plain if quoted is None else quoted
        end = found.end()
    return fields


def lines(node: Node) -> list[Line]:
    return [parsed(line) for line in node.log().splitlines()]


def facts(found: list[Line], program: str | None = None) -> list[Fact]:
    return [
        (line["program"], line["msg"])
        for line in found
        if program is None or line["program"] == program
    ]


def search(node: Node, word: str) -> list[Line]:
    """What grep finds."""
    return [parsed(line) for line in node.log().splitlines() if word in line.split(" ")]


def in_order(wanted: list[Fact], found: list[Fact]) -> bool:
    rest = iter(found)
    return all(fact in rest for fact in wanted)


@pytest.mark.parametrize("place", [0, 1], ids=["same node", "two nodes"])
def test_one_search_tells_a_pods_life_in_order(
    cluster: Cluster, node: Node, far: Node, place: int
) -> None:
    config = node.config(log_level="info", boot_network=node.bridge_config())
    left, right = cluster.pod("a", "prod"), cluster.pod("b", "prod")
    pair_labels = {**PAIR, "ratchet.pod_name": "b-name"}
    other = cluster.nodes[place]
    node.add(left, LABELS, config=config).succeeded()
    # A link inside the node does not wait for etcd: the ADD may be over before it is declared.
    wait_for("the link to wait", lambda: "link waiting" in node.log())
    other.add(right, pair_labels).succeeded()
    left.netns.wait_ping("192.168.2.101")
    node.check(left).succeeded()
    node.delete(left).succeeded()
    wait_for("the end", lambda: "withdrawn" in str(lines(node)))
    right.netns.wait_no_carrier("in2")
    other.delete(right).succeeded()

    by_name, by_container = (
        search(node, word) for word in ("pod=prod:a-name", f"container={left.container_id}")
    )
    assert by_name == by_container
    assert in_order(
        [
            (PARENT, "ADD"),
            (PARENT, "boot network attached"),
            (CHILD, "published"),
            (CHILD, "declared"),
            (CHILD, "link waiting"),
            (CHILD, "link up"),
            (PARENT, "CHECK succeeded"),
            (PARENT, "DEL"),
            # Inside the node its leg waits for it to come back.
            *([(CHILD, "end removed")] if place else []),
            (CHILD, "withdrawn"),
        ],
        facts(by_name),
    ), facts(by_name)
    assert in_order(
        [
            (PARENT, name)
            for name in ("ADD", "boot network attached", "attached", "CHECK succeeded", "DEL")
        ]
        + [(PARENT, "detached")],
        facts(by_name, PARENT),
    )
    said = {line["msg"]: line for line in by_name}
    assert said["ADD"]["kubernetes"] == "a"
    assert said["ADD"]["links"] == "in1"
    for message in ("attached", "boot network attached", "CHECK succeeded", "detached"):
        assert 0 <= float(said[message]["took_s"]) < 60, message
    up = said["link up"]
    assert (up["link"], up["ifname"], up["peer"]) == ("prod:a-name:in1", "in1", "prod:b-name")
    assert 0 <= float(up["took_s"]) <= float(up["waited_s"]) < 60
    assert up.get("remote") == (None if place == 0 else far.address)
    # The far end has its half of the story, under the same name of the link.
    half = wait_for(
        "the far end's half",
        lambda: search(other, "pod=prod:b-name"),
        until=lambda found: "withdrawn" in str(found),
    )
    unplugged = [(CHILD, "end unplugged")] if place else []
    assert in_order(
        [(CHILD, "link up"), *unplugged, (PARENT, "DEL"), (CHILD, "end removed")], facts(half)
    ), facts(half)
    assert [line["link"] for line in half if line["msg"] == "link up"] == [up["link"]]
    assert_whole(node, left, right)
    assert_whole(far, left, right)


def assert_whole(node: Node, *pods: Pod) -> None:
    """No line about a pod lacks a name or a container, and neither is ever written otherwise."""
    names = {"prod:a-name", "prod:b-name"}
    for line in lines(node):
        assert ("pod" in line) == ("container" in line), line
        if "pod" in line:
            assert line["pod"] in names, line
            assert line["container"] in {pod.container_id for pod in pods}, line


def test_failures_of_a_pod_carry_its_name_and_container(cluster: Cluster, node: Node) -> None:
    broken, missing = cluster.pod("a"), cluster.pod("b")
    node.add(broken, {**in1_in2("b"), "ratchet.local_ip": "nonsense"})
    node.add(missing, in1_in2("a"), boot_network={"type": "there-is-none"})
    errors = [line for line in lines(node) if line["level"] == "error"]
    assert [(line["pod"], line["container"]) for line in errors] == [
        ("a", broken.container_id),
        ("b", missing.container_id),
    ]
    cluster.etcd.stop()
    pod = cluster.pod("c")
    node.add(pod, in1_in2("d")).succeeded()
    wait_for("etcd to be missed", lambda: "etcd is away" in node.log())
    for line in lines(node):
        assert ("pod" in line) == ("container" in line), line


def test_unlabelled_pods_leave_no_line(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    config = node.config(log_level="info")
    node.add(pod, {}, config=config).succeeded()
    node.delete(pod).succeeded()
    assert not os.path.exists(node.log_file)


def test_debug_shows_each_decision_of_the_child(cluster: Cluster, node: Node, far: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), config=node.config(log_level="debug")).succeeded()
    far.add(right, PAIR, config=far.config(log_level="debug")).succeeded()
    left.netns.wait_ping("192.168.2.101")
    wait_for("the bell", lambda: "bell heard" in node.log())
    said = {line["msg"]: line for line in lines(node) if line["level"] == "debug"}
    assert set(said) >= {"decided", "looked at a peer", "VNI taken", "worked on", "end changed"}
    assert [line["node"] for line in lines(far) if line["msg"] == "bell rung"] == [node.address]
    peer = [line for line in lines(node) if line["msg"] == "looked at a peer"][-1]
    assert (peer["peer"], peer["node"], peer["peer_container"]) == (
        "b",
        far.address,
        right.container_id,
    )
    decided = [line for line in search(node, "pod=a") if line["msg"] == "decided"]
    assert decided[0]["waiting"] == "in1:b"
    assert decided[-1]["ends"] == "in1:vxlan"
    assert decided[-1]["by"] == "records and etcd"


def test_the_child_writes_on_when_its_log_is_rotated(cluster: Cluster, node: Node) -> None:
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    child = node.wait_child()
    for number, signalled in enumerate((True, False)):
        moved = f"{node.log_file}.{number}"
        os.rename(node.log_file, moved)
        if signalled:
            os.kill(child, signal.SIGHUP)
        else:
            time.sleep(1.1)
        pod = cluster.pod(f"c{number}")
        node.add(pod, in1_in2("d")).succeeded()
        _wait_line(node, f"pod={pod.name}", "declared")
        last = os.path.getsize(moved)
        node.delete(pod).succeeded()
        _wait_line(node, f"pod={pod.name}", "withdrawn")
        assert os.path.getsize(moved) == last
    assert node.children() == [child]


def _wait_line(node: Node, word: str, message: str) -> None:
    wait_for(message, lambda: (CHILD, message) in facts(search(node, word)))
