"""Uplinks: a macvlan of one of the node's interfaces, and a link with the node itself."""

from __future__ import annotations

import os
import signal

import pytest

from ratchetctl import node as reading
from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.namespaces import has_carrier
from tests.lab.polling import wait_for
from tests.lab.runtime import Node, Pod
from tests.lab.underlay import ROUTER_ADDRESS

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

ELIGIBLE = {"ratchet": "true"}
MACVLAN = "- {ifname: up1, kind: macvlan, device: eth0, address: 10.99.0.77/24}"
HOST = "- {ifname: up1, kind: host, device: to-a, address: 10.7.0.2/30, pair_address: 10.7.0.1/30}"
KINDS = [("macvlan", MACVLAN), ("veth", HOST)]


def add(node: Node, pod: Pod, links: str) -> None:
    node.add(pod, ELIGIBLE, {"ratchet.links": links}).succeeded()


def states(node: Node) -> list[tuple[str, str, str | None]]:
    pods = reading.read(node.state_dir).pods
    return [(link.ifname, link.state, link.error) for pod in pods for link in pod.links]


def test_a_macvlan_reaches_the_network_of_the_nodes_interface(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    add(node, pod, MACVLAN)
    pod.netns.wait_ping(ROUTER_ADDRESS)
    link = pod.netns.link("up1")
    assert link is not None
    assert link["linkinfo"]["info_data"]["mode"] == "bridge"
    assert states(node) == [("up1", "up", None)]


def test_two_macvlans_of_one_interface_reach_each_other(cluster: Cluster, node: Node) -> None:
    one, other = cluster.pod("a"), cluster.pod("b")
    add(node, one, MACVLAN)
    add(node, other, MACVLAN.replace(".77", ".78"))
    one.netns.wait_ping("10.99.0.78")


def test_a_host_link_ends_at_the_node(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    add(node, pod, HOST)
    pod.netns.wait_ping("10.7.0.1")
    assert node.namespace.pings("10.7.0.2")
    assert states(node) == [("up1", "up", None)]


@each_of(("kind", "links"), KINDS)
def test_an_uplink_has_the_properties_that_it_is_given(
    cluster: Cluster, node: Node, kind: str, links: str
) -> None:
    pod = cluster.pod("a")
    add(node, pod, links.replace("ifname", "mtu: 1300, mac: 02:00:00:00:aa:01, ifname"))
    link = pod.netns.wait_link("up1", kind)
    assert (link["mtu"], link["address"]) == (1300, "02:00:00:00:aa:01")
    if kind == "veth":
        assert node.namespace.links()["to-a"]["mtu"] == 1300


@pytest.mark.nodes("fresh")
@each_of(("kind", "links"), KINDS)
def test_an_uplink_stays_when_the_child_dies_and_the_add_is_repeated(
    cluster: Cluster, node: Node, kind: str, links: str
) -> None:
    pod = cluster.pod("a")
    add(node, pod, links)
    before = pod.netns.wait_link("up1", kind)
    os.kill(node.wait_child(), signal.SIGKILL)
    add(node, pod, links)
    node.check(pod).succeeded()
    after = pod.netns.link("up1")
    assert after is not None
    assert before["ifindex"] == after["ifindex"]


@each_of(("kind", "links"), KINDS)
def test_an_uplink_goes_with_its_pod_and_by_its_labels(
    cluster: Cluster, node: Node, kind: str, links: str
) -> None:
    pod = cluster.pod("a")
    add(node, pod, links)
    pod.netns.wait_link("up1", kind)
    add(node, pod, "[]")
    wait_for("it to go", lambda: pod.netns.link("up1") is None)
    add(node, pod, links)
    pod.netns.wait_link("up1", kind)
    node.delete(pod).succeeded()
    wait_for("it to go", lambda: pod.netns.link("up1") is None)
    assert "to-a" not in node.namespace.names()
    node.delete(pod).succeeded()


def test_an_uplink_needs_no_etcd(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    cluster.etcd.stop()
    try:
        add(node, pod, HOST)
        pod.netns.wait_ping("10.7.0.1")
    finally:
        cluster.etcd.start()


@pytest.mark.nodes("fresh")
def test_an_interface_that_is_not_there_is_an_error_until_it_comes(
    cluster: Cluster, node: Node
) -> None:
    pod = cluster.pod("a")
    links = MACVLAN.replace("eth0", "eth7")
    config = node.config(wait_seconds=1)
    node.add(pod, ELIGIBLE, {"ratchet.links": links}, config=config).succeeded()
    ((ifname, state, why),) = states(node)
    assert (ifname, state) == ("up1", "error")
    assert why is not None
    assert "this node has no interface eth7, which the link's device names" in why
    cluster.join(node, "eth7", "10.99.0.79")
    try:
        pod.netns.wait_ping(ROUTER_ADDRESS)
        node.namespace.ip("link", "del", "eth7")
        wait_for("the error", lambda: [one[1] for one in states(node)] == ["error"])
    finally:
        node.namespace.ip("link", "del", "eth7", check=False)


@pytest.mark.nodes("fresh")
def test_a_name_that_the_node_has_already_is_an_error_and_left_alone(
    cluster: Cluster, node: Node
) -> None:
    pod = cluster.pod("a")
    node.namespace.ip("link", "add", "to-a", "type", "bridge")
    try:
        config = node.config(wait_seconds=1)
        node.add(pod, ELIGIBLE, {"ratchet.links": HOST}, config=config).succeeded()
        ((_, state, why),) = states(node)
        assert state == "error"
        assert why is not None
        assert "this node has an interface to-a already" in why
        assert "bridge" in str(node.namespace.links()["to-a"])
    finally:
        node.namespace.ip("link", "del", "to-a")
    pod.netns.wait_ping("10.7.0.1")


def test_the_nodes_end_of_a_host_link_takes_the_carrier_with_it(
    cluster: Cluster, node: Node
) -> None:
    pod = cluster.pod("a")
    add(node, pod, HOST)
    pod.netns.wait_ping("10.7.0.1")
    node.namespace.ip("link", "set", "to-a", "down")
    wait_for("no carrier", lambda: not has_carrier(pod.netns.links()["up1"]))
    node.check(pod).succeeded()
