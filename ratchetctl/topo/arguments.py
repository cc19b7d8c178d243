"""What the commands of `ratchetctl topo` share: their arguments, and reading what they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from ratchetctl.topo import draw, findings, read
from ratchetctl.topo.draw import kinds_option
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.model import Topology
from ratchetctl.topo.routing.configured import configured
from ratchetctl.topo.routing.router import PROTOCOLS

F = TypeVar("F", bound=Callable[..., Any])


def reading(command: F) -> F:
    """Add what every command takes that reads a topology."""
    for option in reversed(
        (
            click.argument("file", metavar="FILE"),
            click.option(
                "--format",
                "form",
                type=click.Choice(read.FORMATS),
                help="the file's format (default: what its content shows)",
            ),
            click.option(
                "--leave-out",
                is_flag=True,
                help="leave out what Ratchet cannot do, with a note, instead of an error",
            ),
            *draw.addressing("none"),
            click.option(
                "--routing",
                type=click.Choice(PROTOCOLS),
                help="write configurations for routers (FRR, BIRD, GoBGP) that have none",
            ),
            kinds_option,
        )
    ):
        command = option(command)
    return command


def read_topology(
    file: str,
    form: str | None,
    leave_out: bool,
    version: str,
    prefix_len: int | None,
    pool: str | None,
    loopbacks: str,
    routing: str | None = None,
) -> Topology:
    """Read a topology as the options say, and show the notes. Raises OperatorError."""
    found = Findings(leave_out=leave_out)
    topology = read.read(file, found, form)
    for node in topology.nodes:
        for ifname, title in node.renamed:
            found.note(node.where, f"interface {title} of {node.title} becomes {ifname}")
    for line in findings.shown(found.notes):
        click.echo(f"note: {line}", err=True)
    topology = draw.addressed(topology, version, prefix_len, pool, loopbacks)
    return configured(topology, routing)


def write_pieces(output: str | None, pieces: Iterable[str]) -> None:
    """Write to a file, or to standard output where none is given."""
    if output is None:
        for piece in pieces:
            click.echo(piece, nl=False)
        return
    with open(output, "w", encoding="utf-8") as file:
        file.writelines(pieces)
