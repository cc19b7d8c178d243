"""One container with several attachments, and an ADD that is repeated with other labels."""

from __future__ import annotations

import json

import pytest

from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]


def published(cluster: Cluster) -> dict[str, str | None]:
    """What stands in etcd for pods: without bells, which expire, and the counter."""
    found = cluster.etcd.tree()
    return {
        key: value
        for key, value in found.items()
        if "/bell" not in key and key != "/ratchet/vxlanid"
    }


def test_pod_keeps_its_links_when_one_of_its_attachments_goes(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("left"), cluster.pod("right")
    node.add(left, in1_in2("right")).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    before = published(cluster)
    with left.netns.watch("in1") as watch:
        node.add(left, in1_in2("right"), ifname="net1").succeeded()
        node.check(left).succeeded()
        node.check(left, ifname="net1").succeeded()
        node.delete(left, ifname="net1").succeeded()
        wait_for("the record of net1 to go", lambda: len(node.records()) == 1)
        left.netns.wait_ping("192.168.2.101")
        assert watch.flaps() == []
    assert published(cluster) == before


def test_repeated_add_may_give_the_pod_another_name(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("left"), cluster.pod("right")
    far.add(right, PAIR).succeeded()
    node.add(left, {**in1_in2("right"), "ratchet.pod_name": "old"}).succeeded()
    left.netns.wait_ping("192.168.2.101")
    node.add(left, {**in1_in2("right"), "ratchet.pod_name": "new"}).succeeded()
    left.netns.wait_ping("192.168.2.101")
    # As if the pod of the old name had gone.
    kept = "/ratchet/association/right/links/old:in1"
    keys = wait_for(
        "what the old name had published to go",
        lambda: published(cluster),
        until=lambda tree: {key for key in tree if "old" in key} == {kept},
    )
    assert json.loads(keys[kept] or "")["gone"] is True
    assert kept in cluster.etcd.expiring()
    assert "/ratchet/association/right/links/new:in1" in keys
    left.netns.wait_ping("192.168.2.101")
    node.check(left).succeeded()
    # When both are deleted nothing is left: the cluster looks.
