"""Networks of well-known shapes, of any size. Pure: the same arguments give the same network."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from ratchetctl.errors import TopologyError
from ratchetctl.topo.builder import MOST_NODES
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import End, Link, Node, Topology

MOST_LINKS = 1_000_000

Pairs = Iterable[tuple[str, str]]


def topology(name: str, nodes: Sequence[str], pairs: Pairs, kind: str, image: str) -> Topology:
    """Connect nodes by name; interfaces are eth1, eth2 and so on in the order of the links."""
    known = kind_of(kind)
    made = tuple(Node(one, one, kind, image, known.command, env=known.env) for one in nodes)
    counts = dict.fromkeys(nodes, 0)

    def end(node: str) -> End:
        counts[node] += 1
        return End(node, f"eth{counts[node]}")

    return Topology(name, made, tuple(Link(end(a), end(b)) for a, b in pairs))


def numbered(count: int, prefix: str) -> list[str]:
    """Return names from 1 up. Raises TopologyError for too many or none."""
    if not 1 <= count <= MOST_NODES:
        raise TopologyError(f"{count} nodes: 1 to {MOST_NODES} are possible")
    return [f"{prefix}{number}" for number in range(1, count + 1)]


def random_links(count: int, extra: int, seed: int) -> list[tuple[int, int]]:
    """Return a uniform spanning tree of the complete graph, and further links between other pairs.

    The tree is Wilson's: loop-erased random walks until every node is reached, which makes each
    tree equally likely. Raises TopologyError when there are not so many pairs.
    """
    most = count * (count - 1) // 2 - (count - 1)
    if not 0 <= extra <= min(most, MOST_LINKS):
        raise TopologyError(
            f"{extra} extra links: {count} nodes leave room for {max(0, min(most, MOST_LINKS))}"
            " beyond the tree"
        )
    chance = random.Random(seed)  # noqa: S311 - networks, no secrets
    links = _tree(count, chance)
    taken = set(links)
    if extra > most // 2:
        rest = [pair for pair in combinations(range(count), 2) if pair not in taken]
        return links + sorted(chance.sample(rest, extra))
    while len(links) < count - 1 + extra:
        a, b = chance.randrange(count), chance.randrange(count)
        pair = (min(a, b), max(a, b))
        if a != b and pair not in taken:
            taken.add(pair)
            links.append(pair)
    return links


def _tree(count: int, chance: random.Random) -> list[tuple[int, int]]:
    inside = [False] * count
    following = [0] * count
    inside[chance.randrange(count)] = True
    links = []
    for start in range(count):
        # Where the walk passes again it forgets the loop: only the last step from a node counts.
        node = start
        while not inside[node]:
            step = chance.randrange(count - 1)
            following[node] = step + 1 if step >= node else step
            node = following[node]
        node = start
        while not inside[node]:
            inside[node] = True
            links.append((min(node, following[node]), max(node, following[node])))
            node = following[node]
    return links


def ring(nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
    if len(nodes) < 3:
        raise TopologyError("a ring has at least 3 nodes")
    yield from zip(nodes, (*nodes[1:], nodes[0]), strict=True)


def mesh(nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
    if len(nodes) * (len(nodes) - 1) // 2 > MOST_LINKS:
        raise TopologyError(f"a mesh of {len(nodes)} nodes has more than {MOST_LINKS} links")
    yield from combinations(nodes, 2)


def grid(rows: int, columns: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Return nodes r1-1, r1-2 and so on with links to the right and down."""
    numbered(rows * columns, "")
    names = [[f"r{row}-{column}" for column in range(1, columns + 1)] for row in range(1, rows + 1)]
    pairs = []
    for row in range(rows):
        for column in range(columns):
            if column + 1 < columns:
                pairs.append((names[row][column], names[row][column + 1]))
            if row + 1 < rows:
                pairs.append((names[row][column], names[row + 1][column]))
    return [name for row_ in names for name in row_], pairs


def clos(spines: int, leaves: int, hosts: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Return a leaf-spine network: every leaf to every spine, `hosts` at each leaf."""
    numbered(spines + leaves + leaves * hosts, "")
    above, below = numbered(spines, "spine"), numbered(leaves, "leaf")
    pairs = [(leaf, spine) for leaf in below for spine in above]
    names = above + below
    for leaf in range(leaves):
        for host in range(hosts):
            name = f"host{leaf * hosts + host + 1}"
            names.append(name)
            pairs.append((name, below[leaf]))
    return names, pairs


def fat_tree(ports: int, hosts: bool = True) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the k-ary fat tree of switches with k ports (Al-Fares et al., 2008).

    Raises TopologyError for an odd k.
    """
    if ports < 2 or ports % 2:
        raise TopologyError(f"{ports} ports: a fat tree needs an even number, from 2 up")
    half = ports // 2
    numbered(half * half + ports * ports + (ports * half * half if hosts else 0), "")
    names = [f"core{number + 1}" for number in range(half * half)]
    pairs = []
    for pod in range(1, ports + 1):
        above = [f"agg{pod}-{number}" for number in range(1, half + 1)]
        below = [f"edge{pod}-{number}" for number in range(1, half + 1)]
        names += above + below
        for number, switch in enumerate(above):
            pairs += [(switch, f"core{number * half + up + 1}") for up in range(half)]
        pairs += [(edge, switch) for edge in below for switch in above]
        if hosts:
            for number, edge in enumerate(below):
                for host in range(half):
                    name = f"host{pod}-{number * half + host + 1}"
                    names.append(name)
                    pairs.append((name, edge))
    return names, pairs
