"""Networks in tiers, as data centres are: spines above leaves above hosts. Pure.

A tier is what is called alike but for numbers. Tiers are drawn as such only if each is linked with
the one above and the one below it, and with nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Point = tuple[float, float]
Sizes = Sequence[tuple[float, float]]

LEAST, MOST = 2, 8  # tiers
WIDEST = 40  # nodes side by side; more would be a line, and no drawing
SWEEPS = 8
GAP, TIER_GAP = 14.0, 105.0
TOP = ("superspine", "super-spine", "core", "spine")
BOTTOM = ("host", "server", "client", "pc")
_NUMBERS = re.compile(r"[-_.]?\d[-_.\d]*")


def tiers(names: Sequence[str], neighbours: Sequence[Sequence[int]]) -> list[list[int]] | None:
    """Return the tiers from the top, None where the network has none."""
    stems = [_NUMBERS.sub("", name) for name in names]
    members: dict[str, list[int]] = {}
    for node, stem in enumerate(stems):
        members.setdefault(stem, []).append(node)
    if not LEAST <= len(members) <= MOST or max(map(len, members.values())) > WIDEST:
        return None
    beside: dict[str, set[str]] = {stem: set() for stem in members}
    for node, around in enumerate(neighbours):
        beside[stems[node]].update(stems[one] for one in around)
    ends = [stem for stem, around in beside.items() if len(around) == 1]
    if len(ends) != 2 or any(stem in around for stem, around in beside.items()):
        return None
    order = [_upper(ends, members)]
    while following := beside[order[-1]] - set(order):
        if len(following) > 1:
            return None
        order += following
    if len(order) != len(members):
        return None
    # A chain of single nodes is no network in tiers.
    return [members[stem] for stem in order] if len(names) > len(order) + 1 else None


def _upper(ends: Sequence[str], members: dict[str, list[int]]) -> str:
    """Return which of the two outer tiers is drawn at the top."""
    for stem in TOP:
        if stem in ends:
            return stem
    first, second = ends
    for stem in BOTTOM:
        if stem in ends:
            return second if stem == first else first
    return min(ends, key=lambda stem: len(members[stem]))


def place(
    rows: Sequence[Sequence[int]], neighbours: Sequence[Sequence[int]], sizes: Sizes
) -> list[Point]:
    """Return the middle of each node's box: each tier in a row, in the order of its neighbours."""
    ordered = [list(row) for row in rows]
    rank = {node: index / len(row) for row in ordered for index, node in enumerate(row)}
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        pairs = range(1, len(ordered)) if downwards else range(len(ordered) - 2, -1, -1)
        for index in pairs:
            fixed = set(ordered[index - 1 if downwards else index + 1])
            row = ordered[index]
            centre = {
                node: _mean([rank[one] for one in neighbours[node] if one in fixed], rank[node])
                for node in row
            }
            row.sort(key=lambda node: (centre[node], node))
            for position, node in enumerate(row):
                rank[node] = (position + 0.5) / len(row)
    return _spread(ordered, sizes)


def _spread(rows: Sequence[Sequence[int]], sizes: Sizes) -> list[Point]:
    widths = [sum(sizes[node][0] + GAP for node in row) for row in rows]
    room = max(widths)
    found: dict[int, Point] = {}
    y = 0.0
    for row, width in zip(rows, widths, strict=True):
        height = max(sizes[node][1] for node in row)
        spare = (room - width) / len(row)
        x = 0.0
        for node in row:
            own = sizes[node][0] + GAP + spare
            found[node] = (x + own / 2, y + height / 2)
            x += own
        y += height + TIER_GAP
    return [found[node] for node in range(len(found))]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
