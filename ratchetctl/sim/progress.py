"""How far a long step is: a bar on a terminal, a line now and then everywhere else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

LINE_EVERY_S = 5.0


class Progress:
    """Shows steps of known length on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def task(self, what: str, total: int, of: str = "pods") -> Iterator[Callable[[], None]]:
        """Show one step; the function that is given counts one thing as done."""
        if total == 0:
            yield lambda: None
        elif self._console.is_terminal:
            with Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
            ) as bar:
                task = bar.add_task(what, total=total)
                yield lambda: bar.advance(task)
        else:
            lines = _Lines(self._console, what, total, of)
            yield lines.advance
            lines.finish()


class _Lines:
    def __init__(self, console: Console, what: str, total: int, of: str) -> None:
        self._console, self._what, self._total, self._of = console, what, total, of
        self._done = 0
        self._started = self._said = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        if time.monotonic() - self._said >= LINE_EVERY_S and self._done < self._total:
            self._said = time.monotonic()
            self._console.print(f"{self._what}: {self._done} of {self._total}", highlight=False)

    def finish(self) -> None:
        took_s = time.monotonic() - self._started
        self._console.print(
            f"{self._what}: {self._done} of {self._total} {self._of} in {took_s:.1f} s",
            highlight=False,
        )
