"""`ratchetctl topo graph`: the arguments, and which format is written where."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ratchetctl.errors import TopologyError
from ratchetctl.given import only
from ratchetctl.topo.arguments import read_topology, reading, write_pieces
from ratchetctl.topo.graph import drawio, page, picture, svg, texts
from ratchetctl.topo.graph.seen import Seen
from ratchetctl.topo.model import Topology
from ratchetctl.topo.placing import Place, placing
from ratchetctl.topo.viewer.cluster import OnCluster
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
FILE_ONLY = ("dot", "mermaid")
DEFAULT_PORT = 8650

Look = Callable[[], Seen]


@click.command()
@reading
@click.option("--cluster", is_flag=True, help="as it runs on a cluster")
@placing
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
    cluster: bool,
    place: Place,
    **source: Any,
) -> None:
    """Draw the topology: as a page to look at, or for other programs.

    html is a page that works without a network: one file with everything in it. svg is a picture;
    dot (Graphviz), mermaid and drawio (diagrams.net) are for other programs.

    With --cluster or --sim the drawing shows on which machine each pod runs, how each link is and,
    if it is not up, why. With --serve the page stays up to date while it is open.
    """
    if cluster and place.sim:
        raise click.UsageError("give either --cluster or --sim")
    only(cluster, "--cluster", "kubeconfig", "context")
    only(cluster or place.sim, "--cluster and --sim", "namespace")
    if serve and (form_ is not None or output is not None):
        raise click.UsageError("--serve serves the page itself: leave out --to and --output")
    form = form_ or ("html" if serve else _form(output))
    if form in FILE_ONLY and (cluster or place.sim):
        raise click.UsageError(
            f"{form} shows what the file says: for what runs, take html, svg or drawio, with -o"
            " FILE.html for instance, or --serve"
        )
    topology = read_topology(**source)
    with _source(topology, place, cluster) as look:
        if serve:
            _serve(topology, port, look)
        else:
            write_pieces(output, _drawn(topology, form, look))


@contextmanager
def _source(topology: Topology, place: Place, is_cluster: bool) -> Iterator[Look | None]:
    """Give what looks at the running topology; None where a file is drawn."""
    if is_cluster:
        with place.client() as client:
            yield OnCluster(client, topology.name).look
    elif place.sim:
        place.directory().read_state()  # says when there is no simulation at all
        yield Simulation(place.name, place.pods_namespace).look
    else:
        yield None


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


def _drawn(topology: Topology, form: str, look: Look | None) -> Iterable[str]:
    if form == "dot":
        return (f"{line}\n" for line in texts.dot(topology))
    if form == "mermaid":
        return (f"{line}\n" for line in texts.mermaid(topology))
    drawing = picture.draw(topology, None if look is None else _looked(look))
    if form == "html":
        return (page.page(drawing),)
    lines = svg.svg(drawing) if form == "svg" else drawio.drawio(drawing)
    return (f"{line}\n" for line in lines)


def _looked(look: Look) -> Seen:
    seen = look()
    if seen.trouble is not None:
        raise TopologyError(seen.trouble)
    return seen


def _serve(topology: Topology, port: int, look: Look | None) -> None:
    # What `topo` turns off for commands that end soon.
    gc.enable()
    drawing = picture.draw(topology)
    with Server(port, drawing, look) as made:
        click.echo(f"{topology.name}: {made.url} (end it with Ctrl-C)")
        made.serve_forever()
