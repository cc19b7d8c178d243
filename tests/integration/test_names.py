"""Whose name it is: namespaces keep pods apart, and of two containers the newest has the name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.test_secrets import ask
from tests.lab.cluster import Cluster
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

PLACES = [pytest.param(0, id="same node"), pytest.param(1, id="two nodes")]


def told(node: Node, pod: Pod) -> dict[str, Any]:
    """Return what the child tells of one container; nothing while it is not known."""
    for one in json.loads(ask(node, "status"))["pods"]:
        if one["container"] == pod.container_id:
            return dict(one)
    return {}


@pytest.mark.parametrize("place", PLACES)
def test_pods_of_one_name_in_two_namespaces_know_nothing_of_each_other(
    cluster: Cluster, node: Node, place: int
) -> None:
    other = cluster.nodes[place]
    pods: dict[str, tuple[Pod, Pod]] = {}
    for number, namespace in enumerate(("default", "red", "blue")):
        left, right = cluster.pod("a", namespace), cluster.pod("b", namespace)
        labels = primary("in1", f"10.{number}.1.1", "b", "in2", f"10.{number}.1.2")
        node.add(left, labels).succeeded()
        other.add(right, PAIR).succeeded()
        pods[namespace] = left, right
    for number, (left, right) in enumerate(pods.values()):
        left.netns.wait_ping(f"10.{number}.1.2")
        assert left.netns.names() == {"lo", "in1"}
        assert right.netns.names() == {"lo", "in2"}
        assert right.netns.addresses("in2") == [f"10.{number}.1.2/24"]

    with pods["red"][0].netns.watch("in1") as in1, pods["default"][1].netns.watch("in2") as in2:
        for at, pod in zip((node, other), pods["blue"], strict=True):
            at.delete(pod).succeeded()
        # One that comes again, and at another end, under the same name.
        again = cluster.pod("b", "blue")
        node.add(again, PAIR).succeeded()
        wait_for(
            "the keys of the others", lambda: cluster.etcd.get("/ratchet/association/red:b/id")
        )
        assert in1.flaps() == []
        assert in2.flaps() == []


@pytest.mark.parametrize("place", PLACES)
def test_no_label_reaches_into_another_namespace(cluster: Cluster, node: Node, place: int) -> None:
    other = cluster.nodes[place]
    victim, friend = cluster.pod("b", "blue"), cluster.pod("a", "blue")
    other.add(victim, PAIR).succeeded()
    node.add(friend, in1_in2("b")).succeeded()
    friend.netns.wait_ping("192.168.2.101")
    with victim.netns.watch("in2") as in2, friend.netns.watch("in1") as in1:
        for number, name in enumerate(("blue:b", "blue/b", "blue%3ab", "../blue:b", "blue：b")):
            field = ("pair_name", "pod_name")[number % 2]
            labels = {**in1_in2("c"), f"ratchet.{field}": name}
            outcome = node.add(cluster.pod("thief", "red"), labels)
            assert outcome.error["code"] == 100, name
            assert f"ratchet.{field}" in outcome.error_text
        # What is a name, and no other pod's: b of this namespace, which is not there.
        for number, name in enumerate(("b", "blue.b", "default")):
            thief = cluster.pod(f"thief{number}", "red")
            node.add(thief, primary("x1", "10.6.6.1", name, f"y{number}", "10.6.6.2")).succeeded()
            assert thief.netns.names() == {"lo"}
        # Nor does it who bears the very names, and says so in labels that are not the runtime's.
        for name in ("a", "b"):
            labels = {
                **primary("x1", "10.6.6.1", "b", "in2", "10.6.6.2"),
                "ratchet.pod_name": name,
                "ratchet.pair_name": "a" if name == "b" else "b",
                "io.kubernetes.pod.namespace": "blue",
                "ratchet.namespace": "blue",
            }
            node.add(cluster.pod("liar", "red"), labels).succeeded()
        hold_for("the victim's link alone", lambda: _links(victim) == {"lo", "in2"}, duration_s=1)
        assert in2.flaps() == []
        assert in1.flaps() == []
    assert friend.netns.names() == {"lo", "in1"}
    assert not told(other, victim)["superseded"]
    assert cluster.etcd.get("/ratchet/association/blue:b/id") == victim.container_id


def _links(pod: Pod) -> set[str]:
    return pod.netns.names()


def test_the_newest_container_of_a_name_has_its_links_and_gives_them_back(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """Decision 3, across nodes: the name of a pod that is alive is taken by another one."""
    third = cluster.nodes[2]
    older, peer = cluster.pod("a"), cluster.pod("b")
    node.add(older, in1_in2("b")).succeeded()
    third.add(peer, PAIR).succeeded()
    older.netns.wait_ping("192.168.2.101")

    newer = cluster.pod("a")
    far.add(newer, in1_in2("b")).succeeded()
    newer.netns.wait_ping("192.168.2.101")
    older.netns.wait_no_link("in1")
    assert older.netns.exists
    # Who looks at the older one's node is told, by the log and by status.
    assert told(node, older)["superseded"]
    assert not told(far, newer)["superseded"]
    line = next(line for line in node.log().splitlines() if "superseded by another" in line)
    assert "level=warning" in line
    assert older.container_id in line
    assert "pod=a" in line
    assert node.status().exit == 0

    far.delete(newer).succeeded()
    older.netns.wait_ping("192.168.2.101")
    assert not told(node, older)["superseded"]
    assert _links(newer) == {"lo"}
    assert cluster.etcd.get("/ratchet/association/a/id") == older.container_id


def test_an_older_container_that_goes_takes_nothing_from_the_newer_one(
    cluster: Cluster, node: Node, far: Node
) -> None:
    third = cluster.nodes[2]
    older, newer, peer = cluster.pod("a"), cluster.pod("a"), cluster.pod("b")
    third.add(peer, PAIR).succeeded()
    node.add(older, in1_in2("b")).succeeded()
    older.netns.wait_ping("192.168.2.101")
    far.add(newer, in1_in2("b")).succeeded()
    newer.netns.wait_ping("192.168.2.101")
    older.netns.wait_no_link("in1")
    with newer.netns.watch("in1") as in1, peer.netns.watch("in2") as in2:
        node.delete(older).succeeded()
        wait_for("the older one's record to go", lambda: not node.records())
        assert in1.flaps() == []
        assert in2.flaps() == []
    assert newer.netns.pings("192.168.2.101")


def test_the_name_of_a_pair_is_taken_and_given_back(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """The other end: what others declare on a name goes to the newest container of it."""
    third = cluster.nodes[2]
    left, older, newer = cluster.pod("a"), cluster.pod("b"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    far.add(older, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    third.add(newer, PAIR).succeeded()
    newer.netns.wait_ping("192.168.2.100")
    older.netns.wait_no_link("in2")
    assert told(far, older)["superseded"]
    third.delete(newer).succeeded()
    older.netns.wait_ping("192.168.2.100")
