"""A drawing as a file of diagrams.net (draw.io): an mxfile, as plain text that people can read.

Labels are plain text (`html=0`): what a file calls a node is never markup.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import quoteattr

from ratchetctl.topo.graph import looks
from ratchetctl.topo.graph.picture import Line, Picture, Spot

_NODE = (
    "ellipse;html=0;aspect=fixed;fillColor={colour};strokeColor=#ffffff;strokeWidth=2;"
    "verticalLabelPosition=bottom;verticalAlign=top;labelBackgroundColor=none;fontSize=12;"
)
_EDGE = "html=0;endArrow=none;rounded=1;strokeColor={colour};strokeWidth={width};{dashes}"
_NAME = (
    "edgeLabel;html=0;align=center;verticalAlign=middle;resizable=0;fontSize=9;fontColor=#5a6776;"
)
_END = 0.7  # from the middle of a link, to the name of its interface: 1 is the node


def drawio(picture: Picture) -> Iterator[str]:
    """Yield the lines of the file."""
    left, top, wide, high = picture.bounds
    name = _quoted(picture.name or "topology")
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<mxfile host="ratchetctl" type="device">'
    yield f'  <diagram id="topology" name={name}>'
    yield (
        f'    <mxGraphModel dx="{wide:.0f}" dy="{high:.0f}" grid="1" gridSize="10" guides="1"'
        ' tooltips="1" connect="1" arrows="1" fold="1" page="0" pageScale="1" math="0"'
        ' shadow="0">'
    )
    yield "      <root>"
    yield '        <mxCell id="0"/>'
    yield '        <mxCell id="1" parent="0"/>'
    for number, line in enumerate(picture.lines):
        yield from _line(picture, number, line)
    for number, spot in enumerate(picture.spots):
        yield from _spot(picture, number, spot, left, top)
    yield "      </root>"
    yield "    </mxGraphModel>"
    yield "  </diagram>"
    yield "</mxfile>"


def _spot(picture: Picture, number: int, spot: Spot, left: float, top: float) -> Iterator[str]:
    place = picture.machines.index(spot.machine) if spot.machine in picture.machines else None
    colour = looks.OUTSIDE if spot.role == "outside" else looks.machine(place)
    x, y = spot.x - left - looks.MARK / 2, spot.y - top - looks.MARK / 2
    yield (
        f'        <mxCell id="n{number}" value={_quoted(spot.title)}'
        f' style="{_NODE.format(colour=colour)}" vertex="1" parent="1">'
    )
    yield (
        f'          <mxGeometry x="{x:.1f}" y="{y:.1f}" width="{looks.MARK:g}"'
        f' height="{looks.MARK:g}" as="geometry"/>'
    )
    yield "        </mxCell>"


def _line(picture: Picture, number: int, line: Line) -> Iterator[str]:
    stroke = looks.STROKES[line.kind]
    colour = stroke.light
    if picture.is_live and line.state in looks.STATES:
        colour = looks.STATES[line.state].light
    dashes = ""
    if stroke.dashes:
        dashes = f"dashed=1;dashPattern={' '.join(map(str, stroke.dashes))};"
    style = _EDGE.format(colour=colour, width=f"{stroke.width:g}", dashes=dashes)
    if line.bend:
        style += "curved=1;"
    yield (
        f'        <mxCell id="e{number}" value="" style="{style}" edge="1" parent="1"'
        f' source="n{line.first}" target="n{line.second}">'
    )
    yield from _geometry(picture, line)
    yield "        </mxCell>"
    for side, end in enumerate(line.link.ends):
        shown = f"{end.ifname} {end.address}" if end.address else end.ifname
        yield (
            f'        <mxCell id="e{number}-{side}" value={_quoted(shown)} style="{_NAME}"'
            f' vertex="1" connectable="0" parent="e{number}">'
        )
        yield (f'          <mxGeometry x="{_END if side else -_END}" relative="1" as="geometry"/>')
        yield "        </mxCell>"


def _geometry(picture: Picture, line: Line) -> Iterator[str]:
    if not line.bend:
        yield '          <mxGeometry relative="1" as="geometry"/>'
        return
    left, top, _, _ = picture.bounds
    x, y = picture.towards(line)
    yield '          <mxGeometry relative="1" as="geometry">'
    yield '            <Array as="points">'
    yield f'              <mxPoint x="{x - left:.1f}" y="{y - top:.1f}"/>'
    yield "            </Array>"
    yield "          </mxGeometry>"


def _quoted(text: str) -> str:
    return quoteattr(looks.printable(text))
