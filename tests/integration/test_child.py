"""The child is a process of its own: one a node, in nobody's way, and not missed when it dies."""

from __future__ import annotations

import time

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2, request_config

pytestmark = pytest.mark.root


def test_plugin_does_not_keep_the_runtime_waiting_for_the_child(
    cluster: Cluster, node: Node
) -> None:
    """A child that kept the plugin's standard output or error would: `finish` waits for both."""
    pod = cluster.pod("a")
    assert node.add(pod, in1_in2("b")).succeeded().elapsed_s < 4
    assert len(node.children()) == 1


def test_one_child_serves_a_node_however_many_adds_start_it(cluster: Cluster, node: Node) -> None:
    pods = [cluster.pod(f"p{n}") for n in range(10)]
    for call in [node.start_add(pod, in1_in2(f"x-{pod.name}")) for pod in pods]:
        call.finish().succeeded()
    assert len(node.children()) == 1
    assert len(node.supervisors()) == 1
    assert node.namespace.processes() == {*node.children(), *node.supervisors()}


@each_of("place", [0, 1])
def test_child_that_was_killed_with_its_supervisor_is_started_by_the_next_call_and_links_stay(
    cluster: Cluster, node: Node, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    with left.netns.watch("in1") as in1, right.netns.watch("in2") as in2:
        node.kill_all()
        third, fourth = cluster.pod("c"), cluster.pod("d")
        node.add(third, in1_in2("d")).succeeded()
        node.add(fourth, PAIR).succeeded()
        third.netns.wait_ping("192.168.2.101")
        assert in1.flaps() == []
        assert in2.flaps() == []
    assert left.netns.pings("192.168.2.101")
    assert node.children()


def test_del_succeeds_when_the_child_cannot_be_started(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    node.kill_all()

    config = request_config(node.config(child_path="/nonexistent/child"), in1_in2("b"), None)
    node.delete(left, config=config).succeeded()
    # The next call with a child that can be started finishes the work.
    node.delete(right).succeeded()
    left.netns.wait_no_link("in1")
    wait_for("the records to go", node.records, until=lambda records: not records)


def test_del_with_the_configuration_of_before_a_change_does_not_bring_it_back(
    cluster: Cluster, node: Node
) -> None:
    """CRI-O and podman keep what they gave the ADD, and give it to the DEL."""
    later = node.config(cniVersion="1.1.0", parent_address="10.99.0.77")
    published = "/ratchet/association/new/parentaddr"
    old, new = cluster.pod("old"), cluster.pod("new")
    node.add(old, PAIR).succeeded()
    time.sleep(1)  # a parent that was started in this time may not know of a change
    node.status(config=later).succeeded()
    node.add(new, PAIR, config=request_config(later, PAIR, None)).succeeded()
    wait_for("the new address", lambda: cluster.etcd.get(published), until="10.99.0.77".__eq__)
    time.sleep(1)
    node.check(old).succeeded()
    node.delete(old).succeeded()
    wait_for("the keys to go", lambda: not cluster.etcd.keys("/ratchet/association/old"))
    assert node.log().count("the configuration has changed") == 1
    assert cluster.etcd.get(published) == "10.99.0.77"
