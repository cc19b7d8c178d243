"""A topology as other programs' text: DOT (Graphviz) and Mermaid, which lay it out themselves."""

from __future__ import annotations

from collections.abc import Iterator

from ratchetctl.topo.graph import looks
from ratchetctl.topo.model import End, Topology


def dot(topology: Topology) -> Iterator[str]:
    """Yield the lines of an undirected graph for Graphviz."""
    yield f"graph {_string(topology.name)} {{"
    yield '  node [shape=box, style="rounded,filled", fillcolor="#eef3fb"];'
    for node in topology.nodes:
        label = node.title if node.kind == "linux" else f"{node.title}\n{node.kind}"
        yield f"  {_string(node.name)} [label={_string(label)}];"
    for link in topology.links:
        tail, head = _string(_label(link.first)), _string(_label(link.second))
        edge = f"{_string(link.first.node)} -- {_string(link.second.node)}"
        yield f"  {edge} [taillabel={tail}, headlabel={head}];"
    for number, uplink in enumerate(topology.uplinks):
        far, label = _string(f"uplink {number}"), _string(f"{uplink.kind}\n{uplink.device}")
        yield f'  {far} [label={label}, fillcolor="#f3f3f3"];'
        tail = _string(_label(uplink.end))
        yield f"  {_string(uplink.end.node)} -- {far} [taillabel={tail}];"
    yield "}"


def mermaid(topology: Topology) -> Iterator[str]:
    """Yield the lines of a flowchart for Mermaid."""
    yield "graph LR"
    ids = {node.name: f"n{number}" for number, node in enumerate(topology.nodes, start=1)}
    for node in topology.nodes:
        yield f"  {ids[node.name]}[{_quoted(node.title)}]"
    for link in topology.links:
        label = _quoted(f"{link.first.ifname} – {link.second.ifname}")
        yield f"  {ids[link.first.node]} ---|{label}| {ids[link.second.node]}"
    for number, uplink in enumerate(topology.uplinks, start=1):
        far = f"u{number}([{_quoted(f'{uplink.kind} {uplink.device}')}])"
        yield f"  {ids[uplink.end.node]} ---|{_quoted(uplink.end.ifname)}| {far}"


def _string(text: str) -> str:
    """Return a string of DOT; a line break is one in the label, too."""
    lines = (looks.printable(line) for line in text.split("\n"))
    return '"' + "\\n".join(one.replace("\\", "\\\\").replace('"', '\\"') for one in lines) + '"'


def _label(end: End) -> str:
    return f"{end.ifname}\n{end.address}" if end.address else end.ifname


def _quoted(text: str) -> str:
    """Return a text in quotes; Mermaid writes entities with # where it means the character."""
    text = looks.printable(text).replace("#", "#35;").replace('"', "#quot;")
    return f'"{text.replace("<", "#lt;").replace(">", "#gt;")}"'
