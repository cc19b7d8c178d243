"""`ratchetctl topo graph`: the arguments, and which format is written where."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from typing import Any

import click

from ratchetctl.errors import TopologyError
from ratchetctl.sim.directory import SimDirectory
from ratchetctl.topo.arguments import read_topology, reading, write_pieces
from ratchetctl.topo.graph import drawio, page, picture, svg, texts
from ratchetctl.topo.graph.seen import Seen
from ratchetctl.topo.model import Topology
from ratchetctl.topo.viewer.server import Server
from ratchetctl.topo.viewer.simulation import Simulation

FORMATS = ("html", "svg", "dot", "mermaid", "drawio")
ENDINGS = {
    ".html": "html",
    ".htm": "html",
    ".svg": "svg",
    ".dot": "dot",
    ".gv": "dot",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".drawio": "drawio",
}
DEFAULT_PORT = 8650


@click.command()
@reading
@click.option("--sim", is_flag=True, help="as it runs in the simulator of this machine")
@click.option("--name", default="default", show_default=True, help="with --sim: which simulation")
@click.option(
    "-n",
    "--namespace",
    default="default",
    show_default=True,
    help="with --sim: the pods' namespace",
)
@click.option(
    "-t",
    "--to",
    "form_",
    type=click.Choice(FORMATS),
    help="the drawing's format (default: what the name of -o ends with, else dot)",
)
@click.option("-o", "--output", metavar="FILE", help="write to a file (default: standard output)")
@click.option("--serve", is_flag=True, help="serve the page to browsers on this machine")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="of 127.0.0.1, for --serve; 0 is any that is free",
)
def graph(
    form_: str | None,
    output: str | None,
    serve: bool,
    port: int,
    sim: bool,
    name: str,
    namespace: str,
    **source: Any,
) -> None:
    """Draw the topology: as a page to look at, or for other programs.

    html is a page that works without a network: one file with everything in it. svg is a picture;
    dot (Graphviz), mermaid and drawio (diagrams.net) are for other programs.

    With --sim the drawing shows on which machine each pod runs, how each link is and, if it is not
    up, why. With --serve the page stays up to date while it is open.
    """
    if serve and (form_ is not None or output is not None):
        raise click.UsageError("--serve serves the page itself: leave out --to and --output")
    topology = read_topology(**source)
    running = None
    if sim:
        SimDirectory(name).read_state()  # says when there is no simulation at all
        running = Simulation(name, namespace)
    if serve:
        _serve(topology, port, running)
        return
    form = form_ or _form(output)
    write_pieces(output, _drawn(topology, form, running))


def _form(output: str | None) -> str:
    if output is None:
        return "dot"
    ending = os.path.splitext(output)[1].lower()
    if ending not in ENDINGS:
        raise click.UsageError(
            f"--output {output}: the name does not tell the format; let it end with"
            f" {', '.join(ENDINGS)}, or give --to"
        )
    return ENDINGS[ending]


def _drawn(topology: Topology, form: str, running: Simulation | None) -> Iterable[str]:
    if form == "dot":
        return (f"{line}\n" for line in texts.dot(topology))
    if form == "mermaid":
        return (f"{line}\n" for line in texts.mermaid(topology))
    drawing = picture.draw(topology, None if running is None else _looked(running))
    if form == "html":
        return (page.page(drawing),)
    lines = svg.svg(drawing) if form == "svg" else drawio.drawio(drawing)
    return (f"{line}\n" for line in lines)


def _looked(running: Simulation) -> Seen:
    seen = running.look()
    if seen.trouble is not None:
        raise TopologyError(seen.trouble)
    return seen


def _serve(topology: Topology, port: int, running: Simulation | None) -> None:
    # What `topo` turns off for commands that end soon.
    gc.enable()
    drawing = picture.draw(topology)
    with Server(port, drawing, None if running is None else running.look) as made:
        click.echo(f"{topology.name}: {made.url} (end it with Ctrl-C)")
        made.serve_forever()
