"""k8s-topo's file: links with endpoints NODE:INTERFACE[:ADDRESS], and nodes by their names alone.

What a node is follows from its name: host, qrtr (a router), anything else a cEOS switch, unless
`custom_image` says otherwise for the name's beginning.
"""

from __future__ import annotations

import os

from ratchetctl.topo import startup
from ratchetctl.topo.builder import Builder, EndDraft
from ratchetctl.topo.findings import Findings, Position
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import File, Node, Port, Topology
from ratchetctl.topo.tree import Fields, Items, Scalar, Table, Tree, shown

DEFAULT_CONF_DIR = "./config"
DEFAULT_CEOS = "ceos:latest"
CEOS_PORT = 443
KNOWN = {
    "etcd_host": "Ratchet's etcd stands in the nodes' network configuration",
    "etcd_port": "Ratchet's etcd stands in the nodes' network configuration",
    "nsm": "Ratchet makes the links itself",
    "delay": "links come when both pods are there",
}


def matches(tree: Tree) -> bool:
    if not isinstance(tree, Table) or "topology" in tree.entries or "links" not in tree.entries:
        return False
    links = tree.entries["links"][1]
    first = links.values[0] if isinstance(links, Items) and links.values else None
    return isinstance(first, Table) and "endpoints" in first.entries


def read(tree: Tree, findings: Findings) -> Topology:
    """Read a k8s-topo file. Raises TopologyError with everything that is wrong."""
    top = Fields.of(tree, "the file", findings)
    file = top.where.file
    builder = Builder(_name(file), top.where, findings)
    settings = _Settings(top)
    drafts = []
    for item in top.items("links"):
        link = Fields.of(item, "link", findings)
        ends = [end for one in link.scalars("endpoints") if (end := _end(one, findings))]
        if len(ends) == 2:
            drafts.append((link.where, (ends[0], ends[1])))
        elif len(link.items("endpoints")) != 2:
            findings.error(
                link.where,
                f"a link with {len(link.items('endpoints'))} endpoints",
                'write two: ["node1:eth1", "node2:eth1"]',
            )
        link.tell_unread({})
    top.tell_unread(KNOWN)
    titles: dict[str, Position] = {}
    for _, pair in drafts:
        for end in pair:
            titles.setdefault(end.node, end.where)
    published = settings.published(list(titles))
    for title, where in titles.items():
        name = builder.pod_name(title, where)
        if name is not None:
            builder.node(settings.node(name, title, published.get(title, ()), where))
    for where, pair in drafts:
        builder.link(where, pair)
    return builder.build()


def _name(file: str) -> str:
    """Return the file's own name: k8s-topo's files have no other."""
    return os.path.basename(file).partition(".")[0] or "topology"


def _end(scalar: Scalar, findings: Findings) -> EndDraft | None:
    node, _, rest = scalar.text.partition(":")
    ifname, _, address = rest.partition(":")
    if not node or not ifname:
        findings.error(
            scalar.where, f"endpoint {shown(scalar.text)}", "write NODE:INTERFACE[:ADDRESS]"
        )
        return None
    return EndDraft(node, ifname, address or None, scalar.where)


class _Settings:
    """What the top of the file says of all nodes."""

    def __init__(self, top: Fields) -> None:
        self._findings = top.findings
        self._conf_dir = top.text("conf_dir")
        self._conf_dir_at = top.at("conf_dir")
        self._file = top.where.file
        self._images = top.pairs("custom_image") + top.pairs("custom_images")
        self._ceos = top.text("ceos_image") or os.environ.get("CEOS_IMAGE") or DEFAULT_CEOS
        self._env = tuple(top.pairs("env") + top.pairs("environment"))
        self._base = self._read_base(top)
        if self._conf_dir is not None and not os.path.isdir(self._folder()):
            self._findings.error(
                self._conf_dir_at,
                f"conf_dir {shown(self._conf_dir)} is no folder",
                "it is looked for beside the topology",
            )

    def node(self, name: str, title: str, ports: tuple[Port, ...], where: Position) -> Node:
        kind = _kind(title)
        known = kind_of(kind)
        image = known.image or self._ceos
        for prefix, custom in self._images:
            if title.lower().startswith(prefix.lower()):
                image = custom
        files: tuple[File, ...] = ()
        path = os.path.join(self._folder(), title)
        if os.path.isfile(path):
            content = startup.read(path, where, self._findings)
            if content is not None:
                files = (File(known.config_path or "/etc/config", content),)
        return Node(
            name=name,
            title=title,
            kind=kind,
            image=image,
            command=known.command,
            env=(*known.env, *self._env),
            files=files,
            ports=ports,
            where=where,
        )

    def published(self, titles: list[str]) -> dict[str, tuple[Port, ...]]:
        """Give the published ports numbers by the nodes' names in order, as k8s-topo does."""
        found: dict[str, tuple[Port, ...]] = {}
        switches = sorted(title for title in titles if _kind(title) == "ceos")
        for number, title in enumerate(switches):
            found[title] = tuple(Port(inside, base + number) for inside, base in self._base.items())
        return found

    def _folder(self) -> str:
        return startup.beside(self._file, self._conf_dir or DEFAULT_CONF_DIR)

    def _read_base(self, top: Fields) -> dict[int, int]:
        tree = top.tree("publish_base")
        pairs = (
            [(str(CEOS_PORT), top.text("publish_base") or "")]
            if isinstance(tree, Scalar)
            else top.pairs("publish_base")
        )
        found = {}
        for inside, base in pairs:
            number = inside.partition("/")[0]
            if not (number.isdigit() and base.isdigit() and 0 < int(number) < 65536):
                self._findings.error(
                    top.at("publish_base"),
                    f"publish_base {shown(f'{inside}: {base}')}",
                    "write PORT: FIRST PORT OUTSIDE, as in 22: 30100",
                )
                continue
            # A plain number is the base that k8s-topo adds the port to.
            found[int(number)] = int(base) + (CEOS_PORT if isinstance(tree, Scalar) else 0)
        return found


def _kind(title: str) -> str:
    lower = title.lower()
    return "linux" if "host" in lower else "quagga" if "qrtr" in lower else "ceos"
