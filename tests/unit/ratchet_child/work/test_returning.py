"""What stays of a link whose primary is gone, or has just come back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ratchet.links import Link
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import DeclaredLink
from ratchet_child.model.local import LocalPod, Memory, Node
from ratchet_child.model.plan import Wanted
from ratchet_child.pods.state import Look
from ratchet_child.work.returning import Returning

A, B = PodKey("default", "a"), PodKey("default", "b")
LINK = Link("in1", None, "b", "in2", None)


@pytest.mark.parametrize(
    ("records", "kept"),
    [
        pytest.param(None, {"in2"}, id="it is gone"),
        pytest.param([LINK], {"in2"}, id="it has come since"),
        pytest.param([], set(), id="it has dropped the link"),
        pytest.param(
            [Link("in1", None, "b", "in3", None)],
            set(),
            id="it has the link with another interface",
        ),
    ],
)
def test_an_end_stays_unless_its_primary_is_there_without_the_link(
    records: list[Link] | None, kept: set[str]
) -> None:
    """`records`: what a's record declares; None while a is not on this node."""
    registry = SimpleNamespace(
        is_present=lambda key: records is not None and key == A,
        declared_on=lambda key: [DeclaredLink(A, one) for one in records or () if key == B],
    )
    ends = SimpleNamespace(unwanted=lambda _state, _wanted: {"in2": (A, "in1")})
    state = SimpleNamespace(progress=SimpleNamespace(unclaimed={}, strangers=(0, 0.0)))
    memory = Memory(known={A})  # etcd had nothing of a when it was asked
    returning = Returning(
        Node("10.0.0.1", "eth0"),
        cast("Any", registry),
        cast("Any", None),
        cast("Any", ends),
        SystemClock(),
    )
    pod = LocalPod(B, "container", ())
    found = returning.kept(cast("Any", state), pod, memory, Look(), Wanted((), ()))
    assert found == kept
