"""A node whose child is its agent: an API server beside it, and pods as Kubernetes has them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.lab import api_server
from tests.lab.api_objects import Obj, Objects
from tests.lab.api_server import TOKEN, ApiServer, Authority, kubeconfig
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import CNI_IFNAME, Attachment, Config, Node, Outcome, Pod, plugin_dir

NODE_NAME = "node-1"
GATE = "ratchet/links"
READY = "ContainersReady"
HEARD_AGAIN_S = 45.0  # the watch tries less and less often while the API server is away
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"


class AgentBed:
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

    def wait_watching(self) -> None:
        wait_for("the agent to watch", self.status, until=lambda one: one and one["watching"])

    def status(self) -> dict[str, Any] | None:
        """Return what the child says of its agent."""
        from ratchetctl import node as reading

        found = reading.read(self.node.state_dir)
        return None if found.agent is None else found.agent.to_json()

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

    def create(
        self,
        pod: Pod,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
        *,
        gate: bool = False,
    ) -> None:
        """Have the API server know a pod that is bound to this node."""
        self.api.add_pod(
            pod.name,
            dict(labels),
            dict(annotations or {}),
            namespace=pod.namespace,
            uid=pod.uid,
            node=self.name,
            gate=GATE if gate else None,
        )

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

    def running(self, pod: Pod) -> None:
        def runs(one: Obj) -> None:
            one["status"] |= {"phase": "Running", "podIP": "10.88.1.2"}

        self.objects.change_pod(pod.namespace, pod.name, runs)

    def ready(self, pod: Pod, *, is_ready: bool = True, for_s: float = 60.0) -> None:
        """Have the kubelet say whether a pod's containers are ready, and since when."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - for_s))
        told = {"type": READY, "status": str(is_ready), "lastTransitionTime": since}

        def change(one: Obj) -> None:
            others = [x for x in one["status"].get("conditions", []) if x["type"] != READY]
            one["status"]["conditions"] = [*others, told]

        self.objects.change_pod(pod.namespace, pod.name, change)

    def label(self, pod: Pod, **labels: str | None) -> None:
        """Do `kubectl label`; in names, "_" before the field is a dot."""
        self.write(pod, "labels", {f"ratchet.{key}": value for key, value in labels.items()})

    def write(self, pod: Pod, what: str, words: Mapping[str, str | None]) -> None:
        """Change labels or annotations in one request; None takes one away."""

        def change(one: Obj) -> None:
            merged = {**one["metadata"].get(what, {}), **words}
            one["metadata"][what] = {k: v for k, v in merged.items() if v is not None}

        self.objects.change_pod(pod.namespace, pod.name, change)

    def events(self, pod: Pod) -> list[tuple[str, str]]:
        """Return reason and note of each Event about a pod."""
        return [(one["reason"], one["note"]) for one in self.objects.events_about(pod.name)]

    def wait_event(self, pod: Pod, reason: str, *words: str, timeout_s: float = 15.0) -> str:
        """Wait for an Event about a pod, whose note holds the words, and return the note."""

        def found() -> list[str]:
            told = [note for why, note in self.events(pod) if why == reason]
            return [note for note in told if all(word in note for word in words)]

        return wait_for(f"an Event {reason} of {pod}", found, timeout_s=timeout_s)[0]

    def condition(self, pod: Pod) -> dict[str, Any] | None:
        """Return a pod's condition `ratchet/links`."""
        found = self.objects.pods[pod.namespace, pod.name]["status"].get("conditions", [])
        return next((one for one in found if one["type"] == GATE), None)

    def wait_condition(self, pod: Pod, status: str, reason: str) -> dict[str, Any]:
        found = wait_for(
            f"condition {status} {reason} of {pod}",
            lambda: self.condition(pod),
            until=lambda one: (
                one is not None and (one["status"], one["reason"]) == (status, reason)
            ),
            timeout_s=HEARD_AGAIN_S,
        )
        assert found is not None
        return found

    def networks(self, pod: Pod) -> Any:
        """Return a pod's network-status."""
        metadata = self.objects.pods[pod.namespace, pod.name]["metadata"]
        text = metadata.get("annotations", {}).get(NETWORK_STATUS)
        return None if text is None else json.loads(text)

    def told(self, pod: Pod) -> str:
        """Return what `kubectl ratchet` would read of a pod's links."""
        metadata = self.objects.pods[pod.namespace, pod.name]["metadata"]
        return str(metadata.get("annotations", {}).get("ratchet/status"))

    def gets(self) -> list[str]:
        """Return the requests for single pods."""
        return [path for method, path, _ in self.api.calls if method == "GET" and "/pods/" in path]


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
