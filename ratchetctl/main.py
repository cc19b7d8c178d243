"""`ratchetctl`, the operator's tool: how it starts, and how it ends when something goes wrong.

What goes wrong is a sentence on standard error and exit status 1, never a traceback. Everything
else is loaded by `main`, because Ctrl-C while that is going on must not be one either.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the console script."""
    # What has to clean up first says so itself (interruption.py); everything else just ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import click  # noqa: PLC0415 - not before the line above

    from ratchetctl.cli import cli  # noqa: PLC0415 - likewise
    from ratchetctl.errors import OperatorError  # noqa: PLC0415 - likewise

    try:
        cli()
    except OperatorError as error:
        click.echo(f"ratchetctl: {error}", err=True)
        sys.exit(1)
    except PermissionError as error:
        click.echo(f"ratchetctl: {error.strerror or error}; are you root?", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"ratchetctl: {error}", err=True)
        sys.exit(1)
