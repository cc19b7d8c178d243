"""Several children in one node's namespace share one table: each has its own members in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from ratchet.cni.ip import Host
from ratchet_child.kernel.guard import Guard, Tunnels
from ratchet_child.kernel.nftables import Nftables
from tests.lab import nftables
from tests.lab.namespaces import Namespace, random_name

pytestmark = pytest.mark.root

FAR = Host.parse("10.0.0.2")
ONE, OTHER = (4789, 11), (4789, 12)


@pytest.fixture
def node() -> Iterator[Namespace]:
    made = Namespace(random_name("guard"))
    try:
        made.create()
        yield made
    finally:
        made.remove()


def members(node: Namespace) -> dict[int, str]:
    """Return who has put each VNI into the table."""
    with contextlib.closing(node.do(Nftables)) as opened:
        found = opened.elements("ratchet", "vnis")
    return {int.from_bytes(one.key[4:7], "big"): one.comment for one in found}


@pytest.fixture
def guard(node: Namespace) -> Iterator[Callable[..., Guard]]:
    with contextlib.ExitStack() as undo:

        def start(owner: str, *, is_wanted: bool = True) -> Guard:
            made = node.do(lambda: Guard(owner, is_wanted=is_wanted))
            undo.callback(made.close)
            node.do(made.start)
            return made

        yield start


def test_who_leaves_takes_only_its_own_and_the_last_one_the_table(
    node: Namespace, guard: Callable[..., Guard]
) -> None:
    one, other = guard("/run/one"), guard("/run/other")
    node.do(lambda: one.admit(ONE, FAR))
    node.do(lambda: other.admit(OTHER, FAR))
    assert members(node) == {11: "/run/one", 12: "/run/other"}

    node.do(one.leave)
    assert members(node) == {12: "/run/other"}
    node.do(other.leave)
    assert nftables.tables(node) == set()


def test_who_makes_the_table_again_keeps_what_others_have_in_it(
    node: Namespace, guard: Callable[..., Guard]
) -> None:
    one, other = guard("/run/one"), guard("/run/other")
    node.do(lambda: one.admit(ONE, FAR))
    nftables.flush(node)
    node.do(lambda: other.admit(OTHER, FAR))
    assert members(node) == {12: "/run/other"}

    node.do(lambda: one.check(Tunnels({ONE: FAR}, is_complete=True)))
    assert members(node) == {11: "/run/one", 12: "/run/other"}


def test_next_child_takes_up_what_is_its_own_and_forgets_what_is_gone(
    node: Namespace, guard: Callable[..., Guard]
) -> None:
    first, other = guard("/run/one"), guard("/run/other")
    node.do(lambda: first.admit(ONE, FAR))
    node.do(lambda: first.admit((4789, 13), None))
    node.do(lambda: other.admit(OTHER, FAR))
    second = guard("/run/one")

    # Until it has seen every pod, what is not seen may still be there.
    for _ in range(3):
        node.do(lambda: second.check(Tunnels({}, is_complete=False)))
    assert members(node) == {11: "/run/one", 12: "/run/other", 13: "/run/one"}
    for _ in range(2):
        node.do(lambda: second.check(Tunnels({ONE: FAR}, is_complete=True)))
    assert members(node) == {11: "/run/one", 12: "/run/other"}


def test_who_wants_no_guard_joins_that_of_another_and_makes_none(
    node: Namespace, guard: Callable[..., Guard]
) -> None:
    without = guard("/run/without", is_wanted=False)
    node.do(lambda: without.admit(ONE, FAR))
    assert nftables.tables(node) == set()

    other = guard("/run/other")
    node.do(lambda: other.admit(OTHER, FAR))
    node.do(lambda: without.check(Tunnels({ONE: FAR}, is_complete=True)))
    assert members(node) == {11: "/run/without", 12: "/run/other"}
    node.do(other.leave)
    node.do(lambda: without.check(Tunnels({ONE: FAR}, is_complete=True)))
    assert nftables.tables(node) == set()


def test_child_whose_guard_was_turned_off_removes_the_table(
    node: Namespace, guard: Callable[..., Guard]
) -> None:
    before = guard("/run/one")
    node.do(lambda: before.admit(ONE, FAR))
    after = guard("/run/one", is_wanted=False)
    node.do(lambda: after.check(Tunnels({ONE: FAR}, is_complete=True)))
    assert nftables.tables(node) == set()
