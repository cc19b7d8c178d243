"""meshnet's `Topology` resources, with the pods that stand in the same file.

Each link is declared at both ends, under one uid; the two must agree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.links import MACVLAN
from ratchetctl.topo.builder import Builder, EndDraft
from ratchetctl.topo.findings import Findings, Position
from ratchetctl.topo.kinds import kind
from ratchetctl.topo.model import Node, Topology
from ratchetctl.topo.readers import objects
from ratchetctl.topo.tree import Fields, Table, Tree, shown

KIND = "Topology"
KIND_OF_PODS = "linux"
MACHINE, PHYSICAL = "localhost", "physical"  # peers that are no pods


@dataclass(frozen=True, slots=True)
class _Half:
    """A link as one of its two pods declares it."""

    uid: str
    own: EndDraft
    far: EndDraft
    where: Position


def matches(trees: Sequence[Tree]) -> bool:
    return any(_is_topology(item) for item in objects.items(trees))


def read(trees: Sequence[Tree], findings: Findings) -> Topology:
    """Read the documents of a file. Raises TopologyError with everything that is wrong."""
    where = trees[0].where
    builder = Builder(os.path.basename(where.file).partition(".")[0], where, findings)
    pods = {}
    topologies = []
    for item in objects.items(trees):
        if _is_topology(item):
            topologies.append(Fields.of(item, "Topology", findings))
            continue
        fields = Fields.of(item, "object", findings)
        name = fields.fields("metadata").text("name")
        if fields.text("kind") == "Pod" and name:
            pods[name] = item
        else:
            findings.note(item.where, f"{fields.text('kind')} {name or ''} is left out")
    halves: dict[str, list[_Half]] = {}
    for topology in topologies:
        _take(topology, pods, builder, halves)
    for name, item in pods.items():
        if name not in builder.nodes:
            findings.note(item.where, f"pod {name} has no Topology: it is left out")
    for both in halves.values():
        _join(both, builder)
    return builder.build()


def _is_topology(item: Table) -> bool:
    return objects.text(item, "kind") == KIND and "networkop" in objects.text(item, "apiVersion")


def _take(
    topology: Fields,
    pods: dict[str, Table],
    builder: Builder,
    halves: dict[str, list[_Half]],
) -> None:
    findings = builder.findings
    topology.text("kind"), topology.text("apiVersion")
    meta = topology.fields("metadata")
    title = meta.text("name")
    if not title:
        findings.error(topology.where, "a Topology needs metadata.name, its pod's name")
        return
    name = builder.pod_name(title, meta.at("name"))
    if name is None:
        return
    builder.node(_node(name, title, pods.get(title), meta.at("name"), findings))
    spec = topology.fields("spec")
    for number, item in enumerate(spec.items("links")):
        half = _half(title, Fields.of(item, f"link {number + 1} of {title}", findings), findings)
        if half is not None and half.far.node == MACHINE:
            builder.uplink(half.where, half.own, MACVLAN, half.far.ifname)
        elif half is not None:
            halves.setdefault(half.uid, []).append(half)
    spec.tell_unread({})
    topology.tell_unread({"status": "it is meshnet's own"})


def _node(name: str, title: str, pod: Table | None, where: Position, findings: Findings) -> Node:
    if pod is None:
        image = kind(KIND_OF_PODS).image or ""
        findings.note(where, f"pod {title} is not in the file: it becomes a plain {image}")
        return Node(name, title, KIND_OF_PODS, image, where=where)
    container = objects.container(pod, findings)
    return Node(
        name=name,
        title=title,
        kind=KIND_OF_PODS,
        image=container.image,
        command=container.command,
        args=container.args,
        env=container.env,
        labels=container.labels,
        where=where,
    )


def _half(title: str, link: Fields, findings: Findings) -> _Half | None:
    uid, peer = link.text("uid"), link.text("peer_pod")
    local, far = link.text("local_intf"), link.text("peer_intf")
    local_ip, peer_ip = link.text("local_ip"), link.text("peer_ip")
    link.tell_unread({"properties": "write them as labels of a link in containerlab's format"})
    if peer and (peer == PHYSICAL or peer.startswith(f"{PHYSICAL}/")):
        findings.cannot(
            link.where,
            f"{link.what} leads to {shown(peer)}, a machine outside of the cluster",
            "connect two pods, or a pod with an interface of its machine (localhost)",
        )
        return None
    if peer == MACHINE and local and far:
        own = EndDraft(title, local, local_ip or None, link.where)
        return _Half("", own, EndDraft(peer, far, None, link.where), link.where)
    if not (uid and peer and local and far):
        findings.error(link.where, f"{link.what} needs uid, peer_pod, local_intf and peer_intf")
        return None
    return _Half(
        uid,
        EndDraft(title, local, local_ip or None, link.where),
        EndDraft(peer, far, peer_ip or None, link.where),
        link.where,
    )


def _join(halves: Sequence[_Half], builder: Builder) -> None:
    findings = builder.findings
    first = halves[0]
    if len(halves) > 2:
        findings.error(
            halves[2].where,
            f"uid {first.uid} is declared more than twice",
            "give each link a uid of its own",
        )
        return
    if len(halves) == 1:
        builder.link(first.where, (first.own, first.far))
        return
    second = halves[1]
    for here, there in ((second.own, first.far), (second.far, first.own)):
        mine, theirs = (here.node, here.ifname), (there.node, there.ifname)
        differs = mine != theirs or (
            here.address and there.address and here.address != there.address
        )
        if differs:
            findings.error(
                second.where,
                f"link {first.uid} is {_shown(here)} here, and {_shown(there)} in line"
                f" {first.where.line}",
                "make both ends say the same",
            )
            return
    builder.link(first.where, (_full(first.own, second.far), _full(second.own, first.far)))


def _full(end: EndDraft, other: EndDraft) -> EndDraft:
    return EndDraft(end.node, end.ifname, end.address or other.address, end.where)


def _shown(end: EndDraft) -> str:
    return ":".join(filter(None, (end.node, end.ifname, end.address)))
