"""Objects and definitions as YAML that people like to read and every reader takes alike.

PyYAML knows YAML 1.1 without its `y` and `n`, Kubernetes reads it with them, and others read 1.2,
in which `1e3` is a number. So what is not plainly a word, a path or an address stands in quotes.
Nothing becomes an anchor, and long texts are literal blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import yaml

Value = str | int | bool | Sequence["Value"] | Mapping[str, "Value"]

_PLAIN = re.compile(
    r"(?:[A-Za-z_/][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*"  # words, paths, images
    r"|\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?)\Z"  # IPv4 addresses
)
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_LITERAL = re.compile(r"[^ \t\n].*[^\n]\n?\Z", re.DOTALL)
_TAG = "tag:yaml.org,2002:"
_WIDTH = 1 << 30  # nothing is folded


def documents(objects: Iterable[Mapping[str, Value]]) -> Iterable[str]:
    """Yield each object as a document, with the line that separates it from the one before."""
    for number, one in enumerate(objects):
        yield f"---\n{document(one)}" if number else document(one)


def document(value: Mapping[str, Value]) -> str:
    made: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=_WIDTH,
    )
    return made


def text(value: str) -> str:
    """Return a text as a YAML scalar on one line."""
    if _is_plain(value):
        return value
    made: str = yaml.dump(
        value, Dumper=_Dumper, default_style='"', allow_unicode=True, width=_WIDTH
    )
    return made.rstrip("\n")


def _is_plain(value: str) -> bool:
    return bool(_PLAIN.match(value)) and value.lower() not in _WORDS


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """In C where that was built in."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True

    def text(self, value: str) -> yaml.Node:
        if _is_plain(value):
            style = None
        else:
            # The emitter falls back to quotes where a block could not hold the text.
            style = "|" if "\n" in value and _LITERAL.match(value) else '"'
        made: yaml.Node = self.represent_scalar(f"{_TAG}str", value, style=style)
        return made

    def items(self, value: Sequence[Value]) -> yaml.Node:
        flow = all(isinstance(one, str) and "\n" not in one for one in value)
        made: yaml.Node = self.represent_sequence(f"{_TAG}seq", value, flow_style=flow)
        return made


_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_representer(list, _Dumper.items)
_Dumper.add_representer(tuple, _Dumper.items)
