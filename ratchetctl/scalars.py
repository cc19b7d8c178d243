"""What a plain YAML scalar is, as Kubernetes reads it.

Kubernetes' reader knows neither dates nor numbers to the base of 60, as YAML 1.1 and PyYAML do: a
date and a MAC address are strings there, and so is "=". On the other hand `0755`, `08`, `12345e6`
and `y` are none. Numbers and flags keep their text, so that a hint can quote what is written.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

_TAG = "tag:yaml.org,2002:"
_TRUE = ("y", "yes", "true", "on")
_FALSE = ("n", "no", "false", "off")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number or a flag, which is a string once it is put in quotes."""

    text: str
    flag: bool | None = None
    """What it says where a flag is wanted; None for a number."""

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def _words(*words: str) -> str:
    """Return an expression for words in lower case, with a capital, and in capitals."""
    return "|".join(form for word in words for form in (word, word.capitalize(), word.upper()))


_INT = (
    r"[-+]?(?:0[bB]_*[01][01_]*|0[oO]_*[0-7][0-7_]*|0[xX]_*[0-9a-fA-F][0-9a-fA-F_]*"
    r"|0[0-7_]*|[1-9][0-9_]*)"
)
_FLOAT = (
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    rf"|[-+]?\.(?:{_words('inf')})|\.(?:nan|NaN|NAN)"
)
# PyYAML looks up the first character, and None for any.
RESOLVERS: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {
    None: [
        (f"{_TAG}{kind}", re.compile(rf"(?:{pattern})\Z"))
        for kind, pattern in (
            ("null", f"~|{_words('null')}|"),
            ("bool", _words(*_TRUE, *_FALSE)),
            ("int", _INT),
            ("float", _FLOAT),
            ("merge", "<<"),
        )
    ]
}


def _flag(_loader: Any, node: Any) -> Scalar:
    return Scalar(node.value, node.value.lower() in _TRUE)


def _number(_loader: Any, node: Any) -> Scalar:
    return Scalar(node.value)


def _float(_loader: Any, node: Any) -> Scalar | str:
    """Return a number; the text of one that is too large for a float, such as a hash 1234e5678."""
    try:
        is_too_large = math.isinf(float(node.value))
    except ValueError:  # .inf
        is_too_large = False
    return str(node.value) if is_too_large else Scalar(node.value)


def _string(_loader: Any, node: Any) -> str:
    return str(node.value)


CONSTRUCTORS: dict[str | None, Any] = {
    f"{_TAG}bool": _flag,
    f"{_TAG}int": _number,
    f"{_TAG}float": _float,
    f"{_TAG}timestamp": _string,
}
