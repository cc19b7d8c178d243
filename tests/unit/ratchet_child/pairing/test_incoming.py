"""What counts as a link that another pod declares, and what is passed over."""

from __future__ import annotations

import pytest

from ratchet_child.model.keys import Declaration
from tests.unit.ratchet_child.hosts import LINK, Host, pair, primary
from tests.unit.ratchet_child.memory_store import MemoryStore


@pytest.mark.parametrize(
    "value", ["", "{", "[]", '{"container": "c"}', '{"container":"c","vni":0,"ifname":"x"}']
)
def test_a_declaration_that_is_not_one_is_passed_over(near: Host, value: str) -> None:
    MemoryStore(near.etcd).set("association/b/links/a:in1", value)
    assert near.attach(pair()).incoming == []


def test_a_declaration_that_contradicts_its_key_is_passed_over(near: Host) -> None:
    text = Declaration("c", 11, LINK).dumps()
    MemoryStore(near.etcd).set("association/b/links/a:other", text)
    MemoryStore(near.etcd).set("association/b/links/:in1", text)
    assert near.attach(pair()).incoming == []


def test_a_primary_of_ours_is_not_seen_twice_for_its_v010_keys(near: Host, far: Host) -> None:
    near.attach(primary())
    assert len(far.attach(pair()).incoming) == 1
