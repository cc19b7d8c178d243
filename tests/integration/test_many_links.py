"""Pods with many links, addresses of both families, and links without any address."""

from __future__ import annotations

import pytest

from tests.lab.cluster import Cluster
from tests.lab.namespaces import is_up, kind_of, vxlan_of
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, primary

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

PLACES = [pytest.param(0, id="same node"), pytest.param(1, id="two nodes")]


def kind_at(place: int) -> str:
    return "veth" if place == 0 else "vxlan"


def test_pod_is_primary_of_two_links_and_pair_of_two_more(
    cluster: Cluster, node: Node, far: Node
) -> None:
    hub = cluster.pod("hub")
    spokes = {name: cluster.pod(name) for name in ("a", "b", "c", "d")}
    place = {"a": node, "b": far, "c": node, "d": far}
    hub_labels = {
        **primary("to-a", "10.1.1.1", "a", "to-hub", "10.1.1.2"),
        **primary("to-b", "10.1.2.1", "b", "to-hub", "10.1.2.2", number=2),
    }
    labels = {
        "a": PAIR,
        "b": PAIR,
        "c": primary("to-hub", "10.1.3.2", "hub", "to-c", "10.1.3.1"),
        "d": primary("to-hub", "10.1.4.2", "hub", "to-d", "10.1.4.1"),
    }
    # Two are there before the hub and two come after it.
    for name in ("a", "d"):
        place[name].add(spokes[name], labels[name]).succeeded()
    node.add(hub, hub_labels).succeeded()
    for name in ("b", "c"):
        place[name].add(spokes[name], labels[name]).succeeded()

    for number, name in enumerate(("a", "b", "c", "d"), start=1):
        hub.netns.wait_ping(f"10.1.{number}.2")
        spokes[name].netns.wait_ping(f"10.1.{number}.1")
        link = hub.netns.wait_link(f"to-{name}")
        assert kind_of(link) == ("veth" if place[name] is node else "vxlan")
        assert hub.netns.addresses(f"to-{name}") == [f"10.1.{number}.1/24"]
    assert hub.netns.names() == {"lo", "to-a", "to-b", "to-c", "to-d"}


def test_further_links_alone_make_a_pod_primary(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    labels = primary("x2", "10.1.2.1", "b", "y2", "10.1.2.2", number=2)
    assert "ratchet.primary" not in labels
    node.add(left, labels).succeeded()
    node.add(right, {"ratchet": "true"}).succeeded()

    left.netns.wait_ping("10.1.2.2")


@pytest.mark.parametrize("place", PLACES)
def test_two_links_between_the_same_two_pods(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    labels = {
        **primary("x1", "10.1.1.1", "b", "y1", "10.1.1.2"),
        **primary("x2", "10.1.2.1", "b", "y2", "10.1.2.2", number=2),
    }
    node.add(left, labels).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()

    for number in (1, 2):
        left.netns.wait_ping(f"10.1.{number}.2")
        right.netns.wait_ping(f"10.1.{number}.1")
    cables = []
    for number in (1, 2):
        near = left.netns.wait_link(f"x{number}", kind_at(place))
        distant = right.netns.wait_link(f"y{number}", kind_at(place))
        if place:
            assert vxlan_of(near)["id"] == vxlan_of(distant)["id"]
            cables.append(vxlan_of(near)["id"])
        else:
            assert near["link_index"] == distant["ifindex"]
            cables.append(near["link_index"])
    assert cables[0] != cables[1]


@pytest.mark.parametrize("place", PLACES)
def test_two_links_declared_one_by_each_pod(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, primary("x1", "10.1.1.1", "b", "y1", "10.1.1.2")).succeeded()
    cluster.nodes[place].add(right, primary("y2", "10.1.2.2", "a", "x2", "10.1.2.1")).succeeded()

    for number in (1, 2):
        left.netns.wait_ping(f"10.1.{number}.2")
        right.netns.wait_ping(f"10.1.{number}.1")


@pytest.mark.parametrize("place", PLACES)
def test_ipv6_and_cidr_come_from_annotations(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    labels = {
        **primary("six", None, "b", "six", None),
        **primary("four", "10.9.9.9", "b", "four", "10.9.9.10", number=2),
    }
    annotations = {
        "ratchet.local_ip": "fd00:2::1/112",
        "ratchet.pair_ip": "fd00:2::2/112",
        "ratchet.2.local_ip": "10.7.0.1/30",
        "ratchet.2.pair_ip": "10.7.0.2/30",
        "example.com/something-else": "x" * 1000,
    }
    node.add(left, labels, annotations).succeeded()
    cluster.nodes[place].add(right, PAIR, {}).succeeded()

    left.netns.wait_ping("fd00:2::2")
    right.netns.wait_ping("fd00:2::1")
    left.netns.wait_ping("10.7.0.2")
    assert left.netns.addresses("six") == ["fd00:2::1/112"]
    assert right.netns.addresses("six") == ["fd00:2::2/112"]
    # An annotation wins over the label of the same name.
    assert left.netns.addresses("four") == ["10.7.0.1/30"]
    assert right.netns.addresses("four") == ["10.7.0.2/30"]


def test_ipv6_address_works_at_once(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    annotations = {"ratchet.local_ip": "fd00:2::1", "ratchet.pair_ip": "fd00:2::2"}
    node.add(left, primary("six", None, "b", "six", None), annotations).succeeded()
    node.add(right, PAIR).succeeded()

    # No address is tentative: a router that starts now can bind to it.
    for pod in (left, right):
        assert "tentative" not in pod.netns.ip(
            "-6", "addr", "show", "dev", "six", "scope", "global"
        )
    assert left.netns.addresses("six") == ["fd00:2::1/64"]
    assert left.netns.pings("fd00:2::2")


@pytest.mark.parametrize("place", PLACES)
def test_link_without_addresses_is_up_and_has_none(
    cluster: Cluster, node: Node, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, primary("x1", None, "b", "y1", None)).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()

    def both_up() -> bool:
        ends = [left.netns.link("x1"), right.netns.link("y1")]
        return all(end is not None and is_up(end) for end in ends)

    left.netns.wait_link("x1", kind_at(place))
    right.netns.wait_link("y1", kind_at(place))
    wait_for("both ends to be up", both_up)  # they can be seen a moment before
    assert left.netns.addresses("x1") == right.netns.addresses("y1") == []


@pytest.mark.parametrize("place", PLACES)
def test_chain_of_pods_comes_up_when_all_start_at_once(
    cluster: Cluster, node: Node, far: Node, place: int
) -> None:
    names = ["centosa", "quagga-a", "quagga-b", "centosb"]
    pods: list[Pod] = [cluster.pod(name) for name in names]
    labels = [
        primary("in1", "192.168.2.100", "quagga-a", "in2", "192.168.2.101"),
        primary("mid1", "192.168.3.100", "quagga-b", "mid2", "192.168.3.101"),
        primary("out1", "192.168.4.100", "centosb", "out2", "192.168.4.101"),
        PAIR,
    ]
    places = [node, node, cluster.nodes[place], cluster.nodes[place]]
    calls = [
        at.start_add(pod, wanted) for at, pod, wanted in zip(places, pods, labels, strict=True)
    ]
    for call in calls:
        call.finish().succeeded()

    pods[0].netns.wait_ping("192.168.2.101")
    pods[1].netns.wait_ping("192.168.3.101")
    pods[2].netns.wait_ping("192.168.4.101")
