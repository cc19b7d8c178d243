"""Every label that is wrong, put into a pod's labels that are right, one at a time.

The error names the label and shows its value. What the plugin does with that error, and that
nothing has been changed by then, is tested once for each rule on the same labels, in
tests/integration/test_bad_labels.py.
"""

from __future__ import annotations

import pytest

from ratchet.errors import LabelError
from ratchet.labels import Wiring, parse

CNI_IFNAME = "eth0"
SIXTEEN = "abcdefghijklmnop"
assert len(SIXTEEN) == 16

GOOD = {
    "ratchet": "true",
    "ratchet.primary": "true",
    "ratchet.local_ifname": "in1",
    "ratchet.local_ip": "192.168.2.100",
    "ratchet.pair_name": "pair-pod",
    "ratchet.pair_ifname": "in2",
    "ratchet.pair_ip": "192.168.2.101",
    "ratchet.2.local_ifname": "x2",
    "ratchet.2.local_ip": "10.2.2.1",
    "ratchet.2.pair_name": "pair-pod",
    "ratchet.2.pair_ifname": "y2",
    "ratchet.2.pair_ip": "10.2.2.2",
}

WRONG_IFNAMES = ["", SIXTEEN, "lo", "in/1", "in 1", "in:1", "in\t1", ".", ".."]
WRONG_ADDRESSES = [
    "",
    "hello",
    "192.168.2.300",
    "192.168.2",
    "192.168.2.100/33",
    "192.168.2.0/24",
    "192.168.2.0",
    "192.168.2.255",
    "0.0.0.0",
    "127.0.0.1",
    "224.0.0.5",
    "255.255.255.255",
    "fd00::1/129",
    "fd00::g",
    "::1",
    "ff02::5",
    "192.168.2.100 ",
    "3232236132",
]
WRONG_POD_NAMES = ["", "a/b", "../up", "-a", "a b", "a:b", "x" * 254]

# The label and its value (None: absent).
WRONG: list[tuple[str, str | None]] = [
    *(
        (f"ratchet.{number}{field}", value)
        for number in ("", "2.")
        for field in ("local_ifname", "pair_ifname")
        for value in (None, *WRONG_IFNAMES)
    ),
    *(
        (f"ratchet.{number}{field}", value)
        for number in ("", "2.")
        for field in ("local_ip", "pair_ip")
        for value in WRONG_ADDRESSES
    ),
    *(
        (f"ratchet.{number}pair_name", value)
        for number in ("", "2.")
        for value in (None, *WRONG_POD_NAMES)
    ),
    *(("ratchet.pod_name", value) for value in WRONG_POD_NAMES),
    ("ratchet.primary", ""),
    ("ratchet.primary", "yes"),
    ("ratchet.primary", "True"),
    ("ratchet.public_ip", "hello"),
    ("ratchet.public_ip", ""),
    # The runtime's interface.
    ("ratchet.local_ifname", CNI_IFNAME),
    ("ratchet.2.local_ifname", CNI_IFNAME),
    # A name that this pod uses twice, and one that the other pod uses twice.
    ("ratchet.2.local_ifname", "in1"),
    ("ratchet.2.pair_ifname", "in2"),
    # The pair is the pod itself.
    ("ratchet.pair_name", "primary-pod"),
    ("ratchet.2.pair_name", "primary-pod"),
    # Both ends have one address.
    ("ratchet.pair_ip", "192.168.2.100"),
    ("ratchet.2.pair_ip", "10.2.2.1"),
]


def describe(case: tuple[str, str | None]) -> str:
    label, value = case
    return f"{label} {'absent' if value is None else repr(value)[:24]}"


def read(labels: dict[str, str], annotations: dict[str, str] | None = None) -> Wiring:
    return parse(labels, annotations or {}, own_name="primary-pod", cni_ifname=CNI_IFNAME)


def refusal(labels: dict[str, str], annotations: dict[str, str] | None = None) -> LabelError:
    with pytest.raises(LabelError) as caught:
        read(labels, annotations)
    return caught.value


def test_the_labels_from_which_the_wrong_ones_are_made_are_right() -> None:
    more = {"ratchet.target_pod": "x", "ratchet.target_container": "y", "app": "z"}
    assert [link.ifname for link in read({**GOOD, **more}).links] == ["in1", "x2"]


@pytest.mark.parametrize("case", WRONG, ids=map(describe, WRONG))
def test_a_wrong_label_is_named_with_its_value(case: tuple[str, str | None]) -> None:
    label, value = case
    labels = {key: text for key, text in GOOD.items() if key != label}
    if value is not None:
        labels[label] = value
    error = refusal(labels)

    assert error.code == 100
    assert label in error.msg
    if value:
        # A value is quoted where it holds what a terminal would swallow, and cut where it is long.
        assert repr(value)[1:-1][:40] in error.msg or value[:40] in error.msg


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("ratchet.local_ip", "fd00::1/200"),
        ("ratchet.2.pair_ifname", "a/b"),
        ("ratchet.pair_name", ""),
    ],
)
def test_a_wrong_annotation_is_named_with_its_value(annotation: str, value: str) -> None:
    error = refusal(GOOD, {annotation: value})
    assert error.code == 100
    assert annotation in error.msg
    assert value in error.msg


@pytest.mark.parametrize(
    ("misspelt", "right"),
    [
        ("ratchet.local_ifnam", "local_ifname"),
        ("ratchet.pairip", "pair_ip"),
        ("ratchet.2.pair-name", "pair_name"),
    ],
)
def test_a_misspelt_label_is_an_error_that_names_the_right_one(misspelt: str, right: str) -> None:
    error = refusal({**GOOD, misspelt: "10.3.3.3"})
    assert error.code == 100
    assert misspelt in error.msg
    assert right in error.msg


@pytest.mark.parametrize("number", ["0", "02", "-2"])
def test_a_wrong_link_number_is_an_error_that_names_the_label(number: str) -> None:
    label = f"ratchet.{number}.local_ifname"
    error = refusal({**GOOD, label: "x9"})
    assert error.code == 100
    assert label in error.msg


@pytest.mark.parametrize("value", ["68", "1400", "9000", "65535"])
def test_an_mtu_of_a_link_is_read(value: str) -> None:
    wiring = parse({**GOOD, "ratchet.2.mtu": value}, {}, own_name="a", cni_ifname=CNI_IFNAME)
    assert [link.mtu_bytes for link in wiring.links] == [None, int(value)]


@pytest.mark.parametrize(
    "value", ["", "67", "65536", "-1", "1e3", "0x100", "1400 ", "٣٠٠", "9" * 400]
)
def test_what_is_no_mtu_is_refused_with_what_is_allowed(value: str) -> None:
    with pytest.raises(LabelError, match="a number from 68 to 65535"):
        parse({**GOOD, "ratchet.mtu": value}, {}, own_name="a", cni_ifname=CNI_IFNAME)
