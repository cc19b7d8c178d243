"""What agents tell `kubectl ratchet`, and the check of the way between nodes, with real frames."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet import annotations as told
from ratchet.annotations import Asked, Heard, NodeTold, PodTold
from ratchet.status import LinkStatus
from ratchet_child.agent.checking import Check
from tests.lab.agent import AgentBed, agents
from tests.lab.api_objects import Obj
from tests.lab.api_server import Authority
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2
from tests.lab.simulation import ROOT

pytestmark = pytest.mark.root

AGENT_LABELS = {"app.kubernetes.io/name": "ratchet", "app.kubernetes.io/component": "node"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(str(tmp_path_factory.mktemp("authority")))


@pytest.fixture
def beds(cluster: Cluster, tmp_path: Path, authority: Authority) -> Iterator[list[AgentBed]]:
    """Two nodes of one Kubernetes cluster, each with its agent, which is a pod."""
    with agents(cluster, tmp_path, authority) as beds:
        for bed in beds:
            pod = agent_of(bed)
            bed.create(pod, AGENT_LABELS)
            bed.running(pod)
            bed.start("--pod-uid", pod.uid)
            bed.wait_watching()
        yield beds


def agent_of(bed: AgentBed) -> Pod:
    """Return the agent's own pod, always the same."""
    pod = Pod(f"agent-{bed.name}", "ratchet")
    pod.uid = f"uid-of-{pod.name}"
    return pod


def annotation(bed: AgentBed, pod: Pod, key: str) -> str | None:
    metadata = bed.objects.pods[pod.namespace, pod.name]["metadata"]
    found: str | None = metadata.get("annotations", {}).get(key)
    return found


def node_of(bed: AgentBed) -> NodeTold:
    pod = agent_of(bed)
    text = wait_for("the node to be told", lambda: annotation(bed, pod, told.NODE))
    assert text is not None
    return NodeTold.loads(text)


def wait_told(bed: AgentBed, pod: Pod, state: str) -> LinkStatus:
    """Wait until a pod's one link is told to be in a state."""

    def found() -> LinkStatus | None:
        text = annotation(bed, pod, told.POD)
        links = () if text is None else PodTold.loads(text).links
        return next((link for link in links if link.state == state), None)

    link = wait_for(f"{pod} to be told as {state}", found, timeout_s=15)
    assert link is not None
    return link


def check(beds: list[AgentBed], secret: str) -> dict[str, Heard]:
    """Have all nodes look for each other's frames; what each has heard, by its name."""
    asked = Asked(secret * 32, tuple(node_of(bed).address for bed in beds))
    number = asked.number
    for bed in beds:
        bed.write(agent_of(bed), "annotations", {told.ASKED: asked.dumps()})

    def results() -> dict[str, Heard]:
        texts = {bed.name: annotation(bed, agent_of(bed), told.HEARD) for bed in beds}
        read = {name: Heard.loads(text) for name, text in texts.items() if text is not None}
        return {name: one for name, one in read.items() if one.number == number}

    return wait_for(
        "all results", results, until=lambda found: len(found) == len(beds), timeout_s=25
    )


def mark_ready(bed: AgentBed) -> None:
    """Have the kubelet say that the agent's pod is ready."""

    def change(obj: Obj) -> None:
        obj["status"]["conditions"] = [{"type": "Ready", "status": "True"}]

    pod = agent_of(bed)
    bed.objects.change_pod(pod.namespace, pod.name, change)


def kubectl_ratchet(bed: AgentBed, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a node, whose API server listens there."""
    argv = [sys.executable, "-m", "ratchetctl", "kube", *arguments, "--kubeconfig", bed.kubeconfig]
    return subprocess.run(
        bed.node.namespace.command(*argv), cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_links_and_nodes_are_told(cluster: Cluster, beds: list[AgentBed]) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    here, there = beds
    here.run(left, in1_in2("b"))
    assert wait_told(here, left, "waiting").peer == "b"
    there.run(right, PAIR)
    own, far = wait_told(here, left, "up"), wait_told(there, right, "up")
    assert (own.kind, own.vni, own.primary) == ("vxlan", far.vni, True)
    assert (own.peer_node, far.peer_node) == (there.node.address, here.node.address)
    assert (far.peer, far.peer_ifname, far.ifname) == ("a", "in1", "in2")
    there.node.delete(right).succeeded()
    assert wait_told(here, left, "waiting").kind is None
    there.objects.delete_pod(right.namespace, right.name)
    for bed in beds:
        mark_ready(bed)
    shown = kubectl_ratchet(here, "links", "-o", "wide")
    assert shown.returncode == 3, shown.stdout + shown.stderr
    assert shown.stdout.splitlines()[1].split()[:5] == ["default", "a:in1", "b:in2", "-", "waiting"]
    node = node_of(here)
    assert (node.address, node.interface) == (here.node.address, "eth0")
    assert (node.mtu_bytes, node.vxlan_port, node.etcd) == (1450, 4789, "reachable")


def test_frames_between_nodes_pass_or_it_is_said_which_do_not(beds: list[AgentBed]) -> None:
    here, there = beds
    node_of(there)
    for bed in beds:
        mark_ready(bed)
    here.api.rights.add("list nodes")
    asked = kubectl_ratchet(here, "check")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    head, *rows = (line.split() for line in asked.stdout.splitlines()[:3])
    assert head[-1] == "FRAMES"
    assert [(row[0], row[-1]) for row in rows] == [("node-1", "1/1"), ("node-2", "1/1")]
    assert "Everything is well." in asked.stdout
    # What cannot pass whole is fragmented, as the frames of links are; an underlay may drop them.
    here.node.namespace.ip("link", "set", "eth0", "mtu", "1400")
    # Its links have an MTU of 1350 from now on: what comes from it is whole, what goes to it not.
    wait_for(
        "the MTU", lambda: node_of(here).mtu_bytes, until=lambda mtu: mtu == 1350, timeout_s=40
    )
    heard = check(beds, "b")
    assert heard["node-2"].small_only == heard["node-2"].fragmented == ()
    assert heard["node-1"].small_only == (there.node.address,)


def test_what_the_nodes_own_firewall_drops_has_not_come(beds: list[AgentBed]) -> None:
    here, there = beds
    rules = "add table inet t; add chain inet t i { type filter hook input priority 0; };"
    rules += "add rule inet t i udp dport 4789 drop"
    namespace = there.node.namespace
    namespace.command_output("nft", rules)
    try:
        heard = check(beds, "d")
    finally:
        namespace.command_output("nft", "delete table inet t")
    assert heard["node-2"].silent == (here.node.address,)
    assert heard["node-1"].silent == ()


def test_frames_over_ipv6_pass(cluster: Cluster) -> None:
    nodes = cluster.nodes[:2]
    asked = Asked("f" * 32, tuple(node.address6 for node in nodes))

    def begin(node: Node) -> Check:
        return node.namespace.do(
            lambda: Check(asked, node.address6, 4789, mtu_bytes=1430, on_end=lambda: None)
        )

    checks = list(map(begin, nodes))
    number = checks[0].number
    heard = wait_for(
        "both results", lambda: [one.result for one in checks], until=all, timeout_s=20
    )
    assert heard == [Heard(number, unsent={})] * 2


def test_what_is_asked_wrongly_is_answered_by_an_error(beds: list[AgentBed]) -> None:
    here = beds[0]
    asked = Asked("e" * 32, ("127.0.0.1",))
    here.write(agent_of(here), "annotations", {told.ASKED: asked.dumps()})
    text = wait_for("an answer", lambda: annotation(here, agent_of(here), told.HEARD))
    assert "127.0.0.1 is no node's address" in str(Heard.loads(str(text)).error)
