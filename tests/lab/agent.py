"""A node whose child is its agent: an API server beside it, and pods as Kubernetes has them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.lab import api_server
from tests.lab.api_objects import Objects
from tests.lab.api_pods import ApiPods
from tests.lab.api_server import TOKEN, ApiServer, Authority, kubeconfig
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import CNI_IFNAME, Attachment, Config, Node, Outcome, Pod, plugin_dir

NODE_NAME = "node-1"


class AgentBed(ApiPods):
    """One node with an API server of its own, which may be stopped and started again."""

    def __init__(
        self,
        node: Node,
        directory: str,
        authority: Authority,
        name: str,
        objects: Objects | None = None,
    ) -> None:
        """Serve; with the `objects` of another bed, nodes are of one Kubernetes cluster."""
        self.node = node
        self.name = name
        self.objects = objects or Objects()
        self._authority = authority
        self._directory = directory
        os.makedirs(directory, exist_ok=True)
        self.certificate = authority.issue(name)
        self._port = 0
        self.api = self._serve()
        self._port = self.api.port
        self.token_file = os.path.join(directory, "token")
        api_server.replace(self.token_file, TOKEN)
        self.kubeconfig = kubeconfig(
            os.path.join(directory, "kubeconfig"),
            {"server": self.api.url, "certificate-authority": authority.ca},
            {"tokenFile": self.token_file},
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.environ: Mapping[str, str] = {}  # of the next child, beside the test's own

    def _serve(self) -> ApiServer:
        return self.node.namespace.do(
            lambda: ApiServer(self.certificate, port=self._port, objects=self.objects)
        )

    def stop_api(self) -> None:
        """Have the API server go away; what it keeps stays."""
        self.api.close()

    def start_api(self) -> None:
        self.api = self._serve()

    def config(self, **changes: Any) -> Config:
        return self.node.config(**{"kubeconfig": self.kubeconfig, **changes})

    def start(self, *arguments: str, **changes: Any) -> None:
        """Start a child that stays, and wait until it is the agent and serves."""
        path = os.path.join(self._directory, "10-ratchet.conf")
        with open(path, "w") as file:
            json.dump(self.config(**changes), file)
        argv = [os.path.join(plugin_dir(), "ratchet-child"), "--config", path, "--stay"]
        argv += ["--node-name", self.name, *arguments]
        with open(os.path.join(self._directory, "stderr"), "ab") as stderr:
            self.process = subprocess.Popen(
                self.node.namespace.command(*argv),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **self.environ},
            )
        self.node.wait_child()

    def stop(self) -> None:
        """End the child and its supervisor. Safe to call twice."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def clear(self) -> None:
        """Detach the node's pods, while the agent runs."""
        for attachment in list(self.node.attachments.values()):
            self.node.delete(attachment.pod)
        if self.node.children():
            wait_for("the records to go", self.node.records, until=lambda records: not records)

    def close(self) -> None:
        self.stop()
        self.api.close()

    # Pods ---------------------------------------------------------------------------------------

    def attach(self, pod: Pod, **changes: Any) -> Outcome:
        """ADD a pod as containerd does, which passes no labels."""
        config = self.config(**changes)
        self.node.attachments[pod.container_id, CNI_IFNAME] = Attachment(pod, CNI_IFNAME, config)
        outcome = self.node.execute(config, self.node.environ("ADD", pod)).finish()
        if outcome.exit != 0:
            del self.node.attachments[pod.container_id, CNI_IFNAME]
        else:
            self.node.attachments[pod.container_id, CNI_IFNAME].result = outcome.result
        return outcome

    def run(self, pod: Pod, labels: Mapping[str, str], *, gate: bool = False) -> None:
        """Create a pod, attach it, and have its kubelet say that it runs."""
        self.create(pod, labels, gate=gate)
        self.attach(pod).succeeded()
        self.running(pod)


@contextlib.contextmanager
def agents(cluster: Cluster, folder: Path, authority: Authority) -> Iterator[list[AgentBed]]:
    """Give two nodes of one Kubernetes cluster, whose agents are to be started."""
    objects = Objects()
    with contextlib.ExitStack() as stack:
        beds = []
        for node, name in zip(cluster.nodes, ("node-1", "node-2"), strict=False):
            beds.append(AgentBed(node, str(folder / name), authority, name, objects))
            stack.callback(beds[-1].close)
        try:
            yield beds
        finally:
            for bed in beds:
                bed.clear()
