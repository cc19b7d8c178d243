"""Two labelled pods on two nodes: a vxlan tunnel of two points."""

from __future__ import annotations

import functools
import random

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.namespaces import is_up, vxlan_of
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2

pytestmark = pytest.mark.root


@each_of("primary_first", [True, False])
def test_link_comes_up_in_both_orders_of_start(
    cluster: Cluster, node: Node, far: Node, primary_first: bool
) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    if primary_first:
        node.add(left, in1_in2("pair-pod")).succeeded()
        far.add(right, PAIR).succeeded()
        late, ifname = right, "in2"
    else:
        far.add(right, PAIR).succeeded()
        node.add(left, in1_in2("pair-pod")).succeeded()
        late, ifname = left, "in1"

    # wait: present: the end of the later pod exists before its first process starts.
    own_end = late.netns.link(ifname)
    assert own_end is not None
    assert is_up(own_end)
    left.netns.wait_ping("192.168.2.101")
    right.netns.wait_ping("192.168.2.100")


def test_ends_are_vxlans_with_vni_11_remote_port_4789_and_mtu_below_the_parents(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod")).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    parent = node.namespace.link("eth0")
    assert parent is not None
    for pod, ifname, remote in ((left, "in1", far), (right, "in2", node)):
        link = pod.netns.wait_link(ifname, "vxlan")
        vxlan = vxlan_of(link)
        assert vxlan["id"] == 11
        assert vxlan["remote"] == remote.address
        assert vxlan["port"] == 4789
        assert link["mtu"] == parent["mtu"] - 50
        assert is_up(link)
    assert left.netns.addresses("in1") == ["192.168.2.100/24"]
    assert right.netns.addresses("in2") == ["192.168.2.101/24"]
    assert left.netns.pings("192.168.2.101", "-M", "do", "-s", str(parent["mtu"] - 50 - 28))
    assert cluster.etcd.get("/ratchet/vxlanid") == "12"


def test_nothing_is_left_in_the_namespaces_of_the_nodes(
    cluster: Cluster, node: Node, far: Node
) -> None:
    before = node.namespace.names(), far.namespace.names()
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod")).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    assert (node.namespace.names(), far.namespace.names()) == before
    assert left.netns.names() == {"lo", "in1"}
    assert right.netns.names() == {"lo", "in2"}


def test_port_and_mtu_are_taken_from_the_configuration(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod"), vxlan_port="8472", mtu=1300).succeeded()
    far.add(right, PAIR, vxlan_port=8472, mtu="1300").succeeded()
    left.netns.wait_ping("192.168.2.101")

    for pod, ifname in ((left, "in1"), (right, "in2")):
        link = pod.netns.wait_link(ifname, "vxlan")
        assert vxlan_of(link)["port"] == 8472
        assert link["mtu"] == 1300


def test_ipv6_parent_address_costs_70_bytes(cluster: Cluster, node: Node, far: Node) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod"), parent_address=node.address6).succeeded()
    far.add(right, PAIR, parent_address=far.address6).succeeded()
    left.netns.wait_ping("192.168.2.101")

    link = left.netns.wait_link("in1", "vxlan")
    assert vxlan_of(link)["remote6"] == far.address6
    assert link["mtu"] == 1500 - 70


def test_parent_address_is_found_when_the_configuration_has_none(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod"), parent_address=None).succeeded()
    far.add(right, PAIR, parent_address=None, parent_interface=None).succeeded()

    left.netns.wait_ping("192.168.2.101")
    assert vxlan_of(left.netns.wait_link("in1"))["remote"] == far.address
    assert vxlan_of(right.netns.wait_link("in2"))["remote"] == node.address


def test_wait_all_answers_when_every_link_is_up(cluster: Cluster, node: Node, far: Node) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    call = node.start_add(left, in1_in2("pair-pod"), wait="all", wait_seconds=20)
    far.add(right, PAIR).succeeded()
    call.finish().succeeded()

    in1 = left.netns.link("in1")
    assert in1 is not None
    assert is_up(in1)
    left.netns.wait_ping("192.168.2.101")


def test_wait_all_fails_when_the_far_pod_does_not_come_and_undoes_its_steps(
    cluster: Cluster, node: Node
) -> None:
    left = cluster.pod("primary-pod")
    outcome = node.add(left, in1_in2("pair-pod"), wait="all", wait_seconds="1")

    assert outcome.error["code"] == 103
    assert "pair-pod" in outcome.error_text
    assert left.netns.names() == {"lo"}
    wait_for("the record to go", node.records, until=lambda records: not records)
    wait_for(
        "the keys to go",
        lambda: set(cluster.etcd.keys()),
        until=lambda keys: keys <= {"/ratchet/vxlanid"},
    )


def test_wait_none_answers_at_once_and_the_link_follows(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod"), wait="none").succeeded()
    far.add(right, PAIR, wait="none").succeeded()

    left.netns.wait_ping("192.168.2.101")


@pytest.mark.slow
def test_pods_added_at_the_same_moment_are_linked_each_of_20_times(
    cluster: Cluster, node: Node, far: Node
) -> None:
    for attempt in range(20):
        left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
        adds = [
            functools.partial(node.start_add, left, in1_in2("pair-pod")),
            functools.partial(far.start_add, right, PAIR),
        ]
        random.shuffle(adds)
        for call in [add() for add in adds]:
            call.finish().succeeded()
        try:
            left.netns.wait_ping("192.168.2.101")
            right.netns.wait_ping("192.168.2.100")
            in1, in2 = left.netns.wait_link("in1"), right.netns.wait_link("in2")
            assert vxlan_of(in1)["id"] == vxlan_of(in2)["id"]
        except AssertionError as error:
            raise AssertionError(f"attempt {attempt + 1} of 20: {error}") from error
        for call in [node.start_delete(left), far.start_delete(right)]:
            call.finish().succeeded()
        node.attachments.clear()
        far.attachments.clear()
        left.netns.remove()
        right.netns.remove()
