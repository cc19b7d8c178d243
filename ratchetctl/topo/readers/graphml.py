"""GraphML, as the Internet Topology Zoo has it: nodes with labels, edges with nothing to wire by.

Interfaces are numbered in the order of the edges. expat alone knows the line of an element, and
tells of the entities that make a small file enormous.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from xml.parsers import expat

from ratchetctl.errors import TopologyError
from ratchetctl.topo.builder import Builder, EndDraft
from ratchetctl.topo.findings import Findings, Position
from ratchetctl.topo.kinds import kind
from ratchetctl.topo.model import Node, Topology
from ratchetctl.topo.names import pod_name

KIND = "linux"
# What a node's or the graph's name is called, best first.
NAME_KEYS = ("label", "name", "Network")
LONGEST_LABEL = 10_000


@dataclass(slots=True)
class _Element:
    """A node, an edge or the graph, with the data that stands inside it."""

    attributes: dict[str, str]
    where: Position
    data: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Graph:
    keys: dict[str, str] = field(default_factory=dict)
    graphs: list[_Element] = field(default_factory=list)
    nodes: list[_Element] = field(default_factory=list)
    edges: list[_Element] = field(default_factory=list)
    hyperedges: list[Position] = field(default_factory=list)


def matches(name: str, text: str) -> bool:
    return name.endswith((".graphml", ".xml")) or text.lstrip("\ufeff \t\r\n").startswith("<")


def read(name: str, text: str, findings: Findings) -> Topology:
    """Read a GraphML file. Raises TopologyError with everything that is wrong."""
    graph = _parse(name, text)
    where = graph.graphs[0].where if graph.graphs else Position(name, 1)
    if not graph.graphs:
        raise TopologyError(f"{where}: no graph in this file; GraphML has a <graph> in <graphml>")
    own = next((graph.graphs[0].data[key] for key in NAME_KEYS if key in graph.graphs[0].data), "")
    builder = Builder(own or os.path.basename(name).partition(".")[0], where, findings)
    for hyperedge in graph.hyperedges:
        findings.cannot(hyperedge, "a hyperedge has more than two ends", "draw it as a node")
    titles = _nodes(graph, builder)
    counts: dict[str, int] = {}
    for edge in graph.edges:
        ends = []
        for side in ("source", "target"):
            title = titles.get(edge.attributes.get(side, ""))
            if title is None:
                findings.error(
                    edge.where,
                    f"the edge's {side} {edge.attributes.get(side, '')!a} is no node of this graph",
                )
                break
            counts[title] = counts.get(title, 0) + 1
            ends.append(EndDraft(title, f"eth{counts[title]}", None, edge.where))
        if len(ends) == 2:
            if ends[0].node == ends[1].node:
                findings.note(edge.where, f"left out: an edge from {ends[0].node} to itself")
                continue
            builder.link(edge.where, (ends[0], ends[1]))
    return replace(builder.build(), says_kinds=False)


def _nodes(graph: _Graph, builder: Builder) -> dict[str, str]:
    """Add the nodes; their titles by id. Labels that are no use as names give way to the id."""
    labels = [
        next((node.data[key] for key in NAME_KEYS if node.data.get(key)), "")
        for node in graph.nodes
    ]
    names = [pod_name(label) for label in labels]
    counts = Counter(names)
    titles = {}
    for node, label, name in zip(graph.nodes, labels, names, strict=True):
        id_ = node.attributes.get("id", "")
        if id_ in titles:
            builder.findings.error(node.where, f"node id {id_!a} is given twice")
            continue
        usable = name is not None and counts[name] == 1
        title = label if usable else f"n{id_}" if id_.isdigit() else id_
        made = builder.pod_name(title, node.where)
        if made is not None:
            known = kind(KIND)
            builder.node(
                Node(made, title, KIND, known.image or "", known.command, where=node.where)
            )
            titles[id_] = title
    return titles


def _parse(name: str, text: str) -> _Graph:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    graph = _Graph()
    inside: list[_Element] = []
    key: list[str] = []
    characters: list[str] = []

    def where() -> Position:
        return Position(name, parser.CurrentLineNumber)

    def start(tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if tag == "key":
            graph.keys[attributes.get("id", "")] = attributes.get("attr.name", "")
        elif tag == "data":
            key.append(attributes.get("key", ""))
            characters.clear()
        elif tag in ("graph", "node", "edge"):
            element = _Element(dict(attributes), where())
            {"graph": graph.graphs, "node": graph.nodes, "edge": graph.edges}[tag].append(element)
            inside.append(element)
        elif tag == "hyperedge":
            graph.hyperedges.append(where())

    def end(tag: str) -> None:
        tag = tag.rpartition(":")[2]
        if tag == "data" and key:
            called = graph.keys.get(key[-1]) or key[-1]
            key.pop()
            if inside:
                inside[-1].data[called] = "".join(characters).strip()
        elif tag in ("graph", "node", "edge"):
            inside.pop()

    def data(characters_: str) -> None:
        if key and len(characters) < LONGEST_LABEL:
            characters.append(characters_)

    def entity(*_: object) -> None:
        raise TopologyError(f"{where()}: GraphML needs no entities; remove the <!ENTITY>")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = data
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        at = Position(name, error.lineno)
        raise TopologyError(f"{at}: not XML: {expat.errors.messages[error.code]}") from error
    return graph
