"""`ratchetctl capture` and `link` with --cluster: they run beside the agent of the pod's node.

The client is kubectl itself; the API server is a stand-in, which runs in a node's place what an
agent's container would run: this checkout's ratchetctl, in the network of the node.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ratchetctl.sim import netns, processes
from tests.integration.test_capture import HEADER_BYTES, frames
from tests.integration.test_impairments import rates
from tests.lab import deployment
from tests.lab.api_objects import Objects
from tests.lab.api_server import TOKEN, ApiServer, Authority, kubeconfig
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2
from tests.lab.simulation import PROGRAM

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl to reach agents with"),
]

AGENT = deployment.agent(".")  # as the DaemonSet has it
EXEC_RIGHTS = ("get pods/exec", "create pods/exec")


class Kubernetes:
    """A stand-in of the API server that knows two nodes' pods, and runs their agents' exec."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._folder = folder
        self._nodes = dict(zip(("node-1", "node-2"), cluster.nodes, strict=False))
        authority = Authority(str(folder))
        self.api = ApiServer(authority.issue("server"), objects=Objects())
        self.api.rights |= set(EXEC_RIGHTS)
        self.api.containers = self._container
        config = {"server": self.api.url, "certificate-authority": authority.ca}
        self.config = kubeconfig(str(folder / "config.yaml"), config, {"token": TOKEN})
        for name, node in self._nodes.items():
            self._run_agent(name, node)

    def _run_agent(self, name: str, node: Node) -> None:
        installed = self._folder / name / "ratchet.node"
        installed.mkdir(parents=True)
        (installed / "ratchet.conf").write_text(json.dumps(node.config()))
        self.put_agent(name)

    def put_agent(self, node: str, *, ready: bool = True) -> None:
        spec = {**AGENT["spec"], "nodeName": node}
        self._put(f"ratchet-{node}", "ratchet", AGENT["metadata"]["labels"], spec, ready=ready)

    def put(self, name: str, node: str | None, labels: dict[str, str]) -> None:
        spec: dict[str, Any] = {"containers": [{"name": "main", "image": "x"}]}
        if node is not None:
            spec["nodeName"] = node
        self._put(name, "default", labels, spec, ready=True)

    def _put(
        self, name: str, namespace: str, labels: dict[str, str], spec: dict[str, Any], ready: bool
    ) -> None:
        metadata = {"name": name, "namespace": namespace, "uid": name, "labels": labels}
        conditions = [{"type": "Ready", "status": str(ready)}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.api.objects.put_pod({**pod, "status": {"phase": "Running", "conditions": conditions}})

    def attach(self, pod: Pod, node: str, labels: dict[str, str]) -> None:
        self.put(pod.name, node, labels)
        self._nodes[node].add(pod, labels).succeeded()

    def _container(
        self, namespace: str, pod: str, container: str, command: Sequence[str]
    ) -> list[str]:
        assert (namespace, container) == ("ratchet", "agent")
        # The agent has become a program of the host, and so is what is started beside it.
        assert command[0] == "/opt/cni/bin/ratchetctl"
        name = pod.removeprefix("ratchet-")
        environ = f"RATCHET_CONF_DIR={self._folder / name}"
        return self._nodes[name].namespace.command("env", environ, *PROGRAM, *command[1:])

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            (*PROGRAM, *arguments, "--cluster"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "KUBECONFIG": self.config, **environ},
        )

    def run(self, *arguments: str, **environ: str) -> tuple[int, bytes, str]:
        with self.start(*arguments, **environ) as process:
            said, complained = process.communicate(timeout=60)
        return process.returncode, said, complained.decode()


@pytest.fixture
def kubernetes(cluster: Cluster, tmp_path: Path) -> Iterator[Kubernetes]:
    made = Kubernetes(cluster, tmp_path)
    yield made
    made.api.close()


@pytest.fixture
def ends(cluster: Cluster, kubernetes: Kubernetes) -> tuple[Pod, Pod]:
    left, right = cluster.pod("a"), cluster.pod("b")
    kubernetes.attach(left, "node-1", in1_in2("b"))
    kubernetes.attach(right, "node-2", PAIR)
    left.netns.wait_ping("192.168.2.101")
    return left, right


def capturing(pod: Pod) -> list[int]:
    """Return the processes in a pod's network: those that capture."""
    found = netns.identity(pod.netns.path)
    assert found is not None
    return processes.pids({found})


def test_a_capture_comes_from_the_pods_node(kubernetes: Kubernetes, ends: tuple[Pod, Pod]) -> None:
    left, _ = ends
    with kubernetes.start("capture", "b:in2", "-c", "4") as listener:
        assert listener.stdout is not None
        beginning = listener.stdout.read(HEADER_BYTES)
        for _ in range(2):
            assert left.netns.pings("192.168.2.101", "-p", "cafe", "-s", "100")
        seen = frames(beginning + listener.stdout.read())
        assert listener.wait(20) == 0
    assert len([one for one in seen if b"\xca\xfe\xca\xfe\xca\xfe" in one]) >= 2


def test_a_capture_into_a_file_ends_with_whoever_asked_for_it(
    kubernetes: Kubernetes, ends: tuple[Pod, Pod], tmp_path: Path
) -> None:
    left, right = ends
    path = tmp_path / "b.pcap"
    listener = kubernetes.start("capture", "default/b:in2", "-w", str(path), "-s", "64")
    try:
        wait_for("it to listen", lambda: path.exists() and path.stat().st_size >= HEADER_BYTES)
        assert left.netns.pings("192.168.2.101", "-s", "500")
        wait_for("the frames", lambda: len(frames(path.read_bytes())) >= 2)
        assert {len(one) for one in frames(path.read_bytes())} == {64}
        assert capturing(right)
    finally:
        listener.kill()
        listener.communicate()
    wait_for("the capture on the node to end", lambda: not capturing(right))


def test_links_are_changed_from_afar(kubernetes: Kubernetes, ends: tuple[Pod, Pod]) -> None:
    left, right = ends
    both = (left, "in1"), (right, "in2")

    def link(*arguments: str) -> None:
        status, said, complained = kubernetes.run("link", *arguments)
        assert status == 0, complained
        assert said == b""

    link("impair", "b:in2", "--rate", "20mbit", "--both")
    wait_for("both", lambda: rates(*both) == [20_000_000, 20_000_000])
    link("set", "a:in1", "--mtu", "1300")
    wait_for("the MTU", lambda: right.netns.links()["in2"]["mtu"] == 1300)
    link("down", "b:in2", "-n", "default")
    wait_for("no carrier", lambda: "NO-CARRIER" in left.netns.links()["in1"]["flags"])
    link("up", "a:in1")
    left.netns.wait_ping("192.168.2.101")
    link("reset", "a:in1")
    wait_for("the labels'", lambda: rates(*both) == [None, None])


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("link", "down", "a:in7"), 1, "a has no link at 'in7': there are in1"),
        (("capture", "a:in7"), 1, "default/a:in7 cannot be listened to: No such device"),
        (("link", "down", "z:in1"), 1, "there is no pod z of Ratchet's in namespace default"),
        (("link", "down", "lost:in1"), 1, "pod default/lost has no node yet"),
        (("link", "down", "alone:in1"), 1, "no agent of Ratchet's runs as a pod in namespace"),
        (("link", "down", "a:in1", "--sim"), 2, "either --cluster or --sim"),
        (("link", "down", "a:in1", "--state-dir", "/x"), 2, "--state-dir is for this node only"),
        (("link", "set", "a:in1", "--mtu", "1"), 2, "68<=x<=65535"),
    ],
)
def test_what_cannot_be_done_from_afar_is_said(
    kubernetes: Kubernetes,
    ends: tuple[Pod, Pod],
    arguments: tuple[str, ...],
    status: int,
    why: str,
) -> None:
    kubernetes.put("lost", None, PAIR)
    kubernetes.put("alone", "node-3", PAIR)
    found, _, complained = kubernetes.run(*arguments)
    assert found == status, complained
    assert why in complained


def test_who_may_not_reach_agents_is_told_which_right_is_missing(
    kubernetes: Kubernetes, ends: tuple[Pod, Pod]
) -> None:
    kubernetes.api.rights.remove("create pods/exec")
    status, _, complained = kubernetes.run("link", "down", "a:in1")
    assert status == 1
    assert 'cannot create resource "pods/exec"' in complained
    kubernetes.put_agent("node-1", ready=False)
    _, _, complained = kubernetes.run("link", "down", "a:in1")
    assert "the agent of node-1, ratchet-node-1, is not ready" in complained


def test_without_kubectl_the_node_is_named_where_the_command_can_run(
    kubernetes: Kubernetes, ends: tuple[Pod, Pod]
) -> None:
    status, _, complained = kubernetes.run("link", "set", "b:in2", "--mtu", "1300", PATH="/none")
    assert status == 1
    assert "kubectl is missing" in complained
    assert "run `ratchetctl link set default/b:in2 --mtu 1300` on node-2" in complained
