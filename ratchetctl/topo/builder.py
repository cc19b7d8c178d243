"""From what a reader finds to a topology: names, interfaces and addresses as Ratchet takes them.

Every reader goes through here, so the rules and their sentences are the same for all formats.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ratchet import labels
from ratchet.errors import LabelError
from ratchetctl.topo import names, render
from ratchetctl.topo.findings import Findings, Position
from ratchetctl.topo.model import End, Interface, Link, Node, Topology, Uplink, interface
from ratchetctl.topo.tree import shown

MOST_NODES = 100_000
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class EndDraft:
    """An end as the file has it: node, interface and address in its spelling."""

    node: str
    ifname: str
    address: str | None
    where: Position
    mac: str | None = None
    address_where: Position | None = None  # where it stands elsewhere


@dataclass(slots=True)
class Builder:
    """Collects nodes and links under the names that the file gives them."""

    name: str
    where: Position
    findings: Findings
    nodes: dict[str, Node] = field(default_factory=dict)  # by title
    _titles: dict[str, str] = field(default_factory=dict)  # by pod name
    _ends: dict[tuple[str, str], tuple[str, Position]] = field(default_factory=dict)
    _renamed: dict[str, dict[str, str]] = field(default_factory=dict)
    _links: list[Link] = field(default_factory=list)
    _uplinks: list[Uplink] = field(default_factory=list)

    def pod_name(self, title: str, where: Position) -> str | None:
        """Take a node's name and return the pod's, None (and an error) where it cannot be."""
        if names.is_template(title):
            self.findings.error(
                where,
                f"node {shown(title)} is a template",
                "fill it in with the program that it was written for, and read what that writes",
            )
            return None
        name = names.pod_name(title)
        if name is None:
            self.findings.error(
                where,
                f"node {shown(title)} cannot be made a pod's name",
                "use letters, digits and '-'",
            )
            return None
        if name in self._titles:
            self.findings.error(
                where,
                f"nodes {shown(self._titles[name])} and {shown(title)} would both be the pod"
                f" {name}",
                "rename one",
            )
            return None
        self._titles[name] = title
        return name

    def node(self, node: Node) -> None:
        if node.name != node.title:
            self.findings.note(node.where, f"node {shown(node.title)} becomes the pod {node.name}")
        if len(self.nodes) == MOST_NODES:
            self.findings.error(node.where, f"more than {MOST_NODES} nodes")
        refused = [(key, value) for key, value in node.labels if not render.is_label(key, value)]
        for key, value in refused:
            self.findings.note(
                node.where,
                f"node {node.title}: the label {shown(f'{key}: {value}')} is left out: Kubernetes"
                " does not take it, or it is Ratchet's own",
            )
        if refused:
            kept = tuple(one for one in node.labels if one not in refused)
            node = replace(node, labels=kept)
        self.nodes[node.title] = node

    def link(
        self,
        where: Position,
        drafts: tuple[EndDraft, EndDraft],
        mtu: int | None = None,
        properties: Mapping[str, str] = NOTHING,
    ) -> None:
        """Take a link; what is wrong with either end is told.

        `properties` are further fields of the link, as Ratchet's labels have them.
        """
        if drafts[0].node == drafts[1].node:
            self.findings.error(
                where,
                f"both ends are at {shown(drafts[0].node)}",
                "connect two nodes: Ratchet wires pods with other pods",
            )
            return
        first, second = self._end(drafts[0]), self._end(drafts[1])
        fields = dict(properties)
        for name, draft in zip(("local_mac", "pair_mac"), drafts, strict=True):
            if draft.mac is not None:
                fields[name] = draft.mac
        if not fields:  # most links say no more than their ends
            if first and second:
                self._links.append(Link(first, second, mtu, where))
            return
        fields |= {"pair_name": "b", "pair_ifname": "in2"}
        wiring = self._wiring(where, fields)
        if first and second and wiring:
            (said,) = wiring.links
            first = replace(first, mac=said.mac, impairment=said.impairment)
            second = replace(second, mac=said.pair_mac, impairment=said.pair_impairment)
            self._links.append(Link(first, second, mtu, where))

    def uplink(
        self,
        where: Position,
        draft: EndDraft,
        kind: str,
        device: str,
        mtu: int | None = None,
        properties: Mapping[str, str] = NOTHING,
    ) -> None:
        """Take a link with the machine; what is wrong with it is told."""
        end = self._end(draft)
        fields = {**properties, "kind": kind, "device": device}
        if draft.mac is not None:
            fields["local_mac"] = draft.mac
        wiring = self._wiring(where, fields)
        if end and wiring:
            (said,) = wiring.uplinks
            end = replace(end, mac=said.mac, impairment=said.impairment)
            address = interface(said.device_address)
            self._uplinks.append(Uplink(end, kind, device, address, mtu, where))

    def _wiring(self, where: Position, fields: Mapping[str, str]) -> labels.Wiring | None:
        """Read fields of one link by the grammar of Ratchet's labels; what is wrong is told."""
        named = {f"{labels.PREFIX}{name}": value for name, value in fields.items()}
        named |= {f"{labels.PREFIX}primary": "true", f"{labels.PREFIX}local_ifname": "in1"}
        try:
            return labels.parse({}, named, own_name="a", cni_ifname=names.CNI_IFNAME)
        except LabelError as error:
            self.findings.error(where, error.msg.removeprefix("invalid label: "))
            return None

    def build(self) -> Topology:
        """Return the topology. Raises TopologyError with all errors so far."""
        if not self.nodes and not self.findings.errors:
            self.findings.error(self.where, "there is no node in this topology")
        self.findings.raise_errors()
        nodes = tuple(
            replace(node, renamed=tuple(sorted(self._renamed[title].items())))
            if title in self._renamed
            else node
            for title, node in self.nodes.items()
        )
        return Topology(self.name, nodes, tuple(self._links), tuple(self._uplinks), self.where)

    def _end(self, draft: EndDraft) -> End | None:
        node = self.nodes.get(draft.node)
        if node is None:
            self.findings.error(
                draft.where,
                f"a link ends at {shown(draft.node)}, which is no node of this topology",
                "add it under nodes, or correct the name",
            )
            return None
        try:
            ifname = names.interface(node.kind, draft.ifname)
        except ValueError as error:
            self.findings.error(
                draft.where,
                f"interface {shown(draft.ifname)} of {draft.node}: {error}",
                "fill it in, and read what comes out" if names.is_template(draft.ifname) else "",
            )
            return None
        taken = self._ends.get((node.name, ifname))
        if taken is not None:
            also = "" if taken[0] == draft.ifname else f", as {shown(taken[0])} already"
            self.findings.error(
                draft.where,
                f"interface {ifname} of {draft.node} is used twice{also} (first in line"
                f" {taken[1].line})",
                "give every link an interface of its own",
            )
            return None
        self._ends[node.name, ifname] = (draft.ifname, draft.where)
        if ifname != draft.ifname:
            self._renamed.setdefault(draft.node, {})[ifname] = draft.ifname
        return End(node.name, ifname, self._address(draft), where=draft.where)

    def _address(self, draft: EndDraft) -> Interface | None:
        if not draft.address:
            return None
        try:
            return parse_address(draft.address)
        except ValueError as error:
            self.findings.error(
                draft.address_where or draft.where,
                f"address {shown(draft.address)} of {draft.node}: {error}",
            )
            return None


def parse_address(text: str) -> Interface:
    """Read the address of an end by the grammar of Ratchet's labels. Raises ValueError."""
    label = f"{labels.PREFIX}public_ip"
    try:
        found = labels.parse({}, {label: text}, own_name="x", cni_ifname=names.CNI_IFNAME)
    except LabelError as error:
        raise ValueError(f"allowed is {error.msg.partition('allowed is ')[2]}") from error
    if found.public_ip is None:
        raise ValueError("an address is missing")
    return ipaddress.ip_interface(str(found.public_ip))
