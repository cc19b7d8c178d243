"""Kubernetes objects as trees: Lists taken apart, and what of a pod's container a node needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ratchetctl.topo.findings import Findings
from ratchetctl.topo.tree import Fields, Items, Scalar, Table, Tree

DEEPEST_LIST = 20


@dataclass(frozen=True, slots=True)
class Container:
    """What a node takes from a pod: its first container, and the pod's labels."""

    image: str
    command: tuple[str, ...] | None
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]


def items(trees: Sequence[Tree], depth: int = 0) -> Iterator[Table]:
    """Yield every object of the documents, those inside Lists as well."""
    for tree in trees:
        if not isinstance(tree, Table) or depth > DEEPEST_LIST:
            continue
        inner = tree.entries.get("items")
        if text(tree, "kind").endswith("List") and inner and isinstance(inner[1], Items):
            yield from items(inner[1].values, depth + 1)
        else:
            yield tree


def text(tree: Table, key: str) -> str:
    entry = tree.entries.get(key)
    return entry[1].text if entry and isinstance(entry[1], Scalar) else ""


def container(pod: Table, findings: Findings) -> Container:
    """Read a pod for its first container."""
    fields = Fields.of(pod, "Pod", findings)
    meta, spec = fields.fields("metadata"), fields.fields("spec")
    labels = tuple(meta.pairs("labels"))
    containers = spec.items("containers")
    if not containers:
        findings.error(pod.where, "a pod needs a container")
        return Container("", None, (), (), labels)
    if len(containers) > 1:
        findings.note(containers[1].where, "only the pod's first container is taken")
    first = Fields.of(containers[0], "container", findings)
    env = []
    for one in first.items("env"):
        variable = Fields.of(one, "env", findings)
        name, value = variable.text("name"), variable.text("value")
        if name and value is not None:
            env.append((name, value))
    command = tuple(first.texts("command"))
    found = Container(
        image=first.text("image") or "",
        command=command or None,
        args=tuple(first.texts("args")),
        env=tuple(env),
        labels=labels,
    )
    first.text("name")
    first.tell_unread(
        {
            "securityContext": "containers are privileged",
            "imagePullPolicy": "the cluster decides",
            "volumeMounts": "use binds in containerlab's format",
            "resources": "resources are not limited",
            "ports": "a Service publishes ports",
        }
    )
    return found
