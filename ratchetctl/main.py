"""`ratchetctl`, the operator's tool: a node's status, the simulator, the demo, cleaning etcd up.

Only arguments are dealt with here; each sub-command lives in a module of its own. What goes wrong
is a sentence on standard error and exit status 1, never a traceback.
"""

from __future__ import annotations

import sys

import click

from ratchet import __version__
from ratchetctl import clean, demo, status
from ratchetctl.errors import OperatorError
from ratchetctl.sim import command as sim


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ratchetctl", message="%(prog)s %(version)s")
def cli() -> None:
    """The operator's tool of Ratchet, the CNI plugin that wires pods like cables."""


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"ratchetctl {__version__}")


cli.add_command(clean.clean)
cli.add_command(demo.demo)
cli.add_command(sim.sim)
cli.add_command(status.status)


def main() -> None:
    """The console script."""
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
