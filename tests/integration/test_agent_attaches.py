"""`"attach": "agent"`: links for pods that another plugin has attached, after they have started."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.attachments import Directory
from tests.lab.agent import NODE_NAME, AgentBed
from tests.lab.api_server import Authority
from tests.lab.cluster import Cluster
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]


class Kubelet:
    """Runs pods on a node where Ratchet is no plugin: they have a cgroup, as /proc shows it."""

    def __init__(self, bed: AgentBed, folder: Path) -> None:
        self.bed = bed
        self.proc = folder / "proc"
        self.proc.mkdir()
        self._pid = 100

    def start(self, **changes: object) -> None:
        self.bed.start("--proc", str(self.proc), attach="agent", **changes)
        self.bed.wait_watching()

    def run(self, pod: Pod, labels: dict[str, str], *, gate: bool = False) -> int:
        self.bed.create(pod, labels, gate=gate)
        pid = self.sandbox(pod)
        self.bed.running(pod)
        return pid

    def sandbox(self, pod: Pod) -> int:
        """Show a process in the pod's cgroup and namespace."""
        self._pid += 1
        folder = self.proc / str(self._pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "cgroup").write_text(f"0::/kubepods/burstable/pod{pod.uid}/4a5b\n")
        boot_ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
        (folder / "stat").write_text(f"{self._pid} (pause) S{' 0' * 18} {boot_ticks} 0")
        (folder / "ns" / "net").symlink_to(pod.netns.path)
        return self._pid

    def end(self, pid: int) -> None:
        folder = self.proc / str(pid)
        (folder / "stat").unlink()
        (folder / "cgroup").unlink()


@pytest.fixture
def kubelet(cluster: Cluster, node: Node, tmp_path: Path) -> Iterator[Kubelet]:
    authority = Authority(str(tmp_path / "authority"))
    bed = AgentBed(node, str(tmp_path / "agent"), authority, NODE_NAME)
    try:
        yield Kubelet(bed, tmp_path)
    finally:
        for namespace, name in list(bed.objects.pods):
            bed.objects.delete_pod(namespace, name)
        if node.children():
            wait_for("the records to go", node.records, until=lambda records: not records)
        bed.close()


def test_pods_that_run_are_linked_and_follow_their_labels(
    cluster: Cluster, kubelet: Kubelet
) -> None:
    left, right, plain = cluster.pod("a"), cluster.pod("b"), cluster.pod("web")
    kubelet.start()
    kubelet.run(plain, {"app": "web"})
    kubelet.run(left, in1_in2("b"))
    # Without a readiness gate as well: the pod starts before its links are there.
    kubelet.bed.wait_condition(left, "False", "LinkWaiting")
    kubelet.run(right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    kept = Directory(kubelet.bed.node.state_dir).live()
    # A path is not an identity: another namespace may come to stand there.
    assert left.netns.inode in {one.netns_identity[1] for one in kept if one.netns_identity}
    kubelet.bed.wait_condition(left, "True", "LinksUp")
    kubelet.bed.wait_event(right, "LinkUp")
    kubelet.bed.label(left, local_ip="192.168.2.50")
    right.netns.wait_ping("192.168.2.50")
    assert plain.netns.names() == {"lo"}
    assert kubelet.bed.condition(plain) is None


def test_pods_of_two_nodes_are_linked_whoever_attaches_them(
    cluster: Cluster, kubelet: Kubelet, far: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    kubelet.start()
    kubelet.run(left, in1_in2("b"))
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    far.delete(right).succeeded()


def test_a_pod_that_is_deleted_leaves_nothing(
    cluster: Cluster, kubelet: Kubelet, node: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    kubelet.start()
    pid = kubelet.run(left, in1_in2("b"))
    kubelet.run(right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    kubelet.end(pid)
    kubelet.bed.objects.delete_pod("default", "a")
    wait_for("its record to go", node.records, until=lambda records: len(records) == 1)
    wait_for(
        "its keys to go",
        cluster.etcd.keys,
        until=lambda keys: "/ratchet/association/a/id" not in keys,
    )


def test_a_sandbox_made_anew_is_linked_again(cluster: Cluster, kubelet: Kubelet) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    kubelet.start()
    pid = kubelet.run(left, in1_in2("b"))
    kubelet.run(right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    kubelet.end(pid)
    left.netns.remove()
    again = cluster.pod("a")
    again.uid = left.uid
    kubelet.sandbox(again)
    kubelet.bed.running(again)
    again.netns.wait_ping("192.168.2.101")


def test_an_agent_that_starts_again_attaches_nothing_twice(
    cluster: Cluster, kubelet: Kubelet, node: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    kubelet.start()
    kubelet.run(left, in1_in2("b"))
    kubelet.run(right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    before, interface = node.records(), left.netns.ip("-o", "link", "show", "in1")
    kubelet.bed.stop()
    kubelet.start()
    hold_for("that nothing changes", lambda: node.records() == before, duration_s=2.0)
    assert (
        left.netns.ip("-o", "link", "show", "in1").partition(":")[0] == interface.partition(":")[0]
    )
    assert left.netns.pings("192.168.2.101")


def test_a_wrong_label_is_told_and_mended_while_the_pod_runs(
    cluster: Cluster, kubelet: Kubelet
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    kubelet.start()
    kubelet.run(right, PAIR)
    kubelet.run(left, {**in1_in2("b"), "ratchet.local_ip": "192.168.2.300"})
    note = kubelet.bed.wait_event(left, "LabelRefused", "192.168.2.300")
    assert "gets no links" in note
    kubelet.bed.label(left, local_ip="192.168.2.100")
    right.netns.wait_ping("192.168.2.100")


def test_a_pod_with_more_links_than_a_pod_may_have_is_refused_here_as_well(
    cluster: Cluster, kubelet: Kubelet, node: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    kubelet.start(max_links=1)
    kubelet.run(right, PAIR)
    kubelet.run(left, {**in1_in2("b"), **primary("in3", None, "b", "in4", None, 2)})
    kubelet.bed.wait_event(left, "LabelRefused", "at most 1 link,", "max_links")
    assert left.netns.names() == {"lo"}
    assert len(node.records()) == 1
    without = dict.fromkeys(primary("", None, "", "", None, 2))
    kubelet.bed.write(left, "labels", {**without, "ratchet": "true"})
    left.netns.wait_ping("192.168.2.101")
    # And while it runs.
    kubelet.bed.write(left, "labels", primary("in3", None, "b", "in4", None, 2))
    kubelet.bed.wait_event(left, "LabelRefused", "stay as they were", "max_links")
    assert left.netns.pings("192.168.2.101")
    assert "in3" not in left.netns.names()


def test_a_label_that_comes_later_attaches_the_pod(cluster: Cluster, kubelet: Kubelet) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    kubelet.start()
    kubelet.run(right, PAIR)
    kubelet.run(left, {"app": "web"})
    kubelet.bed.write(left, "labels", in1_in2("b"))
    right.netns.wait_ping("192.168.2.100")


def test_a_pod_that_an_add_has_attached_is_left_to_it(
    cluster: Cluster, kubelet: Kubelet, node: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    kubelet.start()
    kubelet.bed.create(left, primary("in1", None, "b", "in2", None))
    kubelet.bed.attach(left, attach="agent").succeeded()
    kubelet.sandbox(left)
    kubelet.bed.running(left)
    kubelet.run(right, PAIR)
    kubelet.bed.wait_event(left, "LinkUp")
    hold_for("one record each", lambda: len(node.records()) == 2, duration_s=2.0)
    node.delete(left).succeeded()
