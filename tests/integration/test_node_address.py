"""The node's own address: which one is taken, and what happens when it becomes another one.

Each test has a cluster of its own, since it changes the nodes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from ratchetctl import node as status
from tests.lab.cluster import Cluster
from tests.lab.namespaces import vxlan_of
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

FOUND: dict[str, Any] = {"parent_interface": None, "parent_address": None}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(nodes=2)
    try:
        yield made
        assert made.problems_after_test() == []
        assert made.end_test() == []
    finally:
        made.close()


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes[0]


@pytest.fixture
def far(cluster: Cluster) -> Node:
    return cluster.nodes[1]


def link_state(node: Node, ifname: str) -> str | None:
    """Return what `ratchetctl status` says of an interface."""
    links = [link for pod in status.read(node.state_dir).pods for link in pod.links]
    return next((link.state for link in links if link.ifname == ifname), None)


def join(cluster: Cluster, node: Node, address: str) -> None:
    """Give a node a second uplink."""
    cluster.join(node, "eth1", address)
    cluster._baseline[node.number].add("eth1")


def readdress(node: Node, before: str, after: str) -> None:
    """Do what a DHCP client does that is given another address."""
    node.namespace.ip("addr", "del", f"{before}/24", "dev", "eth0")
    node.namespace.ip("addr", "add", f"{after}/24", "dev", "eth0")
    node.namespace.ip("route", "replace", "default", "via", "10.99.0.1")


# Which ------------------------------------------------------------------------------------------


def test_address_on_lo_has_tunnels_that_the_routes_lead(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """BGP to the host: the address is on lo, and two uplinks lead to the others."""
    for one in (node, far):
        join(cluster, one, f"10.99.1.{one.number}")
        one.namespace.ip("addr", "add", f"10.255.0.{one.number}/32", "dev", "lo")
        one.namespace.ip("link", "set", "eth0", "mtu", "1400")
    for one, other in ((node, far), (far, node)):
        one.namespace.ip(
            *("route", "add", f"10.255.0.{other.number}", "src", f"10.255.0.{one.number}"),
            *("nexthop", "via", other.address, "dev", "eth0"),
        )
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), parent_interface=None, parent_address="10.255.0.1").succeeded()
    far.add(right, PAIR, parent_interface=None, parent_address="10.255.0.2").succeeded()

    left.netns.wait_ping("192.168.2.101")
    in1 = left.netns.wait_link("in1", "vxlan")
    assert "link" not in vxlan_of(in1)
    assert vxlan_of(in1)["local"] == "10.255.0.1"
    assert vxlan_of(in1)["remote"] == "10.255.0.2"
    assert in1["mtu"] == 1350
    assert status.read(node.state_dir).interface == "lo"
    # Known again by a child that looks anew.
    index = in1["ifindex"]
    node.check(left).succeeded()
    assert left.netns.wait_link("in1")["ifindex"] == index


def test_without_a_route_to_the_far_node_the_error_says_so(
    cluster: Cluster, node: Node, far: Node
) -> None:
    node.namespace.ip("addr", "add", "10.255.0.1/32", "dev", "lo")
    node.namespace.ip("route", "del", "default")
    left, right = cluster.pod("a"), cluster.pod("b")
    far.add(right, PAIR, parent_address="10.255.0.2").succeeded()
    node.add(left, in1_in2("b"), parent_interface="lo", parent_address="10.255.0.1").succeeded()
    wait_for(
        "the error", lambda: "find the route to 10.255.0.2" in str(status.read(node.state_dir))
    )


def test_address_of_a_multipath_default_route_is_found(
    cluster: Cluster, node: Node, far: Node
) -> None:
    join(cluster, node, "10.99.1.1")
    node.namespace.ip(
        *("route", "replace", "default", "nexthop", "via", "10.99.0.1", "dev", "eth0"),
        *("nexthop", "via", "10.99.1.254", "dev", "eth1"),
    )
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), **FOUND).succeeded()
    far.add(right, PAIR, **FOUND).succeeded()
    left.netns.wait_ping("192.168.2.101")
    assert vxlan_of(right.netns.wait_link("in2"))["remote"] == node.address


def test_address_on_no_interface_leaves_by_the_default_route(cluster: Cluster, node: Node) -> None:
    left = cluster.pod("a")
    node.add(left, in1_in2("b"), parent_interface=None, parent_address="203.0.113.9").succeeded()
    found = status.read(node.state_dir)
    assert (found.address, found.interface) == ("203.0.113.9", "eth0")


# Another one -------------------------------------------------------------------------------------


def linked(cluster: Cluster, node: Node, far: Node) -> tuple[Pod, Pod]:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), **FOUND).succeeded()
    far.add(right, PAIR, **FOUND).succeeded()
    left.netns.wait_ping("192.168.2.101")
    return left, right


def test_another_address_is_published_and_the_peers_tunnels_follow(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = linked(cluster, node, far)
    readdress(node, node.address, "10.99.0.77")

    wait_for(
        "the tunnel to follow",
        lambda: vxlan_of(right.netns.wait_link("in2", "vxlan"))["remote"] == "10.99.0.77",
    )
    left.netns.wait_ping("192.168.2.101")
    assert cluster.etcd.get("/ratchet/association/a/parentaddr") == "10.99.0.77"
    wait_for(
        "the old address to be left",
        lambda: cluster.etcd.keys(f"/ratchet/nodes/{node.address}"),
        until=lambda keys: not keys,
    )
    node.check(left).succeeded()


def test_tunnels_send_from_the_new_address_while_the_node_keeps_the_old_one(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """The far node's guard takes frames from the node's address only."""
    left, right = linked(cluster, node, far)
    node.namespace.ip("addr", "add", "10.99.0.77/24", "dev", "eth0")
    left.netns.wait_ping("192.168.2.101")  # the kernel has its routes again
    node.add(cluster.pod("c"), PAIR, **{**FOUND, "parent_address": "10.99.0.77"}).succeeded()
    wait_for(
        "the tunnel to follow",
        lambda: vxlan_of(right.netns.wait_link("in2", "vxlan"))["remote"] == "10.99.0.77",
    )
    index = (left.netns.link("in1") or {})["ifindex"]
    left.netns.wait_ping("192.168.2.101")
    assert vxlan_of(left.netns.wait_link("in1", "vxlan"))["local"] == "10.99.0.77"
    assert (left.netns.link("in1") or {})["ifindex"] == index


def test_nothing_is_up_while_the_node_has_no_address(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, _ = linked(cluster, node, far)
    wait_for("the link to be up", lambda: link_state(node, "in1") == "up")
    node.namespace.ip("addr", "del", f"{node.address}/24", "dev", "eth0")

    assert link_state(node, "in1") != "up"
    assert node.check(left).exit != 0
    assert "no usable address" in str(status.read(node.state_dir).trouble) or (
        "no default route" in str(status.read(node.state_dir).trouble)
    )

    node.namespace.ip("addr", "add", f"{node.address}/24", "dev", "eth0")
    node.namespace.ip("route", "replace", "default", "via", "10.99.0.1")
    left.netns.wait_ping("192.168.2.101")
    wait_for("the link to be up", lambda: link_state(node, "in1") == "up")
    assert status.read(node.state_dir).trouble is None


def test_a_pod_that_comes_before_the_default_route_is_linked_when_it_is_there(
    cluster: Cluster, node: Node, far: Node
) -> None:
    node.namespace.ip("route", "del", "default")
    left, beside, right = cluster.pod("a"), cluster.pod("c"), cluster.pod("b")
    far.add(right, PAIR, **FOUND).succeeded()
    assert node.add(left, in1_in2("b"), **FOUND).succeeded().elapsed_s < 4
    node.add(beside, PAIR, **FOUND).succeeded()
    assert cluster.etcd.get("/ratchet/association/a/id") is None
    assert status.read(node.state_dir).trouble == "there is no default route"

    node.namespace.ip("route", "add", "default", "via", "10.99.0.1")
    left.netns.wait_ping("192.168.2.101")
    assert cluster.etcd.get("/ratchet/association/a/parentaddr") == node.address


def test_links_inside_a_node_without_an_address_work_and_leave_no_record(
    cluster: Cluster, node: Node
) -> None:
    node.namespace.ip("route", "del", "default")
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), **FOUND).succeeded()
    node.add(right, PAIR, **FOUND).succeeded()
    left.netns.wait_ping("192.168.2.101")
    for pod in (left, right):
        node.delete(pod).succeeded()
    wait_for("the records to go", node.records, until=lambda records: not records)


def test_tunnels_are_made_on_an_interface_that_was_replaced(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """The name is the same and the index another one: the old lower device took them with it."""
    left, _ = linked(cluster, node, far)
    before = node.namespace.link("eth0")
    node.namespace.ip("link", "del", "eth0")
    cluster.join(node, "eth0", node.address)
    node.namespace.ip("route", "replace", "default", "via", "10.99.0.1")
    after = node.namespace.link("eth0")
    assert before is not None
    assert after is not None
    assert before["ifindex"] != after["ifindex"]

    left.netns.wait_ping("192.168.2.101")
    wait_for("the link to be up", lambda: link_state(node, "in1") == "up")


def test_much_that_happens_on_a_node_makes_no_other_node_of_it(
    cluster: Cluster, node: Node, far: Node
) -> None:
    linked(cluster, node, far)
    pid = node.wait_child()
    for number in range(40):
        node.namespace.ip("link", "add", f"x{number}", "type", "bridge")
        node.namespace.ip("addr", "add", f"198.51.100.{number}/32", "dev", f"x{number}")
    for number in range(40):
        node.namespace.ip("link", "del", f"x{number}")
    time.sleep(1.5)
    assert "has changed" not in node.log()
    assert node.children() == [pid]
