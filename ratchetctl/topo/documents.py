"""Files into trees: YAML by PyYAML, protobuf's text format by protobuf's own tokenizer.

YAML aliases share what they name and cost nothing here; what is nested too deeply for libyaml's
recursion, or refers to itself, is refused before anybody follows it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import yaml

from ratchetctl.errors import OperatorError, TopologyError
from ratchetctl.topo.findings import Position
from ratchetctl.topo.tree import Items, Scalar, Table, Tree

# text_format's, whose stubs want messages where it takes texts.
Tokenizer = Any

MOST_BYTES = 64 << 20
DEEPEST = 100
MANY = 10_000  # brackets, or characters in a line: beyond this the depth is counted first
_TAG = "tag:yaml.org,2002:"

# What is repeated in kne's messages, and what is a map, told by the name alone.
REPEATED = frozenset(("nodes", "links", "command", "args"))
MAPS = frozenset(("labels", "services", "constraints", "interfaces", "env"))


def read_text(path: str) -> tuple[str, str]:
    """Read a file, or standard input for "-"; its name for messages, and its text."""
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise OperatorError(f"{name}: longer than {MOST_BYTES >> 20} MiB")
        return name, data.decode()
    except UnicodeDecodeError as error:
        raise OperatorError(f"{name}: not UTF-8 text") from error
    except OSError as error:
        raise OperatorError(f"{name}: {error.strerror}") from error


def yaml_documents(name: str, text: str) -> list[Tree]:
    """Read every document of a YAML or JSON file. Raises TopologyError."""
    try:
        if _may_be_deep(text):
            _check_depth(name, text)
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Position(name, _line_of(mark))
        raise TopologyError(f"{where}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TopologyError(f"{name}: not YAML: {str(error)[:300]}") from error
    return [_Converter(name).tree(node, 0) for node in nodes if node is not None]


def protobuf_text(name: str, text: str) -> Table:
    """Read a message in protobuf's text format. Raises TopologyError."""
    # Only kne's files need it.
    from google.protobuf import text_format  # noqa: PLC0415

    try:
        return _message(name, text_format.Tokenizer(text.splitlines()), None, 0)
    except text_format.ParseError as error:
        where = Position(name, error.GetLine() or 0)
        raise TopologyError(f"{where}: not protobuf text: {str(error).split(' : ')[-1]}") from error


def _may_be_deep(text: str) -> bool:
    brackets = text.count("[") + text.count("{")
    return brackets > MANY or max(map(len, text.splitlines()), default=0) > MANY


def _check_depth(name: str, text: str) -> None:
    """Count how deeply a text is nested, by libyaml's events, which need no recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                where = Position(name, _line_of(event.start_mark))
                raise TopologyError(f"{where}: nested more than {DEEPEST} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line_of(mark: Any) -> int:
    return mark.line + 1 if mark else 0


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """In C where that was built in."""


class _Converter:
    """PyYAML's nodes into trees, each once, however many aliases lead to it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[int, Position] = {}
        self._done: dict[int, Tree] = {}
        self._inside: set[int] = set()

    def tree(self, node: yaml.Node, depth: int) -> Tree:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        known = self._done.get(id(node))
        if known is not None:
            return known
        where = self._where(node)
        if id(node) in self._inside:
            raise TopologyError(f"{where}: what is here contains itself")
        if depth > DEEPEST:
            raise TopologyError(f"{where}: nested more than {DEEPEST} deep")
        self._inside.add(id(node))
        made: Tree
        if isinstance(node, yaml.MappingNode):
            made = Table(dict(self._entries(node, depth)), where)
        else:
            made = Items(tuple(self.tree(item, depth + 1) for item in node.value), where)
        self._inside.discard(id(node))
        self._done[id(node)] = made
        return made

    def _entries(
        self, node: yaml.MappingNode, depth: int
    ) -> Iterator[tuple[str, tuple[Scalar, Tree]]]:
        own: dict[str, tuple[Scalar, Tree]] = {}
        merged: dict[str, tuple[Scalar, Tree]] = {}
        for key_node, value_node in node.value:
            where = self._where(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise TopologyError(f"{where}: a key must be a text")
            key = self._scalar(key_node)
            value = self.tree(value_node, depth + 1)
            if key_node.tag == f"{_TAG}merge":
                for table in value.values if isinstance(value, Items) else (value,):
                    if not isinstance(table, Table):
                        raise TopologyError(f"{where}: << takes a mapping, or a list of mappings")
                    merged = {**table.entries, **merged}
                continue
            if key.text in own:
                raise TopologyError(
                    f"{where}: {key.text!a} is given twice, first in line"
                    f" {own[key.text][0].where.line}; YAML allows each key once"
                )
            own[key.text] = (key, value)
        yield from {**merged, **own}.items()

    def _scalar(self, node: yaml.ScalarNode) -> Scalar:
        kind = node.tag.removeprefix(_TAG)
        return Scalar(node.value, self._where(node), kind)

    def _where(self, node: yaml.Node) -> Position:
        line = _line_of(node.start_mark)
        found = self._lines.get(line)
        if found is None:
            found = self._lines[line] = Position(self._name, line)
        return found


def _message(name: str, tokenizer: Tokenizer, end: str | None, depth: int) -> Table:
    if depth > DEEPEST:
        raise tokenizer.ParseError(f"nested more than {DEEPEST} deep")
    start = _line(name, tokenizer)
    found: dict[str, list[tuple[Scalar, Tree]]] = {}
    while not (tokenizer.TryConsume(end) if end else tokenizer.AtEnd()):
        if end and tokenizer.AtEnd():
            raise tokenizer.ParseError(f"{end} is missing")
        where = _line(name, tokenizer)
        key = _key(tokenizer)
        colon = tokenizer.TryConsume(":")
        for tree in _values(name, tokenizer, colon, depth):
            found.setdefault(key, []).append((Scalar(key, where), tree))
        tokenizer.TryConsume(",") or tokenizer.TryConsume(";")
    return Table(
        {key: (entries[0][0], _joined(key, entries)) for key, entries in found.items()}, start
    )


def _key(tokenizer: Tokenizer) -> str:
    """Read a field's name, or in brackets that of an extension or of a message's type."""
    if not tokenizer.TryConsume("["):
        return str(tokenizer.ConsumeIdentifier())
    parts = []
    while not tokenizer.TryConsume("]"):
        if tokenizer.AtEnd():
            raise tokenizer.ParseError("] is missing")
        parts.append(str(tokenizer.token))
        tokenizer.NextToken()
    return "".join(parts)


def _values(name: str, tokenizer: Tokenizer, colon: bool, depth: int) -> Iterator[Tree]:
    if colon and tokenizer.TryConsume("["):
        while not tokenizer.TryConsume("]"):
            yield _value(name, tokenizer, depth)
            tokenizer.TryConsume(",")
        return
    if not colon and tokenizer.token not in ("{", "<"):
        raise tokenizer.ParseError(f"a colon is missing before {tokenizer.token!a}")
    yield _value(name, tokenizer, depth)


def _value(name: str, tokenizer: Tokenizer, depth: int) -> Tree:
    where = _line(name, tokenizer)
    if tokenizer.TryConsume("{"):
        return _message(name, tokenizer, "}", depth + 1)
    if tokenizer.TryConsume("<"):
        return _message(name, tokenizer, ">", depth + 1)
    ahead = tokenizer.token
    if ahead[:1] in ("'", '"'):
        try:
            return Scalar(tokenizer.ConsumeByteString().decode(), where)
        except UnicodeDecodeError as error:
            raise tokenizer.ParseErrorPreviousToken("not UTF-8 text") from error
    if ahead == "-":
        tokenizer.NextToken()
        return Scalar(f"-{_word(tokenizer)}", where, "int")
    text = _word(tokenizer)
    return Scalar(text, where, "int" if text.isdigit() else "str")


def _word(tokenizer: Tokenizer) -> str:
    token = str(tokenizer.token)
    if not token or not (token[0].isalnum() or token[0] in "_."):
        raise tokenizer.ParseError(f"unexpected {token!a}")
    tokenizer.NextToken()
    return token


def _joined(key: str, entries: list[tuple[Scalar, Tree]]) -> Tree:
    """Make of all values of a field what YAML would have written."""
    first = entries[0][1]
    if key in REPEATED:
        return Items(tuple(tree for _, tree in entries), first.where)
    if key in MAPS and all(
        isinstance(tree, Table) and "key" in tree.entries for _, tree in entries
    ):
        table = {}
        for _, tree in entries:
            assert isinstance(tree, Table)  # noqa: S101 - seen above, for the type checker
            name = tree.entries["key"][1]
            if not isinstance(name, Scalar):
                raise TopologyError(f"{name.where}: the key of a map must be a text or a number")
            empty = (name, Table({}, name.where))
            table[name.text] = (name, tree.entries.get("value", empty)[1])
        return Table(table, first.where)
    # A field that is given twice is a list; whoever wants one value will say so.
    return first if len(entries) == 1 else Items(tuple(tree for _, tree in entries), first.where)


def _line(name: str, tokenizer: Tokenizer) -> Position:
    # The tokenizer tells its line in errors only.
    return Position(name, tokenizer.ParseError("").GetLine() or 0)
