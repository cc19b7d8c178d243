"""The grammar of the labels: what is taken, what is refused and how it is told."""

from __future__ import annotations

import ipaddress
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratchet.cni.ip import Address
from ratchet.errors import LabelError
from ratchet.label_values import check_ifname
from ratchet.labels import Wiring, is_eligible, parse
from ratchet.links import Link

PRIMARY = {
    "ratchet": "true",
    "ratchet.primary": "true",
    "ratchet.local_ifname": "in1",
    "ratchet.local_ip": "192.168.2.100",
    "ratchet.pair_name": "pair-pod",
    "ratchet.pair_ifname": "in2",
    "ratchet.pair_ip": "192.168.2.101",
}
SECOND = {
    "ratchet.2.local_ifname": "mid1",
    "ratchet.2.pair_name": "other-pod",
    "ratchet.2.pair_ifname": "mid2",
}


def read(labels: dict[str, str], annotations: dict[str, str] | None = None) -> Wiring:
    return parse(labels, annotations or {}, own_name="primary-pod", cni_ifname="eth0")


def refusal(labels: dict[str, str], annotations: dict[str, str] | None = None) -> LabelError:
    with pytest.raises(LabelError) as caught:
        read(labels, annotations)
    return caught.value


def with_field(field: str, value: str) -> tuple[dict[str, str], dict[str, str]]:
    return PRIMARY | SECOND, {f"ratchet.{field}": value}


def without(*fields: str) -> dict[str, str]:
    return {label: value for label, value in PRIMARY.items() if label[8:] not in fields}


# What is taken ----------------------------------------------------------------------------------


def test_the_primary_of_the_example_declares_one_link() -> None:
    assert read(PRIMARY) == Wiring(
        pod_name="primary-pod",
        links=(
            Link(
                ifname="in1",
                address=Address.parse("192.168.2.100/24"),
                pair="pair-pod",
                pair_ifname="in2",
                pair_address=Address.parse("192.168.2.101/24"),
            ),
        ),
        public_ip=None,
        target_pod=None,
        target_container=None,
    )


@pytest.mark.parametrize("primary", [{}, {"ratchet.primary": "false"}])
def test_a_pod_that_is_no_primary_declares_nothing_with_the_first_links_fields(
    primary: dict[str, str],
) -> None:
    assert read(without("primary") | primary).links == ()


def test_a_pod_that_is_no_primary_declares_its_numbered_links() -> None:
    wiring = read({"ratchet.primary": "false"} | SECOND)
    assert [link.ifname for link in wiring.links] == ["mid1"]


def test_numbered_links_come_in_the_order_of_their_numbers() -> None:
    labels = dict(PRIMARY)
    for number in ("10", "9", "2", "9" * 5000):
        labels[f"ratchet.{number}.local_ifname"] = f"i{number[:5]}"
        labels[f"ratchet.{number}.pair_name"] = "far"
        labels[f"ratchet.{number}.pair_ifname"] = f"f{number[:5]}"
    assert [link.ifname for link in read(labels).links] == ["in1", "i2", "i9", "i10", "i99999"]


def test_a_link_without_addresses_is_plain_layer_2() -> None:
    (link,) = read(without("local_ip", "pair_ip")).links
    assert (link.address, link.pair_address) == (None, None)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", "10.0.0.1/24"),
        ("10.0.0.0/31", "10.0.0.0/31"),
        ("10.0.0.1/31", "10.0.0.1/31"),
        ("10.0.0.255/32", "10.0.0.255/32"),
        ("10.0.0.255/16", "10.0.0.255/16"),
        ("169.254.1.1", "169.254.1.1/24"),
        ("2001:db8::1", "2001:db8::1/64"),
        ("2001:db8::/127", "2001:db8::/127"),
        ("2001:db8::/128", "2001:db8::/128"),
        ("fe80::1/10", "fe80::1/10"),
    ],
)
def test_addresses_get_the_prefix_length_that_they_have_or_the_usual_one(
    text: str, address: str
) -> None:
    (link,) = read(PRIMARY, {"ratchet.local_ip": text}).links
    assert link.address == Address.parse(address)


def test_annotations_win_field_by_field() -> None:
    wiring = read(PRIMARY, {"ratchet.pair_ip": "2001:db8::2/80", "ratchet.pod_name": "me"})
    assert wiring.pod_name == "me"
    assert wiring.links[0].address == Address.parse("192.168.2.100/24")
    assert wiring.links[0].pair_address == Address.parse("2001:db8::2/80")


def test_pod_wide_fields_are_recorded() -> None:
    wiring = read(
        PRIMARY
        | {
            "ratchet.public_ip": "10.9.8.7",
            "ratchet.target_pod": "target",
            "ratchet.target_container": "",
        }
    )
    assert wiring.public_ip == Address.parse("10.9.8.7/24")
    assert (wiring.target_pod, wiring.target_container) == ("target", "")


def test_two_links_between_the_same_pods_are_fine() -> None:
    labels = PRIMARY | SECOND | {"ratchet.2.pair_name": "pair-pod"}
    assert [link.pair for link in read(labels).links] == ["pair-pod", "pair-pod"]


def test_primary_is_implied_in_numbered_links_and_may_be_said() -> None:
    assert len(read(PRIMARY | SECOND | {"ratchet.2.primary": "true"}).links) == 2


def test_other_labels_are_somebody_elses() -> None:
    others = {
        "app": "router",
        "ratchetside": "left",
        "ratchet.zone": "a",
        "ratchet.": "",
        "ratchet.2": "x",
        "ratchet.2.zone": "a",
        "ratchet.x.y.z": "z",
    }
    assert read(PRIMARY | others) == read(PRIMARY)


@pytest.mark.parametrize(
    ("labels", "annotations", "eligible"),
    [
        ({}, {}, False),
        ({"ratchet": "true"}, {}, True),
        ({"ratchet": "True"}, {}, False),
        ({"ratchet": "false"}, {"ratchet": "true"}, True),
        ({"ratchet": "true"}, {"ratchet": "false"}, False),
        ({"ratchet": "true"}, {"ratchet": ""}, False),
    ],
)
def test_only_true_is_eligible_and_annotations_win(
    labels: dict[str, str], annotations: dict[str, str], eligible: bool
) -> None:
    assert is_eligible(labels, annotations) is eligible


# What is refused --------------------------------------------------------------------------------

BAD_IFNAMES = [
    "",
    "sixteen-bytes-xx",
    "éééééééé",
    ".",
    "..",
    "a/b",
    "a:b",
    "a b",
    "a\tb",
    "a\n",
    "a\0",
    "a\x7f",
    "a\u200b",
    "a\ud800",
    "à",
    "all",
    "default",
    "a%d",
    "lo",
    "eth0",
]
BAD_ADDRESSES = [
    "",
    " ",
    "nonsense",
    "192.168.2",
    "192.168.2.256",
    "192.168.2.01",
    "192.168.2.100/",
    "192.168.2.100/33",
    "192.168.2.100/0",
    "192.168.2.100/-1",
    "192.168.2.100/24/24",
    "192.168.2.100/255.255.255.0",
    "192.168.2.100/²",
    "192.168.2.100/" + "9" * 5000,
    " 192.168.2.100",
    "192.168.2.100\n",
    "192.168.2.0",
    "192.168.2.255",
    "192.168.2.4/30",
    "192.168.2.7/30",
    "255.255.255.255/32",
    "0.0.0.0",
    "0.0.0.0/32",
    "127.0.0.1",
    "224.0.0.5",
    "::",
    "::1",
    "ff02::5",
    "2001:db8::",
    "2001:db8::/126",
    "2001:db8::1/129",
    "fe80::1%eth0",
    "::ffff:10.0.0.1",
    "3232236132",
]
BAD_NAMES = ["", "-a", "a-", ".", "a/b", "a:b", "a b", "é", "a\n", "a\0", "../x", "a" * 254]


@pytest.mark.parametrize(
    "field", ["local_ifname", "pair_ifname", "2.local_ifname", "2.pair_ifname"]
)
@pytest.mark.parametrize("value", BAD_IFNAMES)
def test_bad_interface_names_are_named(field: str, value: str) -> None:
    error = refusal(*with_field(field, value))
    assert error.label == f"ratchet.{field}"
    assert ascii(value)[:100] in error.msg


@pytest.mark.parametrize("field", ["local_ip", "pair_ip", "2.local_ip", "2.pair_ip", "public_ip"])
@pytest.mark.parametrize("value", BAD_ADDRESSES)
def test_bad_addresses_are_named(field: str, value: str) -> None:
    error = refusal(*with_field(field, value))
    assert error.label == f"ratchet.{field}"
    assert ascii(value)[:100] in error.msg


@pytest.mark.parametrize("field", ["pod_name", "pair_name", "2.pair_name"])
@pytest.mark.parametrize("value", BAD_NAMES)
def test_bad_names_are_named(field: str, value: str) -> None:
    error = refusal(*with_field(field, value))
    assert error.label == f"ratchet.{field}"
    assert ascii(value)[:100] in error.msg


@pytest.mark.parametrize("field", ["local_ifname", "pair_name", "pair_ifname"])
def test_missing_fields_are_named(field: str) -> None:
    first = refusal(without(field))
    assert (first.code, first.label) == (100, f"ratchet.{field}")
    assert f"ratchet.{field} is missing" in first.msg
    second = {label: value for label, value in SECOND.items() if not label.endswith(field)}
    assert refusal(PRIMARY | second).label == f"ratchet.2.{field}"


@pytest.mark.parametrize("value", ["", "True", "yes", "1", " true"])
def test_primary_is_true_or_false(value: str) -> None:
    assert refusal(PRIMARY | {"ratchet.primary": value}).label == "ratchet.primary"


@pytest.mark.parametrize("number", ["0", "1", "01", "02", "00"])
def test_numbers_of_links_start_at_2_without_leading_zeros(number: str) -> None:
    error = refusal(PRIMARY | {f"ratchet.{number}.local_ip": "10.0.0.1"})
    assert error.label == f"ratchet.{number}.local_ip"
    assert "ratchet.2.local_ip" in error.msg


def test_a_numbered_link_cannot_be_no_primary() -> None:
    assert refusal(PRIMARY | SECOND | {"ratchet.2.primary": "false"}).label == "ratchet.2.primary"


@pytest.mark.parametrize("field", ["pod_name", "public_ip"])
def test_what_a_pod_has_once_takes_no_number(field: str) -> None:
    error = refusal(PRIMARY | {f"ratchet.2.{field}": "x"})
    assert f"allowed is ratchet.{field}" in error.msg


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("ratchet.local_ifnam", "ratchet.local_ifname"),
        ("ratchet.pair-ip", "ratchet.pair_ip"),
        ("ratchet.Pod_Name", "ratchet.pod_name"),
        ("ratchet.podname", "ratchet.pod_name"),
        ("ratchet.2.local_ifnane", "ratchet.2.local_ifname"),
        ("ratchet.primay", "ratchet.primary"),
    ],
)
def test_a_misspelt_field_is_told_the_right_one(label: str, meant: str) -> None:
    error = refusal(PRIMARY | {label: "x"})
    assert error.label == label
    assert meant in error.msg


def test_a_pod_is_not_its_own_pair() -> None:
    assert refusal(PRIMARY | {"ratchet.pair_name": "primary-pod"}).label == "ratchet.pair_name"
    renamed = PRIMARY | {"ratchet.pod_name": "pair-pod"}
    assert refusal(renamed).label == "ratchet.pair_name"
    assert read(renamed | {"ratchet.pair_name": "primary-pod"}).links[0].pair == "primary-pod"


@pytest.mark.parametrize("address", ["192.168.2.100", "192.168.2.100/25"])
def test_both_ends_have_different_addresses(address: str) -> None:
    assert refusal(PRIMARY, {"ratchet.pair_ip": address}).label == "ratchet.pair_ip"


def test_an_interface_name_is_used_once_in_a_pod() -> None:
    error = refusal(PRIMARY | SECOND | {"ratchet.2.local_ifname": "in1"})
    assert error.label == "ratchet.2.local_ifname"


def test_an_interface_name_is_used_once_in_the_pair() -> None:
    twice = {"ratchet.2.pair_name": "pair-pod", "ratchet.2.pair_ifname": "in2"}
    assert refusal(PRIMARY | SECOND | twice).label == "ratchet.2.pair_ifname"


def test_a_pod_that_nothing_names_needs_the_label() -> None:
    with pytest.raises(LabelError, match=r"ratchet\.pod_name is missing"):
        parse({}, {}, own_name=None, cni_ifname="eth0")
    named = parse({"ratchet.pod_name": "me"}, {}, own_name=None, cni_ifname="eth0")
    assert named.pod_name == "me"


@pytest.mark.parametrize("value", ["x" * 254, "\x1b[31m", "a\nb"])
def test_informative_fields_are_short_and_printable(value: str) -> None:
    assert refusal({}, {"ratchet.target_pod": value}).label == "ratchet.target_pod"


# Properties -------------------------------------------------------------------------------------

FIELDS = ["pod_name", "primary", "local_ifname", "local_ip", "pair_name", "pair_ifname", "pair_ip"]
FIELDS += ["public_ip", "target_pod"]
label_names = st.one_of(
    st.text(max_size=20),
    st.builds(
        lambda number, field: f"ratchet.{number}{field}",
        st.sampled_from(["", "2.", "3.", "02.", "1.", "."]),
        st.one_of(st.sampled_from(FIELDS), st.text(max_size=12)),
    ),
)
values = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["true", "false", "in1", "in2", "a", "b", "10.0.0.1", "10.0.0.2/30", "::2"]),
    st.ip_addresses().map(str),
    st.sampled_from([*BAD_IFNAMES, *BAD_ADDRESSES, *BAD_NAMES]),
)
mappings = st.dictionaries(label_names, values, max_size=12)


def assert_rules_hold(wiring: Wiring, own_ifname: str) -> None:
    name_characters = set(string.ascii_letters + string.digits + "-_.")
    for name in (wiring.pod_name, *(link.pair for link in wiring.links)):
        assert 1 <= len(name) <= 253
        assert set(name) <= name_characters
        assert name[0].isalnum()
        assert name[-1].isalnum()
    for link in wiring.links:
        assert link.pair != wiring.pod_name
        for ifname in (link.ifname, link.pair_ifname):
            assert 1 <= len(ifname.encode()) <= 15
            assert not set(ifname) & set("/:% \t\n\v\f\r\0\xa0")
            assert ifname not in (".", "..", "lo", "all", "default", own_ifname)
        for address in (link.address, link.pair_address):
            assert address is None or not (address.ip.is_multicast or address.ip.is_unspecified)
    assert len({link.ifname for link in wiring.links}) == len(wiring.links)
    assert len({(link.pair, link.pair_ifname) for link in wiring.links}) == len(wiring.links)


@given(labels=mappings, annotations=mappings, own_name=st.none() | values, ifname=values)
@example(labels=PRIMARY, annotations=SECOND, own_name="primary-pod", ifname="eth0")
def test_anything_is_either_right_by_all_rules_or_a_label_error(
    labels: dict[str, str], annotations: dict[str, str], own_name: str | None, ifname: str
) -> None:
    try:
        wiring = parse(labels, annotations, own_name=own_name, cni_ifname=ifname)
    except LabelError as error:
        assert error.label in labels or error.label in annotations or "is" in error.msg
        assert error.msg.isascii()
        assert error.msg.isprintable()
    else:
        assert_rules_hold(wiring, ifname)


@given(name=st.text(max_size=20), own_ifname=st.text(max_size=5))
def test_an_interface_name_that_passes_obeys_the_kernel(name: str, own_ifname: str) -> None:
    try:
        check_ifname("ratchet.local_ifname", name, cni_ifname=own_ifname)
    except LabelError:
        return
    raw = name.encode()
    assert 1 <= len(raw) <= 15
    assert not set(raw) & set(b"/:%\t\n\v\f\r \0\xa0")


words = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
ifnames = words.map("i".__add__)
hosts = st.integers(1, 254).map("10.1.1.{}".format) | st.integers(1, 2**63).map(
    lambda number: str(ipaddress.IPv6Address((0x20010DB8 << 96) + number))
)
addresses = st.none() | hosts.map(ipaddress.ip_address).map(
    lambda host: Address.parse(f"{host}/{24 if host.version == 4 else 64}")
)
links = st.builds(
    Link,
    ifname=ifnames,
    address=addresses,
    pair=words.map("p".__add__),
    pair_ifname=ifnames,
    pair_address=addresses,
).filter(lambda link: link.address is None or link.address != link.pair_address)
wirings = st.builds(
    Wiring,
    pod_name=words.map("me".__add__),
    links=st.lists(
        links, max_size=5, unique_by=(lambda one: one.ifname, lambda one: one.pair_ifname)
    ).map(tuple),
    public_ip=addresses,
    target_pod=st.none() | words,
    target_container=st.none() | words,
)


def written(wiring: Wiring) -> dict[str, str]:
    fields: dict[str, object] = {
        "pod_name": wiring.pod_name,
        "public_ip": wiring.public_ip,
        "target_pod": wiring.target_pod,
        "target_container": wiring.target_container,
        "primary": "true" if wiring.links else "false",
    }
    for number, link in enumerate(wiring.links, 1):
        prefix = "" if number == 1 else f"{number}."
        fields[f"{prefix}local_ifname"] = link.ifname
        fields[f"{prefix}local_ip"] = link.address
        fields[f"{prefix}pair_name"] = link.pair
        fields[f"{prefix}pair_ifname"] = link.pair_ifname
        fields[f"{prefix}pair_ip"] = link.pair_address
    return {f"ratchet.{field}": str(value) for field, value in fields.items() if value is not None}


@given(wiring=wirings)
def test_what_is_written_as_annotations_is_read_again(wiring: Wiring) -> None:
    assert parse({}, written(wiring), own_name=None, cni_ifname="eth0") == wiring
