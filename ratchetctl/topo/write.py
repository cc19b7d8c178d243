"""A topology as a file in containerlab's format, which both containerlab and Ratchet read. Pure.

Loopback addresses become commands, which is how containerlab sets them. A startup configuration
stands in the file itself; the caller writes the other files beside it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping

from ratchet.labels import PREFIX
from ratchet.links import MACVLAN
from ratchetctl.topo import render
from ratchetctl.topo.dump import Value, document, text
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import End, File, Link, Node, Topology, Uplink
from ratchetctl.topo.render import ROUTING, SELECTOR, port_label


def definition(topology: Topology, comment: str = "", files: str = "files") -> Iterator[str]:
    """Yield the text of a definition, piece by piece; it finds files in the folder `files`."""
    if comment:
        yield f"# {comment}\n"
    images = _images(topology)
    yield f"name: {text(topology.name)}\ntopology:\n"
    if images:
        yield _indented({"kinds": {kind: {"image": image} for kind, image in images.items()}}, 2)
    yield "  nodes:\n"
    titles = {}
    renamed = {}
    for node in topology.nodes:
        titles[node.name] = node.title
        renamed[node.name] = dict(node.renamed)
        body = _node(node, images, files)
        if len(body) == 1 and "kind" in body:
            yield f"    {text(node.title)}: {{kind: {text(node.kind)}}}\n"
        else:
            yield _indented({node.title: body}, 4)
    yield "  links:\n"
    for link in topology.links:
        yield _link(link, titles, renamed)
    for uplink in topology.uplinks:
        yield _uplink(uplink, titles, renamed)


def bind_path(files: str, node: Node, file: File) -> str:
    """Return where a node's file lies, relative to the definition."""
    return f"{files}/{node.name}/{file.path.strip('/').replace('/', '_')}"


def needs_files(topology: Topology) -> list[tuple[Node, File]]:
    """Return the files that have no place in the definition itself."""
    return [
        (node, file)
        for node in topology.nodes
        for file in node.files
        if file.path != kind_of(node.kind).config_path or "\n" not in file.content
    ]


def _images(topology: Topology) -> dict[str, str]:
    """Return the image that most nodes of a kind have, for each kind."""
    counts: dict[str, Counter[str]] = {}
    for node in topology.nodes:
        counts.setdefault(node.kind, Counter())[node.image] += 1
    return {kind: count.most_common(1)[0][0] for kind, count in counts.items()}


def _node(node: Node, images: dict[str, str], files: str) -> dict[str, Value]:
    body: dict[str, Value] = {"kind": node.kind}
    known = kind_of(node.kind)
    if node.image != images[node.kind]:
        body["image"] = node.image
    if node.command is not None and (node.args or node.command != known.command):
        body["entrypoint"] = shlex.join(node.command)
    if node.args:
        body["cmd"] = shlex.join(node.args)
    env = {name: value for name, value in node.env if (name, value) not in known.env}
    if env:
        body["env"] = env
    labels = dict(node.labels)
    labels |= {f"{SELECTOR}{key}": value for key, value in node.node_selector}
    if node.routing:
        labels[ROUTING] = node.routing
    labels |= {port_label(port): port.name for port in node.ports if port.name}
    if labels:
        body["labels"] = labels
    binds = []
    for file in node.files:
        if file.path == known.config_path and "\n" in file.content:
            body["startup-config"] = file.content
        else:
            binds.append(f"{bind_path(files, node, file)}:{file.path}")
    if binds:
        body["binds"] = binds
    commands = [*render.loopback_commands(node), *node.commands]
    if commands:
        body["exec"] = commands
    if node.ports:
        body["ports"] = [
            f"{f'{port.outside}:' if port.outside else ''}{port.inside}"
            f"{'' if port.protocol == 'TCP' else f'/{port.protocol.lower()}'}"
            for port in node.ports
        ]
    return body


def _link(link: Link, titles: dict[str, str], renamed: dict[str, dict[str, str]]) -> str:
    def brief(end: End) -> str:
        ifname = renamed[end.node].get(end.ifname, end.ifname)
        return f'"{titles[end.node]}:{ifname}"'

    if any(end.mac for end in link.ends):
        full = [_endpoint(end, titles, renamed) for end in link.ends]
        return _item({"type": "veth", "endpoints": full, **_common(link)})
    line = f"    - endpoints: [{brief(link.first)}, {brief(link.second)}]\n"
    for key, version in (("ipv4", 4), ("ipv6", 6)):
        found = [
            str(end.address) if end.address and end.address.version == version else ""
            for end in link.ends
        ]
        if any(found):
            line += f'      {key}: ["{found[0]}", "{found[1]}"]\n'
    more = _common(link)
    return line + (_indented(more, 6) if more else "")


def _uplink(uplink: Uplink, titles: dict[str, str], renamed: dict[str, dict[str, str]]) -> str:
    found: dict[str, Value] = {
        "type": uplink.kind,
        "endpoint": _endpoint(uplink.end, titles, renamed),
        "host-interface": uplink.device,
    }
    if uplink.kind == MACVLAN:
        found["mode"] = "bridge"
    return _item({**found, **_common(uplink)})


def _item(value: dict[str, Value]) -> str:
    """Return an item of the list of links."""
    text = _indented(value, 6)
    return f"    - {text.removeprefix(' ' * 6)}"


def _endpoint(
    end: End, titles: dict[str, str], renamed: dict[str, dict[str, str]]
) -> dict[str, Value]:
    found: dict[str, Value] = {
        "node": titles[end.node],
        "interface": renamed[end.node].get(end.ifname, end.ifname),
    }
    if end.mac is not None:
        found["mac"] = end.mac
    if end.address is not None:
        found[f"ipv{end.address.version}"] = str(end.address)
    return found


def _common(link: Link | Uplink) -> dict[str, Value]:
    found: dict[str, Value] = {}
    if link.mtu is not None:
        found["mtu"] = link.mtu
    if _labels(link):
        found["labels"] = _labels(link)
    return found


def _labels(link: Link | Uplink) -> Mapping[str, Value]:
    """Return what containerlab has no words for, under the names that Ratchet's labels have."""
    fields = render.impairments(link)
    if isinstance(link, Uplink) and link.address is not None:
        fields["pair_ip"] = str(link.address)
    return {f"{PREFIX}{name}": value for name, value in fields.items()}


def _indented(value: dict[str, Value], by: int) -> str:
    return "".join(
        f"{' ' * by}{line}" if line.strip() else line
        for line in document(value).splitlines(keepends=True)
    )
