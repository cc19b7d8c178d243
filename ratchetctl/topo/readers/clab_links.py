"""The links of containerlab's definition: brief, `["r1:eth1", "r2:eth1"]`, or with a `type:`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from ratchet import impairment
from ratchet.labels import PREFIX
from ratchet.links import MACVLAN, UPLINK_KINDS
from ratchetctl.topo.builder import Builder, EndDraft
from ratchetctl.topo.findings import Position
from ratchetctl.topo.tree import Fields, Items, Scalar, Table, Tree, shown

# Names in the brief form that stand for something other than a node.
SPECIAL = {
    "mgmt-net": "an end in containerlab's management network",
    "dummy": "an interface without a cable (dummy)",
    "macvtap": "a tap of the machine's interface (macvtap)",
    "container": "a container that runs already",
}
TYPES = {
    "mgmt-net": "pods have no management network beside the cluster's",
    "dummy": "an interface without a far end is no link",
    "vxlan": "a tunnel out of the cluster is no link between pods",
    "vxlan-stitch": "a tunnel out of the cluster is no link between pods",
    "bridge": "Ratchet has no bridges: its links have two ends",
}
REMEDY = "connect two nodes"
CABLES = ("veth", "veth-stitch")  # the latter is stitched by containerlab, and a cable to its nodes
VARS = "templates are not filled in"
FAMILIES = ("ipv4", "ipv6")


def take(
    tree: Tree, builder: Builder, outside: Collection[str], expand: Callable[[Scalar], str]
) -> None:
    """Take one entry of links; `outside` are the nodes that are no pods."""
    findings = builder.findings
    link = Fields.of(tree, "link", findings, expand)
    kind = link.text("type")
    if kind in UPLINK_KINDS:
        _uplink(link, kind, builder, expand)
        return
    if kind is not None and kind not in CABLES:
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
    _tell_vars(link)
    mtu = link.number("mtu")
    properties = _properties(link, impairment.LABELS)
    drafts = [_end(one, builder, expand) for one in ends.values]
    link.tell_unread({})
    first, second = drafts
    if first is None or second is None:
        return
    for draft, other in ((first, second), (second, first)):
        if draft.node in UPLINK_KINDS and draft.node not in builder.nodes:
            if other.node in outside or other.node in SPECIAL:
                continue
            own = _with(other, addresses, 0 if other is first else 1)
            builder.uplink(link.where, own, draft.node, draft.ifname, mtu, properties)
            return
        if draft.node in outside:
            findings.note(draft.where, f"a link ends at {draft.node}, which is left out: so is it")
            return
        if draft.node in SPECIAL and draft.node not in builder.nodes:
            findings.cannot(draft.where, f"the link leads to {SPECIAL[draft.node]}", REMEDY)
            return
    builder.link(
        link.where, (_with(first, addresses, 0), _with(second, addresses, 1)), mtu, properties
    )


def _uplink(link: Fields, kind: str, builder: Builder, expand: Callable[[Scalar], str]) -> None:
    """Take a link with the machine, as containerlab's extended form has it."""
    findings = builder.findings
    device, mode = link.text("host-interface"), link.text("mode")
    mtu = link.number("mtu")
    properties = _properties(link, (*impairment.LABELS, "pair_ip"))
    tree = link.tree("endpoint")
    draft = None if tree is None else _end(tree, builder, expand)
    _tell_vars(link)
    link.tell_unread({})
    if tree is None or not device:
        findings.error(
            link.where,
            f"a link of type {kind} needs endpoint and host-interface",
            "write endpoint: {node: NODE, interface: eth1}, host-interface: INTERFACE",
        )
    elif kind == MACVLAN and mode not in (None, "bridge"):
        findings.cannot(
            link.at("mode"), f"a macvlan in mode {shown(mode or '')}", "write mode: bridge"
        )
    elif draft is not None:
        builder.uplink(link.where, draft, kind, device, mtu, properties)


def _properties(link: Fields, known: Collection[str]) -> dict[str, str]:
    """Return those of a link's labels that Ratchet knows: `ratchet.delay: 10ms`."""
    found = {}
    for label, value in link.pairs("labels"):
        name = label.removeprefix(PREFIX)
        if label.startswith(PREFIX) and name in known:
            found[name] = value
        elif label.startswith(PREFIX):
            allowed = ", ".join(f"{PREFIX}{one}" for one in known)
            link.findings.error(
                link.at("labels"), f"a link has no label {shown(label)}", f"use one of {allowed}"
            )
        else:
            link.findings.note(link.at("labels"), f"the label {shown(label)} is left out")
    return found


def _addresses(link: Fields) -> list[list[Scalar]]:
    """Return the ends' addresses by family: of the link, or of its `vars`."""
    own = [link.scalars(family) for family in FAMILIES]
    if any(own) or not isinstance(link.tree("vars"), Table):
        return own
    variables = link.fields("vars")
    return [
        variables.scalars(family) if isinstance(variables.tree(family), Items) else []
        for family in FAMILIES
    ]


def _tell_vars(fields: Fields) -> None:
    """Tell of variables, but for the addresses, which are read."""
    found = fields.tree("vars")
    names = list(found.entries) if isinstance(found, Table) else ["vars"]
    if found is not None and any(name not in FAMILIES for name in names):
        fields.findings.note(fields.at("vars"), f"{fields.what}: vars is left out: {VARS}")


def _with(draft: EndDraft, addresses: list[list[Scalar]], number: int) -> EndDraft:
    """Give an end the address that stands at the link instead, as the brief form has it."""
    if draft.address is None:
        for found in addresses:
            if len(found) > number and found[number].text:
                address = found[number]
                return replace(draft, address=address.text, address_where=address.where)
    return draft


def _end(tree: Tree, builder: Builder, expand: Callable[[Scalar], str]) -> EndDraft | None:
    findings = builder.findings
    if isinstance(tree, Scalar):
        return brief(expand(tree), tree.where, builder)
    end = Fields.of(tree, "endpoint", findings, expand)
    node, ifname = end.text("node"), end.text("interface")
    ipv4, ipv6 = end.text("ipv4"), end.text("ipv6")
    if not ipv4 and not ipv6 and isinstance(end.tree("vars"), Table):
        variables = end.fields("vars")
        ipv4, ipv6 = variables.text("ipv4"), variables.text("ipv6")
    if ipv4 and ipv6:
        findings.note(
            end.at("ipv6"),
            f"the address {ipv6} is left out: an end has one address, here {ipv4}",
            "set it in the node, for instance with exec",
        )
    mac = end.text("mac")
    _tell_vars(end)
    end.tell_unread({})
    if not node or not ifname:
        findings.error(end.where, "an endpoint needs node and interface")
        return None
    return EndDraft(node, ifname, ipv4 or ipv6, end.where, mac)


def brief(text: str, where: Position, builder: Builder) -> EndDraft | None:
    """Read NODE:INTERFACE."""
    node, colon, ifname = text.partition(":")
    if not (node and colon and ifname):
        builder.findings.error(where, f"endpoint {shown(text)}", "write NODE:INTERFACE")
        return None
    return EndDraft(node, ifname, None, where)
