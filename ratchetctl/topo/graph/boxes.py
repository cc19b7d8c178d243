"""Boxes that keep clear of each other: nodes with labels, and the parts of a drawing. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
Sizes = Sequence[tuple[float, float]]

CROWDED = 1.0  # overlaps for each box
GROWTH = 1.05  # of the whole drawing, where boxes have no room
PATIENCE = 30  # rounds of pushing between two growths
MARGIN = 0.01  # of the way
PART_GAP = 60.0  # between parts that no link connects


def apart(points: Sequence[Point], sizes: Sizes) -> list[Point]:
    """Move boxes away from each other until none overlaps, each as little as it takes."""
    xs = [x for x, _ in points]
    ys = [y for _, y in points]
    cell = max(max(size) for size in sizes)
    # Room first: where half of the boxes are on others, pushing takes long and tears apart.
    while len(_overlaps(xs, ys, sizes, cell)) > len(points) * CROWDED:
        xs, ys = _grown(xs, GROWTH), _grown(ys, GROWTH)
    number = 0
    while overlaps := _overlaps(xs, ys, sizes, cell):
        for a, b in overlaps:
            _push(xs, ys, sizes, a, b)
        number += 1
        if number % PATIENCE == 0:
            xs, ys = _grown(xs, GROWTH), _grown(ys, GROWTH)
    return list(zip(xs, ys, strict=True))


def _grown(values: list[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def _overlaps(xs: list[float], ys: list[float], sizes: Sizes, cell: float) -> list[tuple[int, int]]:
    """Return each two boxes that are on each other; only those in near cells are compared."""
    grid: dict[tuple[int, int], list[int]] = {}
    for index, (x, y) in enumerate(zip(xs, ys, strict=True)):
        grid.setdefault((math.floor(x / cell), math.floor(y / cell)), []).append(index)
    found = []
    for (column, row), own in grid.items():
        near = [
            one
            for dx, dy in ((0, 0), (1, 0), (-1, 1), (0, 1), (1, 1))
            for one in grid.get((column + dx, row + dy), ())
        ]
        for place, a in enumerate(own):
            x, y = xs[a], ys[a]
            width, height = sizes[a]
            for b in near[place + 1 :]:
                if (
                    2 * abs(x - xs[b]) < width + sizes[b][0]
                    and 2 * abs(y - ys[b]) < height + sizes[b][1]
                ):
                    found.append((a, b))
    return found


def _push(xs: list[float], ys: list[float], sizes: Sizes, a: int, b: int) -> None:
    """Move two boxes apart, each half of the way along the line between them."""
    dx, dy = xs[b] - xs[a] or (b - a) * 1e-3, ys[b] - ys[a] or 1e-3
    wide, high = (sizes[a][0] + sizes[b][0]) / 2, (sizes[a][1] + sizes[b][1]) / 2
    # How far along the line between the two middles the boxes are beside each other.
    factor = min(wide / abs(dx), high / abs(dy))
    if factor > 1:
        share = min(factor - 1 + MARGIN, wide / math.hypot(dx, dy)) / 2
        xs[a] -= dx * share
        ys[a] -= dy * share
        xs[b] += dx * share
        ys[b] += dy * share


def pack(
    components: Sequence[Sequence[int]],
    placed: Sequence[Sequence[Point]],
    sizes: Sizes,
    aspect: float,
) -> list[Point]:
    """Put the parts of a drawing beside and below each other, the largest first.

    The whole begins at 0, 0.
    """
    parts = []
    for component, points in zip(components, placed, strict=True):
        halves = [(sizes[node][0] / 2, sizes[node][1] / 2) for node in component]
        pairs = list(zip(points, halves, strict=True))
        left = min(x - width for (x, _), (width, _) in pairs)
        top = min(y - height for (_, y), (_, height) in pairs)
        right = max(x + width for (x, _), (width, _) in pairs)
        bottom = max(y + height for (_, y), (_, height) in pairs)
        parts.append((left, top, right - left + PART_GAP, bottom - top + PART_GAP))
    area = sum(width * height for _, _, width, height in parts)
    room = max(math.sqrt(area * aspect), max((width for _, _, width, _ in parts), default=0.0))
    found: list[Point] = [(0.0, 0.0)] * len(sizes)
    x = y = row = 0.0
    for component, points, (left, top, width, height) in zip(
        components, placed, parts, strict=True
    ):
        if x and x + width > room:
            x, y, row = 0.0, y + row, 0.0
        for node, (own_x, own_y) in zip(component, points, strict=True):
            found[node] = (x + own_x - left, y + own_y - top)
        x, row = x + width, max(row, height)
    return found
