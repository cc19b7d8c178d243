"""What v0.1.0's nodes do beside ours that nobody tells of: no bells, no claims, no clean-up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from ratchet.status import LinkStatus
from ratchetctl import node as status
from tests.lab.cluster import Cluster
from tests.lab.namespaces import vxlan_of
from tests.lab.old_node import ROOT, OldNode, forget
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary

pytestmark = pytest.mark.root

TIMEOUT_S = 10.0
# A node asks every 20 s what nobody rings for, and what it hears of may be told in part only.
UNTOLD_S = 60.0


@pytest.fixture
def old(cluster: Cluster, far: Node) -> Iterator[OldNode]:
    old_node = OldNode(far, cluster.etcd)
    yield old_node
    old_node.close()
    assert old_node.errors == []


def link_of(node: Node, pod: Pod, ifname: str, peer: str) -> LinkStatus | None:
    """Return what the node says of a link."""
    for one in status.read(node.state_dir).pods:
        for link in one.links:
            if (one.name, link.ifname, link.peer) == (pod.name, ifname, peer):
                return link
    return None


def test_the_first_old_primary_keeps_its_end_beside_a_second_one_until_it_goes(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    """As at a pair on an old node, which has made its end when v0.1.0's words change."""
    ours, one, two = cluster.pod("ours"), cluster.pod("one"), cluster.pod("two")
    node.add(ours, PAIR).succeeded()
    old.add_primary(one, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")
    in2 = ours.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.100")
    old.add_primary(two, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")

    def told() -> str:
        return str(status.read(node.state_dir))

    wait_for("the second one's error", told, until=lambda text: "already" in text, timeout_s=45)
    os.kill(node.wait_child(), signal.SIGKILL)
    node.check(ours).succeeded()  # has a child run
    wait_for("the error again", told, until=lambda text: "already" in text)
    assert ours.netns.wait_link("in2", "vxlan")["ifindex"] == in2["ifindex"]
    assert vxlan_of(ours.netns.wait_link("in2", "vxlan"))["id"] == 11
    assert ours.netns.pings("192.168.2.100")

    again = cluster.pod("one")
    one.netns.ip("link", "delete", "in1")
    old.add_pair(again)
    wait_for(
        "the second one's link",
        lambda: vxlan_of(ours.netns.wait_link("in2", "vxlan"))["id"],
        until=lambda vni: vni == 12,
        timeout_s=20,
    )
    ours.netns.wait_ping("192.168.2.100")
    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in2")
    forget(cluster, [one, two, again], "in1")


def test_a_link_gets_another_vni_when_an_old_node_has_taken_the_same(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """v0.1.0 reads the counter and writes it later: the link is between two nodes of ours."""
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    cluster.etcd.put(f"{ROOT}/vxlanid", "12")
    cluster.etcd.put(f"{ROOT}/association/stranger/vxlanid", "11")

    wait_for(
        "another VNI at both ends",
        lambda: {
            vxlan_of(left.netns.wait_link("in1", "vxlan"))["id"],
            vxlan_of(right.netns.wait_link("in2", "vxlan"))["id"],
        },
        until=lambda vnis: vnis == {12},
        timeout_s=45,
    )
    left.netns.wait_ping("192.168.2.101")
    cluster.etcd.delete(f"{ROOT}/association/stranger")


def test_an_old_primary_that_comes_late_is_linked(
    cluster: Cluster, node: Node, far: Node, old: OldNode
) -> None:
    """Its pair has another link, which is up and leads to a node of ours: it waits for nobody."""
    left, right, late = cluster.pod("left"), cluster.pod("right"), cluster.pod("late")
    third = OldNode(cluster.nodes[2], cluster.etcd)
    node.add(left, in1_in2("right")).succeeded()
    far.add(right, PAIR).succeeded()
    right.netns.wait_ping("192.168.2.100")
    time.sleep(3)  # who has waited has looked again

    third.add_primary(late, "in9", "192.168.9.100", "right", "in9", "192.168.9.101")
    right.netns.wait_link("in9", "vxlan", timeout_s=UNTOLD_S)
    late.netns.wait_link("in9", "vxlan")
    right.netns.wait_ping("192.168.9.100")
    assert right.netns.pings("192.168.2.100")

    third.close()
    assert third.errors == []
    node.delete(left).succeeded()
    far.delete(right).succeeded()
    right.netns.wait_no_link("in9")
    late.netns.ip("link", "delete", "in9")
    forget(cluster, [late], "in9")


def test_a_node_that_was_set_back_to_v010_is_one_of_v010(
    cluster: Cluster, node: Node, far: Node, old: OldNode
) -> None:
    ours, theirs, back, moved = (cluster.pod(name) for name in ("ours", "p", "p", "p"))
    third = OldNode(cluster.nodes[2], cluster.etcd)
    node.add(ours, in1_in2("p")).succeeded()
    far.add(theirs, PAIR).succeeded()
    ours.netns.wait_ping("192.168.2.101")
    far.delete(theirs).succeeded()
    wait_for(
        "the node to leave",
        lambda: cluster.etcd.keys(f"{ROOT}/nodes/{far.address}"),
        until=lambda keys: not keys,
    )

    old.add_pair(back)
    ours.netns.wait_ping("192.168.2.101", timeout_s=30)
    # Nobody rings for that, and our pod waits for nobody.
    back.netns.ip("link", "delete", "in2")
    third.add_pair(moved)
    ours.netns.wait_ping("192.168.2.101", timeout_s=UNTOLD_S)
    assert vxlan_of(ours.netns.wait_link("in1", "vxlan"))["remote"] == third.node.address
    link = link_of(node, ours, "in1", "p")
    assert link is not None
    assert (link.state, link.silent_since) == ("up", None)

    third.close()
    assert third.errors == []
    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in1")
    forget(cluster, [theirs, back, moved], "in2")


def test_a_vni_of_an_old_tunnel_is_not_taken_when_all_keys_are_removed(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")
    first, again, far_end = (cluster.pod(name) for name in ("first", "again", "again-pair"))
    node.add(ours, PAIR).succeeded()
    old.add_primary(theirs, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")
    ours.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    theirs.netns.wait_link("in1", "vxlan", timeout_s=TIMEOUT_S)
    node.add(first, primary("x", "10.1.1.1", "nobody", "y", "10.1.1.2")).succeeded()
    assert cluster.etcd.get(f"{ROOT}/vxlanid") == "13"

    cluster.etcd.delete(ROOT)  # as the clean-up job does
    node.add(again, primary("x", "10.1.2.1", "again-pair", "y", "10.1.2.2")).succeeded()
    cluster.nodes[2].add(far_end, PAIR).succeeded()
    far_end.netns.wait_ping("10.1.2.1")
    assert vxlan_of(again.netns.wait_link("x", "vxlan"))["id"] > 12
    assert vxlan_of(theirs.netns.wait_link("in1", "vxlan"))["id"] == 11

    for at, pod in ((node, first), (node, again), (node, ours), (cluster.nodes[2], far_end)):
        at.delete(pod).succeeded()
    forget(cluster, [theirs], "in1")


def test_a_link_with_an_old_pod_that_is_a_primary_itself_is_not_up(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")
    node.add(ours, in1_in2("theirs")).succeeded()
    old.add_primary(theirs, "out1", "192.168.3.1", "somebody", "out2", "192.168.3.2")

    def told() -> LinkStatus | None:
        return link_of(node, ours, "in1", "theirs")

    link = wait_for(
        "the error",
        told,
        until=lambda link: link is not None and link.state == "error",
        timeout_s=TIMEOUT_S,
    )
    assert link is not None
    assert "makes no end for a pair that is a primary itself" in (link.error or "")
    assert ours.netns.link("in1") is None

    old.close()
    node.delete(ours).succeeded()
    forget(cluster, [theirs], "out1")


def test_only_the_first_of_two_links_with_an_old_pair_is_up(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")
    second = primary("in3", "192.168.3.1", "theirs", "in4", "192.168.3.2", number=2)
    node.add(ours, {**in1_in2("theirs"), **second}).succeeded()
    old.add_pair(theirs)
    ours.netns.wait_ping("192.168.2.101", timeout_s=20)

    links = wait_for(
        "both states",
        lambda: [link_of(node, ours, ifname, "theirs") for ifname in ("in1", "in3")],
        until=lambda links: [link and link.state for link in links] == ["up", "error"],
    )
    assert "one link with a pair: ours:in1" in str(links[1])
    assert ours.netns.link("in3") is None

    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in1")
    forget(cluster, [theirs], "in2")
