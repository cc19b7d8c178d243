"""The annotation `ratchet.links`: one entry a link, in JSON or YAML, beside the numbered labels."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ratchet import compact
from ratchet.cni.ip import Address
from ratchet.errors import LabelError
from ratchet.impairment import Impairment
from ratchet.labels import Wiring, parse
from ratchet.links import Link, Uplink

ENTRY = {"ifname": "in1", "pair": "b", "pair_ifname": "in2"}
ON_ONE_LINE = """
- {ifname: eth1, address: 10.0.0.1/31, pair: r2, pair_ifname: eth1, pair_address: 10.0.0.0/31}
- {ifname: eth2, address: 2001:db8::1/64, pair: r3, pair_ifname: eth7, mac: 02:00:00:00:00:01}
- {ifname: eth3, pair: "007", pair_ifname: eth1, mtu: 1400, delay: 10ms, pair_rate: 1.5mbit}
"""


def read(text: str, labels: dict[str, str] | None = None) -> Wiring:
    annotations = {"ratchet": "true", "ratchet.links": text}
    return parse(labels or {}, annotations, own_name="a", cni_ifname="eth0")


def refusal(text: str, labels: dict[str, str] | None = None) -> LabelError:
    with pytest.raises(LabelError) as caught:
        read(text, labels)
    assert caught.value.msg.isascii()
    return caught.value


def as_address(text: str) -> Address:
    return Address.parse(text)


def test_a_line_is_a_link() -> None:
    late = Impairment(delay_us=10_000)
    assert read(ON_ONE_LINE).links == (
        Link("eth1", as_address("10.0.0.1/31"), "r2", "eth1", as_address("10.0.0.0/31")),
        Link("eth2", as_address("2001:db8::1/64"), "r3", "eth7", None, mac="02:00:00:00:00:01"),
        Link(
            "eth3",
            None,
            "007",
            "eth1",
            None,
            mtu_bytes=1400,
            impairment=late,
            pair_impairment=Impairment(rate_bits=1_500_000, delay_us=10_000),
        ),
    )


def test_json_says_the_same() -> None:
    entries = compact.entries(ON_ONE_LINE)
    assert read(json.dumps(entries)) == read(ON_ONE_LINE)
    assert read(json.dumps([{**ENTRY, "mtu": 1400, "loss": 0.5}])).links[0].mtu_bytes == 1400


def test_numbered_labels_and_entries_stand_beside_each_other() -> None:
    labels = {
        "ratchet.3.local_ifname": "x",
        "ratchet.3.pair_name": "c",
        "ratchet.3.pair_ifname": "y",
    }
    assert [link.ifname for link in read(json.dumps([ENTRY]), labels).links] == ["x", "in1"]
    labels["ratchet.3.local_ifname"] = "in1"
    error = refusal(json.dumps([ENTRY]), labels)
    assert error.label == "ratchet.links entry 1, ifname"
    assert "ratchet.3.local_ifname" in error.msg


def test_an_entry_without_a_pair_expects_a_link() -> None:
    wiring = read("[{ifname: in1}, {ifname: in2}]")
    assert (wiring.links, wiring.expected) == ((), ("in1", "in2"))


def test_an_uplink_is_an_entry_with_a_kind() -> None:
    text = "[{ifname: up1, kind: macvlan, device: bond0.7, address: 192.0.2.7/24, rate: 1mbit},"
    text += " {ifname: up2, kind: host, device: to-a, pair_address: 10.9.0.1/30}]"
    assert read(text).uplinks == (
        Uplink(
            "up1",
            "macvlan",
            "bond0.7",
            as_address("192.0.2.7/24"),
            impairment=Impairment(rate_bits=1_000_000),
        ),
        Uplink("up2", "host", "to-a", None, as_address("10.9.0.1/30")),
    )


@pytest.mark.parametrize("number", ["", "2."])
def test_an_uplink_may_be_declared_by_labels(number: str) -> None:
    labels = {"ratchet.primary": "true"} if not number else {}
    fields = {"local_ifname": "up1", "kind": "macvlan", "device": "eth1", "local_mac": "02-0-0"}
    labels |= {f"ratchet.{number}{name}": value for name, value in fields.items()}
    label = f"ratchet.{number}local_mac"
    assert refusal("[]", labels).label == label
    labels[label] = "02-00-00-00-00-01"
    assert read("[]", labels).uplinks == (
        Uplink("up1", "macvlan", "eth1", mac="02:00:00:00:00:01"),
    )


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({**ENTRY, "ifname": "a/b"}, "ifname"),
        ({**ENTRY, "address": "10.0.0.0/24"}, "address"),
        ({**ENTRY, "pair": "a"}, "pair"),
        ({**ENTRY, "pair": ""}, "pair"),
        ({"ifname": "in1", "pair": "b"}, "pair_ifname"),
        ({"pair": "b", "pair_ifname": "in2"}, "ifname"),
        ({"ifname": "in1", "pair_ifname": "in2"}, "pair"),
        ({**ENTRY, "mtu": 1}, "mtu"),
        ({**ENTRY, "mtu": True}, "mtu"),
        ({**ENTRY, "rate": ["1mbit"]}, "rate"),
        ({**ENTRY, "adress": "10.0.0.1"}, "adress"),
        ({**ENTRY, "colour": "red"}, "colour"),
        ({**ENTRY, "local_ifname": "in1"}, "local_ifname"),
        ({**ENTRY, "kind": "macvlan"}, "pair"),
        ({"ifname": "up1", "kind": "bridge", "device": "br0"}, "kind"),
        ({"ifname": "up1", "device": "eth1"}, "kind"),
        ({"ifname": "up1", "kind": "macvlan"}, "device"),
        ({"ifname": "up1", "kind": "macvlan", "device": "a/b"}, "device"),
        ({"ifname": "up1", "kind": "host", "device": "lo"}, "device"),
        ({"ifname": "up1", "kind": "host", "device": "x%d"}, "device"),
        (
            {"ifname": "up1", "kind": "macvlan", "device": "e", "pair_address": "::1"},
            "pair_address",
        ),
        ({"ifname": "up1", "kind": "host", "device": "e", "pair_rate": "1mbit"}, "pair_rate"),
    ],
)
def test_a_wrong_field_is_named_with_its_entry(entry: dict[str, object], field: str) -> None:
    first = {"ifname": "x", "pair": "c", "pair_ifname": "y"}
    error = refusal(json.dumps([first, entry]))
    assert error.code == 100
    assert error.label == f"ratchet.links entry 2, {field}"


def test_two_host_links_of_a_pod_have_two_devices() -> None:
    text = "[{ifname: a, kind: host, device: x}, {ifname: b, kind: host, device: x}]"
    assert refusal(text).label == "ratchet.links entry 2, device"
    assert len(read(text.replace("host", "macvlan")).uplinks) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "in1",
        "[[]]",
        "- ifname: in1\n  ifname: in2",
        "- {ifname: in1",
        "- {ifname: in1}\n- \t- x",
        "!!python/object/apply:os.system [echo]",
        "&a [*a]",
        "[" * 5000,
        "{" * 5000,
        "- " * 5000 + "x",
        "[{ifname: in1}]\n---\n[{ifname: in2}]",
        "- {ifname: in1}\n" + "#" * 70_000,
        "\x00",
        "\ud800",
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_what_is_no_list_of_links_is_refused(text: str) -> None:
    assert refusal(text).label.startswith("ratchet.links")


TEXTS = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=12)


@given(st.lists(st.dictionaries(st.sampled_from(["ifname", "pair", "mac"]), TEXTS), max_size=3))
def test_fields_are_read_exactly_as_they_are_written(entries: list[dict[str, str]]) -> None:
    assert compact.entries(json.dumps(entries)) == entries
    assert compact.entries(yaml.safe_dump(entries, default_style='"')) == entries


@pytest.mark.parametrize("value", ["02:00:00:00:00:01", "1e3", "0777", "yes", "12:30:45", "null"])
def test_what_other_readers_take_for_a_number_stays_text(value: str) -> None:
    assert compact.entries(f"- {{ifname: {value}}}") == [{"ifname": value}]
