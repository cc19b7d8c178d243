"""The child as the node's agent: labels from memory, Events, conditions, and links that follow."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.lab.agent import NODE_NAME, AgentBed
from tests.lab.api_server import Authority
from tests.lab.cluster import Cluster
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(str(tmp_path_factory.mktemp("authority")))


@pytest.fixture
def bed(cluster: Cluster, node: Node, tmp_path: Path, authority: Authority) -> Iterator[AgentBed]:
    bed = AgentBed(node, str(tmp_path / "agent"), authority, NODE_NAME)
    try:
        yield bed
    finally:
        bed.clear()
        bed.close()


def index(pod: Pod, ifname: str) -> str:
    """Return what tells an interface from one that was made anew."""
    return pod.netns.ip("-o", "link", "show", ifname).partition(":")[0]


def says_up(told: str) -> bool:
    return '"state":"up"' in told


# Labels from memory -----------------------------------------------------------------------------


def test_pods_start_without_a_request_of_their_own(cluster: Cluster, bed: AgentBed) -> None:
    left, right, plain = cluster.pod("a"), cluster.pod("b"), cluster.pod("web")
    bed.start()
    bed.wait_watching()
    bed.create(left, in1_in2("b"))
    bed.create(right, PAIR)
    bed.create(plain, {"app": "web"})
    wait_for("three pods", bed.status, until=lambda one: one and one["known"] == 3)
    bed.attach(left).succeeded()
    bed.attach(right).succeeded()
    bed.attach(plain).succeeded()
    left.netns.wait_ping("192.168.2.101")
    assert "eth0" in plain.netns.names()
    assert bed.gets() == []


def test_sandboxes_made_anew_start_while_the_api_server_is_away(
    cluster: Cluster, bed: AgentBed
) -> None:
    left, right, plain = cluster.pod("a"), cluster.pod("b"), cluster.pod("web")
    bed.start()
    bed.wait_watching()
    bed.create(plain, {"app": "web"})
    bed.run(right, PAIR)
    bed.run(left, in1_in2("b"))
    bed.stop_api()
    bed.node.delete(left).succeeded()
    # The kubelet makes another sandbox for the same pod: its UID is what it was.
    again, again_plain = cluster.pod("a"), cluster.pod("web")
    again.uid, again_plain.uid = left.uid, plain.uid
    assert bed.attach(again).succeeded().elapsed_s < 3
    bed.attach(again_plain).succeeded()
    again.netns.wait_ping("192.168.2.101")
    assert "eth0" in again_plain.netns.names()
    # Of a pod that nobody has told of, nothing is known, whatever its name.
    for name in ("a", "web", "new"):
        assert bed.attach(cluster.pod(name)).error["code"] == 11
    bed.start_api()


def test_what_was_seen_last_outlives_the_agent(cluster: Cluster, bed: AgentBed) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.create(left, in1_in2("b"))
    bed.create(right, PAIR)
    wait_for("two pods", bed.status, until=lambda one: one and one["known"] == 2)
    time.sleep(2.5)
    bed.stop_api()
    bed.stop()
    bed.start()
    bed.attach(left).succeeded()
    bed.attach(right).succeeded()
    left.netns.wait_ping("192.168.2.101")
    assert bed.attach(cluster.pod("a")).error["code"] == 11
    bed.start_api()


def test_a_node_of_pods_starts_at_once_while_the_api_server_throttles(
    cluster: Cluster, bed: AgentBed
) -> None:
    pods = [cluster.pod(f"p{number}") for number in range(12)]
    bed.start()
    bed.wait_watching()
    bed.api.most_per_s = 1
    for pod in pods:
        bed.create(pod, {"app": "web"})
    wait_for("all pods", bed.status, until=lambda one: one and one["known"] == len(pods))
    started = [bed.node.execute(bed.config(), bed.node.environ("ADD", pod)) for pod in pods]
    for call, pod in zip(started, pods, strict=True):
        call.finish().succeeded()
        assert "eth0" in pod.netns.names()
    assert bed.gets() == []
    for pod in pods:
        bed.node.execute(bed.config(), bed.node.environ("DEL", pod)).finish().succeeded()


# What is written --------------------------------------------------------------------------------


def test_links_that_come_up_and_wait_are_told(cluster: Cluster, bed: AgentBed) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"), gate=True)
    bed.wait_condition(left, "False", "LinkWaiting")
    note = bed.wait_event(left, "LinkWaiting")
    assert "in1 waits for b since 20" in note
    assert "ratchet.pod_name" in note
    bed.run(right, PAIR, gate=True)
    bed.wait_event(left, "LinkUp", "in1 to b is up (veth, on this node)")
    bed.wait_event(right, "LinkUp", "in2 to a")
    up = bed.wait_condition(left, "True", "LinksUp")
    bed.wait_condition(right, "True", "LinksUp")
    assert up["lastTransitionTime"]
    bed.node.delete(right).succeeded()
    bed.wait_condition(left, "False", "LinkWaiting")


def test_a_pod_that_does_not_ask_gets_no_condition(cluster: Cluster, bed: AgentBed) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"))
    bed.run(right, PAIR)
    bed.wait_event(left, "LinkUp")
    assert bed.condition(left) is None


def test_a_refused_link_says_which_other_link_has_the_interface(
    cluster: Cluster, bed: AgentBed
) -> None:
    left, right, third = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    bed.start()
    bed.wait_watching()
    bed.run(left, primary("in1", None, "b", "in2", None))
    bed.run(right, PAIR)
    bed.wait_event(left, "LinkUp")
    bed.run(third, primary("in1", None, "b", "in2", None), gate=True)
    bed.wait_event(third, "LinkRefused", "interface in2 of b is the end of the link a:in1")
    bed.wait_condition(third, "False", "LinkFailed")


def test_a_name_that_is_taken_is_told_to_the_pod_that_lost_it(
    cluster: Cluster, bed: AgentBed
) -> None:
    old, new = cluster.pod("web-1"), cluster.pod("web-2")
    name = {"ratchet.pod_name": "web"}
    bed.start()
    bed.wait_watching()
    bed.run(old, {**PAIR, **name}, gate=True)
    bed.ready(old)
    bed.run(new, {**PAIR, **name})
    bed.ready(new)
    bed.wait_event(old, "NameTaken", "Pod web-2 has the name web")
    bed.wait_condition(old, "False", "NameTaken")


def test_a_sandbox_made_anew_before_its_del_is_the_same_pod(
    cluster: Cluster, bed: AgentBed
) -> None:
    left, right, again = cluster.pod("a"), cluster.pod("b"), cluster.pod("a")
    again.uid = left.uid
    bed.start()
    bed.wait_watching()
    bed.run(right, PAIR)
    bed.run(left, in1_in2("b"), gate=True)
    bed.wait_condition(left, "True", "LinksUp")
    bed.attach(again).succeeded()
    again.netns.wait_ping("192.168.2.101")
    bed.wait_condition(left, "True", "LinksUp")
    hold_for(
        "that it is Ready",
        lambda: (bed.condition(left) or {})["status"] == "True",
        duration_s=2.0,
    )
    assert "NameTaken" not in [reason for reason, _ in bed.events(left)]


def test_ends_are_listed_beside_what_multus_wrote(cluster: Cluster, bed: AgentBed) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.create(left, in1_in2("b"))
    bed.attach(left).succeeded()
    multus = '[{"name": "cbr0", "interface": "eth0", "ips": ["10.1.1.4"], "default": true}]'
    bed.write(left, "annotations", {"k8s.v1.cni.cncf.io/network-status": multus})
    bed.running(left)
    bed.run(right, PAIR)
    found = wait_for("both ends", lambda: bed.networks(left), until=lambda one: len(one) == 2)
    assert found[0] == {
        "name": "cbr0", "interface": "eth0", "ips": ["10.1.1.4"], "default": True
    }  # fmt: skip
    link = left.netns.links()["in1"]
    assert found[1] == {
        "name": "ratchet/a:in1",
        "interface": "in1",
        "ips": ["192.168.2.100"],
        "mac": link["address"],
        "mtu": link["mtu"],
        "dns": {},
    }
    # Multus writes its list as a whole: ours comes back.
    bed.write(left, "annotations", {"k8s.v1.cni.cncf.io/network-status": multus})
    wait_for("both ends again", lambda: bed.networks(left), until=lambda one: len(one) == 2)


def test_an_agent_that_starts_again_does_not_repeat_what_is_well(
    cluster: Cluster, bed: AgentBed
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"), gate=True)
    bed.run(right, PAIR)
    bed.wait_event(left, "LinkUp")
    bed.wait_condition(left, "True", "LinksUp")
    for pod in (left, right):
        wait_for(f"{pod} to be told of", partial(bed.told, pod), until=says_up)
    before = bed.events(left)
    bed.stop()
    calls = len(bed.api.calls)
    bed.start()
    bed.wait_watching()
    left.netns.wait_ping("192.168.2.101")
    time.sleep(2)
    assert bed.events(left) == before
    assert [one for one in bed.api.calls[calls:] if one[0] == "PATCH"] == []


# Links follow -----------------------------------------------------------------------------------


def test_a_label_adds_a_link_without_touching_the_others(cluster: Cluster, bed: AgentBed) -> None:
    left, right, third = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"))
    bed.run(right, PAIR)
    bed.run(third, PAIR)
    left.netns.wait_ping("192.168.2.101")
    before = index(left, "in1"), index(right, "in2")
    bed.write(left, "labels", primary("in3", "10.3.0.1", "c", "in4", "10.3.0.2", 2))
    left.netns.wait_ping("10.3.0.2")
    assert bed.wait_event(left, "LinksChanged") == "The links follow the pod's labels: added in3."
    assert (index(left, "in1"), index(right, "in2")) == before
    # An annotation wins over a label: the address changes in place.
    added = index(left, "in3"), index(third, "in4")
    bed.write(left, "annotations", {"ratchet.2.local_ip": "10.3.0.9/16"})
    third.netns.wait_ping("10.3.0.9")
    assert (index(left, "in3"), index(third, "in4")) == added
    bed.write(left, "annotations", {"ratchet.2.local_ip": None})
    gone = primary("in3", "10.3.0.1", "c", "in4", "10.3.0.2", 2).keys() - {"ratchet"}
    bed.write(left, "labels", dict.fromkeys(gone))
    wait_for("the link to go", left.netns.links, until=lambda links: "in3" not in links)
    wait_for("its far end to go", third.netns.links, until=lambda links: "in4" not in links)
    assert (index(left, "in1"), index(right, "in2")) == before
    assert left.netns.pings("192.168.2.101")


def test_a_link_between_nodes_follows_its_primary_and_moves_to_another_pair(
    cluster: Cluster, bed: AgentBed, far: Node
) -> None:
    """The far node has no agent: what follows is told through etcd, as ever."""
    left, right, other = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    bed.start()
    bed.wait_watching()
    bed.run(left, {**in1_in2("b"), **primary("in3", "10.3.0.1", "c", "in4", "10.3.0.2", 2)})
    far.add(right, PAIR).succeeded()
    far.add(other, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    left.netns.wait_ping("10.3.0.2")
    before = index(left, "in1"), index(right, "in2"), index(left, "in3"), index(other, "in4")
    bed.label(left, pair_ip="192.168.2.77")
    left.netns.wait_ping("192.168.2.77")
    after = index(left, "in1"), index(right, "in2"), index(left, "in3"), index(other, "in4")
    assert after == before
    # The cable of in1 is pulled out of b and plugged into c.
    bed.label(left, pair_name="c")
    wait_for("in2 in c", other.netns.links, until=lambda links: "in2" in links)
    wait_for("in2 to leave b", right.netns.links, until=lambda links: "in2" not in links)
    left.netns.wait_ping("192.168.2.77")
    assert (index(left, "in3"), index(other, "in4")) == before[2:]
    assert left.netns.pings("10.3.0.2")
    far.delete(right).succeeded()
    far.delete(other).succeeded()


def test_a_wrong_change_leaves_what_was_and_names_the_label(
    cluster: Cluster, bed: AgentBed
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"))
    bed.run(right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    before = index(left, "in1")
    bed.label(left, local_ip="192.168.2.300")
    note = bed.wait_event(left, "LabelRefused", "ratchet.local_ip", "192.168.2.300")
    assert "stay as they were" in note
    bed.write(left, "labels", {"ratchet.local_ip": "192.168.2.100", "ratchet": "false"})
    bed.wait_event(left, "LabelRefused", "ratchet is 'false'")
    bed.write(left, "labels", {"ratchet": "true", "ratchet.pod_name": "other"})
    bed.wait_event(left, "LabelRefused", "ratchet.pod_name is 'other'")
    assert index(left, "in1") == before
    assert left.netns.pings("192.168.2.101")


def test_a_change_while_the_agent_was_away_is_followed(cluster: Cluster, bed: AgentBed) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"))
    bed.run(right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    bed.stop()
    bed.label(left, local_ip="192.168.2.50")
    bed.start()
    right.netns.wait_ping("192.168.2.50")


def test_a_del_between_reading_and_writing_is_never_undone(cluster: Cluster, bed: AgentBed) -> None:
    """Labels change all the time while pods come and go: nothing of a pod is left that is gone."""
    right = cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(right, PAIR)
    for number in range(8):
        left = cluster.pod("a")
        bed.run(left, in1_in2("b"))
        bed.label(left, local_ip=f"192.168.2.{number + 10}")
        time.sleep(0.35 + 0.1 * number)  # about when the agent follows
        bed.node.delete(left).succeeded()
        wait_for(
            "its record to go",
            bed.node.records,
            until=lambda records, left=left: not any(left.container_id in one for one in records),  # type: ignore[misc]
        )
        hold_for(
            "that it is gone",
            lambda left=left: not any(left.container_id in one for one in bed.node.records()),  # type: ignore[misc]
            duration_s=0.5,
        )


def test_an_agent_that_is_killed_at_any_moment_follows_in_the_end(
    cluster: Cluster, bed: AgentBed
) -> None:
    left, right, third = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    bed.start()
    bed.wait_watching()
    bed.run(left, {**in1_in2("b"), **primary("in3", "10.3.0.1", "c", "in4", "10.3.0.2", 2)})
    bed.run(right, PAIR)
    bed.run(third, PAIR)
    left.netns.wait_ping("192.168.2.101")
    left.netns.wait_ping("10.3.0.2")
    before = index(left, "in3"), index(third, "in4")
    for number in range(3):
        bed.label(left, local_ip=f"192.168.2.{number + 10}")
        time.sleep(0.5 + 0.2 * number)  # about when the record is rewritten and taken up
        killed = bed.node.wait_child()
        os.kill(killed, signal.SIGKILL)
        # Its supervisor takes its time with a child that dies again and again.
        wait_for(
            "another child",
            bed.node.children,
            until=lambda pids, killed=killed: pids and killed not in pids,  # type: ignore[misc]
            timeout_s=30.0,
        )
    right.netns.wait_ping("192.168.2.12")
    assert (index(left, "in3"), index(third, "in4")) == before
    assert left.netns.pings("10.3.0.2")
    # What is left of a killed agent's files goes, and records are as many as pods.
    wait_for(
        "records alone",
        lambda: os.listdir(os.path.join(bed.node.state_dir, "attachments")),
        until=lambda names: len(names) == 3 and not any(name.startswith(".") for name in names),
    )


def test_runtimes_labels_are_not_followed_by_others(cluster: Cluster, bed: AgentBed) -> None:
    """Where the runtime alone tells the labels, the API server's change nothing."""
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start(label_source="runtime")
    bed.wait_watching()
    bed.create(left, in1_in2("other"))
    bed.node.add(left, in1_in2("b"), config=bed.config(label_source="runtime")).succeeded()
    bed.node.add(right, PAIR, config=bed.config(label_source="runtime")).succeeded()
    left.netns.wait_ping("192.168.2.101")
    bed.label(left, local_ip="192.168.2.50")
    hold_for("the link", lambda: left.netns.pings("192.168.2.101"), duration_s=2.5)
