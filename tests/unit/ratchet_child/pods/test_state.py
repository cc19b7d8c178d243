"""What a pod's state tells: how much work it is, whether it is here, which ends are right."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.plan import Wanted
from ratchet_child.pods.schedule import Rank
from ratchet_child.pods.state import FEW_LINKS, Gone, PodState


@pytest.fixture
def state() -> PodState:
    return PodState(PodKey("default", "a"), deque(), SystemClock())


@pytest.mark.parametrize("where", ["declared", "ends", "gone"])
def test_a_pod_with_many_links_is_behind_one_with_few_also_when_it_goes(
    state: PodState, where: str
) -> None:
    """Whoever declares them."""
    for number, rank in ((FEW_LINKS, Rank.FIRST), (FEW_LINKS + 1, Rank.LARGE)):
        some = tuple((f"p{one}", f"x{one}") for one in range(number))
        if where == "gone":
            published = Published("c1", some)
            state.heard.gone = [Gone("c1", published, "10.0.0.1", "/run/record", None)]
        else:
            links = some if where == "declared" else ()
            state.heard.attachment = cast(Any, SimpleNamespace(links=links))
        if where == "ends":
            state.inside.wanted = cast(Any, SimpleNamespace(ends=some))
        assert state.rank is rank


def test_what_only_etcd_remembers_is_behind_them_all(state: PodState) -> None:
    declared = tuple((f"p{one}", "x") for one in range(100))
    state.heard.gone = [Gone.remembered(Published("c1", declared), "10.0.0.1")]
    assert state.rank is Rank.TRACE


def test_the_record_alone_does_not_say_that_a_pod_is_here(state: PodState) -> None:
    assert not state.is_certain  # it may be an older one


@pytest.mark.parametrize("how", ["etcd", "its ADD"])
def test_a_pod_is_known_to_be_here_until_etcd_says_that_it_is_elsewhere(
    state: PodState, how: str
) -> None:
    state.progress.looked = how == "etcd"
    state.heard.asked = int(how == "its ADD")
    known = []
    for superseded in (False, True):
        state.progress.memory.superseded = superseded
        known.append(state.is_certain)
    assert known == [True, False]


def test_an_end_that_was_not_wanted_for_a_moment_is_not_known_to_be_right(state: PodState) -> None:
    """Its far pod has gone and come back: the leg that the end had there is not the new one's."""
    side = SimpleNamespace(declared=SimpleNamespace(cable="a cable"))
    end = cast(Any, SimpleNamespace(ifname="in1", side=side, interface="as it should be"))
    inside = state.inside
    inside.right["in1"] = end.interface
    inside.want(Wanted((end,), ()))
    assert inside.right == {"in1": end.interface}
    inside.want(Wanted((), ()))
    inside.want(Wanted((end,), ()))
    assert inside.right == {}
