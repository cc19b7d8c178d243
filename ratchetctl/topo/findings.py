"""What is wrong or left out in a topology: always with file, line and remedy.

A reader goes on after an error, so that a person sees all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ratchetctl.errors import TopologyError

MOST_SHOWN = 25


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A line of a file, from 1 up; line 0 is the file as a whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong or left out, and what to do about it."""

    where: Position
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}{'; ' + self.remedy if self.remedy else ''}"


@dataclass(slots=True)
class Findings:
    """What was found so far: errors end the command, notes are shown.

    With `leave_out` what Ratchet cannot do is left out with a note instead of being an error.
    """

    leave_out: bool = False
    errors: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def error(self, where: Position, what: str, remedy: str = "") -> None:
        self.errors.append(Finding(where, what, remedy))

    def note(self, where: Position, what: str, remedy: str = "") -> None:
        self.notes.append(Finding(where, what, remedy))

    def cannot(self, where: Position, what: str, remedy: str = "") -> None:
        """Tell of something that the file asks for and Ratchet cannot do."""
        if self.leave_out:
            self.note(where, f"left out: {what}")
        else:
            remedy = f"{remedy}, or leave it out with --leave-out" if remedy else "use --leave-out"
            self.error(where, what, remedy)

    def raise_errors(self) -> None:
        """Raise `TopologyError` with every error so far, if there is one."""
        if self.errors:
            raise TopologyError("\n".join(shown(self.errors)))


def shown(findings: Sequence[Finding]) -> list[str]:
    """Return one line for each finding, in the order of the files, and not without end."""
    lines = [str(one) for one in sorted(set(findings))]
    if len(lines) > MOST_SHOWN:
        lines = [*lines[:MOST_SHOWN], f"and {len(lines) - MOST_SHOWN} more"]
    return lines
