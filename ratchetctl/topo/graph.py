"""A topology as a drawing's text: DOT (Graphviz) and Mermaid. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ratchetctl.topo.model import End, Topology


def dot(topology: Topology) -> Iterator[str]:
    """Yield the lines of an undirected graph for Graphviz."""
    yield f"graph {json.dumps(topology.name)} {{"
    yield '  node [shape=box, style="rounded,filled", fillcolor="#eef3fb"];'
    for node in topology.nodes:
        label = node.title if node.kind == "linux" else f"{node.title}\n{node.kind}"
        yield f"  {json.dumps(node.name)} [label={json.dumps(label, ensure_ascii=False)}];"
    for link in topology.links:
        tail, head = json.dumps(_label(link.first)), json.dumps(_label(link.second))
        edge = f"{json.dumps(link.first.node)} -- {json.dumps(link.second.node)}"
        yield f"  {edge} [taillabel={tail}, headlabel={head}];"
    for number, uplink in enumerate(topology.uplinks):
        far, label = json.dumps(f"uplink {number}"), json.dumps(f"{uplink.kind}\n{uplink.device}")
        yield f'  {far} [label={label}, fillcolor="#f3f3f3"];'
        tail = json.dumps(_label(uplink.end))
        yield f"  {json.dumps(uplink.end.node)} -- {far} [taillabel={tail}];"
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


def _label(end: End) -> str:
    return f"{end.ifname}\n{end.address}" if end.address else end.ifname


def _quoted(text: str) -> str:
    """Return a text in quotes; Mermaid writes entities with # where it means the character."""
    return '"' + text.replace("#", "#35;").replace('"', "#quot;") + '"'
