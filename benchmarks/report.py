"""The tables that the benchmark prints.

    python -m benchmarks.report RESULTS.json

prints those of an earlier run, in Markdown.
"""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Results
from benchmarks.targets import TARGETS


def show(results: Results, console: Console) -> None:
    _figures(results, console)
    _targets(results, console)
    for problem in results.problems:
        console.print(f"problem: {problem}")


def _figures(results: Results, console: Console) -> None:
    table = Table(title="Figures", title_justify="left")
    table.add_column("what", overflow="fold")
    for column in ("median", "p95", "min", "unit", "n", "ratio"):
        table.add_column(column, justify="left" if column == "unit" else "right", no_wrap=True)
    before = ""
    for name, series in results.series.items():
        group = name.split("/", 1)[0]
        if before and group != before:
            table.add_section()
        before = group
        ratio = results.ratio(name)
        table.add_row(
            series.text,
            number(series.median),
            number(series.p95),
            number(series.least),
            series.unit,
            str(len(series.values)),
            "" if ratio is None else f"{ratio:.2f}",
        )
    console.print(table)


def _targets(results: Results, console: Console) -> None:
    note = "a small run, not of these sizes" if results.about.get("small") else "nothing fails"
    table = Table(title=f"Targets ({note})", title_justify="left")
    for column in ("what", "limit", "aim", "this run", ""):
        table.add_column(column, overflow="fold")
    for target in TARGETS:
        value = target.value(results)
        table.add_row(
            target.text,
            f"{'>=' if target.at_least else '<='} {target.limit:g} {target.unit}",
            "" if target.aim is None else f"{target.aim:g}",
            "" if value is None else f"{number(value)} {target.unit}",
            target.verdict(results),
        )
    console.print(table)


def markdown(results: Results) -> str:
    """Return the same tables for a page of documentation."""
    lines = ["| what | median | p95 | min | unit | n | ratio |", "|---|--:|--:|--:|---|--:|--:|"]
    for name, series in results.series.items():
        ratio = results.ratio(name)
        cells = [
            series.text,
            *(number(value) for value in (series.median, series.p95, series.least)),
            series.unit,
            str(len(series.values)),
            "" if ratio is None else f"{ratio:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| target | limit | aim | this run | |", "|---|--:|--:|--:|---|"]
    for target in TARGETS:
        value = target.value(results)
        cells = [
            target.text,
            f"{'≥' if target.at_least else '≤'} {target.limit:g} {target.unit}",
            "" if target.aim is None else f"{target.aim:g}",
            "" if value is None else f"{number(value)} {target.unit}",
            target.verdict(results),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(markdown(Results.from_json(json.load(file))))
