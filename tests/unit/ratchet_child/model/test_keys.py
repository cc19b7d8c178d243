"""The key layout and the form of values: what is written is read back, what is not ours refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni.ip import Address
from ratchet.links import Link
from ratchet.names import is_new_ifname
from ratchet_child.model import keys
from ratchet_child.model.keys import Declaration, PodKey, Published

NAME = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?", fullmatch=True)
IFNAME = st.from_regex(r"[^\s/:%\x00-\x1f\x7f]{1,15}", fullmatch=True).filter(is_new_ifname)
NAMESPACE = st.one_of(st.just("default"), st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True))
PODS = st.builds(PodKey, NAMESPACE, NAME)
HOSTS = st.ip_addresses().filter(
    lambda ip: not (ip.is_unspecified or ip.is_multicast or ip.is_loopback)
)
ADDRESSES = st.one_of(
    st.none(),
    st.builds(
        lambda ip, length: Address.parse(f"{ip}/{min(length, ip.max_prefixlen)}"),
        HOSTS,
        st.integers(0, 128),
    ),
)
LINKS = st.builds(Link, IFNAME, ADDRESSES, NAME, IFNAME, ADDRESSES)
DECLARATIONS = st.builds(
    Declaration, NAME, st.integers(1, keys.LAST_VNI), LINKS, st.one_of(st.just(""), NAME)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(PODS)
def test_a_pod_is_read_back_from_its_key(pod: PodKey) -> None:
    assert PodKey.parse(str(pod)) == pod


@given(PODS, PODS)
def test_two_pods_never_share_a_key(one: PodKey, other: PodKey) -> None:
    assert (str(one) == str(other)) == (one == other)


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a/b", "../a", "default:a", "x:..", ":a", "a:", "a:b:c", "a b", "ä", "a\n"],
)
def test_what_no_pod_is_called_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a pod's name"):
        PodKey.parse(text)


def test_a_pod_of_the_default_namespace_goes_by_its_name_alone() -> None:
    assert str(PodKey("default", "web")) == "web"
    assert str(PodKey("blue", "web")) == "blue:web"


def test_a_sibling_is_in_the_same_namespace() -> None:
    assert PodKey("blue", "a").sibling("b") == PodKey("blue", "b")


@given(DECLARATIONS)
def test_a_declaration_is_read_back_as_it_was(declaration: Declaration) -> None:
    assert Declaration.loads(declaration.dumps(), declaration.link.pair) == declaration


@given(JSON)
def test_a_declaration_that_is_none_raises_nothing_but_value_error(value: Any) -> None:
    with contextlib.suppress(ValueError):
        Declaration.loads(json.dumps(value), "pair")


@given(st.text())
def test_text_that_is_no_declaration_raises_nothing_but_value_error(text: str) -> None:
    readers: list[Callable[[], object]] = [
        lambda: Declaration.loads(text, "pair"),
        lambda: Published.loads(text),
    ]
    for loads in readers:
        with contextlib.suppress(ValueError):
            loads()


@pytest.mark.parametrize("field", ["container", "vni", "ifname", "pair_ifname"])
@pytest.mark.parametrize("value", [None, "", 0, -1, True, 2**24, 1.5, [], {}])
def test_a_declaration_with_a_wrong_field_is_refused(field: str, value: object) -> None:
    link = Link("in1", None, "pair", "in2", None)
    written = json.loads(Declaration("c", 11, link).dumps())
    written[field] = value
    with pytest.raises(ValueError, match=r"."):
        Declaration.loads(json.dumps(written), "pair")


@pytest.mark.parametrize("field", ["ifname", "pair_ifname"])
@pytest.mark.parametrize("value", ["../x", "a/b", ".", "a b", "x" * 16, "a%d", "a:b"])
def test_a_declaration_with_a_name_that_no_interface_has_is_refused(field: str, value: str) -> None:
    written = json.loads(Declaration("c", 11, Link("in1", None, "pair", "in2", None)).dumps())
    written[field] = value
    with pytest.raises(ValueError, match=r"not an interface name"):
        Declaration.loads(json.dumps(written), "pair")


@pytest.mark.parametrize("value", ["", "x", 5, [], "10.0.0.1/33", True])
def test_a_declaration_with_a_wrong_address_is_refused(value: object) -> None:
    link = Link("in1", None, "pair", "in2", None)
    written = json.loads(Declaration("c", 11, link).dumps())
    written["address"] = value
    with pytest.raises(ValueError, match=r"."):
        Declaration.loads(json.dumps(written), "pair")


@given(NAME, st.lists(st.tuples(NAME, IFNAME)))
def test_what_was_published_is_read_back(container: str, declared: list[tuple[str, str]]) -> None:
    published = Published(container, tuple(declared))
    assert Published.loads(published.dumps()) == published


NOT_DECLARED: list[object] = [
    *(None, {}, ["ab"], [["a"]], [["a", ""]], [["a", "b", "c"]], [["a", 1]])
]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"container": "c"}', '{"container": "", "declared": []}']
    + [json.dumps({"container": "c", "declared": declared}) for declared in NOT_DECLARED],
)
def test_something_else_published_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Published.loads(text)


@given(PODS, NAME, IFNAME)
def test_a_declaration_key_tells_primary_and_interface(
    pair: PodKey, primary: str, ifname: str
) -> None:
    key = keys.declaration(pair, primary, ifname)
    name = key.removeprefix(f"{keys.declarations(pair)}/")
    assert keys.split_declaration(name) == (primary, ifname)


@given(PODS, DECLARATIONS, NAME)
def test_v010_keys_stay_in_the_pairs_directory_and_end_with_the_primary(
    pair: PodKey, declaration: Declaration, primary: str
) -> None:
    written = keys.legacy(pair, primary, declaration)
    assert all(key.rpartition("/")[0] == keys.association(pair) for key in written)
    assert list(written)[-1] == f"{keys.association(pair)}/primaryname"
    assert next(iter(written)) == f"{keys.association(pair)}/vxlanid"


def test_v010_adds_the_prefix_length_itself() -> None:
    link = Link("in1", None, "b", "in2", Address.parse("192.168.2.101/28"))
    written = keys.legacy(PodKey("default", "b"), "a", Declaration("c", 11, link))
    assert written == {
        "association/b/vxlanid": "11",
        "association/b/pairip": "192.168.2.101",
        "association/b/pairifname": "in2",
        "association/b/primaryname": "a",
    }
    assert keys.legacy_address("192.168.2.101") == Address.parse("192.168.2.101/24")
    assert keys.legacy_address("") is None
    assert keys.legacy_address(None) is None
    with pytest.raises(ValueError, match=r"."):
        keys.legacy_address("not one")


NO_CONTAINERS = ["", "a b", "-a", ".", "../x", "é", "a\n", "x" * 201, 7, None, True, ["a"]]


@pytest.mark.parametrize("container", NO_CONTAINERS)
def test_what_is_no_container_id_by_cnis_grammar_is_no_entry(container: object) -> None:
    published = {"container": container, "declared": []}
    with pytest.raises(ValueError, match="not a container ID") as caught:
        Published.loads(json.dumps(published))
    assert len(str(caught.value)) < 300
    declared = {"container": container, "vni": 11, "ifname": "in1", "pair_ifname": "in2"}
    with pytest.raises(ValueError, match="not a container ID"):
        Declaration.loads(json.dumps(declared), "b")


@pytest.mark.parametrize("container", ["a", "0" * 64, "x" * 200, "A_b.c-d"])
def test_every_container_id_that_a_record_can_have_is_one(container: str) -> None:
    text = json.dumps({"container": container, "declared": []})
    assert Published.loads(text).container == container
