"""A list is read object by object, however its bytes come."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet_child.agent.listing import ListReader

LIST: dict[str, Any] = {
    "kind": "PodList",
    "apiVersion": "v1",
    "metadata": {"resourceVersion": "12", "continue": ""},
    "items": [{"name": 'ä"]}', "n": 5}, {"list": [1, [2]], "none": None}, {}],
    "extra": 17,
}


def read(raw: bytes, size: int = 1 << 16) -> tuple[list[Any], dict[str, Any]]:
    stream = io.BytesIO(raw)
    reader = ListReader(lambda n: stream.read(min(n, size)))
    items = list(reader.items())
    return items, reader.head


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_in_pieces_of_any_size(size: int, indent: int | None) -> None:
    raw = json.dumps(LIST, indent=indent, ensure_ascii=False).encode()
    items, head = read(raw, size)
    assert items == LIST["items"]
    assert head == {key: value for key, value in LIST.items() if key != "items"}


@pytest.mark.parametrize("items", [[], None, {}])
def test_a_list_without_items_has_none(items: object) -> None:
    assert read(json.dumps({"metadata": {}, "items": items}).encode())[0] == []


def test_no_more_than_an_object_is_in_memory() -> None:
    """What was given is let go of: the buffer never holds much more than one item."""
    item = {"text": "x" * 10_000}
    raw = json.dumps({"items": [item] * 50}).encode()
    stream = io.BytesIO(raw)
    reader = ListReader(lambda n: stream.read(min(n, 1000)))
    most = 0
    for found in reader.items():
        assert found == item
        most = max(most, len(reader._buffer))
    assert most < 40_000


@given(st.integers(0, 200))
def test_a_list_that_ends_too_soon_is_an_error(length: int) -> None:
    raw = json.dumps(LIST).encode()
    with pytest.raises(ValueError, match=r".+"):
        read(raw[: min(length, len(raw) - 1)])


@pytest.mark.parametrize(
    "raw", [b"[]", b"5 ", b'{"items": [}', b"{5: 1}", b'{"items": 1 2}', b"\xff{}"]
)
def test_what_is_no_list_is_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read(raw)


def test_an_object_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet_child.agent.listing.LARGEST_OBJECT", 100_000)
    pieces = iter([b'{"items": ["'])
    with pytest.raises(ValueError, match="too large"):
        next(ListReader(lambda n: next(pieces, b"x" * n)).items())
