"""Where the nodes of a drawing stand, before anybody opens it. Pure: the same graph, same places.

Tiers, where names and links show them (spines, leaves, hosts). Otherwise distances in the drawing
are made as the distances in the graph are: stress by stochastic gradient descent, over all pairs of
a small graph and over pivots and near pairs of a large one.

    Zheng, Pawar, Goodman: Graph Drawing by Stochastic Gradient Descent (2018)
    Ortmann, Klimenta, Brandes: A Sparse Stress Model (2016)

Without numpy, which would double the size of what is installed: 1,000 nodes take about a second.
"""

from __future__ import annotations

import cmath
import math
import random
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

from ratchetctl.topo.graph import boxes, tiers

Point = tuple[float, float]
Pairs = Sequence[tuple[int, int]]
Sizes = Sequence[tuple[float, float]]

EDGE, SHORT_EDGE = 140.0, 80.0  # how long a link is that nothing pushes or pulls
FEW, MANY = 20, 600  # nodes: up to so many links are long, and from so many on they are short
ROUNDS = 15
MOST_TERMS = 80_000  # pairs whose distance is looked at in each round
LEAST_PIVOTS = 12
SMALLEST_STEP = 0.1
ALIGNED = 0.5  # how far links agree on two directions, from 0 to 1, before they are turned to them
ASPECT = 1.6  # width to height of a screen
WIDENED = 60  # nodes: so many are drawn as wide as a screen


def layout(names: Sequence[str], pairs: Pairs, sizes: Sizes) -> list[Point]:
    """Return the middle of each node's box; no two boxes overlap.

    `names` tell tiers; `sizes` are the boxes' widths and heights, labels included.
    """
    neighbours: list[list[int]] = [[] for _ in names]
    for first, second in set(pairs):
        if first != second:
            neighbours[first].append(second)
            neighbours[second].append(first)
    placed: list[list[Point]] = []
    components = _components(neighbours)
    for component in components:
        number = {node: index for index, node in enumerate(component)}
        inner = [sorted({number[one] for one in neighbours[node]}) for node in component]
        own_sizes = [sizes[node] for node in component]
        found = tiers.tiers([names[node] for node in component], inner)
        if found is not None:
            placed.append(tiers.place(found, inner, own_sizes))
        else:
            placed.append(_stress(inner, own_sizes))
    return boxes.pack(components, placed, sizes, ASPECT)


def _components(neighbours: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the nodes of each connected part, the largest first."""
    seen = [False] * len(neighbours)
    found = []
    for start in range(len(neighbours)):
        if seen[start]:
            continue
        component = [node for node, _ in _walk(neighbours, start)]
        for node in component:
            seen[node] = True
        found.append(sorted(component))
    return sorted(found, key=lambda one: (-len(one), one))


def _walk(neighbours: Sequence[Sequence[int]], start: int) -> list[tuple[int, int]]:
    """Return every node that can be reached, with its distance, the nearest first."""
    distances = {start: 0}
    order = [(start, 0)]
    pending = deque((start,))
    while pending:
        node = pending.popleft()
        step = distances[node] + 1
        for one in neighbours[node]:
            if one not in distances:
                distances[one] = step
                order.append((one, step))
                pending.append(one)
    return order


# Stress -----------------------------------------------------------------------------------------

Term = tuple[int, int, float, float, float]
"""Two nodes, how far apart they should be, and how much that weighs for each of them."""

Pivot = tuple[int, dict[int, int]]
"""A node, and how far everybody is from it."""


def _stress(neighbours: Sequence[Sequence[int]], sizes: Sizes) -> list[Point]:
    count = len(neighbours)
    if count == 1:
        return [(0.0, 0.0)]
    chance = random.Random(count)  # noqa: S311 - a drawing, no secret
    if count * (count - 1) // 2 <= MOST_TERMS:
        terms = _all_terms(neighbours)
    else:
        terms = _sparse_terms(neighbours, chance)
    spread = math.sqrt(count)
    xs = [chance.uniform(-spread, spread) for _ in range(count)]
    ys = [chance.uniform(-spread, spread) for _ in range(count)]
    _descend(terms, xs, ys, chance)
    points = _turned([complex(x, y) for x, y in zip(xs, ys, strict=True)], neighbours)
    many = min(max((count - FEW) / (MANY - FEW), 0.0), 1.0)
    edge = EDGE + (SHORT_EDGE - EDGE) * many
    return boxes.apart([(edge * one.real, edge * one.imag) for one in points], sizes)


def _all_terms(neighbours: Sequence[Sequence[int]]) -> list[Term]:
    terms = []
    for start in range(len(neighbours)):
        for node, distance in _walk(neighbours, start):
            if node > start:
                weight = 1.0 / (distance * distance)
                terms.append((start, node, float(distance), weight, weight))
    return terms


def _sparse_terms(neighbours: Sequence[Sequence[int]], chance: random.Random) -> list[Term]:
    """Return near pairs, and each node's distance to pivots, which stand for what is round them."""
    count = len(neighbours)
    terms = [
        (node, one, 1.0, 1.0, 1.0)
        for node in range(count)
        for one in neighbours[node]
        if node < one
    ]
    # What hangs at one node spreads round it, instead of standing in one heap.
    seconds = {
        (min(a, b), max(a, b))
        for around in neighbours
        for a, b in _some_pairs(around, chance)
        if b not in neighbours[a]
    }
    terms += [(a, b, 2.0, 0.25, 0.25) for a, b in sorted(seconds)]
    pivots = _pivots(neighbours, max(MOST_TERMS // count, LEAST_PIVOTS))
    far = [distances for _, distances in pivots]
    nearest = [min(range(len(far)), key=lambda one: far[one][node]) for node in range(count)]
    for index, (pivot, distances) in enumerate(pivots):
        within = _within(distances, {node for node in distances if nearest[node] == index})
        for node, distance in distances.items():
            if distance > 1:
                # The pivot stands for as many nodes as are round it and nearer to it than half-way.
                weight = within[min(distance // 2, len(within) - 1)] / (distance * distance)
                terms.append((node, pivot, float(distance), weight, 0.0))
    return terms


def _within(distances: Mapping[int, int], region: Collection[int]) -> list[int]:
    """Return how many nodes of a region are within each distance, from 0 up."""
    reach = Counter(distances[node] for node in region)
    return list(accumulate(reach[distance] for distance in range(max(reach) + 1)))


def _some_pairs(around: Sequence[int], chance: random.Random) -> list[tuple[int, int]]:
    most = 24
    chosen = list(around)
    if len(chosen) <= most:
        return [(a, b) for index, a in enumerate(chosen) for b in chosen[:index]]
    chance.shuffle(chosen)
    return [
        (one, chosen[(index + step) % len(chosen)])
        for index, one in enumerate(chosen)
        for step in range(1, most // 2)
    ]


def _pivots(neighbours: Sequence[Sequence[int]], wanted: int) -> list[Pivot]:
    """Return nodes that are far from each other."""
    nearest = [len(neighbours)] * len(neighbours)
    pivot = 0
    found: list[Pivot] = []
    for _ in range(min(wanted, len(neighbours))):
        distances = dict(_walk(neighbours, pivot))
        found.append((pivot, distances))
        for node, distance in distances.items():
            nearest[node] = min(nearest[node], distance)
        pivot = max(range(len(nearest)), key=nearest.__getitem__)
    return found


def _descend(terms: list[Term], xs: list[float], ys: list[float], chance: random.Random) -> None:
    """Bring each pair nearer to its distance, in steps that grow smaller."""
    longest = max(term[2] for term in terms)
    decay = math.log(longest * longest / SMALLEST_STEP) / (ROUNDS - 1)
    for number in range(ROUNDS):
        step = longest * longest * math.exp(-decay * number)
        chance.shuffle(terms)
        for a, b, wanted, weight_a, weight_b in terms:
            dx, dy = xs[a] - xs[b], ys[a] - ys[b]
            length = math.sqrt(dx * dx + dy * dy) or 1e-9
            share = (length - wanted) / (2 * length)
            move = share * min(step * weight_a, 1.0)
            xs[a] -= move * dx
            ys[a] -= move * dy
            if weight_b:
                move = share * min(step * weight_b, 1.0)
                xs[b] += move * dx
                ys[b] += move * dy


def _turned(points: list[complex], neighbours: Sequence[Sequence[int]]) -> list[complex]:
    """Turn a drawing so that its links are level and upright, or else that it is wide."""
    middle = sum(points) / len(points)
    points = [one - middle for one in points]
    four = [
        ((points[one] - points[node]) / (abs(points[one] - points[node]) or 1.0)) ** 4
        for node in range(len(points))
        for one in neighbours[node]
        if node < one
    ]
    agreed = sum(four) / len(four) if four else 0j
    if abs(agreed) > ALIGNED:
        angle = cmath.phase(agreed) / 4
    else:
        angle = cmath.phase(sum(one * one for one in points) or 1 + 0j) / 2
    points = [one * cmath.exp(-1j * angle) for one in points]
    wide, high = _extent(points)
    if high > wide:
        points, wide, high = [one * 1j for one in points], high, wide
    if abs(agreed) > ALIGNED or len(points) < WIDENED:
        return points
    # A crowd has no shape of its own: it takes that of the screen.
    factor = min(max(math.sqrt(ASPECT * high / wide), 1.0), 1.3)
    return [complex(one.real * factor, one.imag / factor) for one in points]


def _extent(points: Sequence[complex]) -> tuple[float, float]:
    xs, ys = [one.real for one in points], [one.imag for one in points]
    return max(xs) - min(xs), max(ys) - min(ys)
