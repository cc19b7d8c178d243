"""What `kubectl ratchet` knows of a cluster: labelled pods, and the nodes' agents. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ratchet.annotations import Heard, NodeTold, PodTold
from ratchet.labels import Wiring

Key = tuple[str, str]
"""A pod by its namespace and the name by which other pods know it."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that asks for Ratchet, or that an agent has told of. `name` is Kubernetes' own."""

    namespace: str
    name: str
    node: str | None
    phase: str
    is_going: bool = False
    is_hosts: bool = False
    wiring: Wiring | None = None
    """What the labels say; None when they are wrong."""
    label_error: str | None = None
    told: PodTold | None = None
    """What its node's agent says of it; None when it has not said anything, or nonsense."""
    told_error: str | None = None
    started: float | None = None
    """Since when it is there, in seconds since the epoch."""
    containers: tuple[str, ...] = ()
    """What each container that does not run waits for, as the kubelet says it."""

    @property
    def known_as(self) -> str:
        """The name by which other pods know it."""
        if self.told is not None:
            return self.told.name
        return self.name if self.wiring is None else self.wiring.pod_name

    @property
    def key(self) -> Key:
        return self.namespace, self.known_as

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def is_over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Agent:
    """A node's agent: a pod of Ratchet's DaemonSet."""

    pod: str
    uid: str
    node: str
    host_address: str | None
    is_ready: bool
    image: str = ""
    told: NodeTold | None = None
    heard: Heard | None = None
    why_not_ready: str | None = None
    programs: str | None = None
    """The folder in which what is started in its container finds Ratchet's programs."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The pods of one namespace or of all. `agents` is None when they may not be listed."""

    pods: tuple[Pod, ...]
    agents: Mapping[str, Agent] | None = None
    """By node."""
    namespace: str | None = None
    """The one that was looked at; None for all."""
    by_key: Mapping[Key, tuple[Pod, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, pods: Iterable[Pod], agents: Iterable[Agent] | None, namespace: str | None
    ) -> Cluster:
        """Join them. Of several pods of one name the one that has it comes first."""
        found = sorted(pods, key=lambda pod: (pod.namespace, pod.known_as, pod.name))
        by_key: dict[Key, list[Pod]] = {}
        for pod in found:
            if not pod.is_over:
                by_key.setdefault(pod.key, []).append(pod)
        for same in by_key.values():
            same.sort(key=_rank)
        by_node = None if agents is None else {one.node: one for one in agents}
        return cls(tuple(found), by_node, namespace, {k: tuple(v) for k, v in by_key.items()})

    def find(self, namespace: str, name: str) -> Pod | None:
        """Return the pod that has a name to other pods."""
        found = self.by_key.get((namespace, name))
        return None if not found else found[0]

    def silence(self, node: str | None) -> str | None:
        """Return why what is told of a node's pods may be old; None when it is not."""
        if node is None or self.agents is None:
            return None
        agent = self.agents.get(node)
        if agent is None:
            return f"node {node} has no agent"
        if not agent.is_ready:
            return f"the agent of node {node} is not ready"
        return None


def _rank(pod: Pod) -> tuple[bool, bool, bool]:
    """Return what sorts the pod that has its name before those that have lost it."""
    told = pod.told
    return (told is None, told is not None and told.superseded, pod.is_going)
