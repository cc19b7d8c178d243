"""kne's topologies, the protobuf message `Topology` in text or YAML form."""

from __future__ import annotations

import re

from ratchetctl.topo import startup
from ratchetctl.topo.builder import Builder, EndDraft
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import File, Node, Port, Topology
from ratchetctl.topo.tree import Fields, Items, Scalar, Table, Tree

# kne's vendors and (older) types, as device kinds.
KINDS = {
    "HOST": "linux",
    "ARISTA": "ceos",
    "ARISTA_CEOS": "ceos",
    "CISCO": "cisco_xrd",
    "CISCO_XRD": "cisco_xrd",
    "FRR": "frr",
    "QUAGGA": "quagga",
    "GOBGP": "gobgp",
    "NOKIA": "nokia_srlinux",
    "NOKIA_SRL": "nokia_srlinux",
}
IMAGES = {
    "ceos": "ceos:latest",
    "cisco_8000e": "8000e:latest",
    "cisco_xrd": "xrd:latest",
    "gobgp": "hfam/gobgp:latest",
}
CONFIG_PATHS = {"cisco_8000e": "/startup.cfg"}
_MODEL_8000 = re.compile(r"8\d{3}\b|e8000|8000e", re.IGNORECASE)
NODE_KEYS = {
    "model": "the kind's hardware variants are the image's matter",
    "os": "the kind's hardware variants are the image's matter",
    "version": "name it in the image",
    "pb_type": "it is kne's own",
}
CONFIG_KEYS = {
    "entry_command": "use kubectl exec",
    "sleep": "links come when both pods are there",
    "init_image": "Ratchet waits for the links itself",
    "init_sleep": "Ratchet waits for the links itself",
    "cert": "certificates are not made",
    "vendor_data": "it is for single kinds",
}


def matches(tree: Tree) -> bool:
    if not isinstance(tree, Table) or "topology" in tree.entries:
        return False
    for key in ("nodes", "links"):
        found = tree.entries.get(key, (None, None))[1]
        first = found.values[0] if isinstance(found, Items) and found.values else None
        if isinstance(first, Table) and ("name" in first.entries or "a_node" in first.entries):
            return True
    return False


def read(tree: Tree, findings: Findings) -> Topology:
    """Read a topology. Raises TopologyError with everything that is wrong."""
    top = Fields.of(tree, "the file", findings)
    builder = Builder(top.text("name") or "topology", top.where, findings)
    mtus: dict[tuple[str, str], int] = {}
    for item in top.items("nodes"):
        fields = Fields.of(item, "node", findings)
        title = fields.text("name")
        if not title:
            findings.error(fields.where, "a node needs a name")
            continue
        fields.what = f"node {title}"
        name = builder.pod_name(title, fields.at("name"))
        node = _node(name or "", title, fields, findings)
        for interface, mtu in _mtus(fields, findings).items():
            mtus[title, interface] = mtu
        fields.tell_unread(NODE_KEYS)
        if name:
            builder.node(node)
    for item in top.items("links"):
        link = Fields.of(item, "link", findings)
        ends = []
        for side in ("a", "z"):
            node_title, ifname = link.text(f"{side}_node"), link.text(f"{side}_int")
            if node_title and ifname:
                ends.append(EndDraft(node_title, ifname, None, link.where))
        if len(ends) == 2:
            builder.link(link.where, (ends[0], ends[1]), _mtu(mtus, ends, findings))
        else:
            findings.error(link.where, "a link needs a_node, a_int, z_node and z_int")
        link.tell_unread({})
    top.tell_unread({})
    return builder.build()


def _node(name: str, title: str, fields: Fields, findings: Findings) -> Node:
    vendor, type_ = fields.text("vendor"), fields.text("type")
    said = vendor or type_ or "HOST"
    kind = KINDS.get(said.upper(), said.lower())
    model = fields.text("model") or ""
    if kind == "cisco_xrd" and _MODEL_8000.match(model):
        kind = "cisco_8000e"
    elif model:
        findings.note(fields.at("model"), f"{fields.what}: model is left out: {NODE_KEYS['model']}")
    known = kind_of(kind)
    config = fields.fields("config")
    image = config.text("image") or known.image or IMAGES.get(kind)
    if image is None:
        findings.error(
            fields.where,
            f"node {title} has no image, and there is none for the vendor {said}",
            "write config: { image: ... }",
        )
    command = tuple(config.texts("command"))
    args = tuple(config.texts("args"))
    node = Node(
        name=name,
        title=title,
        kind=kind,
        image=image or "",
        command=command or (None if args else known.command),
        args=args,
        env=tuple(dict((*known.env, *config.pairs("env"))).items()),
        files=_files(title, kind, config, findings),
        ports=_ports(fields.fields("services"), findings),
        labels=tuple(fields.pairs("labels")),
        where=fields.where,
    )
    _constraints(fields, findings)
    config.tell_unread(CONFIG_KEYS)
    return node


def _files(title: str, kind: str, config: Fields, findings: Findings) -> tuple[File, ...]:
    file, data = config.text("file"), config.text("data")
    folder, base = config.text("config_path"), config.text("config_file")
    if file is None and data is None:
        return ()
    where = config.at("file" if file is not None else "data")
    path = (
        f"{folder.rstrip('/')}/{base}"
        if folder and base
        else (kind_of(kind).config_path or CONFIG_PATHS.get(kind))
    )
    if path is None:
        findings.cannot(
            where,
            f"node {title}: where a {kind} reads its configuration is not known",
            "write config_path and config_file",
        )
        return ()
    content = data
    if file is not None:
        content = startup.read(startup.beside(where.file, file), where, findings)
    return () if content is None else (File(path, content),)


def _ports(services: Fields, findings: Findings) -> tuple[Port, ...]:
    found = []
    for key, value in services.entries():
        service = Fields.of(value, f"service {key.text}", findings, at=key.where)
        names = [service.text("name"), *(one.text for one in _names(service))]
        inside, outside = service.number("inside"), service.number("outside")
        service.number("node_port")
        kind = service.text("type")
        if kind not in (None, "NODE_PORT"):
            findings.note(service.at("type"), f"{service.what}: the type is NodePort, not {kind}")
        service.tell_unread({"inside_ip": "it is kne's own", "outside_ip": "it is kne's own"})
        if inside is None:
            inside = int(key.text) if key.text.isdigit() else 0
        if not 1 <= inside <= 65535:
            findings.error(key.where, f"service {key.text} needs inside, a port")
            continue
        name = next((one for one in names if one), "")
        found.append(
            Port(inside, outside or (int(key.text) if key.text.isdigit() else None), name=name)
        )
    return tuple(found)


def _names(service: Fields) -> list[Scalar]:
    """Newer files give a service several names."""
    return service.scalars("names") if isinstance(service.tree("names"), Items) else []


def _constraints(fields: Fields, findings: Findings) -> None:
    """Tell of what is for the cluster's scheduler: CPU and memory."""
    pairs = fields.pairs("constraints")
    if pairs:
        findings.note(
            fields.at("constraints"),
            f"{fields.what}: {', '.join(key for key, _ in pairs)}: resources are not limited",
        )


def _mtus(fields: Fields, findings: Findings) -> dict[str, int]:
    """Read the MTU of interfaces; names that the vendor uses inside are of no concern."""
    found = {}
    for key, value in fields.fields("interfaces").entries():
        interface = Fields.of(value, f"interface {key.text}", findings, at=key.where)
        mtu = interface.number("mtu")
        if mtu is not None:
            found[key.text] = mtu
    return found


def _mtu(mtus: dict[tuple[str, str], int], ends: list[EndDraft], findings: Findings) -> int | None:
    """Return the smaller of the two ends' MTUs, and tell where they differ."""
    both = [mtus[end.node, end.ifname] for end in ends if (end.node, end.ifname) in mtus]
    if len(set(both)) > 1:
        findings.note(
            ends[0].where, f"the ends' MTUs differ, {both[0]} and {both[1]}: {min(both)} is taken"
        )
    return min(both, default=None)
