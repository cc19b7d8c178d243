"""Two machines with one parent_address, and a machine that is heard of no more."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ratchetctl import node as status
from ratchetctl.status import WRONG, exit_status
from tests.integration.test_metrics import scrape
from tests.lab.cluster import Cluster, end_processes
from tests.lab.namespaces import random_port
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, primary

pytestmark = pytest.mark.root

# A machine looks at the others when its watch has been quiet for 20 s.
LOOK_S = 35.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(nodes=3)
    try:
        yield made
        assert made.problems_after_test() == []
        assert made.end_test() == []
    finally:
        made.close()


def trouble(node: Node) -> str:
    return status.read(node.state_dir).trouble or ""


@pytest.mark.slow
def test_of_two_machines_with_one_address_the_later_waits_and_nothing_storms(
    cluster: Cluster,
) -> None:
    node, clone, far = cluster.nodes
    metrics = f"127.0.0.1:{random_port()}"
    shared: dict[str, Any] = {"parent_address": node.address, "metrics_address": metrics}
    a, b, c, d, e = (cluster.pod(name) for name in "abcde")
    node.add(a, primary("x", "10.1.1.1", "b", "y", "10.1.1.2"), metrics_address=metrics).succeeded()
    far.add(b, PAIR).succeeded()
    far.add(e, PAIR).succeeded()
    a.netns.wait_ping("10.1.1.2")
    before = cluster.etcd.keys(f"/ratchet/nodes/{node.address}/pods")

    labels = {
        **primary("x", "10.1.2.1", "d", "y", "10.1.2.2"),
        **primary("z", "10.1.3.1", "e", "w", "10.1.3.2", number=2),
    }
    assert clone.add(c, labels, **shared).succeeded().elapsed_s < 4
    clone.add(d, PAIR, **shared).succeeded()

    # Links inside the later machine work, and both say what is wrong.
    c.netns.wait_ping("10.1.2.2")
    for one in (clone, node):
        wait_for(f"node {one.number} to say so", functools.partial(trouble, one), timeout_s=LOOK_S)
        assert "has the parent_address" in trouble(one)
        assert node.address in trouble(one)
        assert trouble(one).count("(") == 2
        assert exit_status(status.read(one.state_dir)) == WRONG
        assert "parent_address is not this machine's alone" in one.log()
        assert scrape(one, metrics)["ratchet_parent_address_shared"] == 1
    assert "wait" in trouble(clone)
    assert "wait" not in trouble(node)

    # What the earlier one has published stands, and nothing of the later one.
    assert cluster.etcd.keys(f"/ratchet/nodes/{node.address}/pods") == before
    assert cluster.etcd.get("/ratchet/association/c/id") is None
    assert a.netns.pings("10.1.1.2")
    assert e.netns.link("w") is None

    writes = cluster.etcd.writes()
    time.sleep(5)
    assert cluster.etcd.writes() - writes <= 10

    # The earlier one goes: the later one's links follow.
    node.delete(a).succeeded()
    node.attachments.clear()
    e.netns.wait_link("w", "vxlan", timeout_s=LOOK_S)
    assert trouble(clone) == ""
    assert cluster.etcd.get("/ratchet/association/c/id") == c.container_id
    # Its namespace has another address, so that no frame arrives there.
    for pod in (c, d):
        clone.delete(pod).succeeded()


@pytest.mark.slow
def test_a_node_that_is_heard_of_no_more_is_not_plainly_up(cluster: Cluster) -> None:
    node, _, far = cluster.nodes
    a, b = cluster.pod("a"), cluster.pod("b")
    node.add(a, primary("x", "10.1.1.1", "b", "y", "10.1.1.2")).succeeded()
    far.add(b, PAIR).succeeded()
    a.netns.wait_ping("10.1.1.2")
    far.wait_child()
    end_processes(far)
    key = next(key for key in cluster.etcd.keys("/ratchet/machines") if far.address in key)
    cluster.etcd.delete(key)  # as its time of 60 s does

    def silent_since() -> float | None:
        return status.read(node.state_dir).pods[0].links[0].silent_since

    since = wait_for("the silence to be noted", silent_since, timeout_s=LOOK_S)
    assert since is not None
    assert time.time() - since < LOOK_S
    assert status.read(node.state_dir).pods[0].links[0].state == "up"

    far.add(cluster.pod("c"), PAIR).succeeded()
    wait_for("it to be heard of", silent_since, until=lambda found: found is None, timeout_s=LOOK_S)
