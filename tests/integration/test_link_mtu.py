"""`ratchet.<n>.mtu`: both ends of a link have the MTU that its primary declares."""

from __future__ import annotations

import os
import signal

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2

pytestmark = pytest.mark.root


def mtu_of(pod: Pod, ifname: str) -> int:
    link = pod.netns.link(ifname)
    assert link is not None
    return int(link["mtu"])


def linked(cluster: Cluster, node: Node) -> tuple[Pod, Pod]:
    """Attach a primary and its pair to one node, and wait for their link."""
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    return left, right


@each_of("place", [0, 1])
def test_both_ends_have_the_mtu_of_the_link(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, {**in1_in2("b"), "ratchet.mtu": "1300"}).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    assert (mtu_of(left, "in1"), mtu_of(right, "in2")) == (1300, 1300)


def test_the_mtu_of_the_link_goes_before_the_configurations(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    config = node.config(mtu=1250)
    labels = {**in1_in2("b"), "ratchet.2.local_ifname": "in3", "ratchet.2.pair_name": "b"}
    labels |= {"ratchet.2.pair_ifname": "in4", "ratchet.2.mtu": "1310"}
    node.add(left, labels, config=config).succeeded()
    node.add(right, PAIR, config=config).succeeded()
    left.netns.wait_link("in3", "veth")
    assert (mtu_of(left, "in1"), mtu_of(left, "in3")) == (1250, 1310)
    assert (mtu_of(right, "in2"), mtu_of(right, "in4")) == (1250, 1310)


def test_an_mtu_that_the_kernel_refuses_is_a_fault_of_a_link_that_is_up(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, {**in1_in2("b"), "ratchet.mtu": "9000"}).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    assert mtu_of(left, "in1") < 9000
    wait_for("the fault", lambda: "the kernel refuses a property of a link" in node.log())
    assert 'error="mtu 9000: Invalid argument"' in node.log()
    assert node.log().count("the kernel refuses a property of a link") == 1
    node.check(left).succeeded()


def test_an_mtu_that_changes_is_changed_on_the_interface_that_is_there(
    cluster: Cluster, node: Node
) -> None:
    left, right = linked(cluster, node)
    before = left.netns.link("in1")
    node.add(left, {**in1_in2("b"), "ratchet.mtu": "1400"}).succeeded()
    wait_for("the MTU", lambda: (mtu_of(left, "in1"), mtu_of(right, "in2")) == (1400, 1400))
    after = left.netns.link("in1")
    assert before is not None
    assert after is not None
    assert before["ifindex"] == after["ifindex"]


def test_an_address_that_a_link_no_longer_has_goes_from_its_interface(
    cluster: Cluster, node: Node
) -> None:
    left, _ = linked(cluster, node)
    left.netns.ip("address", "add", "10.9.9.9/8", "dev", "in1")  # the pod's own stays
    node.add(left, {**in1_in2("b"), "ratchet.local_ip": "192.168.2.110"}).succeeded()
    wait_for("the address", lambda: "192.168.2.110/24" in left.netns.addresses("in1"))
    assert sorted(left.netns.addresses("in1")) == ["10.9.9.9/8", "192.168.2.110/24"]


def test_an_old_address_goes_although_the_child_was_killed_meanwhile(
    cluster: Cluster, node: Node
) -> None:
    left, _ = linked(cluster, node)
    left.netns.ip("address", "add", "10.9.9.9/8", "dev", "in1")
    os.kill(node.wait_child(), signal.SIGKILL)
    node.add(left, {**in1_in2("b"), "ratchet.local_ip": "192.168.2.110"}).succeeded()
    wait_for("the address", lambda: "192.168.2.110/24" in left.netns.addresses("in1"))
    assert sorted(left.netns.addresses("in1")) == ["10.9.9.9/8", "192.168.2.110/24"]
