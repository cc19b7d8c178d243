"""Generated networks: their size, that they hang together, that each tree is equally likely."""

from __future__ import annotations

from collections import Counter

import pytest

from ratchetctl.errors import TopologyError
from ratchetctl.topo import addresses, check, generate, write
from ratchetctl.topo.findings import Findings


def well(names: list[str], pairs: generate.Pairs) -> tuple[int, int]:
    """Return nodes and links of a network in which the check finds nothing."""
    found = addresses.hand_out(generate.topology("x", names, pairs, "linux", "alpine"), 4)
    findings = Findings()
    check.check(found, findings)
    assert (findings.errors, findings.notes) == ([], [])
    return len(found.nodes), len(found.links)


def test_shapes() -> None:
    names = generate.numbered(10, "r")
    assert well(names, generate.ring(names)) == (10, 10)
    assert well(names, generate.mesh(names)) == (10, 45)
    assert well(*generate.grid(3, 4)) == (12, 17)
    assert well(*generate.clos(2, 4, 3)) == (18, 20)
    assert well(*generate.fat_tree(4)) == (36, 48)
    assert well(*generate.fat_tree(4, hosts=False)) == (20, 32)


@pytest.mark.parametrize(
    ("count", "extra"), [(1, 0), (2, 0), (50, 0), (50, 20), (20, 171), (2000, 500)]
)
def test_random_networks_hang_together_and_have_no_pair_twice(count: int, extra: int) -> None:
    links = generate.random_links(count, extra, seed=7)
    assert len(set(links)) == len(links) == count - 1 + extra
    assert all(0 <= a < b < count for a, b in links)
    names = generate.numbered(count, "r")
    assert well(names, [(names[a], names[b]) for a, b in links]) == (count, count - 1 + extra)


def test_a_seed_repeats_a_network_and_another_does_not() -> None:
    assert generate.random_links(100, 10, 1) == generate.random_links(100, 10, 1)
    assert generate.random_links(100, 10, 1) != generate.random_links(100, 10, 2)


def test_every_tree_is_equally_likely() -> None:
    # Cayley: 4 nodes have 16 trees. 3,200 draws give each 200, with a deviation of about 14.
    counts = Counter(tuple(sorted(generate.random_links(4, 0, seed))) for seed in range(3_200))
    assert len(counts) == 16
    chi_squared = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi_squared < 37.7  # 15 degrees of freedom, one in a thousand


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(TopologyError, match="leave room for 3"):
        generate.random_links(4, 4, 1)
    with pytest.raises(TopologyError, match="even number"):
        generate.fat_tree(3)
    with pytest.raises(TopologyError, match="1 to 100000"):
        generate.numbered(100_001, "r")


def test_a_generated_file_says_everything() -> None:
    names = generate.numbered(3, "r")
    found = generate.topology("ring", names, generate.ring(names), "linux", "alpine")
    text = "".join(write.definition(addresses.hand_out(found, 4), "how it was made"))
    assert text.startswith("# how it was made\nname: ring\ntopology:\n")
    assert (
        '    - endpoints: ["r1:eth1", "r2:eth1"]\n      ipv4: ["10.0.0.0/31", "10.0.0.1/31"]\n'
        in text
    )
