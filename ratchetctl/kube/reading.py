"""The pods and agents of a cluster, read from the API server's objects.

Objects are read page by page and only what is asked for is kept, so that a cluster of many
thousands of pods fits. What is in annotations and labels is by strangers and may be anything.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from ratchet import annotations as told
from ratchet import labels
from ratchet.annotations import Heard, NodeTold, PodTold
from ratchet.errors import LabelError
from ratchet.labels import Wiring
from ratchetctl.api.client import Client
from ratchetctl.api.errors import ForbiddenError
from ratchetctl.api.resources import PODS, Obj
from ratchetctl.errors import ClusterError
from ratchetctl.kube.cluster import Agent, Cluster, Pod

SYSTEM_NAMESPACE = "ratchet"
AGENTS = "app.kubernetes.io/name=ratchet,app.kubernetes.io/component=node"
AGENTS_S = 10.0  # how often agents are looked at where pods are watched
AGENT = "agent"  # the container
_ON_HOST = "--on-host"
_REFERENCE = re.compile(r"\$\(([-._A-Za-z][-._A-Za-z0-9]*)\)")  # as a container's command has it
_CNI_IFNAME = "eth0"  # what runtimes call it

Value = TypeVar("Value", PodTold, NodeTold, Heard)


def cluster(
    client: Client,
    namespace: str | None,
    *,
    system: str = SYSTEM_NAMESPACE,
    selector: str | None = None,
    every_label: bool = False,
) -> Cluster:
    """Return the pods of a namespace, None for all, and the agents. *Raises* ClusterError.

    `every_label`: read the labels also of pods of which an agent has told.
    """
    where = "*" if namespace is None else namespace
    found = []
    for page in client.pages(PODS, where, labels=selector):
        for obj in page.items:
            pod = read_pod(obj, every_label=every_label)
            if pod is not None:
                found.append(pod)
    return Cluster.of(found, agents(client, system), namespace)


def agents(client: Client, system: str = SYSTEM_NAMESPACE) -> list[Agent] | None:
    """Return the nodes' agents; None when they may not be listed. *Raises* ClusterError."""
    try:
        return [read_agent(obj) for obj in client.list(PODS, system, labels=AGENTS).items]
    except ForbiddenError:
        return None


def read_pod(obj: Obj, *, every_label: bool = False) -> Pod | None:
    """Return a pod; None for one that is none of Ratchet's. *Raises* ClusterError."""
    metadata, spec, status = (_map(obj, key) for key in ("metadata", "spec", "status"))
    annotations, own = _words(metadata, "annotations"), _words(metadata, "labels")
    if not (labels.is_eligible(own, annotations) or told.POD in annotations):
        return None
    name = _text(metadata, "name")
    said, told_error = _said(annotations, told.POD, PodTold)
    wiring: Wiring | None = None
    label_error = None
    if every_label or said is None:
        try:
            wiring = labels.parse(own, annotations, own_name=name, cni_ifname=_CNI_IFNAME)
        except LabelError as error:
            label_error = str(error)
    return Pod(
        namespace=_text(metadata, "namespace"),
        name=name,
        node=spec.get("nodeName") or None,
        phase=str(status.get("phase") or "Unknown"),
        is_going="deletionTimestamp" in metadata,
        is_hosts=spec.get("hostNetwork") is True,
        wiring=wiring,
        label_error=label_error,
        told=said,
        told_error=told_error,
        started=_moment(metadata.get("creationTimestamp")),
        containers=tuple(_waiting(status)),
    )


def read_agent(obj: Obj) -> Agent:
    """Return the agent that a pod of the DaemonSet is. *Raises* ClusterError."""
    metadata, spec, status = (_map(obj, key) for key in ("metadata", "spec", "status"))
    annotations = _words(metadata, "annotations")
    own = next((one for one in _maps(spec, "containers") if one.get("name") == AGENT), {})
    return Agent(
        pod=_text(metadata, "name"),
        uid=_text(metadata, "uid"),
        node=str(spec.get("nodeName") or ""),
        host_address=status.get("hostIP") or None,
        is_ready=_is_ready(status),
        image=str(own.get("image", "")),
        told=_said(annotations, told.NODE, NodeTold)[0],
        heard=_said(annotations, told.HEARD, Heard)[0],
        why_not_ready="; ".join(_waiting(status)) or None,
        programs=_programs(own),
    )


def _programs(container: Mapping[str, Any]) -> str | None:
    """Return where Ratchet's programs lie for what is started in an agent's container.

    An agent that becomes a program of the host takes its container along: runtimes start further
    programs in the namespaces that the container's first process has by then.
    """
    words = [str(one) for key in ("command", "args") for one in container.get(key) or ()]
    if not words:
        return None
    program = words[0]
    for word, following in zip(words, (*words[1:], ""), strict=True):
        if word.startswith(f"{_ON_HOST}="):
            program = word.removeprefix(f"{_ON_HOST}=")
        elif word == _ON_HOST:
            program = following
    values = {str(one.get("name")): str(one.get("value", "")) for one in _maps(container, "env")}
    expanded = _REFERENCE.sub(lambda found: values.get(found[1], found[0]), program)
    return posixpath.dirname(expanded) or None


def _said(
    annotations: Mapping[str, str], key: str, kind: type[Value]
) -> tuple[Value | None, str | None]:
    """Return what an agent has said, or why that cannot be read."""
    text = annotations.get(key)
    if text is None:
        return None, None
    try:
        return kind.loads(text), None
    except ValueError as error:
        return None, str(error)


def _waiting(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield what containers wait for, as the kubelet says it."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for one in _maps(status, key):
            waiting = _map(_map(one, "state"), "waiting")
            if waiting:
                said = waiting.get("message") or waiting.get("reason") or "waiting"
                yield f"container {one.get('name')}: {said}"


def _is_ready(status: Mapping[str, Any]) -> bool:
    """Say whether the agent itself runs: the pod may wait for its other container."""
    for one in _maps(status, "containerStatuses"):
        if one.get("name") == AGENT:
            return one.get("ready") is True
    return any(
        one.get("type") == "Ready" and one.get("status") == "True"
        for one in _maps(status, "conditions")
    )


def _map(obj: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = obj.get(key)
    return value if isinstance(value, dict) else {}


def _maps(obj: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = obj.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _words(obj: Mapping[str, Any], key: str) -> dict[str, str]:
    return {str(name): str(value) for name, value in _map(obj, key).items()}


def _text(obj: Mapping[str, Any], key: str) -> str:
    value = obj.get(key)
    if not isinstance(value, str) or not value:
        raise ClusterError(f"the API server has told of an object without {key}")
    return value


def _moment(text: object) -> float | None:
    """Return a moment as Kubernetes writes it, in seconds since the epoch."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
