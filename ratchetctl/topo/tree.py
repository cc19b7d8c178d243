"""What a file says, with the line of every value, before anybody asks what it means.

YAML and protobuf's text format both become such trees, so that one reader serves both. `Fields`
reads a table key by key and remembers which were read: what nobody read is told, never dropped.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ratchetctl.topo.findings import Findings, Position

Item = TypeVar("Item")

MOST_ITEMS = 1_000  # of a list or table inside one node or link
LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text as it is written; `type` is str, int, float, bool, null or another YAML type."""

    text: str
    where: Position
    type: str = "str"


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    values: tuple[Tree, ...]
    where: Position


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping, in the order of the file."""

    entries: Mapping[str, tuple[Scalar, Tree]]
    where: Position


Tree = Scalar | Items | Table


def is_null(tree: Tree | None) -> bool:
    return tree is None or (isinstance(tree, Scalar) and tree.type == "null")


def shown(text: str) -> str:
    """Return a text from a file as a message may hold it."""
    text = repr(text)  # which escapes what is not printable
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...'"


@dataclass(slots=True)
class Fields:
    """A table that is read key by key; what does not fit is told and read as absent.

    `expand` is what becomes of every text, for formats with variables.
    """

    table: Table
    what: str
    findings: Findings
    expand: Callable[[Scalar], str] = lambda scalar: scalar.text
    read: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        tree: Tree | None,
        what: str,
        findings: Findings,
        expand: Callable[[Scalar], str] = lambda scalar: scalar.text,
        at: Position | None = None,
    ) -> Fields:
        """Read a tree that must be a table; nothing (null) is an empty one."""
        if isinstance(tree, Table):
            return cls(tree, what, findings, expand)
        where = tree.where if tree is not None else at or Position("", 0)
        if not is_null(tree):
            findings.error(where, f"{what} must be a mapping")
        return cls(Table({}, where), what, findings, expand)

    @property
    def where(self) -> Position:
        return self.table.where

    def at(self, key: str) -> Position:
        """Return the position of a key, or of the table where the key is absent."""
        entry = self.table.entries.get(key)
        return entry[0].where if entry else self.table.where

    def tree(self, key: str) -> Tree | None:
        """Return what a key holds; None where it is absent or null."""
        self.read.add(key)
        entry = self.table.entries.get(key)
        return None if entry is None or is_null(entry[1]) else entry[1]

    def entries(self) -> Iterator[tuple[Scalar, Tree]]:
        """Yield every key with its value; all of them count as read."""
        self.read.update(self.table.entries)
        yield from self.table.entries.values()

    def text(self, key: str) -> str | None:
        found = self.tree(key)
        if found is None:
            return None
        if not isinstance(found, Scalar):
            self.findings.error(found.where, f"{self.what}: {key} must be one text")
            return None
        return self.expand(found)

    def number(self, key: str) -> int | None:
        text = self.text(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            self.findings.error(self.at(key), f"{self.what}: {key} must be a number: {shown(text)}")
            return None
        return int(text)

    def items(self, key: str) -> tuple[Tree, ...]:
        found = self.tree(key)
        if found is None:
            return ()
        if not isinstance(found, Items):
            self.findings.error(found.where, f"{self.what}: {key} must be a list")
            return ()
        return found.values

    def scalars(self, key: str) -> list[Scalar]:
        """Return a list of texts, each with its place and expanded."""
        found = []
        for item in self._bounded(key, self.items(key)):
            if isinstance(item, Scalar):
                found.append(Scalar(self.expand(item), item.where, item.type))
            else:
                self.findings.error(item.where, f"{self.what}: {key} must be a list of texts")
        return found

    def texts(self, key: str) -> list[str]:
        return [one.text for one in self.scalars(key)]

    def fields(self, key: str) -> Fields:
        return Fields.of(
            self.tree(key), f"{self.what}: {key}", self.findings, self.expand, self.at(key)
        )

    def pairs(self, key: str) -> list[tuple[str, str]]:
        """Return a mapping of texts to texts, in the order of the file."""
        inner = self.fields(key)
        found = []
        for name, value in self._bounded(key, list(inner.entries())):
            if isinstance(value, Scalar):
                found.append((name.text, "" if is_null(value) else self.expand(value)))
            else:
                self.findings.error(value.where, f"{inner.what}: {name.text} must be a text")
        return found

    def tell_unread(self, known: Mapping[str, str]) -> None:
        """Tell of every key that nobody read: `known` says why Ratchet leaves a key alone.

        A key that is neither is an error if it looks like a misspelling, a note otherwise.
        """
        for key, (place, _) in self.table.entries.items():
            if key in self.read or key.startswith("x-"):
                continue
            if key in known:
                self.findings.note(place.where, f"{self.what}: {key} is left out: {known[key]}")
                continue
            candidates = sorted({*self.read, *known})
            near = difflib.get_close_matches(key, candidates, n=1, cutoff=0.75)
            if near:
                self.findings.error(
                    place.where,
                    f"{self.what}: {shown(key)} is not a key",
                    f"probably {near[0]} is meant",
                )
            else:
                self.findings.note(
                    place.where, f"{self.what}: {shown(key)} is left out: Ratchet does not know it"
                )

    def _bounded(self, key: str, items: Sequence[Item]) -> Sequence[Item]:
        if len(items) > MOST_ITEMS:
            self.findings.error(self.at(key), f"{self.what}: {key} has more than {MOST_ITEMS}")
            return ()
        return items
