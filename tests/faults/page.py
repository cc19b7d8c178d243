"""`python -m tests.faults.page FILE...`: put what runs have written into docs/faults.md.

Each FILE was written by a run with `--json`. The page has a block for it between two comments, and
nothing else on the page is touched: who wants other figures there makes another run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from tests.faults.runner import Healing, Report

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN = "<!-- written by `python -m tests.faults.page`; change nothing in here by hand -->"
END = "<!-- end of what was written -->"
NUMBERS = {1: "one member", 3: "three members"}  # of an etcd cluster


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.page", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a run's --json")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: docs/faults.md")
    arguments = parser.parse_args()
    try:
        reports = [_read(path) for path in arguments.files]
    except (OSError, ValueError, TypeError) as error:
        parser.error(f"what a run has written cannot be read: {error}")
    page = arguments.page.read_text(encoding="utf-8")
    try:
        page = with_block(page, block(reports))
    except ValueError as error:
        parser.error(f"{arguments.page}: {error}")
    arguments.page.write_text(page, encoding="utf-8")
    return 0


def with_block(page: str, text: str) -> str:
    """Return a page with the text between the two comments. *Raises* ValueError without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no block that begins with {BEGIN} and ends with {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def block(reports: list[Report]) -> str:
    """Return the runs' table of healing times, and one sentence for each run."""
    sizes = sorted({report.members for report in reports})
    groups = [
        [one for report in reports if report.members == size for one in report.healings]
        for size in sizes
    ]
    head = [f"{_members(size)}: times | median | worst" for size in sizes]
    lines = [
        f"| fault | {' | '.join(head)} |",
        f"|---|{'---|---|---|' * len(sizes)}",
    ]
    for fault in sorted({one.fault for group in groups for one in group}):
        cells = [fault]
        for group in groups:
            cells += _cells([one.heal_s for one in group if one.fault == fault])
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines += [f"- {_told(report)}" for report in sorted(reports, key=_order)]
    return "\n".join(lines)


def _cells(times: list[float]) -> list[str]:
    if not times:
        return ["", "", ""]
    return [str(len(times)), f"{statistics.median(times):.2f}", f"{max(times):.2f}"]


def _told(report: Report) -> str:
    killed = " and ".join(f"{count} {what}" for what, count in sorted(report.killed.items()))
    broken = ", ".join(map(str, report.broken))
    told = (
        f"Seed {report.seed}, {_members(report.members)}: {report.steps:,} steps in"
        f" {report.seconds / 60:.0f} minutes. "
        + (f"Killed in time: {killed}. " if killed else "")
        + (f"Broken steps: {broken}. " if broken else "No step was broken. ")
        + (f"It ran with {report.machine}." if report.machine else "")
    )
    return told.strip()


def _members(size: int) -> str:
    return NUMBERS.get(size, f"{size} members")


def _order(report: Report) -> tuple[int, int]:
    return report.members, report.seed


def _read(path: Path) -> Report:
    written = json.loads(path.read_text(encoding="utf-8"))
    written["healings"] = [Healing(**one) for one in written["healings"]]
    return Report(**written)


if __name__ == "__main__":
    sys.exit(main())
