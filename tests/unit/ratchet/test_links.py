"""A link's one spelling in JSON, as records of before have it and those of later will."""

from __future__ import annotations

import json

import pytest

from ratchet import labels, links
from ratchet.attachments import Attachment
from ratchet.cni.ip import Address
from ratchet.errors import LabelError
from ratchet.links import Field, Link
from ratchet_child.model.keys import Declaration

LINK = Link("in1", Address.parse("192.168.2.100/24"), "b", "in2", None)
# As they were written before there was a module of links, byte for byte.
RECORDED = (
    '{"ifname":"in1","address":"192.168.2.100/24","pair":"b","pair_ifname":"in2",'
    '"pair_address":null}'
)
DECLARED = (
    '{"container":"c1","vni":11,"ifname":"in1","address":"192.168.2.100/24",'
    '"pair_ifname":"in2","pair_address":null}'
)


def test_a_link_in_a_record_is_what_it_has_always_been() -> None:
    assert json.dumps(LINK.to_json(), separators=(",", ":")) == RECORDED
    assert Link.from_json(json.loads(RECORDED)) == LINK


def test_a_link_in_etcd_is_what_it_has_always_been() -> None:
    assert Declaration("c1", 11, LINK).dumps() == DECLARED
    assert Declaration.loads(DECLARED, "b") == Declaration("c1", 11, LINK)


def test_a_key_of_a_later_version_is_ignored() -> None:
    later = {**json.loads(RECORDED), "colour": "red", "lanes": [1]}
    assert Link.from_json(later) == LINK
    declared = json.dumps({**json.loads(DECLARED), "colour": "red"})
    assert Declaration.loads(declared, "b").link == LINK


IFNAMES: tuple[object, ...] = (None, "", "in%d", "all", "à", 5.0, 7, True, ["in1"], {})
ADDRESSES: tuple[object, ...] = ("10.0.0.1/33", "127.0.0.1/8", "0.0.0.0/0", 5, [], True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("ifname", value) for value in IFNAMES),
        *(("pair_ifname", value) for value in IFNAMES),
        *(("address", value) for value in ADDRESSES),
        *(("pair_address", value) for value in ADDRESSES),
        *(("pair", value) for value in (None, "", "a/b", "-a")),
    ],
)
def test_what_no_label_could_have_said_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        Link.from_json({**json.loads(RECORDED), key: value})


def test_every_field_of_a_link_has_one_row() -> None:
    assert tuple(field.name for field in links.FIELDS) == Link.__match_args__


def _a_number(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 9:
        raise ValueError(text)
    return number


def test_a_property_needs_a_row_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the label grammar and to JSON; here with a row in the place of `pair_address`'s."""
    row = Field("pair_address", "lanes", _a_number, "a number from 1 to 9", kind=int)
    monkeypatch.setattr(links, "FIELDS", (*links.FIELDS[:-1], row))
    without = Link("in1", None, "b", "in2", None)
    written = without.to_json()
    assert "pair_address" not in written  # nothing is written of what is not there
    assert Link.from_json(written) == without
    lanes: object = Link.from_json({**written, "pair_address": 3}).pair_address
    assert lanes == 3
    wrong: object
    for wrong in (0, "3", True, 1.5, [1]):
        with pytest.raises(ValueError, match="pair_address"):
            Link.from_json({**written, "pair_address": wrong})
    assert labels._property({"ratchet.2.lanes": "3"}, "ratchet.2.", row) == 3
    assert labels._property({}, "ratchet.", row) is None
    with pytest.raises(LabelError, match=r"ratchet\.lanes is 'x', allowed is a number from 1 to 9"):
        labels._property({"ratchet.lanes": "x"}, "ratchet.", row)


def test_nobody_else_writes_a_link() -> None:
    assert "pair_ifname" not in Attachment.to_json.__code__.co_consts
