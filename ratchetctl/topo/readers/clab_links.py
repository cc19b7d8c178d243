"""The links of containerlab's definition: brief, `["r1:eth1", "r2:eth1"]`, or with a `type:`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ratchetctl.topo.builder import Builder, EndDraft
from ratchetctl.topo.findings import Position
from ratchetctl.topo.tree import Fields, Items, Scalar, Tree, shown

# Names in the brief form that stand for something other than a node.
SPECIAL = {
    "host": "an end in the machine's own network",
    "mgmt-net": "an end in containerlab's management network",
    "macvlan": "an interface of the machine (macvlan)",
    "dummy": "an interface without a cable (dummy)",
}
TYPES = {
    "macvlan": "Ratchet's labels have no macvlan link yet",
    "host": "Ratchet's labels have no link to the machine's own network yet",
    "mgmt-net": "pods have no management network beside the cluster's",
    "dummy": "an interface without a far end is no link",
    "vxlan": "a tunnel out of the cluster is no link between pods",
    "vxlan-stitch": "a tunnel out of the cluster is no link between pods",
    "bridge": "Ratchet has no bridges: its links have two ends",
}
REMEDY = "connect two nodes"
LINK_KEYS = {
    "labels": "links carry no labels",
    "vars": "templates are not filled in",
}


def take(
    tree: Tree, builder: Builder, outside: Collection[str], expand: Callable[[Scalar], str]
) -> None:
    """Take one entry of links; `outside` are the nodes that are no pods."""
    findings = builder.findings
    link = Fields.of(tree, "link", findings, expand)
    kind = link.text("type")
    if kind is not None and kind != "veth":
        why = TYPES.get(kind)
        if why is None:
            findings.error(
                link.at("type"), f"link type {shown(kind)} is not known", "write type: veth"
            )
        else:
            findings.cannot(link.where, f"a link of type {kind}: {why}", REMEDY)
        return
    ends = link.tree("endpoints")
    if not isinstance(ends, Items) or len(ends.values) != 2:
        findings.error(
            link.at("endpoints"),
            "a link needs endpoints, a list of two",
            'write endpoints: ["node1:eth1", "node2:eth1"]',
        )
        return
    addresses = _addresses(link)
    mtu = link.number("mtu")
    drafts = [_end(one, builder, expand) for one in ends.values]
    link.tell_unread(LINK_KEYS)
    first, second = drafts
    if first is None or second is None:
        return
    for draft in (first, second):
        if draft.node in outside:
            findings.note(draft.where, f"a link ends at {draft.node}, which is left out: so is it")
            return
        if draft.node in SPECIAL and draft.node not in builder.nodes:
            findings.cannot(draft.where, f"the link leads to {SPECIAL[draft.node]}", REMEDY)
            return
    builder.link(link.where, (_with(first, addresses, 0), _with(second, addresses, 1)), mtu)


def _addresses(link: Fields) -> list[list[Scalar]]:
    return [link.scalars("ipv4"), link.scalars("ipv6")]


def _with(draft: EndDraft, addresses: list[list[Scalar]], number: int) -> EndDraft:
    """Give an end the address that stands at the link instead, as the brief form has it."""
    if draft.address is None:
        for found in addresses:
            if len(found) > number and found[number].text:
                return EndDraft(draft.node, draft.ifname, found[number].text, draft.where)
    return draft


def _end(tree: Tree, builder: Builder, expand: Callable[[Scalar], str]) -> EndDraft | None:
    findings = builder.findings
    if isinstance(tree, Scalar):
        return brief(expand(tree), tree.where, builder)
    end = Fields.of(tree, "endpoint", findings, expand)
    node, ifname = end.text("node"), end.text("interface")
    ipv4, ipv6 = end.text("ipv4"), end.text("ipv6")
    if ipv4 and ipv6:
        findings.note(
            end.at("ipv6"),
            f"the address {ipv6} is left out: an end has one address, here {ipv4}",
            "set it in the node, for instance with exec",
        )
    end.tell_unread(
        {
            "mac": "Ratchet's labels have no MAC address yet",
            "vars": "templates are not filled in",
        }
    )
    if not node or not ifname:
        findings.error(end.where, "an endpoint needs node and interface")
        return None
    return EndDraft(node, ifname, ipv4 or ipv6, end.where)


def brief(text: str, where: Position, builder: Builder) -> EndDraft | None:
    """Read NODE:INTERFACE."""
    node, colon, ifname = text.partition(":")
    if not (node and colon and ifname):
        builder.findings.error(where, f"endpoint {shown(text)}", "write NODE:INTERFACE")
        return None
    return EndDraft(node, ifname, None, where)
