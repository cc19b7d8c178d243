"""What agents write is what `kubectl ratchet` reads, and what anybody else writes is checked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ratchet.annotations import LONGEST_BYTES, MOST_PEERS, Asked, Heard, NodeTold, PodTold
from ratchet.cni.dataclasses import replace
from ratchet.status import ERROR, UP, LinkStatus

LINK = LinkStatus(
    "in1", "b", UP, True, address="10.0.0.1/24", peer_ifname="in2", peer_node="10.1.1.1", vni=11,
    kind="vxlan", since=1000.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        PodTold("a", "node-1", "10.1.1.2", (LINK, replace(LINK, state=ERROR, error="taken"))),
        PodTold("a", "node-1", "", superseded=True, error="no"),
        NodeTold("0.2.0", "net", "10.1.1.2", "eth0", 4789, 1450, "away", 5.0, "no route", "on"),
        NodeTold("0.2.0", "net", "", "", 4789, troubles=("this", "that"), watching=True),
        Asked("s" * 32, ("10.1.1.1", "fd00::1")),
        Heard("n", ("10.1.1.1",), ("10.1.1.3",), ("10.1.1.4",), {"10.1.1.5": "no route"}),
        Heard("n", unsent={}, error="not allowed"),
    ],
)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert type(value).loads(value.dumps()) == value


def test_a_pod_with_more_links_than_fit_says_how_many_there_are_more() -> None:
    links = tuple(replace(LINK, ifname=f"in{n}", peer="b" * 200) for n in range(600))
    told = PodTold("a", "node-1", "10.1.1.2", links)
    text = told.dumps()
    assert len(text.encode()) <= LONGEST_BYTES
    found = PodTold.loads(text)
    assert 0 < len(found.links) < 600
    assert found.omitted == 600 - len(found.links)


@pytest.mark.parametrize(
    ("kind", "obj", "named"),
    [
        (PodTold, [], "not a JSON object"),
        (PodTold, {"name": 1}, "name 1"),
        (PodTold, {"name": "a", "node": "n", "address": "", "links": {}}, "links {}"),
        (PodTold, {"name": "a", "node": "n", "address": "", "links": [{"ifname": 1}]}, "ifname 1"),
        (NodeTold, {"vxlan_port": "x"}, "vxlan_port"),
        (Asked, {"secret": "short", "peers": []}, "secret"),
        (Asked, {"secret": "s" * 32, "peers": ["a"] * (MOST_PEERS + 1)}, "peers has 5001"),
        (Heard, {"number": "n", "unsent": {"a": 1}}, "unsent"),
    ],
)
def test_what_is_none_is_refused_by_name(kind: Any, obj: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named.replace("{", r"\{")):
        kind.loads(json.dumps(obj))


def test_what_is_nested_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="nested"):
        PodTold.loads("[" * 100_000)


def test_a_check_is_called_by_a_number_that_does_not_tell_its_secret() -> None:
    one, other = Asked("s" * 32, ()), Asked("t" * 32, ())
    assert one.secret not in one.number
    assert one.number != other.number
