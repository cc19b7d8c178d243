"""How tables are printed, the node's and the simulator's: folded, never cut.

Names in them are by strangers, so nothing in them is taken for markup.
"""

from __future__ import annotations

import shutil
import sys

from rich.console import Console
from rich.table import Table

# Without a terminal nothing is folded: one line a link, for grep.
PIPED_WIDTH = 1000


def console() -> Console:
    """Return standard output as a console as wide as the terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def table(*columns: str) -> Table:
    """Return a table whose cells are folded, never cut, where the terminal is narrow."""
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
