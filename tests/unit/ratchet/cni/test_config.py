from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni import config
from ratchet.cni.errors import CniError

OBJECTS = st.dictionaries(
    st.sampled_from(
        ["name", "cniVersion", "type", "args", "runtimeConfig", "prevResult", "ipam", "x"]
    ),
    st.text(max_size=3) | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"1", b'"a"', b"\xff", b"{} {}", b"null"])
def test_what_is_not_a_json_object_is_error_6(data: bytes) -> None:
    with pytest.raises(CniError) as caught:
        config.decode(data)
    assert caught.value.code == 6


@pytest.mark.parametrize(
    ("obj", "code"),
    [
        ({}, 7),
        ({"name": ""}, 7),
        ({"name": 3}, 7),
        ({"name": "-a"}, 7),
        ({"name": "a/b"}, 7),
        ({"name": "ä"}, 7),
        ({"name": "a", "cniVersion": "9.9.9"}, 1),
        ({"name": "a", "cniVersion": "0.3"}, 1),
        ({"name": "a", "cniVersion": 1}, 6),
    ],
)
def test_name_and_version_are_checked(obj: dict[str, Any], code: int) -> None:
    with pytest.raises(CniError) as caught:
        config.check(obj)
    assert caught.value.code == code


@given(OBJECTS)
def test_a_delegate_that_lacks_nothing_is_handed_over_unchanged(own: dict[str, Any]) -> None:
    own = {**own, "name": "own", "cniVersion": "0.4.0"}
    assert config.for_delegate(own, {"name": "ours", "cniVersion": "1.0.0", "mtu": 1}) == own


@given(OBJECTS, OBJECTS)
def test_a_delegate_gets_of_ours_only_what_the_specification_says(
    own: dict[str, Any], ours: dict[str, Any]
) -> None:
    handed = config.for_delegate(own, ours)
    for key in handed.keys() - own.keys():
        assert key in ("name", "cniVersion", "args", "runtimeConfig", "prevResult")
        assert handed[key] == ours[key]
    for key in own.keys() - {"args", "runtimeConfig", "prevResult", "name", "cniVersion"}:
        assert handed[key] == own[key]


def test_a_delegate_without_version_gets_none_when_we_have_none() -> None:
    assert config.for_delegate({"type": "t"}, {"name": "n"}) == {"type": "t", "name": "n"}


def test_what_the_runtime_adds_goes_before_the_delegates_own() -> None:
    own = {"type": "t", "args": {"cni": {"ips": ["10.0.0.1"], "x": 1}, "a": 1}}
    ours = {"args": {"cni": {"x": 2, "labels": {}}}}
    assert config.for_delegate(own, ours)["args"] == {
        "cni": {"ips": ["10.0.0.1"], "x": 2, "labels": {}},
        "a": 1,
    }
    assert own["args"] == {"cni": {"ips": ["10.0.0.1"], "x": 1}, "a": 1}


def test_a_lists_name_and_version_are_its_plugins() -> None:
    delegate = {
        "name": "l",
        "cniVersion": "1.0.0",
        "plugins": [{"type": "a"}, {"type": "b", "name": "x"}],
    }
    assert config.plugins_of(delegate) == [
        {"type": "a", "name": "l", "cniVersion": "1.0.0"},
        {"type": "b", "name": "l", "cniVersion": "1.0.0"},
    ]


def test_a_lists_null_is_no_name_and_no_version() -> None:
    plugin = {"type": "a", "name": "x", "cniVersion": "0.4.0"}
    assert config.plugins_of({"name": None, "cniVersion": None, "plugins": [plugin]}) == [plugin]


@pytest.mark.parametrize(
    ("said", "forbidden"),
    [(True, True), ("true", True), (" True ", True), (False, False), ("no", False), (1, False)],
)
def test_a_list_says_what_it_is_not_asked(said: Any, forbidden: bool) -> None:
    listed = {"plugins": [], "disableCheck": said}
    assert config.forbids(listed, "CHECK") is forbidden
    assert config.forbids({"plugins": [], "disableGC": said}, "GC") is forbidden
    assert not any(config.forbids(listed, command) for command in ("ADD", "DEL", "GC", "STATUS"))
    assert not config.forbids({"type": "a", "disableCheck": said}, "CHECK")


def test_valid_attachments_are_the_union_of_both_names() -> None:
    assert config.valid_attachments({}) is None
    assert config.valid_attachments({"cni.dev/valid-attachments": []}) == set()
    # An empty list, as libcni writes it.
    assert config.valid_attachments({"cni.dev/valid-attachments": None}) == set()
    obj = {
        "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}],
        "cni.dev/attachments": [{"containerID": "b", "ifname": "eth0"}],
    }
    assert config.valid_attachments(obj) == {("a", "eth0"), ("b", "eth0")}


@pytest.mark.parametrize("value", [{}, "a", [1], [{}], [{"containerID": "a"}], [{"ifname": 1}]])
def test_a_malformed_list_of_valid_attachments_is_error_7(value: Any) -> None:
    with pytest.raises(CniError) as caught:
        config.valid_attachments({"cni.dev/valid-attachments": value})
    assert caught.value.code == 7
