"""How drawings look: sizes, colours, line styles. Pure, and the same in every format.

Colours are for a light and a dark page alike where that is possible: those of machines stand on
both, with a white sign on them.
"""

from __future__ import annotations

import colorsys
import unicodedata
from dataclasses import dataclass

MARK = 34.0  # across, of a node
FONT = 12.0
ABOVE, BELOW = 25.0, 43.0  # of a node's box, from the middle of its mark: the label is below
LEAST_WIDTH = 50.0
CHAR = 7.2  # of a label; the widest usual letter of a proportional font, on the safe side
LONGEST = 24  # characters of a label that are shown; a hover shows all of it
NOT_WIRED = "not wired yet"
"""What a legend calls a cable of a topology that runs."""
BEND = 26.0  # between links of the same two nodes

MACHINES = (
    "#3f78d0",
    "#cf6a1e",
    "#2b9360",
    "#9457c7",
    "#0f8ea3",
    "#c2447f",
    "#927a12",
    "#5762c9",
    "#6b8a2b",
    "#a05c3b",
)
UNPLACED = "#76828f"
OUTSIDE = "#5d6976"
_GOLDEN = 0.618034


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line: its colour on a light and on a dark page, its dashes, what a legend calls it."""

    light: str
    dark: str
    dashes: tuple[int, ...]
    width: float
    words: str


STROKES = {
    "cable": Stroke("#7d8a97", "#8b98a5", (), 2.0, "link"),
    "veth": Stroke("#5f6f7f", "#93a1af", (), 2.0, "veth, same machine"),
    "vxlan": Stroke("#7a55c7", "#a98bee", (9, 5), 2.2, "vxlan, across machines"),
    "macvlan": Stroke("#0b8a6f", "#35c3a3", (2, 4), 2.4, "macvlan, network outside"),
    "host": Stroke("#a3660b", "#dba24a", (10, 4, 2, 4), 2.4, "host, the machine itself"),
}
STATES = {
    "waiting": Stroke("#c98a00", "#f0b429", (), 3.0, "waiting"),
    "down": Stroke("#c2410c", "#ff8a4c", (), 3.0, "down"),
    "error": Stroke("#c81e2c", "#ff6470", (), 3.0, "error"),
    "fault": Stroke("#8a7a00", "#b9d957", (), 3.0, "up, with a fault"),
    "unknown": Stroke("#9aa5b1", "#66727f", (), 2.0, "not known"),
}
"""Of links that are not up: the colour tells the state, the dashes still the kind."""


def machine(number: int | None) -> str:
    """Return the colour of a machine by its place in the order; None is none."""
    if number is None:
        return UNPLACED
    if number < len(MACHINES):
        return MACHINES[number]
    hue = (number * _GOLDEN) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, 0.43, 0.5)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def label(title: str) -> str:
    """Return a title as it is drawn: on one line, and not too long."""
    plain = printable(title)
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"


def size(title: str) -> tuple[float, float]:
    """Return the width and the height of a node's box, its label included."""
    cells = sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in label(title))
    return max(LEAST_WIDTH, cells * CHAR + 10), ABOVE + BELOW


def printable(text: str) -> str:
    """Return a text without what XML forbids and what would turn or hide what stands beside it."""
    return "".join(one if one.isprintable() else "�" for one in text)


SIGNS = {
    "router": "M12 10V4M9.5 6.5 12 4l2.5 2.5M12 14v6M9.5 17.5 12 20l2.5-2.5"
    "M10 12H4M6.5 9.5 4 12l2.5 2.5M14 12h6M17.5 9.5 20 12l-2.5 2.5",
    "switch": "M5 9h13M15 6l3 3-3 3M19 15.5H6M9 12.5l-3 3 3 3",
    "host": "M5 6h14v9H5zM12 15v4M8 19h8",
    "outside": "M7 17.5a4 4 0 0 1 .5-8A5 5 0 0 1 17 9a4.3 4.3 0 0 1 .5 8.5z",
}
"""What is drawn on a node, in a square of 24, as lines of SVG's path language."""
