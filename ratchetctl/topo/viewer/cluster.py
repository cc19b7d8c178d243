"""What a cluster shows of a topology now: its pods by machine, and how its links are.

It is read from the pods: the nodes' agents write into them how each link is and why (the annotation
`ratchet/status`), as for `kubectl ratchet links`. Of a pod that has only the annotation
network-status, the ends are known that are up. Agents write no counters, so there are none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ratchetctl.api.client import Client
from ratchetctl.api.resources import PODS, Obj
from ratchetctl.errors import ClusterError
from ratchetctl.kube import reading
from ratchetctl.kube.cluster import Agent, Cluster, Pod
from ratchetctl.topo import render, reports
from ratchetctl.topo.graph.seen import UNKNOWN, UP, EndSeen, PodSeen, Seen
from ratchetctl.topo.viewer import reasons

BREAK = 10  # times as long as a look has taken: a cluster is shared with others


class OnCluster:
    """A namespace of a cluster as a source of what is seen. One thread at a time may look."""

    def __init__(self, client: Client, topology: str) -> None:
        self._client = client
        self._selector: str | None = f"{render.TOPOLOGY}={render.label_value(topology)}"
        self._agents: list[Agent] | None = None
        self._agents_at = self._next_at = float("-inf")
        self._seen = Seen()

    def look(self) -> Seen:
        """Return what is there now, or was a moment ago; that nobody answers is part of it."""
        now = time.monotonic()
        if now >= self._next_at:
            try:
                self._seen = self._look(now)
            except ClusterError as error:
                self._seen = Seen(trouble=str(error))
            ended = time.monotonic()
            self._next_at = ended + BREAK * (ended - now)
        return self._seen

    def _look(self, now: float) -> Seen:
        if now - self._agents_at > reading.AGENTS_S:
            self._agents = reading.agents(self._client)
            self._agents_at = now
        objects = self._client.list(PODS, labels=self._selector).items
        if not objects and self._selector is not None:
            # Pods that somebody has labelled by hand are no topology's.
            objects = self._client.list(PODS).items
        return seen(objects, self._agents, self._client.namespace)


def seen(objects: Iterable[Obj], agents: Iterable[Agent] | None, namespace: str) -> Seen:
    """Return what pods tell. `agents` is None where they may not be listed. Pure."""
    found = [(obj, pod) for obj in objects if (pod := reading.read_pod(obj)) is not None]
    cluster = Cluster.of((pod for _, pod in found), agents, namespace)
    pods: dict[str, PodSeen] = {}
    ends: dict[tuple[str, str], EndSeen] = {}
    for obj, pod in found:
        address = (obj.get("status") or {}).get("podIP")
        silence = cluster.silence(pod.node)
        reason = _reason(pod) or silence
        if reason is None and pod.told is None:
            reason = "no agent has told of its links yet"
        pods[pod.name] = PodSeen(pod.node, (str(address),) if address else (), reason)
        ends |= {(pod.name, ifname): end for ifname, end in _ends(obj, pod, silence).items()}
    return Seen(pods, ends)


def _ends(obj: Obj, pod: Pod, silence: str | None) -> dict[str, EndSeen]:
    if pod.told is None:
        listed = reports.listed(obj) or {}
        return {ifname: EndSeen(UP) for ifname in listed} if silence is None else {}
    found = {}
    for link in pod.told.links:
        state, reason = reasons.of(link.to_json())
        if silence is not None:  # what was told may be long ago
            state, reason = UNKNOWN, silence
        found[link.ifname] = EndSeen(state, reason, link.kind, link.vni)
    return found


def _reason(pod: Pod) -> str | None:
    """Return what is wrong with a pod; None: nothing, or nothing that it knows of."""
    if pod.is_going:
        return "the pod is being deleted"
    if pod.is_over:
        return f"the pod has ended ({pod.phase})"
    if pod.label_error is not None:
        return f"a label is wrong: {pod.label_error}"
    if pod.told_error is not None:
        return f"what its node's agent tells is not understood: {pod.told_error}"
    if pod.told is not None and pod.told.superseded:
        return "superseded: another pod has the name"
    if pod.told is not None and pod.told.error is not None:
        return pod.told.error
    if pod.containers:
        return "; ".join(pod.containers)
    if pod.node is None:
        return "the pod has no machine yet"
    return None
