"""Pods of one node as the API server has them: what kubelet and `kubectl` write, and what is told.

The pods themselves are made elsewhere, by the harness (`tests.lab.agent`) or by a runtime.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

from tests.lab.api_objects import Obj, Objects
from tests.lab.api_server import ApiServer
from tests.lab.polling import wait_for
from tests.lab.runtime import Node

GATE = "ratchet/links"
READY = "ContainersReady"
HEARD_AGAIN_S = 45.0  # the watch tries less and less often while the API server is away
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"


class Named(Protocol):
    """A pod as the API server knows it."""

    @property
    def name(self) -> str: ...

    @property
    def namespace(self) -> str: ...

    @property
    def uid(self) -> str: ...


class ApiPods:
    """The pods that are bound to a node, and what the node's agent says of itself and of them."""

    node: Node
    name: str
    objects: Objects
    api: ApiServer

    @property
    def state_dir(self) -> str:
        return self.node.state_dir

    def wait_watching(self) -> None:
        wait_for("the agent to watch", self.status, until=lambda one: one and one["watching"])

    def status(self) -> dict[str, Any] | None:
        """Return what the child says of its agent."""
        from ratchetctl import node as reading

        found = reading.read(self.state_dir)
        return None if found.agent is None else found.agent.to_json()

    def create(
        self,
        pod: Named,
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

    def running(self, pod: Named) -> None:
        def runs(one: Obj) -> None:
            one["status"] |= {"phase": "Running", "podIP": "10.88.1.2"}

        self.objects.change_pod(pod.namespace, pod.name, runs)

    def ready(self, pod: Named, *, is_ready: bool = True, for_s: float = 60.0) -> None:
        """Have the kubelet say whether a pod's containers are ready, and since when."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - for_s))
        told = {"type": READY, "status": str(is_ready), "lastTransitionTime": since}

        def change(one: Obj) -> None:
            others = [x for x in one["status"].get("conditions", []) if x["type"] != READY]
            one["status"]["conditions"] = [*others, told]

        self.objects.change_pod(pod.namespace, pod.name, change)

    def label(self, pod: Named, **labels: str | None) -> None:
        """Do `kubectl label`; in names, "_" before the field is a dot."""
        self.write(pod, "labels", {f"ratchet.{key}": value for key, value in labels.items()})

    def write(self, pod: Named, what: str, words: Mapping[str, str | None]) -> None:
        """Change labels or annotations in one request; None takes one away."""

        def change(one: Obj) -> None:
            merged = {**one["metadata"].get(what, {}), **words}
            one["metadata"][what] = {k: v for k, v in merged.items() if v is not None}

        self.objects.change_pod(pod.namespace, pod.name, change)

    def events(self, pod: Named) -> list[tuple[str, str]]:
        """Return reason and note of each Event about a pod."""
        return [(one["reason"], one["note"]) for one in self.objects.events_about(pod.name)]

    def wait_event(self, pod: Named, reason: str, *words: str, timeout_s: float = 15.0) -> str:
        """Wait for an Event about a pod, whose note holds the words, and return the note."""

        def found() -> list[str]:
            told = [note for why, note in self.events(pod) if why == reason]
            return [note for note in told if all(word in note for word in words)]

        return wait_for(f"an Event {reason} of {pod}", found, timeout_s=timeout_s)[0]

    def condition(self, pod: Named) -> dict[str, Any] | None:
        """Return a pod's condition `ratchet/links`."""
        found = self.objects.pods[pod.namespace, pod.name]["status"].get("conditions", [])
        return next((one for one in found if one["type"] == GATE), None)

    def wait_condition(
        self, pod: Named, status: str, reason: str, timeout_s: float = HEARD_AGAIN_S
    ) -> dict[str, Any]:
        found = wait_for(
            f"condition {status} {reason} of {pod}",
            lambda: self.condition(pod),
            until=lambda one: (
                one is not None and (one["status"], one["reason"]) == (status, reason)
            ),
            timeout_s=timeout_s,
        )
        assert found is not None
        return found

    def networks(self, pod: Named) -> Any:
        """Return a pod's network-status."""
        metadata = self.objects.pods[pod.namespace, pod.name]["metadata"]
        text = metadata.get("annotations", {}).get(NETWORK_STATUS)
        return None if text is None else json.loads(text)

    def told(self, pod: Named) -> str:
        """Return what `kubectl ratchet` would read of a pod's links."""
        metadata = self.objects.pods[pod.namespace, pod.name]["metadata"]
        return str(metadata.get("annotations", {}).get("ratchet/status"))

    def gets(self) -> list[str]:
        """Return the requests for single pods."""
        return [path for method, path, _ in self.api.calls if method == "GET" and "/pods/" in path]
