from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni import codec

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(VALUES)
def test_what_is_encoded_is_decoded(value: Any) -> None:
    assert codec.decode(codec.encode(value)) == value


@given(VALUES)
def test_it_reads_and_writes_as_the_standard_library_does(value: Any) -> None:
    assert json.loads(codec.encode(value)) == value
    assert codec.decode(json.dumps(value, indent=1)) == value


@given(st.binary() | st.text().map(str.encode))
def test_what_is_not_json_is_a_value_error_and_nothing_else(data: bytes) -> None:
    try:
        ours = codec.decode(data)
    except ValueError:
        ours = ValueError
    try:
        theirs = json.loads(data.decode())
    except ValueError:
        theirs = ValueError
    if not (isinstance(theirs, float) and not math.isfinite(theirs)):
        assert ours == theirs


@pytest.mark.parametrize("text", ['{"a": "b"', "[1", "[1,", "{", '{"a', '{"a":', '"', "", "1 2"])
def test_what_is_not_json_is_a_value_error_before_json_is_loaded(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "json.decoder", "json.scanner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ValueError):
        codec.decode(text)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1e999", '{"a": -1e999}'])
def test_numbers_that_json_does_not_know_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        codec.decode(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: object()}, {"a": {1, 2}}])
def test_values_that_json_does_not_know_are_not_written(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        codec.encode(value)


def test_endless_nesting_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        codec.decode("[" * 200_000)


def test_it_works_without_the_c_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_make_scanner", None)
    monkeypatch.setattr(codec, "_make_encoder", None)
    assert codec.decode(codec.encode({"a": [1, "ä"]})) == {"a": [1, "ä"]}


def test_it_works_when_the_c_modules_signatures_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_make_scanner", lambda: None)
    monkeypatch.setattr(codec, "_make_encoder", lambda: None)
    assert codec.decode(codec.encode({"a": [1, "ä"]})) == {"a": [1, "ä"]}
