"""A list of objects, read one object at a time.

The pods of a full node are megabytes of JSON, and ten times that once they are decoded. What is
kept of a pod is a few hundred bytes, so the list is never in memory as a whole.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any

LARGEST_OBJECT = 4 << 20  # characters; etcd takes 1.5 MiB
_CHUNK_BYTES = 1 << 16
_SPACE = " \t\r\n"


class ListReader:
    """Reads ``{"kind": …, "metadata": {…}, "items": [{…}, …]}`` from a stream of bytes.

    *Raises* ValueError for what is no such list, or ends too soon.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """`read(n)` gives at most n bytes, and none at the end."""
        self._read = read
        self._decoder = json.JSONDecoder()
        self._text = codecs.getincrementaldecoder("utf-8")()
        self._buffer = ""
        self._at = 0
        self.head: dict[str, Any] = {}
        """What the list holds besides its items; complete when these have been read."""

    def items(self) -> Iterator[Any]:
        """Give each item."""
        self._expect("{")
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise ValueError("a key of the list is not a string")
            self._expect(":")
            if key == "items" and self._next() == "[":
                self._at += 1
                yield from self._members()
            else:
                self.head[key] = self._value()
            if self._next() != ",":
                break
            self._at += 1
        self._expect("}")

    def _members(self) -> Iterator[Any]:
        if self._next() == "]":
            self._at += 1
            return
        while True:
            yield self._value()
            if self._next() != ",":
                break
            self._at += 1
        self._expect("]")

    def _value(self) -> Any:
        """Return the value that begins here, when all of it has come."""
        self._next()
        tried, is_over = 0, False
        while True:
            # Not tried again before there is half as much again: each trial begins at the start.
            here = len(self._buffer) - self._at
            if is_over or here * 2 >= tried * 3:
                tried = here
                try:
                    value, end = self._decoder.raw_decode(self._buffer, self._at)
                except json.JSONDecodeError:
                    pass
                else:
                    # A number may go on; it is complete when something else follows it.
                    if end < len(self._buffer):
                        self._at = end
                        return value
            if here > LARGEST_OBJECT:
                raise ValueError("an object that is too large, or no JSON")
            if is_over:
                raise ValueError("the list ends too soon")
            is_over = not self._more()

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise ValueError(f"no {character!r} where the list should have one")
        self._at += 1

    def _next(self) -> str:
        """Return the next character that is not white space, without taking it."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in _SPACE:
                    return self._buffer[self._at]
                self._at += 1
            if not self._more():
                raise ValueError("the list ends too soon")

    def _more(self) -> bool:
        """Read on; False when there is no more."""
        chunk = self._read(_CHUNK_BYTES)
        self._buffer = self._buffer[self._at :] + self._text.decode(chunk)
        self._at = 0
        return bool(chunk)
