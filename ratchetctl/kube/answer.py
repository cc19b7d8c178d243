"""What `kubectl_complete-ratchet` answers kubectl, which asks it at every <Tab>.

kubectl (1.26 and newer) starts it with the words so far, and reads one proposal a line and then a
directive for the shell (cobra, "ShellCompDirective").
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from ratchetctl.errors import OperatorError
from ratchetctl.kube.command import kube
from ratchetctl.kube.completion import proposals

_NO_FILES = ":4"


def answer(words: Sequence[str]) -> None:
    """Print what may stand in place of the last word. Nothing goes wrong on a command line."""
    try:
        found = proposals(kube, [*words[:-1]], words[-1] if words else "")
    except (OperatorError, OSError, click.ClickException):
        found = []
    for one in found:
        click.echo(f"{one.value}\t{one.help}" if one.help else one.value)
    click.echo(_NO_FILES)
