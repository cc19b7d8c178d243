"""How a valid input is spoiled: at random, by a generator that the seed alone decides.

Values are JSON's (None, bool, int, float, str, list, dict). What comes out is a copy; what went in
stays as it is.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

TEXTS = (
    "",
    " ",
    "\0",
    "\n",
    "a\nb",
    "\r\n",
    "\t",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\ud800",
    "\udc80",
    "\U0001f980",
    "é",
    "à",
    "ﬁ",
    "１２",
    "١٢",
    "²",
    "ⅷ",
    "İ",
    "ß",
    "null",
    "true",
    "false",
    "True",
    "NaN",
    "-0",
    "0",
    "1e999",
    "0x10",
    "1_0",
    "..",
    ".",
    "/",
    "//",
    "../../../../etc/passwd",
    "/etc/passwd",
    "/dev/zero",
    "a/b",
    "a:b",
    "%",
    "%d",
    "%s%n",
    "{0.__class__}",
    "{}",
    "$(id)",
    "`id`",
    "; id",
    "'",
    '"',
    "\\",
    "\\n",
    "lo",
    "all",
    "default",
    "eth0",
    "_x",
    "-x",
    "a" * 15,
    "a" * 16,
    "é" * 8,
    "x" * 253,
    "x" * 254,
    "x" * 5000,
)
ADDRESSES = (
    "192.168.2.100",
    "192.168.2.100/24",
    "192.168.2.0/24",
    "192.168.2.255/24",
    "10.0.0.1/31",
    "10.0.0.1/32",
    "10.0.0.1/33",
    "10.0.0.1/0",
    "10.0.0.1/",
    "10.0.0.1/024",
    "10.0.0.1/255.255.255.0",
    "10.0.0.1/0.0.0.255",
    "010.0.0.1",
    "10.0.0",
    "10.0.0.1.1",
    "0.0.0.0",
    "127.0.0.1",
    "169.254.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "255.255.255.255/32",
    "256.0.0.1",
    "1e1.0.0.1",
    " 10.0.0.1",
    "10.0.0.1 ",
    "10.0.0.1\n",
    "١.٢.٣.٤",
    "²55.1.1.1",
    "2001:db8::1",
    "2001:db8::1/64",
    "2001:DB8:0::1/64",
    "2001:db8::/64",
    "2001:db8::1/127",
    "2001:db8::1/128",
    "2001:db8::1/129",
    "2001:db8:0:0:0:0:0:1/64",
    "2001:db8::192.0.2.1/64",
    "::",
    "::1",
    "::/0",
    "1::2::3",
    ":::",
    "12345::1",
    "fe80::1%eth0",
    "fe80::1%eth0/64",
    "ff02::1/64",
    "::ffff:10.0.0.1/96",
    "::10.0.0.1/96",
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "::2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:1.2.3.4",
    "1:2:3:4:5:6:7:1.2.3.4",
    "0001::1",
    "00001::1",
)
NUMBERS: tuple[Any, ...] = (
    0,
    1,
    -1,
    2,
    15,
    255,
    2**16,
    2**24,
    2**31,
    2**32,
    2**63,
    2**64,
    10**400,
    -(10**400),
    0.0,
    -0.0,
    0.5,
    1e-320,
    1e308,
    1.7976931348623157e308,
)
# What a JSON text may hold that no value of Python's gives.
RAW = (
    "NaN",
    "Infinity",
    "-Infinity",
    "-0",
    "1e999",
    "-1e999",
    "1E+2",
    "01",
    "1.",
    ".5",
    "+1",
    "--1",
    "0x10",
    "9" * 4299,
    "9" * 4301,
    "1" + "0" * 5000,
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\\x41"',
    '"\\u12"',
    '"\x01"',
    '"open',
    "nul",
    "truefalse",
    "'a'",
    "[1,]",
    '{"a":1,}',
    '{"a"}',
    "{1:2}",
    '{"a":1,"a":2}',
    "[" * 60 + "]" * 60,
    "[" * 700 + "]" * 700,
    '{"a":' * 300 + "1" + "}" * 300,
    '{"a":' * 900 + "1" + "}" * 900,
    "[" * 5000,
    "[" * 100_000,
    '{"a":' * 50_000,
    "\ufeff{}",
    "/* c */ 1",
    "",
)


class Mutator:
    """A generator of hostile values, with one source of chance."""

    def __init__(self, random: Random) -> None:
        self.random = random

    # Choosing -------------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, values: Sequence[T]) -> T:
        return values[int(self.random.random() * len(values))]

    def some(self, values: Iterable[T], probability: float = 0.5) -> list[T]:
        return [value for value in values if self.chance(probability)]

    def times(self) -> int:
        """How often to spoil something: mostly once, sometimes not at all, seldom often."""
        return self.pick((0, 1, 1, 1, 1, 2, 2, 3, 5))

    # Values ---------------------------------------------------------------------------------------

    def text(self) -> str:
        which = self.random.random()
        if which < 0.5:
            return self.pick(TEXTS)
        if which < 0.65:
            return self.pick(ADDRESSES)
        if which < 0.9:
            return "".join(self.character() for _ in range(int(self.random.expovariate(0.15))))
        return self.pick(TEXTS) * self.pick((2, 3, 17, 300))

    def character(self) -> str:
        which = self.random.random()
        if which < 0.6:
            return chr(32 + int(self.random.random() * 95))
        if which < 0.75:
            return self.pick("/:.-_%\\\"'=;,{}[]\0\n\r\t")
        top = self.pick((0x20, 0x100, 0x3000, 0xE000, 0x10000, 0x110000))
        return chr(int(self.random.random() * top))

    def scalar(self) -> Any:
        which = self.random.random()
        if which < 0.5:
            return self.text()
        if which < 0.8:
            return self.pick(NUMBERS)
        return self.pick((None, True, False))

    def value(self, depth: int = 3) -> Any:
        """Any JSON value."""
        which = self.random.random()
        if depth == 0 or which < 0.55:
            return self.scalar()
        if which < 0.57:
            return self.deep()
        size = self.pick((0, 1, 1, 2, 3))
        if which < 0.78:
            return [self.value(depth - 1) for _ in range(size)]
        return {self.text(): self.value(depth - 1) for _ in range(size)}

    def deep(self) -> Any:
        """Something nested: as deep as this process can still write down, or a bit less."""
        value: Any = self.scalar()
        for _ in range(self.pick((10, 60, 90, 110, 150, 400))):
            value = [value] if self.chance(0.5) else {"a": value}
        return value

    # Spoiling -------------------------------------------------------------------------------------

    def tree(self, value: Any, keys: Sequence[str] = ()) -> Any:
        """A copy with something in it that is different. `keys` are names to make use of."""
        value = _copied(value)
        for _ in range(self.times()):
            value = self._spoiled(value, keys)
        return value

    def _spoiled(self, value: Any, keys: Sequence[str]) -> Any:
        places = list(_places(value))
        if not places or self.chance(0.02):
            return self.other(value)
        parent, key = self.pick(places)
        action = self.random.random()
        if action < 0.55:
            parent[key] = self.other(parent[key])
        elif action < 0.7:
            del parent[key]
        elif isinstance(parent, dict):
            if action < 0.85:
                parent[self.pick(keys) if keys and self.chance(0.6) else self.text()] = self.value()
            elif keys and action < 0.92:
                parent[self.misspelt(self.pick(keys))] = parent[key]
            else:
                other = self.pick(places)
                parent[key] = _copied(other[0][other[1]])
        elif action < 0.9:
            parent.insert(self.random.randrange(len(parent) + 1), self.value())
        else:
            parent.extend(_copied(parent) * self.pick((1, 1, 40)))
        return value

    def other(self, value: Any) -> Any:
        """Something else in a value's place: of another type, or nearly the same."""
        which = self.random.random()
        if which < 0.35:
            return self.value()
        if which < 0.5:
            return self.pick((None, True, False, [], {}, "", 0, [value], {"a": value}))
        if isinstance(value, str):
            if which < 0.6:
                return self.pick(ADDRESSES)
            return self.string(value)
        if isinstance(value, bool):
            return self.pick((str(value), str(value).lower(), int(value), not value))
        if isinstance(value, int | float) and abs(value) > 2**64:
            return self.pick((str(value), -value, value % 1000))
        if isinstance(value, int | float):
            return self.pick((str(value), -value, value + 1, value * 10, value / 1, bool(value)))
        return self.value()

    def string(self, text: str) -> str:
        """A text with something in it that is different."""
        place = self.random.randrange(len(text) + 1)
        end = min(len(text), place + self.pick((1, 1, 2, 8)))
        which = self.random.random()
        if which < 0.3:
            return text[:place] + self.pick(TEXTS) + text[place:]
        if which < 0.5:
            return text[:place] + self.character() + text[end:]
        if which < 0.65:
            return text[:place]
        if which < 0.8:
            return text[:place] + text[end:]
        if which < 0.87:
            return text[:place] + text[place:end] * self.pick((2, 3, 50, 2000)) + text[end:]
        return self.pick((text.upper(), text.title(), text[::-1], text + " ", text + text))

    def misspelt(self, name: str) -> str:
        place = self.random.randrange(len(name) + 1)
        return self.pick(
            (
                name[:place] + name[place + 1 :],
                name[:place] + "x" + name[place:],
                name.upper(),
                name.replace("_", "-"),
                name.replace("_", ""),
                name[:place] + name[place : place + 1] * 2 + name[place + 1 :],
            )
        )

    def raw(self, data: bytes) -> bytes:
        """Bytes with something in them that is different."""
        for _ in range(self.times()):
            place = self.random.randrange(len(data) + 1)
            end = min(len(data), place + self.pick((1, 1, 2, 8, 64)))
            which = self.random.random()
            if which < 0.2:
                data = data[:place]
            elif which < 0.4:
                data = data[:place] + bytes([self.random.randrange(256)]) + data[end:]
            elif which < 0.55:
                data = data[:place] + data[end:]
            elif which < 0.65:
                data = data[:place] + data[place:end] * self.pick((2, 3, 100)) + data[end:]
            elif which < 0.75:
                data = (
                    data[:place]
                    + self.pick((b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80"))
                    + data[end:]
                )
            else:
                data = data[:place] + _utf8(self.pick(TEXTS)) + data[end:]
        return data

    def json(self, value: Any) -> bytes:
        """JSON of a value, sometimes with what only a text can hold, sometimes spoiled."""
        which = self.random.random()
        ensure_ascii = self.chance(0.7)
        if which < 0.75:
            text = json.dumps(value, ensure_ascii=ensure_ascii)
        elif which < 0.9:
            text = self._with_raw(value, ensure_ascii)
        else:
            return self.raw(_utf8(json.dumps(value, ensure_ascii=ensure_ascii)))
        if self.chance(0.02):
            return text.encode(self.pick(("utf-16", "utf-32", "utf-8-sig", "latin-1")), "replace")
        return _utf8(text)

    def _with_raw(self, value: Any, ensure_ascii: bool) -> str:
        """JSON with a doubled key or with a piece that is no value of Python's."""
        value = _copied(value)
        places = list(_places(value))
        if not places:
            return self.pick(RAW)
        parent, key = self.pick(places)
        mark = "\x02mark\x02"
        parent[key] = mark
        raw = self.pick(RAW)
        if self.chance(0.2) and isinstance(parent, dict):
            raw = f"1,{json.dumps(key)}:{json.dumps(self.scalar())}"
        return json.dumps(value, ensure_ascii=ensure_ascii).replace(json.dumps(mark), raw, 1)


def _places(value: Any) -> Iterable[tuple[Any, Any]]:
    """Every (container, key) below a value, for as long as that is not too many."""
    waiting = [value]
    seen = 0
    while waiting and seen < 400:
        one = waiting.pop()
        found: Iterable[tuple[Any, Any]]
        if isinstance(one, dict):
            found = one.items()
        elif isinstance(one, list):
            found = enumerate(one)
        else:
            continue
        for key, inner in found:
            seen += 1
            yield one, key
            if isinstance(inner, dict | list):
                waiting.append(inner)


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except RecursionError:
        return "too deep to be copied"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
