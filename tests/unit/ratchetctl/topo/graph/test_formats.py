"""SVG, drawio, DOT and Mermaid: what each has to say, in a form that its readers take."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from ratchetctl.topo.graph import drawio, picture, svg, texts
from ratchetctl.topo.graph.seen import Seen
from ratchetctl.topo.model import Topology

from .networks import HOSTILE, broken, hostile, network, outside, random, seen

SVG = "{http://www.w3.org/2000/svg}"
TWO = network([("a", "b"), ("b", "c")])
TOPOLOGIES = {
    "two links": TWO,
    "outside": outside(),
    "many": random(120, 60),
    "several": network([("a", "b"), ("a", "b"), ("a", "a")]),
    "hostile": hostile(),
    "empty": Topology("empty", (), ()),
}


def as_svg(topology: Topology, found: Seen | None = None) -> ElementTree.Element:
    return ElementTree.fromstring("\n".join(svg.svg(picture.draw(topology, found))))


def as_drawio(topology: Topology, found: Seen | None = None) -> ElementTree.Element:
    return ElementTree.fromstring("\n".join(drawio.drawio(picture.draw(topology, found))))


def words(root: ElementTree.Element) -> list[str]:
    return [str(one.text) for one in root.iter(f"{SVG}text")]


# SVG


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_svg_has_every_node_and_link_and_says_what_it_is(topology: Topology) -> None:
    root = as_svg(topology, seen(topology))
    assert root[0].tag == f"{SVG}title"
    described = root[1]
    assert described.tag == f"{SVG}desc"
    assert str(described.text).startswith("A network of ")
    assert len(root.findall(f".//{SVG}use")) == len(topology.nodes) + len(topology.uplinks)
    lines = [one for one in root.iter(f"{SVG}path") if one.find(f"{SVG}title") is not None]
    assert len(lines) == len(topology.all_links)
    # Everything that is drawn lies in the picture.
    _, _, width, height = (float(one) for one in root.get("viewBox", "").split())
    assert width >= 560
    assert height > 76


def test_svg_needs_nothing_else() -> None:
    text = "\n".join(svg.svg(picture.draw(hostile(), seen(hostile()))))
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    assert all(one.startswith("#") for one in re.findall(r'href="([^"]*)"', text))
    root = ElementTree.fromstring(text)
    assert {one.tag.removeprefix(SVG) for one in root.iter()} <= {
        *("svg", "title", "desc", "style", "defs", "path", "rect", "text", "g", "circle", "use")
    }
    assert not [name for one in root.iter() for name in one.keys() if name.startswith("on")]  # noqa: SIM118


def test_svg_legend_names_machines_kinds_and_states() -> None:
    found = words(as_svg(TWO, broken(TWO, "down", "its cable is pulled out")))
    assert {"node1 (2)", "node2 (1)", "vxlan, across machines", "down"} <= set(found)
    assert "3 nodes, 2 links, 1 up, 1 down" in found
    assert "waiting" not in found


def test_svg_says_why_a_link_is_down() -> None:
    root = as_svg(TWO, broken(TWO, "down", "its cable is pulled out"))
    (told,) = [one for one in root.iter(f"{SVG}title") if "pulled out" in str(one.text)]
    assert told.text == "a eth1 – b eth1, vxlan, down, its cable is pulled out"


def test_svg_of_a_file_has_no_legend_that_tells_nothing() -> None:
    assert words(as_svg(TWO)) == [
        *("net", "3 nodes, 2 links"),
        *("eth1", "eth1", "eth2", "eth1"),
        *("a", "b", "c"),
    ]


def test_svg_names_interfaces_unless_there_are_too_many() -> None:
    assert "eth2" in words(as_svg(TWO))
    assert "eth2" not in words(as_svg(TOPOLOGIES["many"]))


# drawio


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_drawio_is_an_mxfile_whose_cells_fit_together(topology: Topology) -> None:
    root = as_drawio(topology, seen(topology))
    assert root.tag == "mxfile"
    cells = root.findall("diagram/mxGraphModel/root/mxCell")
    ids = [cell.get("id") for cell in cells]
    assert ids[:2] == ["0", "1"]
    assert len(ids) == len(set(ids))
    for cell in cells[1:]:
        assert cell.get("parent") in ids
    for cell in cells[2:]:
        geometry = cell.find("mxGeometry")
        assert geometry is not None
        assert geometry.get("as") == "geometry"
        # diagrams.net takes a label as HTML if its style says so: no name may be markup.
        assert "html=0;" in str(cell.get("style"))
    edges = [cell for cell in cells if cell.get("edge")]
    assert len(edges) == len(topology.all_links)
    assert all(edge.get("source") in ids and edge.get("target") in ids for edge in edges)
    labels = [cell.get("value") for cell in cells if cell.get("vertex")]
    assert len(labels) == len(topology.nodes) + len(topology.uplinks) + topology.ends


def test_drawio_tells_kinds_and_machines_apart() -> None:
    topology = outside()
    cells = as_drawio(topology, seen(topology)).findall(".//mxCell")
    edges = [str(cell.get("style")) for cell in cells if cell.get("edge")]
    assert len(set(edges)) == 3
    assert all("dashed=1" in style for style in edges)
    nodes = {str(cell.get("style")) for cell in cells if str(cell.get("id")).startswith("n")}
    assert len(nodes) == 3  # two machines, and what is outside


# DOT and Mermaid


def test_dot_takes_any_name() -> None:
    for line in list(texts.dot(hostile()))[1:-1]:
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "S", line)
        assert re.fullmatch(r"  (node )?(S|S -- S)? ?\[\w+=\w+(, \w+=\w+)*\];", bare), line


def test_dot_breaks_lines_where_a_label_does() -> None:
    text = "\n".join(texts.dot(network([("a", "b")], "frr")))
    assert '"a" [label="a\\nfrr"];' in text


def test_mermaid_takes_any_name() -> None:
    lines = list(texts.mermaid(hostile()))
    assert len(lines) == 1 + 2 * len(HOSTILE) + 1
    for line in lines[1:]:
        bare = re.sub(r'"[^"<>\x00-\x1f]*"', "S", line)
        assert re.fullmatch(r"  n\d+(\[S\]| ---\|S\| (n\d+|u1\(\[S\]\)))", bare), line
