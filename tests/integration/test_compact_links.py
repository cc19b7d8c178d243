"""`ratchet.links`: what one pod or both say of their links in a list, through the real plugin."""

from __future__ import annotations

import pytest

from ratchetctl import node as reading
from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import Node

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

ELIGIBLE = {"ratchet": "true"}
OWN = "- {ifname: in1, address: 10.1.0.1/30, pair: b, pair_ifname: in2}"
FAR = "- {ifname: in2, address: 10.1.0.2/30, pair: a, pair_ifname: in1}"


def links(text: str) -> dict[str, str]:
    return {"ratchet.links": text}


@each_of("place", [0, 1])
def test_each_pod_may_say_what_its_own_end_is(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, ELIGIBLE, links(OWN)).succeeded()
    cluster.nodes[place].add(right, ELIGIBLE, links(FAR)).succeeded()
    left.netns.wait_ping("10.1.0.2")
    node.check(left).succeeded()
    assert len([name for name in left.netns.names() if name.startswith("in")]) == 1


def test_what_two_pods_say_differently_is_a_fault_at_both(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, ELIGIBLE, links(OWN.replace("pair_ifname", "mtu: 1300, pair_ifname")))
    far.add(right, ELIGIBLE, links(FAR.replace("pair_ifname", "mtu: 1400, pair_ifname")))
    left.netns.wait_ping("10.1.0.2")
    why = "a and b declare this link differently: the MTU is 1300 or 1400"
    for one in (node, far):
        told(one, why)
    assert {end["mtu"] for end in (left.netns.links()["in1"], right.netns.links()["in2"])} == {1300}


def told(node: Node, why: str) -> None:
    wait_for("the fault", lambda: faults(node), until=lambda found: found == [why])
    assert node.log().count("link contradicted") == 1


def faults(node: Node) -> list[str | None]:
    return [link.fault for pod in reading.read(node.state_dir).pods for link in pod.links]


@pytest.mark.nodes("fresh")
def test_a_pod_that_expects_a_link_waits_for_it(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    config = node.config(wait="all", wait_seconds=1)
    waits = node.add(right, ELIGIBLE, links("[{ifname: in2}]"), config=config)
    assert waits.error["code"] == 103
    assert "in2" in waits.error_text
    again = cluster.pod("b")
    config["wait_seconds"] = 20
    call = node.start_add(again, ELIGIBLE, links("[{ifname: in2}]"), config=config)
    node.add(left, ELIGIBLE, links(OWN)).succeeded()
    call.finish().succeeded()
    assert again.netns.link("in2") is not None


def test_a_wrong_entry_fails_the_add(cluster: Cluster, node: Node) -> None:
    outcome = node.add(cluster.pod("a"), ELIGIBLE, links(OWN.replace("10.1.0.1", "10.1.0.0")))
    assert outcome.error["code"] == 100
    assert "ratchet.links entry 1, address" in outcome.error_text
