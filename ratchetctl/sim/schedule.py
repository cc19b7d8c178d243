"""Which node a pod goes to: nodeName, then nodeSelector, then round robin. Pure.

A file written for a cluster selects its nodes by labels that this machine has not got, so labels
that no node carries are handed out: each distinct nodeSelector gets a node, the most demanding
first, the emptiest node first. The caller prints what was handed out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ratchetctl.errors import ManifestError, SimError
from ratchetctl.manifest import DNS_SUBDOMAIN, LABEL_NAME, Pod

HOSTNAME = "kubernetes.io/hostname"


@dataclass(slots=True)
class Node:
    """A node as the scheduler sees it."""

    name: str
    labels: dict[str, str]
    pods: int = 0
    selected: int = 0
    given: dict[str, str] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str, labels: Mapping[str, str]) -> Node:
        """Return a node with the labels that every Linux node has, and these."""
        own = {HOSTNAME: name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        return cls(name, {**own, **labels})

    def satisfies(self, selector: Mapping[str, str]) -> bool:
        return all(self.labels.get(key) == value for key, value in selector.items())

    def could_satisfy(self, selector: Mapping[str, str]) -> bool:
        """Say whether the labels that it lacks may be given to it."""
        return all(self.labels.get(key, value) == value for key, value in selector.items())


def parse_label(text: str) -> tuple[str, str, str]:
    """Read NODE:KEY=VALUE. Raises SimError."""
    node, colon, label = text.partition(":")
    key, equals, value = label.partition("=")
    prefix, slash, rest = key.rpartition("/")
    if (
        not (node and colon and equals)
        or not LABEL_NAME.match(rest)
        or (slash and not DNS_SUBDOMAIN.match(prefix))
        or (value and not LABEL_NAME.match(value))
    ):
        raise SimError(f"--node-label {text!r}: write NODE:KEY=VALUE, for instance node1:side=left")
    return node, key, value


def hand_out_labels(pods: Iterable[Pod], nodes: Sequence[Node]) -> list[str]:
    """Give nodes the labels that pods select and none has; a sentence for each.

    Raises ManifestError for a nodeSelector that no node can be made to satisfy.
    """
    said = []
    distinct: dict[tuple[tuple[str, str], ...], Pod] = {}
    for pod in pods:
        if pod.node_selector and pod.node_name is None:
            distinct.setdefault(tuple(sorted(pod.node_selector.items())), pod)
    for items, pod in sorted(distinct.items(), key=lambda item: -len(item[0])):
        selector = dict(items)
        fitting = [node for node in nodes if node.satisfies(selector)]
        if fitting:
            for node in fitting:
                node.selected += 1
            continue
        able = [node for node in nodes if node.could_satisfy(selector)]
        if not able or HOSTNAME in selector:
            raise ManifestError(
                pod.where,
                "spec.nodeSelector",
                _shown(selector),
                "no node has these labels, and each has others of the same keys;"
                " use more --nodes, or --node-label",
            )
        chosen = min(able, key=lambda node: node.selected)
        chosen.selected += 1
        new = {key: value for key, value in selector.items() if key not in chosen.labels}
        chosen.labels.update(new)
        chosen.given.update(new)
        said.append(
            f"{chosen.name} was given the label {_shown(new)} (nodeSelector in {pod.where})"
        )
    return said


def place(pod: Pod, nodes: Sequence[Node]) -> Node:
    """Place a pod and return its node. Raises ManifestError."""
    if pod.node_name is not None:
        for node in nodes:
            if node.name == pod.node_name:
                break
        else:
            names = ", ".join(node.name for node in nodes)
            raise ManifestError(pod.where, "spec.nodeName", pod.node_name, f"the nodes are {names}")
    else:
        fitting = [node for node in nodes if node.satisfies(pod.node_selector)]
        if not fitting:
            raise ManifestError(
                pod.where,
                "spec.nodeSelector",
                _shown(pod.node_selector),
                "no node has these labels",
            )
        node = min(fitting, key=lambda node: node.pods)
    node.pods += 1
    return node


def _shown(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
