"""What labels say of an end that is slow, late or loses frames, and how that is kept and shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet import impairment
from ratchet.errors import LabelError
from ratchet.impairment import QUANTITIES, Impairment
from ratchet.labels import parse
from ratchet.links import Link

LINK = {
    "ratchet": "true",
    "ratchet.primary": "true",
    "ratchet.local_ifname": "in1",
    "ratchet.pair_name": "b",
    "ratchet.pair_ifname": "in2",
}


def read(**fields: str) -> Link:
    annotations = {f"ratchet.{name}": value for name, value in fields.items()}
    (link,) = parse(LINK, annotations, own_name="a", cni_ifname="eth0").links
    return link


def both(**fields: str) -> tuple[Impairment | None, Impairment | None]:
    link = read(**fields)
    return link.impairment, link.pair_impairment


@pytest.mark.parametrize(
    ("label", "value", "read_as"),
    [
        ("rate", "8kbit", Impairment(rate_bits=8_000)),
        ("rate", "1.5mbit", Impairment(rate_bits=1_500_000)),
        ("rate", "10Mbit", Impairment(rate_bits=10_000_000)),
        ("rate", "1000gbit", Impairment(rate_bits=10**12)),
        ("rate", "9001bit", Impairment(rate_bits=9_000)),
        ("delay", "1us", Impairment(delay_us=1)),
        ("delay", "0.25ms", Impairment(delay_us=250)),
        ("delay", "60s", Impairment(delay_us=60_000_000)),
        ("loss", "100", Impairment(loss_ppm=1_000_000)),
        ("loss", "0.5%", Impairment(loss_ppm=5_000)),
        ("corrupt", "0.0001", Impairment(corrupt_ppm=1)),
    ],
)
def test_what_is_said_of_both_ends_holds_for_both(
    label: str, value: str, read_as: Impairment
) -> None:
    assert both(**{label: value}) == (read_as, read_as)


def test_what_is_said_of_one_end_goes_before_what_is_said_of_both() -> None:
    own, far = both(delay="10ms", jitter="1ms", pair_delay="30ms", local_loss="1")
    assert own == Impairment(delay_us=10_000, jitter_us=1_000, loss_ppm=10_000)
    assert far == Impairment(delay_us=30_000, jitter_us=1_000)


@pytest.mark.parametrize("nothing", ["0bit", "0mbit"])
def test_nothing_can_be_said_of_one_end(nothing: str) -> None:
    assert both(rate="1mbit", local_rate=nothing) == (None, Impairment(rate_bits=1_000_000))


@pytest.mark.parametrize(
    ("label", "value"),
    [
        *(("rate", value) for value in ("", "10", "bit", "10 mbit", "-1mbit", "1e3kbit", "7kbit")),
        *(("pair_rate", value) for value in ("1001gbit", "10mbps", "٣mbit", "1..5mbit", "0.3bit")),
        *(("delay", value) for value in ("10", "1m", "61s", "0.5us", ".ms", "9" * 400 + "us")),
        *(("local_loss", value) for value in ("101", "-1", "1%%", "0.00001", "%", "nan")),
    ],
)
def test_what_is_no_such_value_is_refused_with_what_is_allowed(label: str, value: str) -> None:
    quantity = next(one for one in QUANTITIES if label.endswith(one.label))
    with pytest.raises(LabelError) as caught:
        read(**{label: value})
    assert f"ratchet.{label}" in caught.value.msg
    assert quantity.allowed in caught.value.msg


@pytest.mark.parametrize("more", [{}, {"local_delay": "0s"}, {"pair_delay": "5ms"}])
def test_jitter_needs_a_delay_at_its_end(more: dict[str, str]) -> None:
    with pytest.raises(LabelError, match=r"ratchet\.local_jitter is '1ms'"):
        read(local_jitter="1ms", **more)


def test_a_mac_address_is_read_in_both_spellings() -> None:
    link = read(local_mac="02-00-00-00-00-0A", pair_mac="02:00:00:00:00:0b")
    assert (link.mac, link.pair_mac) == ("02:00:00:00:00:0a", "02:00:00:00:00:0b")


@pytest.mark.parametrize(
    "value", ["", "02:00:00:00:00", "03:00:00:00:00:01", "00:00:00:00:00:00", "0x:00:00:00:00:01"]
)
def test_what_is_no_mac_address_of_an_interface_is_refused(value: str) -> None:
    with pytest.raises(LabelError, match=r"ratchet\.local_mac .*a MAC address of one interface"):
        read(local_mac=value)


def test_two_ends_do_not_share_a_mac_address() -> None:
    with pytest.raises(LabelError, match=r"another one than ratchet\.local_mac"):
        read(local_mac="02:00:00:00:00:01", pair_mac="02-00-00-00-00-01")


VALUES = st.builds(
    Impairment,
    st.none() | st.integers(1_000, 125 * 10**9).map(lambda one: one * 8),
    st.integers(1, 60_000_000),
    st.none() | st.integers(1, 60_000_000),
    st.none() | st.integers(1, 1_000_000),
    st.none() | st.integers(1, 1_000_000),
)


@given(VALUES)
def test_an_impairment_is_read_as_it_is_written(value: Impairment) -> None:
    assert Impairment.from_json(json.loads(json.dumps(value.to_json()))) == value
    words = dict(one.split(" ") for one in str(value).split(", "))
    assert both(**words) == (value, value)


@pytest.mark.parametrize("wrong", [0, -1, "8000", True, 1.5, 10**13])
def test_json_of_another_type_or_range_is_refused_by_its_key(wrong: object) -> None:
    link = read(rate="1mbit").to_json()
    with pytest.raises(ValueError, match="rate_bits"):
        Link.from_json({**link, "impairment": {"rate_bits": wrong}})
    with pytest.raises(ValueError, match="pair_impairment"):
        Link.from_json({**link, "pair_impairment": [wrong]})


def test_every_quantity_is_a_field() -> None:
    assert tuple(one.name for one in impairment.QUANTITIES) == Impairment.__match_args__
