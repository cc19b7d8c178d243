"""A node that still runs Ratchet CNI v0.1.0 pairs with ours, in both directions and both orders."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ratchetctl import node as status
from tests.lab.cluster import Cluster
from tests.lab.namespaces import vxlan_of
from tests.lab.old_node import ROOT, OldNode, forget
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary

pytestmark = pytest.mark.root

# The old node looks once a second and then sleeps one; ours looks again by itself, less and less.
TIMEOUT_S = 10.0


@pytest.fixture
def old(cluster: Cluster, far: Node) -> Iterator[OldNode]:
    old_node = OldNode(far, cluster.etcd)
    yield old_node
    old_node.close()
    assert old_node.errors == []


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "old first"])
def test_ours_as_primary_pairs_with_an_old_node(
    cluster: Cluster, node: Node, far: Node, old: OldNode, ours_first: bool
) -> None:
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")
    if ours_first:
        node.add(ours, in1_in2("theirs")).succeeded()
        time.sleep(1.5)
        old.add_pair(theirs)
    else:
        old.add_pair(theirs)
        time.sleep(1.5)
        node.add(ours, in1_in2("theirs")).succeeded()

    in2 = theirs.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    in1 = ours.netns.wait_link("in1", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.101")
    theirs.netns.wait_ping("192.168.2.100")
    assert vxlan_of(in1)["id"] == vxlan_of(in2)["id"] == 11
    assert vxlan_of(in1)["remote"] == far.address
    assert cluster.etcd.get(f"{ROOT}/vxlanid") == "12"
    keys = cluster.etcd.keys(f"{ROOT}/association/theirs")
    assert keys[f"{ROOT}/association/theirs/primaryname"] == "ours"
    assert keys[f"{ROOT}/association/theirs/pairip"] == "192.168.2.101"

    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in1")
    # What the old node wrote is the old node's.
    assert cluster.etcd.get(f"{ROOT}/association/theirs/id") == theirs.container_id
    forget(cluster, [theirs], "in2")


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "old first"])
def test_ours_as_pair_pairs_with_an_old_node(
    cluster: Cluster, node: Node, far: Node, old: OldNode, ours_first: bool
) -> None:
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")

    def add_theirs() -> None:
        old.add_primary(theirs, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")

    if ours_first:
        node.add(ours, PAIR).succeeded()
        time.sleep(1.5)
        add_theirs()
    else:
        add_theirs()
        time.sleep(1.5)
        node.add(ours, PAIR).succeeded()

    in1 = theirs.netns.wait_link("in1", "vxlan", timeout_s=TIMEOUT_S)
    in2 = ours.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.100")
    theirs.netns.wait_ping("192.168.2.101")
    assert vxlan_of(in1)["id"] == vxlan_of(in2)["id"] == 11
    assert vxlan_of(in2)["remote"] == far.address
    assert ours.netns.addresses("in2") == ["192.168.2.101/24"]
    assert "brd 192.168.2.255" in ours.netns.ip("addr", "show", "dev", "in2")

    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in2")
    wait_for(
        "our pod's keys to go",
        lambda: cluster.etcd.get(f"{ROOT}/association/ours/id"),
        until=lambda value: value is None,
    )
    forget(cluster, [theirs], "in1")


@pytest.mark.parametrize("ours_is", ["primary", "pair"])
def test_old_pod_that_is_published_bit_by_bit_is_linked(
    cluster: Cluster, node: Node, old: OldNode, ours_is: str
) -> None:
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")
    old.pause_s = 1.5
    if ours_is == "primary":
        node.add(ours, in1_in2("theirs")).succeeded()
        old.add_pair(theirs)
    else:
        node.add(ours, PAIR).succeeded()
        old.add_primary(theirs, "in2", "192.168.2.101", "ours", "in1", "192.168.2.100")

    theirs.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_link("in1", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.101")
    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in1")
    forget(cluster, [theirs], "in2")


def test_our_pair_comes_again_while_the_old_primary_stays(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    """The old node does nothing a second time: its keys and its end have to be enough."""
    theirs = cluster.pod("theirs")
    old.add_primary(theirs, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")
    for attempt in range(3):
        ours = cluster.pod("ours")
        node.add(ours, PAIR).succeeded()
        ours.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
        if attempt == 0:
            theirs.netns.wait_link("in1", "vxlan", timeout_s=TIMEOUT_S)
        ours.netns.wait_ping("192.168.2.100")
        node.delete(ours).succeeded()
        ours.netns.wait_no_link("in2")
    assert cluster.etcd.get(f"{ROOT}/association/ours/primaryname") == "theirs"
    forget(cluster, [theirs], "in1")


def test_vni_of_an_old_primary_that_is_in_use_here_is_waited_for_patiently(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    """It cannot have another one: v0.1.0 would not follow."""
    node.namespace.ip(
        *("link", "add", "other", "type", "vxlan", "id", "11"),
        *("dstport", "4789", "dev", "eth0", "remote", "192.0.2.1"),
    )
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")
    node.add(ours, PAIR).succeeded()
    old.add_primary(theirs, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")
    wait_for("the error", lambda: "in use" in str(status.read(node.state_dir)))
    time.sleep(5)  # as long as a namespace takes that is being removed
    before = cluster.etcd.reads()
    time.sleep(2)
    assert cluster.etcd.reads() - before < 40
    node.namespace.ip("link", "delete", "other")
    ours.netns.wait_ping("192.168.2.100")
    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in2")
    forget(cluster, [theirs], "in1")


@pytest.mark.parametrize("theirs_is", ["primary", "pair"])
def test_old_pod_that_comes_again_elsewhere_is_linked_again(
    cluster: Cluster, node: Node, old: OldNode, theirs_is: str
) -> None:
    """Nobody rings for it: it has another address, and as primary another VNI."""
    ours, theirs, again = cluster.pod("ours"), cluster.pod("theirs"), cluster.pod("theirs")
    third = OldNode(cluster.nodes[2], cluster.etcd)

    def add(there: OldNode, pod: Pod) -> None:
        if theirs_is == "primary":
            there.add_primary(pod, "in2", "192.168.2.101", "ours", "in1", "192.168.2.100")
        else:
            there.add_pair(pod)

    node.add(ours, PAIR if theirs_is == "primary" else in1_in2("theirs")).succeeded()
    add(old, theirs)
    theirs.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.101")
    # The kernel does that when the pod goes; v0.1.0 does nothing.
    theirs.netns.ip("link", "delete", "in2")
    add(third, again)

    in2 = again.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.101", timeout_s=20)
    in1 = ours.netns.wait_link("in1", "vxlan")
    assert vxlan_of(in1)["remote"] == third.node.address
    assert vxlan_of(in1)["id"] == vxlan_of(in2)["id"] == (12 if theirs_is == "primary" else 11)

    third.close()
    assert third.errors == []
    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in1")
    forget(cluster, [theirs, again], "in2")


def test_vnis_stay_apart_when_old_and_new_nodes_take_turns(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    ours = [cluster.pod(f"ours{n}") for n in range(4)]
    theirs = [cluster.pod(f"theirs{n}") for n in range(4)]
    for n in range(4):
        one, two = f"10.1.{n}.1", f"10.1.{n}.2"
        if n % 2:
            node.add(ours[n], primary("x", one, f"theirs{n}", "y", two)).succeeded()
            old.add_pair(theirs[n])
        else:
            old.add_primary(theirs[n], "y", two, f"ours{n}", "x", one)
            node.add(ours[n], PAIR).succeeded()
    vnis = set()
    for n in range(4):
        vnis.add(vxlan_of(ours[n].netns.wait_link("x", "vxlan", timeout_s=TIMEOUT_S))["id"])
        theirs[n].netns.wait_link("y", "vxlan", timeout_s=TIMEOUT_S)
        ours[n].netns.wait_ping(f"10.1.{n}.2")
    assert vnis == {11, 12, 13, 14}

    for n in range(4):
        node.delete(ours[n]).succeeded()
    for n in range(4):
        ours[n].netns.wait_no_link("x")
    forget(cluster, theirs, "y")
