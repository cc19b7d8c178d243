"""`ratchetctl`, the operator's tool: how it starts, and how it ends when something goes wrong.

What goes wrong is a sentence on standard error and exit status 1, never a traceback. Everything
else is loaded by `main`, because Ctrl-C while that is going on must not be one either.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


def main() -> None:
    """Run the console script. Under the names of kubectl's plugin it is that one."""
    by_name = {"kubectl-ratchet": plugin, "kubectl_complete-ratchet": complete}
    by_name.get(os.path.basename(sys.argv[0]), _main)()


def plugin() -> None:
    """Run the console script `kubectl-ratchet`."""

    def command() -> None:
        from ratchetctl.kube.command import kube  # noqa: PLC0415 - see `run`

        kube(prog_name="kubectl ratchet")

    run(command, "kubectl-ratchet")


def complete() -> None:
    """Run the console script `kubectl_complete-ratchet`."""

    def command() -> None:
        from ratchetctl.kube.answer import answer  # noqa: PLC0415 - see `run`

        answer(sys.argv[1:])

    run(command, "kubectl_complete-ratchet")


def _main() -> None:
    run(_cli, "ratchetctl")


def _cli() -> None:
    from ratchetctl.cli import cli  # noqa: PLC0415 - see `run`

    cli()


def run(command: Callable[[], object], name: str) -> None:
    """Run a program of that name, whose modules are loaded by `command`."""
    # What has to clean up first says so itself (interruption.py); everything else just ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import click  # noqa: PLC0415 - not before the line above

    from ratchetctl.errors import OperatorError  # noqa: PLC0415 - likewise

    try:
        command()
    except OperatorError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(1)
    except PermissionError as error:
        click.echo(f"{name}: {error.strerror or error}; are you root?", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(1)
