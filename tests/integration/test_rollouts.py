"""A Deployment's second pod of one name: the pod that is Ready has the links (decision 21)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.agent import AgentBed, agents
from tests.lab.api_server import Authority
from tests.lab.cluster import Cluster
from tests.lab.polling import hold_for
from tests.lab.runtime import PAIR, Pod, in1_in2

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

FAR = "192.168.2.101"
PLACES = pytest.mark.parametrize("place", [0, 1], ids=["same node", "two nodes"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(str(tmp_path_factory.mktemp("authority")))


@pytest.fixture
def beds(cluster: Cluster, tmp_path: Path, authority: Authority) -> Iterator[list[AgentBed]]:
    with agents(cluster, tmp_path, authority) as beds:
        for bed in beds:
            bed.start()
            bed.wait_watching()
        yield beds


LABELS = {**in1_in2("b"), "ratchet.pod_name": "a"}


def rollout(cluster: Cluster, beds: list[AgentBed], place: int) -> tuple[Pod, Pod]:
    """Return a Ready pod with its link, and a second one of its name that is not Ready."""
    old, new, far = cluster.pod("a-1"), cluster.pod("a-2"), cluster.pod("b")
    beds[0].run(far, PAIR)
    beds[0].run(old, LABELS, gate=True)
    beds[0].ready(old)
    old.netns.wait_ping(FAR)
    beds[0].wait_condition(old, "True", "LinksUp")
    beds[place].run(new, LABELS, gate=True)
    return old, new


@PLACES
def test_a_second_pod_that_is_broken_takes_no_link_from_the_ready_one(
    cluster: Cluster, beds: list[AgentBed], place: int
) -> None:
    old, new = rollout(cluster, beds, place)
    note = beds[place].wait_event(new, "StandsBy", "the name a", "ready for 5 seconds")
    assert note.startswith("Pod a-1" if place == 0 else "A pod on another node")
    beds[place].wait_condition(new, "False", "StandsBy")
    index = old.netns.links()["in1"]["ifindex"]
    for _ in range(2):  # it crashes again and again, and is ready in between
        beds[place].ready(new, for_s=0)
        time.sleep(1)
        beds[place].ready(new, is_ready=False, for_s=0)
    hold_for("the link", lambda: "in1" in old.netns.names(), duration_s=4.0)
    old.netns.wait_ping(FAR)
    beds[place].node.delete(new).succeeded()
    beds[place].objects.delete_pod(new.namespace, new.name)
    assert new.netns.names() <= {"lo"}
    old.netns.wait_ping(FAR)
    assert old.netns.links()["in1"]["ifindex"] == index
    assert beds[0].condition(old) == beds[0].wait_condition(old, "True", "LinksUp")


@PLACES
def test_a_second_pod_gets_the_link_when_it_is_ready_and_gives_it_back_when_it_goes(
    cluster: Cluster, beds: list[AgentBed], place: int
) -> None:
    old, new = rollout(cluster, beds, place)
    beds[place].wait_event(new, "StandsBy")
    beds[place].ready(new, for_s=3)
    beds[place].wait_condition(new, "True", "LinksUp")
    new.netns.wait_ping(FAR)
    beds[0].wait_event(old, "NameTaken", "the name a")
    old.netns.wait_no_link("in1")
    beds[place].node.delete(new).succeeded()
    beds[place].objects.delete_pod(new.namespace, new.name)
    old.netns.wait_ping(FAR)
    beds[0].wait_condition(old, "True", "LinksUp")


@PLACES
def test_a_second_pod_gets_the_link_when_the_first_one_goes(
    cluster: Cluster, beds: list[AgentBed], place: int
) -> None:
    old, new = rollout(cluster, beds, place)
    beds[place].wait_event(new, "StandsBy")
    beds[0].node.delete(old).succeeded()
    beds[0].objects.delete_pod(old.namespace, old.name)
    new.netns.wait_ping(FAR)
    beds[place].wait_condition(new, "True", "LinksUp")
