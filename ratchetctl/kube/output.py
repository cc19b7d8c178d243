"""How rows are shown: as a table, JSON or YAML, once or as they change.

Names and reasons are by strangers: they are stripped of what a terminal would obey.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import yaml

from ratchetctl.wording import age, plain

FORMATS = ("table", "wide", "json", "yaml")
TABLES = ("table", "wide")
_PAUSE_S = 1.0  # between two pictures of what changes


@dataclass(frozen=True, slots=True)
class Table:
    """What is shown: a head, rows of cells, and the same for programs."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    objects: Sequence[dict[str, Any]]
    kind: str
    nothing: str
    """What is said when there is no row."""


option = click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="how to show it",
)


def show(table: Table, output: str) -> None:
    """Print it once."""
    if output == "json":
        click.echo(json.dumps(listed(table), indent=2))
    elif output == "yaml":
        click.echo(_yaml(listed(table)), nl=False)
    elif not table.rows:
        click.echo(table.nothing, err=True)
    else:
        _print(table.head, table.rows, with_head=True)


def show_one(obj: dict[str, Any], output: str) -> None:
    """Print one object for programs."""
    click.echo(json.dumps(obj, indent=2) if output == "json" else _yaml(obj).rstrip())


def follow(
    changes: Iterable[object], now: Callable[[], Table], output: str, *, key_columns: int
) -> None:
    """Print what there is, and then each row that is new or another one, as kubectl does it.

    A row is known by its first cells, and is another one when its object is. What changes within
    a second is shown once.
    """
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    is_first, due = True, 0.0
    for _ in changes:
        if not is_first and time.monotonic() < due:
            continue
        due = time.monotonic() + _PAUSE_S
        table = now()
        keys = [tuple(row[:key_columns]) for row in table.rows]
        news = [n for n, key in enumerate(keys) if known.get(key) != table.objects[n]]
        there = set(keys)
        gone = [key for key in known if key not in there]
        known = dict(zip(keys, table.objects, strict=True))
        if output in TABLES:
            width = len(table.head)
            left = [[*key, "gone", *[""] * (width - key_columns - 1)] for key in gone]
            _print(table.head, [*(table.rows[n] for n in news), *left], with_head=is_first)
        else:
            for n in news:
                one = table.objects[n]
                click.echo(json.dumps(one) if output == "json" else f"---\n{_yaml(one)}".rstrip())
        sys.stdout.flush()
        is_first = False


def listed(table: Table) -> dict[str, Any]:
    """Return the rows as a list that says what it holds, as Kubernetes' lists do."""
    return {"kind": table.kind, "items": list(table.objects)}


def ago(moment: float | None, now: float) -> str:
    return "-" if moment is None else "{}{}".format(*age(moment, now))


def _yaml(obj: object) -> str:
    # The C library's is ten times as fast.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(obj, Dumper=dumper, sort_keys=False, allow_unicode=True)


def _print(head: Sequence[str], rows: Sequence[Sequence[str]], *, with_head: bool) -> None:
    """Print rows as kubectl does: columns of their own widths, and lines that are never folded."""
    if not rows and not with_head:
        return
    shown = [[plain(cell) for cell in row] for row in rows]
    lines = [[title.upper() for title in head], *shown] if with_head else shown
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = "".join(
        "   ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )
    click.echo(text, nl=False)
