"""A drawing as one SVG file that needs nothing else: with its title, a legend, light and dark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from ratchetctl.topo.graph import looks
from ratchetctl.topo.graph.picture import CABLE, Line, Picture, Spot
from ratchetctl.topo.model import End

MARGIN = 36.0
HEAD = 76.0  # above the drawing: title and counts
ROW = 24.0  # of the legend
LEAST_WIDTH = 560.0
LABEL = 33.0  # from the middle of a node, to the line that its name stands on
MOST_NAMED = 80  # links: of more, interface names are shown by hovering only
FROM_MIDDLE = 34.0  # of a node, to its interface's name
FONTS = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"

_LIGHT = {"page": "#ffffff", "frame": "#d5dce3", "ink": "#1d2731", "pale": "#5a6776"}
_DARK = {"page": "#12171d", "frame": "#2c3640", "ink": "#e6ebf0", "pale": "#9aa7b4"}


def svg(picture: Picture) -> Iterator[str]:
    """Yield the lines of the file."""
    left, top, wide, high = picture.bounds
    legend = _legend(picture, max(wide, LEAST_WIDTH - 2 * MARGIN))
    width = max(wide + 2 * MARGIN, LEAST_WIDTH)
    height = HEAD + high + MARGIN + legend[1] * ROW + (MARGIN / 2 if legend[1] else 0)
    name = escape(looks.printable(picture.name))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"'
        f' width="{width:.0f}" height="{height:.0f}" role="img" aria-labelledby="title desc"'
        f' font-family="{FONTS}" font-size="{looks.FONT:g}">'
    )
    yield f'<title id="title">{name}</title>'
    yield f'<desc id="desc">{escape(_described(picture))}</desc>'
    yield f"<style>{_style()}</style>"
    yield "<defs>"
    for role, path in looks.SIGNS.items():
        yield (
            f'<path id="{role}" d="{path}" transform="translate(-10 -10) scale(.83)" fill="none"'
            ' stroke="#fff" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/>'
        )
    yield "</defs>"
    yield (
        f'<rect class="page" x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1:.0f}"'
        ' rx="10"/>'
    )
    yield f'<text class="ink" x="{MARGIN:g}" y="36" font-size="18" font-weight="600">{name}</text>'
    counts = escape(_counts(picture))
    yield f'<text class="pale" x="{MARGIN:g}" y="57">{counts}</text>'
    shift_x = (width - wide) / 2 - left
    yield f'<g transform="translate({shift_x:.1f} {HEAD - top:.1f})">'
    for line in picture.lines:
        yield from _line(picture, line)
    if len(picture.lines) <= MOST_NAMED:
        room = _Room(picture)
        for line in picture.lines:
            yield from _names(picture, line, room)
    for spot in picture.spots:
        yield _spot(picture, spot)
    yield "</g>"
    yield f'<g transform="translate({MARGIN:g} {HEAD + high + MARGIN:.1f})">'
    yield from legend[0]
    yield "</g>"
    yield "</svg>"


def _style() -> str:
    """Return the colours of a light page, and of a dark one for whoever prefers it."""
    light: list[str] = []
    dark: list[str] = []
    for rules, page, tone in ((light, _LIGHT, "light"), (dark, _DARK, "dark")):
        rules.append(f".page{{fill:{page['page']};stroke:{page['frame']}}}")
        rules.append(f".ink{{fill:{page['ink']}}}.pale{{fill:{page['pale']}}}")
        rules.append(f".halo{{stroke:{page['page']}}}.ring{{stroke:{page['page']}}}")
        rules += [
            f".{name}{{stroke:{getattr(stroke, tone)}}}"
            for name, stroke in (*looks.STROKES.items(), *looks.STATES.items())
        ]
    shared = (
        ".line{fill:none;stroke-linecap:round}"
        ".halo{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}"
    )
    dark_rules = "".join(dark)
    return f"{shared}{''.join(light)}@media (prefers-color-scheme:dark){{{dark_rules}}}"


def _line(picture: Picture, line: Line) -> Iterator[str]:
    stroke = looks.STROKES[line.kind]
    state = looks.STATES.get(line.state) if picture.is_live else None
    dashes = f' stroke-dasharray="{" ".join(map(str, stroke.dashes))}"' if stroke.dashes else ""
    shown = line.kind if state is None else f"{line.kind} {line.state}"
    width = stroke.width if state is None else state.width
    yield (
        f'<path class="line {shown}" d="{_path(picture, line)}" stroke-width="{width:g}"{dashes}>'
        f"<title>{escape(looks.printable(_told(picture, line)))}</title></path>"
    )


def _path(picture: Picture, line: Line) -> str:
    first, second = picture.spots[line.first], picture.spots[line.second]
    if line.first == line.second:
        reach = looks.MARK * (1.2 + abs(line.bend))
        return f"M{first.x:g} {first.y:g}c{reach:g} {-reach:g} {-reach:g} {-reach:g} 0 0"
    if not line.bend:
        return f"M{first.x:g} {first.y:g}L{second.x:g} {second.y:g}"
    x, y = picture.towards(line)
    return f"M{first.x:g} {first.y:g}Q{x:.1f} {y:.1f} {second.x:g} {second.y:g}"


class _Room:
    """Gives a place to who asks first: no text is written on another."""

    def __init__(self, picture: Picture) -> None:
        self._taken: list[tuple[float, float, float, float]] = []
        for spot in picture.spots:
            half = looks.size(spot.title)[0] / 2 - 4
            self.take(spot.x, spot.y + LABEL - 4, half, 7)

    def take(self, x: float, y: float, half_width: float, half_height: float) -> bool:
        """Say whether a box round a point is clear, and keep it if so."""
        left, top, right, bottom = x - half_width, y - half_height, x + half_width, y + half_height
        if any(left < c and right > a and top < d and bottom > b for a, b, c, d in self._taken):
            return False
        self._taken.append((left, top, right, bottom))
        return True


def _names(picture: Picture, line: Line, room: _Room) -> Iterator[str]:
    """Yield the names of a line's interfaces, near their nodes, or further away where text is."""
    first, second = picture.spots[line.first], picture.spots[line.second]
    if line.first == line.second:
        return
    towards = picture.towards(line) if line.bend else None
    for end, near, far in zip(line.link.ends, (first, second), (second, first), strict=False):
        x, y = towards or (far.x, far.y)
        length = math.hypot(x - near.x, y - near.y) or 1.0
        name = looks.printable(end.ifname)
        reach = FROM_MIDDLE
        while reach < length * (0.5 if towards is None else 1.0):
            where_x = near.x + (x - near.x) * reach / length
            where_y = near.y + (y - near.y) * reach / length
            if room.take(where_x, where_y, len(name) * 3.0, 6):
                yield (
                    f'<text class="pale halo" x="{where_x:.1f}" y="{where_y + 3:.1f}"'
                    f' font-size="9.5" text-anchor="middle">{escape(name)}</text>'
                )
                break
            reach += 8


def _spot(picture: Picture, spot: Spot) -> str:
    place = picture.machines.index(spot.machine) if spot.machine in picture.machines else None
    colour = looks.OUTSIDE if spot.role == "outside" else looks.machine(place)
    told = [spot.title]
    if spot.node is not None:
        told.append(spot.node.kind)
    if spot.machine is not None:
        told.append(f"on {spot.machine}")
    faint = ' opacity=".45"' if picture.is_live and spot.node and spot.pod is None else ""
    return (
        f'<g transform="translate({spot.x:g} {spot.y:g})">'
        f"<title>{escape(looks.printable(', '.join(told)))}</title>"
        # Lines end before a mark, and do not shine through one that is faint.
        f'<circle class="page" r="{looks.MARK / 2:g}"/>'
        f'<g{faint}><circle class="ring" r="{looks.MARK / 2:g}" fill="{colour}" stroke-width="2"/>'
        f"<use href={quoteattr('#' + spot.role)}/></g>"
        f'<text class="ink halo" y="{LABEL:g}" text-anchor="middle">'
        f"{escape(looks.label(spot.title))}</text></g>"
    )


# Words ------------------------------------------------------------------------------------------


def _counts(picture: Picture) -> str:
    nodes = sum(spot.node is not None for spot in picture.spots)
    lines = len(picture.lines)
    told = [f"{nodes} node{'s' * (nodes != 1)}", f"{lines} link{'s' * (lines != 1)}"]
    if picture.is_live:
        states = Counter(line.state for line in picture.lines)
        told += [f"{states[one]} {one}" for one in ("up", *looks.STATES) if states[one]]
    return ", ".join(told)


def _described(picture: Picture) -> str:
    """Say in words what the drawing shows, for who cannot see it."""
    text = f"A network of {_counts(picture)}."
    if picture.machines:
        text += f" The nodes are on {', '.join(map(looks.printable, picture.machines))}."
    return text


def _told(picture: Picture, line: Line) -> str:
    ends = [_end(end) for end in line.link.ends]
    if len(ends) == 1:
        ends.append(picture.spots[line.second].title)
    told = [" – ".join(ends), line.kind]
    if picture.is_live:
        told.append(line.state)
        told += [end.reason for end in line.ends if end is not None and end.reason]
    return ", ".join(told)


def _end(end: End) -> str:
    return f"{end.node} {end.ifname}" + (f" {end.address}" if end.address else "")


def _legend(picture: Picture, room: float) -> tuple[list[str], int]:
    """Return the legend's parts and how many rows they take."""
    entries: list[tuple[str, str]] = []
    counts = Counter(spot.machine for spot in picture.spots)
    for place, machine in enumerate(picture.machines):
        sign = f'<circle cx="7" cy="-4" r="6.5" fill="{looks.machine(place)}"/>'
        entries.append((sign, f"{looks.label(machine)} ({counts[machine]})"))
    for kind in picture.kinds:
        stroke = looks.STROKES[kind]
        dashes = " ".join(map(str, stroke.dashes))
        words = looks.NOT_WIRED if picture.is_live and kind == CABLE else stroke.words
        entries.append((_sample(kind, stroke.width, dashes), words))
    if picture.is_live:
        states = {line.state for line in picture.lines}
        entries += [
            (_sample(name, stroke.width, ""), stroke.words)
            for name, stroke in looks.STATES.items()
            if name in states
        ]
    if not picture.machines and entries == [(_sample("cable", 2.0, ""), "link")]:
        return [], 0  # it would tell nothing
    x, row, parts = 0.0, 0, []
    for sign, words in entries:
        own = 40 + len(words) * looks.CHAR
        if x and x + own > room:
            x, row = 0.0, row + 1
        parts.append(
            f'<g transform="translate({x:.1f} {row * ROW:.1f})">{sign}'
            f'<text class="ink" x="{20 if "circle" in sign else 34}">{escape(words)}</text></g>'
        )
        x += own + (0 if "circle" in sign else 14)
    return parts, row + 1 if entries else 0


def _sample(name: str, width: float, dashes: str) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path class="line {name}" d="M0 -4h27" stroke-width="{width:g}"{dashed}/>'
