"""A link's one spelling in JSON, as records of before have it and those of later will."""

from __future__ import annotations

import json

import pytest

from ratchet import links
from ratchet.attachments import Attachment
from ratchet.cni.ip import Address
from ratchet.impairment import Impairment
from ratchet.links import Link, Override
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


def test_a_property_that_a_link_does_not_have_is_not_written() -> None:
    link = Link("in1", None, "b", "in2", None)
    assert "mtu_bytes" not in link.to_json()
    assert Link.from_json(link.to_json()) == link


def test_a_property_is_read_as_it_is_written() -> None:
    link = Link("in1", None, "b", "in2", None, mtu_bytes=1400)
    assert Link.from_json(link.to_json()) == link


@pytest.mark.parametrize("wrong", [0, "1400", True, 1.5, [1], 65536])
def test_a_property_of_another_type_or_value_is_refused_by_its_key(wrong: object) -> None:
    written = Link("in1", None, "b", "in2", None).to_json()
    with pytest.raises(ValueError, match="mtu_bytes"):
        Link.from_json({**written, "mtu_bytes": wrong})


def test_nobody_else_writes_a_link() -> None:
    assert "pair_ifname" not in Attachment.to_json.__code__.co_consts


SLOW = Impairment(rate_bits=8_000)
SET = Override(mtu_bytes=1400, impairment=SLOW, pair_impairment=Impairment())


def test_what_an_operator_has_set_goes_before_what_a_link_says() -> None:
    link = Link("in1", None, "b", "in2", None, mtu_bytes=1300, pair_impairment=SLOW)
    changed = SET.applied(link)
    assert (changed.mtu_bytes, changed.impairment, changed.pair_impairment) == (1400, SLOW, None)
    assert Override().applied(link) == link
    assert SET.seen_from_pair().applied(link.seen_from_pair("a")) == changed.seen_from_pair("a")


def test_a_cable_that_is_out_stays_out_whatever_else_is_set() -> None:
    out = Override(is_down=True)
    assert SET.after(out).is_down is True
    assert Override(is_down=False).after(out).is_down is False
    assert Override.from_json(out.to_json()) == out == out.seen_from_pair()
    with pytest.raises(ValueError, match="is_down"):
        Override.from_json({"is_down": "yes"})


def test_what_is_set_later_leaves_the_rest_as_it_was_set() -> None:
    assert Override(mtu_bytes=1500).after(SET) == Override(1500, SLOW, Impairment(), None)
    assert SET.after(None) == SET


def test_what_was_set_is_read_in_etcd_as_it_is_written() -> None:
    declared = Declaration("c1", 11, LINK, override=SET)
    assert Declaration.loads(declared.dumps(), "b") == declared
    wrongs: tuple[object, ...] = (7, [], {"mtu_bytes": 1}, {"impairment": []})
    for wrong in (*wrongs, {"impairment": {"rate_bits": "x"}}):
        text = json.dumps({**json.loads(DECLARED), "override": wrong})
        with pytest.raises(ValueError, match=r"override|mtu_bytes|impairment|rate_bits"):
            Declaration.loads(text, "b")
