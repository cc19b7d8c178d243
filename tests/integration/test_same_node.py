"""Two labelled pods on one node: a veth pair, straight between the two."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.cluster import Cluster
from tests.lab.namespaces import has_carrier, is_up, kind_of
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]


def facts(link: dict[str, Any]) -> dict[str, Any]:
    """Return what `ip link` says of an interface and does not change by itself."""
    return {key: value for key, value in link.items() if key not in ("linkinfo", "link_netnsid")}


@pytest.mark.parametrize("primary_first", [True, False], ids=["primary first", "pair first"])
def test_both_ends_are_there_when_the_second_add_returns(
    cluster: Cluster, node: Node, primary_first: bool
) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    first, second = (
        ((left, in1_in2("pair-pod")), (right, PAIR))
        if primary_first
        else ((right, PAIR), (left, in1_in2("pair-pod")))
    )
    node.add(*first).succeeded()
    node.add(*second).succeeded()

    in1, in2 = left.netns.link("in1"), right.netns.link("in2")
    assert in1 is not None
    assert in2 is not None
    assert kind_of(in1) == kind_of(in2) == "veth"
    assert is_up(in1)
    assert is_up(in2)
    assert left.netns.addresses("in1") == ["192.168.2.100/24"]
    assert right.netns.addresses("in2") == ["192.168.2.101/24"]
    assert left.netns.pings("192.168.2.101")
    assert right.netns.pings("192.168.2.100")


def test_the_two_ends_are_one_veth_pair(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod")).succeeded()
    node.add(right, PAIR).succeeded()

    in1, in2 = left.netns.wait_link("in1", "veth"), right.netns.wait_link("in2", "veth")
    assert (in1["link_index"], in2["link_index"]) == (in2["ifindex"], in1["ifindex"])


def test_pods_hold_nothing_but_their_end_and_lo(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod")).succeeded()
    node.add(right, PAIR).succeeded()

    left.netns.wait_ping("192.168.2.101")
    assert left.netns.names() == {"lo", "in1"}
    assert right.netns.names() == {"lo", "in2"}


def test_nothing_is_left_in_the_namespace_of_the_node(cluster: Cluster, node: Node) -> None:
    before = node.namespace.names()
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    assert node.namespace.names() == before


def test_other_interfaces_of_the_far_pod_are_untouched(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    boot: dict[str, Any] = {"boot_network": node.bridge_config(isGateway=True)}
    node.add(right, PAIR, **boot).succeeded()
    right.netns.ip("link", "add", "br9", "type", "bridge")
    right.netns.ip("addr", "add", "10.9.8.7/32", "dev", "br9")
    right.netns.ip("link", "set", "br9", "up")
    before = {name: facts(link) for name, link in right.netns.links().items()}
    routes = right.netns.ip("route").splitlines()

    with right.netns.watch("eth0") as eth0, right.netns.watch("br9") as br9:
        node.add(left, in1_in2("pair-pod"), **boot).succeeded()
        left.netns.wait_ping("192.168.2.101")
        after = {name: facts(link) for name, link in right.netns.links().items()}
        del after["in2"]
        assert after == before
        assert right.netns.addresses("br9") == ["10.9.8.7/32"]
        assert set(routes) < set(right.netns.ip("route").splitlines())
        node.delete(left).succeeded()
        wait_for("the cable to be out", lambda: not has_carrier(right.netns.link("in2")))
        assert eth0.flaps() == []
        assert br9.flaps() == []
    right.netns.ip("link", "delete", "br9")


@pytest.mark.nodes("fresh")
def test_eligible_pod_without_boot_network_gets_its_usual_eth0(
    cluster: Cluster, node: Node
) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    result = node.add(left, in1_in2("pair-pod"), boot_network=None).result
    node.add(right, PAIR, boot_network=None).succeeded()

    left.netns.wait_ping("192.168.2.101")
    assert left.netns.names() == {"lo", "eth0", "in1"}
    assert [ip["address"] for ip in result["ips"]] == left.netns.addresses("eth0")


def test_pod_is_known_by_its_pod_name_label(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("sts-0"), cluster.pod("sts-1")
    node.add(left, {**in1_in2("alias-b"), "ratchet.pod_name": "alias-a"}).succeeded()
    node.add(right, {**PAIR, "ratchet.pod_name": "alias-b"}).succeeded()

    left.netns.wait_ping("192.168.2.101")
    assert cluster.etcd.get("/ratchet/association/alias-a/id") == left.container_id
    assert cluster.etcd.get("/ratchet/association/alias-b/id") == right.container_id


def test_keys_of_version_010_are_published(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    keys = cluster.etcd.keys("/ratchet")
    for name, pod in (("primary-pod", left), ("pair-pod", right)):
        assert keys[f"/ratchet/association/{name}/id"] == pod.container_id
        assert keys[f"/ratchet/association/{name}/parentiface"] == "eth0"
        assert keys[f"/ratchet/association/{name}/parentaddr"] == node.address
    assert keys["/ratchet/association/pair-pod/pairifname"] == "in2"
    assert keys["/ratchet/association/pair-pod/pairip"] == "192.168.2.101"
    assert keys["/ratchet/association/pair-pod/primaryname"] == "primary-pod"
