"""Names are scoped by Kubernetes namespace: equal names in two namespaces are two pods."""

from __future__ import annotations

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.polling import hold_for
from tests.lab.runtime import PAIR, in1_in2

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

PLACES = [pytest.param(0, id="same node"), pytest.param(1, id="two nodes")]


@each_of("place", PLACES)
@each_of(
    ("ours", "theirs"),
    [
        pytest.param("red", "blue", id="red and blue"),
        pytest.param("default", "blue", id="default and blue"),
        pytest.param("blue", "default", id="blue and default"),
    ],
)
def test_pods_of_two_namespaces_never_pair(
    cluster: Cluster, place: int, ours: str, theirs: str
) -> None:
    left, stranger = cluster.pod("a", ours), cluster.pod("b", theirs)
    cluster.nodes[0].add(left, in1_in2("b")).succeeded()
    cluster.nodes[place].add(stranger, PAIR).succeeded()

    def apart() -> bool:
        return left.netns.names() == stranger.netns.names() == {"lo"}

    hold_for("being apart", apart, duration_s=2)

    right = cluster.pod("b", ours)
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    assert stranger.netns.names() == {"lo"}


@each_of("place", PLACES)
def test_equal_pairs_in_two_namespaces_stand_side_by_side(cluster: Cluster, place: int) -> None:
    namespaces = ("default", "red", "blue")
    left = {namespace: cluster.pod("a", namespace) for namespace in namespaces}
    right = {namespace: cluster.pod("b", namespace) for namespace in namespaces}
    for namespace in namespaces:
        cluster.nodes[0].add(left[namespace], in1_in2("b")).succeeded()
    for namespace in reversed(namespaces):
        cluster.nodes[place].add(right[namespace], PAIR).succeeded()
    for namespace in namespaces:
        left[namespace].netns.wait_ping("192.168.2.101")

    # Each link ends in the pod of its own namespace: with one end gone only that link is dead.
    cluster.nodes[place].delete(right["red"]).succeeded()
    left["red"].netns.wait_no_carrier("in1")
    for namespace in ("default", "blue"):
        assert left[namespace].netns.pings("192.168.2.101")
    assert cluster.etcd.get("/ratchet/association/red:a/id") == left["red"].container_id
    assert cluster.etcd.get("/ratchet/association/blue:b/id") == right["blue"].container_id
    assert cluster.etcd.get("/ratchet/association/a/id") == left["default"].container_id
