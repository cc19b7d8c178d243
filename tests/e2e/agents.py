"""The nodes' agents beside containerd: one API server that they watch, and a kubelet for each.

A kubelet here does what it has to do with a pod's sandbox: it has the runtime make it, make it anew
under the same UID, and remove it; and it tells the API server that the pod runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.e2e.cloud import Cloud
from tests.e2e.containerd import Sandbox
from tests.e2e.cri import PodConfig
from tests.e2e.machine import children_of
from tests.lab.api_pods import ApiPods
from tests.lab.polling import wait_for

STOP_TIMEOUT_S = 20.0


class NodeAgent(ApiPods):
    """A machine with containerd on which a child runs that stays."""

    def __init__(self, cloud: Cloud, number: int) -> None:
        self.cloud = cloud
        self.containerd = cloud.nodes[number]
        self.node = self.containerd.node
        self.name = f"node-{self.node.number}"
        self.objects, self.api = cloud.api.objects, cloud.api
        self._process: subprocess.Popen[bytes] | None = None

    # Its life

    def spawn(self, *, environ: Mapping[str, str] | None = None, **changes: Any) -> None:
        """Start it with the node's configuration; `wait_watching` waits until it is there."""
        path = os.path.join(self.node.directory, "agent.conf")
        with open(path, "w") as file:
            json.dump(self.cloud.config(self.node, **changes), file)
        program = os.path.join(self.containerd.bin_dir, "ratchet-child")
        self._process = self.containerd.machine.spawn(
            *("env", *(f"{name}={value}" for name, value in (environ or {}).items())),
            *(program, "--config", path, "--stay", "--node-name", self.name),
            log=os.path.join(self.node.directory, "agent.stderr"),
        )

    def stop(self) -> None:
        """End it as its DaemonSet would; links stay. Safe to call twice."""
        if self._process is not None:
            for pid in children_of(self._process.pid):
                os.kill(pid, signal.SIGTERM)
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    # Pods

    def run(
        self,
        name: str,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
        *,
        gate: bool = False,
        heard: bool = False,
    ) -> Sandbox:
        """Create a pod that is bound to the node, and have its kubelet run it.

        `heard`: not before the agent has heard of it. On a busy machine it may be the later one.
        """
        pod = PodConfig(name, labels=dict(labels), annotations=dict(annotations or {}))
        if heard:
            self._wait_heard()  # of those that have gone, as only their number is told
        self.create(pod, pod.labels, pod.annotations, gate=gate)
        if heard:
            self._wait_heard()
        return self.make(pod)

    def _wait_heard(self) -> None:
        own = [p for p in self.objects.pods.values() if p["spec"].get("nodeName") == self.name]
        wait_for(
            "the agent to hear of the node's pods",
            self.status,
            until=lambda found: found and found["known"] == len(own),
        )

    def make(self, pod: PodConfig) -> Sandbox:
        """Have the kubelet make a pod's sandbox. Raises `CriError`."""
        sandbox = self.containerd.run(pod)
        self.running(pod)
        return sandbox

    def make_anew(self, sandbox: Sandbox) -> Sandbox:
        """Have the kubelet make another sandbox for the same pod."""
        sandbox.remove()
        return self.make(replace(sandbox.pod, attempt=sandbox.pod.attempt + 1))

    def delete(self, sandbox: Sandbox) -> None:
        """Delete the pod, and have its kubelet end it."""
        sandbox.remove()
        self.objects.delete_pod(sandbox.pod.namespace, sandbox.pod.name)

    def clear(self) -> None:
        """Remove every pod of the node."""
        self.containerd.start()
        self.containerd.remove_all()
        for namespace, name in list(self.objects.pods):
            if self.objects.pods[namespace, name]["spec"].get("nodeName") == self.name:
                self.objects.delete_pod(namespace, name)
        if self.node.children():
            wait_for("the records to go", self.node.records, until=lambda records: not records)
