"""Links in the words of Ratchet CNI v0.1.0, in both directions."""

from __future__ import annotations

import pytest

from ratchet.cni.ip import Address
from ratchet.labels import Link
from ratchet_child.keys import PodKey
from tests.unit.ratchet_child.hosts import LINK, Host, pair, primary
from tests.unit.ratchet_child.memory_store import MemoryStore


def test_v010_hears_of_the_first_of_two_links_with_one_pair(near: Host) -> None:
    second = Link("in3", None, "b", "in4", None)
    near.attach(primary("a1", LINK, second))
    found = near.etcd.contents()
    assert found["association/b/pairifname"] == "in2"
    assert "association/b/links/a:in3" in found


def test_a_v010_primary_is_understood(near: Host) -> None:
    for name, value in (
        ("vxlanid", "42"),
        ("pairip", "192.168.2.101"),
        ("pairifname", "in2"),
        ("primaryname", "old"),
    ):
        MemoryStore(near.etcd).set(f"association/b/{name}", value)
    (offer,) = near.attach(pair()).offered
    assert (offer.primary, offer.vni) == (PodKey("default", "old"), 42)
    assert (offer.link.pair_ifname, offer.link.pair_address) == (
        "in2",
        Address.parse("192.168.2.101/24"),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vxlanid", ""),
        ("vxlanid", "0"),
        ("vxlanid", "16777216"),
        ("vxlanid", "-5"),
        ("vxlanid", "x"),
        ("pairip", "x"),
        ("pairifname", ""),
        ("primaryname", ""),
    ],
)
def test_v010_keys_that_make_no_sense_are_no_link(near: Host, name: str, value: str) -> None:
    right = {
        "vxlanid": "42",
        "pairip": "192.168.2.101",
        "pairifname": "in2",
        "primaryname": "old",
    }
    for key, text in {**right, name: value}.items():
        MemoryStore(near.etcd).set(f"association/b/{key}", text)
    assert near.attach(pair()).offered == []
