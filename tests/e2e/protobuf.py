"""The little of Protocol Buffers' wire format that the runtimes' API needs.

Messages go in as lists of numbered fields and come out as bytes, and the other way round. By hand,
because the alternative is a compiler and its generated modules for six messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Union

Value = Union[int, str, bytes, Mapping[str, str], "Message"]
Message = list[tuple[int, Value]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAP_KEY, _MAP_VALUE = 1, 2


def encode(message: Iterable[tuple[int, Value]]) -> bytes:
    """Return a message's bytes. A mapping becomes the entries of a map<string, string>."""
    parts = []
    for number, value in message:
        if isinstance(value, int):
            parts.append(_varint(number << 3 | _VARINT) + _varint(value))
        elif isinstance(value, Mapping):
            parts += [
                _chunk(number, encode([(_MAP_KEY, key), (_MAP_VALUE, word)]))
                for key, word in value.items()
            ]
        elif isinstance(value, str):
            parts.append(_chunk(number, value.encode()))
        elif isinstance(value, bytes):
            parts.append(_chunk(number, value))
        else:
            parts.append(_chunk(number, encode(value)))
    return b"".join(parts)


class Fields:
    """A message that was received. What is not in it has its type's zero value, as in proto3."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        position = 0
        while position < len(data):
            key, position = _read_varint(data, position)
            value: int | bytes
            if key & 7 == _VARINT:
                value, position = _read_varint(data, position)
            else:
                if key & 7 == _BYTES:
                    size, position = _read_varint(data, position)
                else:
                    size = {_FIXED64: 8, _FIXED32: 4}[key & 7]
                value = data[position : position + size]
                assert len(value) == size, "the message is cut off"
                position += size
            self._fields.setdefault(key >> 3, []).append(value)

    def number(self, field: int) -> int:
        value = self._fields.get(field, [0])[-1]
        assert isinstance(value, int)
        return value

    def text(self, field: int) -> str:
        return self._chunks(field)[-1].decode() if field in self._fields else ""

    def message(self, field: int) -> Fields:
        return Fields(self._chunks(field)[-1] if field in self._fields else b"")

    def messages(self, field: int) -> list[Fields]:
        return [Fields(chunk) for chunk in self._chunks(field)]

    def map(self, field: int) -> dict[str, str]:
        return {entry.text(_MAP_KEY): entry.text(_MAP_VALUE) for entry in self.messages(field)}

    def _chunks(self, field: int) -> list[bytes]:
        chunks = self._fields.get(field, [])
        assert all(isinstance(chunk, bytes) for chunk in chunks)
        return [chunk for chunk in chunks if isinstance(chunk, bytes)]


def _chunk(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
