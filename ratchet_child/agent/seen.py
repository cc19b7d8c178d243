"""The pods of this node as the API server has told of them last.

What is kept of a pod is what somebody asks for: its labels and annotations that are Ratchet's, and
what the agent itself has written there. A pod is known by its UID. One that has been made anew
under the same name is another pod, of which nothing is known before the server has told it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from ratchet import annotations as told
from ratchet.cni.dataclasses import dataclass, field
from ratchet.labels import PREFIX
from ratchet.pods import ELIGIBLE_KEY

CONDITION = "ratchet/links"
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
# The kubelet publishes a static pod as a mirror pod, with a UID of its own. CNI_ARGS has the static
# pod's, which the mirror pod carries in these.
_STATIC_POD_UIDS = ("kubernetes.io/config.mirror", "kubernetes.io/config.hash")
_OVER = ("Succeeded", "Failed")
_LONGEST_NETWORK_STATUS = 256 << 10

Words = dict[str, str]


@dataclass(frozen=True, slots=True)
class Condition:
    """A pod's condition `ratchet/links`, as it stands at the API server."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SeenPod:
    """A pod. `uids` are all that it is known by, the first one its own."""

    namespace: str
    name: str
    uids: tuple[str, ...]
    version: str
    labels: Words
    annotations: Words
    has_gate: bool = False
    condition: Condition | None = None
    network_status: str | None = None
    told: Words = field(default_factory=dict)
    """The annotations of `ratchet.annotations`."""
    has_address: bool = False
    is_over: bool = False
    ready_since: float | None = None
    """Since when all of its containers are ready, seconds since the epoch; None: they are not."""
    is_hosts: bool = False  # in the host's network

    @property
    def uid(self) -> str:
        return self.uids[0]

    @property
    def is_told(self) -> bool:
        """Whether the server has told of it to this process, and not to one before."""
        return self.version != ""

    @property
    def fields(self) -> tuple[Words, Words]:
        """What its links follow from."""
        return self.labels, self.annotations


class SeenPods:
    """Those of this node, by UID. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pods: dict[str, SeenPod] = {}
        self._by_uid: dict[str, str] = {}  # any UID of a pod to its own
        self.revision = 0
        """Another one when who is there has changed, or what their links follow from."""

    def __len__(self) -> int:
        return len(self._pods)

    def get(self, uid: str) -> SeenPod | None:
        """Return the pod that is known by a UID."""
        with self._lock:
            return self._pods.get(self._by_uid.get(uid, ""))

    def find(self, namespace: str, name: str, uid: str | None) -> SeenPod | None:
        """Return a pod by all that a runtime says of it; None when it is not known for sure."""
        pod = None if uid is None else self.get(uid)
        return pod if pod is not None and (pod.namespace, pod.name) == (namespace, name) else None

    def all(self) -> list[SeenPod]:
        with self._lock:
            return list(self._pods.values())

    def put(self, pod: SeenPod) -> None:
        with self._lock:
            self._put(pod)

    def drop(self, uid: str) -> None:
        """Forget a pod. *Safe to call twice.*"""
        with self._lock:
            self._drop(uid)

    def replace(self, pods: Iterable[SeenPod]) -> None:
        """Take these for all there are."""
        with self._lock:
            there = {pod.uid: pod for pod in pods}
            for uid in [uid for uid in self._pods if uid not in there]:
                self._drop(uid)
            for pod in there.values():
                self._put(pod)

    def _put(self, pod: SeenPod) -> None:
        before = self._pods.get(pod.uid)
        if before is None or (before.uids, before.fields) != (pod.uids, pod.fields):
            self.revision += 1
        self._pods[pod.uid] = pod
        for uid in pod.uids:
            self._by_uid[uid] = pod.uid

    def _drop(self, uid: str) -> None:
        pod = self._pods.pop(uid, None)
        if pod is not None:
            self.revision += 1
        for one in () if pod is None else pod.uids:
            # The mirror of a static pod may have been made anew.
            if self._by_uid.get(one) == uid:
                del self._by_uid[one]


def read_pod(obj: object) -> SeenPod:
    """Return what is kept of a pod. *Raises* ValueError for what is none."""
    metadata = _member(obj, "metadata")
    annotations = _words(metadata, "annotations")
    uid = _text(metadata, "uid")
    static = [annotations[key] for key in _STATIC_POD_UIDS if annotations.get(key)]
    status, spec = _member(obj, "status"), _member(obj, "spec")
    shown = annotations.get(NETWORK_STATUS)
    return SeenPod(
        namespace=sys.intern(_text(metadata, "namespace")),
        name=_text(metadata, "name"),
        uids=tuple(dict.fromkeys((uid, *static))),
        version=_text(metadata, "resourceVersion"),
        labels=_ours(_words(metadata, "labels")),
        annotations=_ours(annotations),
        has_gate=any(
            _get(gate, "conditionType") == CONDITION for gate in _list(spec, "readinessGates")
        ),
        condition=_condition(status),
        network_status=None if shown is None or len(shown) > _LONGEST_NETWORK_STATUS else shown,
        told={key: annotations[key] for key in told.EVERY if key in annotations},
        has_address=bool(_get(status, "podIP")),
        is_over=_get(status, "phase") in _OVER,
        ready_since=_ready_since(status),
        is_hosts=_get(spec, "hostNetwork") is True,
    )


def version_of(obj: object) -> str:
    """Return an object's or a list's resource version. *Raises* ValueError."""
    return _text(_member(obj, "metadata"), "resourceVersion")


def _ours(words: Words) -> Words:
    return {
        sys.intern(key): value
        for key, value in words.items()
        if key == ELIGIBLE_KEY or key.startswith(PREFIX)
    }


def _condition(status: dict[str, Any]) -> Condition | None:
    for one in _list(status, "conditions"):
        if _get(one, "type") == CONDITION:
            parts = (_get(one, key) for key in ("status", "reason", "message"))
            return Condition(*(part if isinstance(part, str) else "" for part in parts))
    return None


def _ready_since(status: dict[str, Any]) -> float | None:
    for one in _list(status, "conditions"):
        if (_get(one, "type"), _get(one, "status")) == ("ContainersReady", "True"):
            try:
                moment = datetime.fromisoformat(str(_get(one, "lastTransitionTime"))[:19])
            except ValueError:
                return 0.0
            return moment.replace(tzinfo=timezone.utc).timestamp()
    return None


def _member(obj: object, key: str) -> dict[str, Any]:
    value = _get(obj, key)
    return value if isinstance(value, dict) else {}


def _get(obj: object, key: str) -> Any:
    return obj.get(key) if isinstance(obj, dict) else None


def _list(obj: object, key: str) -> list[Any]:
    value = _get(obj, key)
    return value if isinstance(value, list) else []


def _text(obj: dict[str, Any], key: str) -> str:
    value = obj.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is not a string")
    return value


def _words(obj: dict[str, Any], key: str) -> Words:
    value = obj.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(word, str) for word in value.values()):
        raise ValueError(f"{key} are not strings")
    return value
