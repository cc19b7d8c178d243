"""`ratchetctl topo …`: the arguments and what is printed; the work is done by the other modules."""

from __future__ import annotations

import gc
import os
from typing import Any

import click

from ratchetctl import tables
from ratchetctl.errors import TopologyError
from ratchetctl.given import only
from ratchetctl.topo import (
    check,
    diff,
    draw,
    dump,
    findings,
    kinds,
    live,
    on_cluster,
    render,
    running,
    write,
)
from ratchetctl.topo.arguments import read_topology, reading, write_pieces
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.model import Topology
from ratchetctl.topo.placing import Place, placing
from ratchetctl.topo.viewer import command as viewer

DIFFERS = 3  # exit status


@click.group()
def topo() -> None:
    """Draw a network in a few lines, and see it run.

    FILE is a topology of containerlab, k8s-topo, meshnet or kne, a GraphML file of the Internet
    Topology Zoo, labelled pods, or - for standard input.

    create, apply, destroy and diff work on the current cluster of your kubeconfig, or with --sim
    on this machine.

    Exit status: 0 done, 1 the command failed or the topology is wrong, 2 wrong arguments, 3 the
    two sides of a diff differ, or a link still waits, 4 a link or a pod is in error.
    """
    # A large topology is millions of objects that all live to the end: looking for garbage among
    # them again and again takes as long as the work.
    gc.disable()


@topo.command(name="render")
@reading
@click.option("-n", "--namespace", help="the objects' namespace (default: none is written)")
@click.option("-o", "--output", metavar="FILE", help="write to a file (default: standard output)")
def render_(namespace: str | None, output: str | None, **source: Any) -> None:
    """Write the topology as labelled pods, ConfigMaps and Services.

    `create` brings them up on a cluster; to look at them first, or for GitOps, this writes them.
    """
    topology = read_topology(**source)
    write_pieces(output, dump.documents(render.objects(topology, namespace)))


@topo.command(name="import")
@reading
@click.option("-o", "--output", metavar="FILE", help="write to a file (default: standard output)")
def import_(output: str | None, **source: Any) -> None:
    """Write any topology, or labelled pods, as a containerlab definition."""
    topology = read_topology(**source)
    files = write.needs_files(topology)
    folder = "files"
    if files and output is None:
        raise TopologyError(
            f"{topology.name}: {len(files)} files belong to the topology, the first is"
            f" {files[0][1].path} of {files[0][0].name}; write to a file with -o, and they are"
            " written beside it"
        )
    if output is not None:
        folder = os.path.basename(output).partition(".")[0] + "-files"
        base = os.path.dirname(output)
        for node, file in files:
            path = os.path.join(base, write.bind_path(folder, node, file))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_pieces(path, [file.content])
    write_pieces(output, write.definition(topology, files=folder))


@topo.command()
@reading
@click.option("--cluster", is_flag=True, help="show what runs on a cluster")
@placing
def show(cluster: bool, place: Place, **source: Any) -> None:
    """Show the nodes and links of the file, and how names were mapped.

    With --cluster or --sim: its pods by machine, and how their links are. Exit status 3: a link
    waits, 4: one is in error.
    """
    if cluster and place.sim:
        raise click.UsageError("give either --cluster or --sim")
    only(cluster, "--cluster", "kubeconfig", "context")
    only(cluster or place.sim, "--cluster and --sim", "namespace")
    topology = read_topology(**source)
    if cluster:
        on_cluster.show(place, topology)
    elif place.sim:
        running.show(place, topology)
    else:
        _show(topology)


def _show(topology: Topology) -> None:
    titles = {node.name: dict(node.renamed) for node in topology.nodes}
    nodes = tables.table("node", "kind", "image", "links", "loopback")
    _, ends = render.by_node(topology)
    for node in topology.nodes:
        name = node.name if node.name == node.title else f"{node.name} ({node.title})"
        loopbacks = " ".join(str(one) for one in node.loopbacks)
        count = str(len(ends.get(node.name, ())))
        nodes.add_row(name, node.kind, node.image, count, loopbacks)
    links = tables.table("from", "interface", "address", "to", "interface", "address")
    for link in topology.links:
        cells = []
        for end in link.ends:
            title = titles[end.node].get(end.ifname)
            ifname = f"{end.ifname} ({title})" if title else end.ifname
            cells += [end.node, ifname, str(end.address or "")]
        links.add_row(*cells)
    for uplink in topology.uplinks:
        end, far = uplink.end, f"({uplink.kind})"
        own = [end.node, end.ifname, str(end.address or "")]
        links.add_row(*own, far, uplink.device, str(uplink.address or ""))
    console = tables.console()
    console.print(f"{_counted(topology)}\n")
    console.print(nodes)
    if topology.links or topology.uplinks:
        console.print()
        console.print(links)


@topo.command(name="check")
@reading
def check_(**source: Any) -> None:
    """Look for unreachable nodes, duplicate addresses, networks that differ, MTUs.

    Errors make the exit status 1; warnings do not.
    """
    topology = read_topology(**source)
    found = Findings()
    check.check(topology, found)
    for line in findings.shown(found.notes):
        click.echo(f"warning: {line}")
    found.raise_errors()
    click.echo(f"{_counted(topology)}: well")


@topo.command(name="diff")
@reading
@click.argument("other", required=False, metavar="[OTHER]")
@placing
def diff_(other: str | None, place: Place, **source: Any) -> None:
    """Show what OTHER has that FILE has not; without OTHER what applying FILE would change.

    That is on a cluster, or with --sim in a simulation. Lines begin with + (made), - (removed), ~
    (changed in place) and ! (a pod that is made anew). Exit status 3: there is a difference.
    """
    only(other is None, "a running topology", "sim", "kubeconfig", "context", "namespace")
    topology = read_topology(**source)
    if other is not None:
        found = diff.diff(topology, read_topology(**{**source, "file": other}))
    elif place.sim:
        found = diff.diff(live.running(place.directory(), topology), topology)
    else:
        if on_cluster.diff(place, topology):
            click.get_current_context().exit(DIFFERS)
        return
    for line in found.lines():
        click.echo(line)
    if found:
        click.get_current_context().exit(DIFFERS)


@topo.command(name="kinds")
@draw.kinds_option
def kinds_() -> None:
    """List the device kinds: what a node runs, where its configuration lies."""
    shown = tables.table("kind", "image", "configuration", "router", "waits", "interfaces")
    for name, kind in sorted(kinds.KINDS.items()):
        shown.add_row(
            name,
            kind.image or "",
            kind.config_path or "",
            kind.router or "",
            "yes" if kind.waits else "",
            "\n".join(f"{rule.pattern.pattern} becomes {rule.becomes}" for rule in kind.renames),
        )
    tables.console().print(shown)


def _counted(topology: Topology) -> str:
    nodes, links = len(topology.nodes), len(topology.all_links)
    return f"{topology.name}: {nodes} node{'s' * (nodes != 1)}, {links} link{'s' * (links != 1)}"


draw.register(topo)
running.register(topo)
topo.add_command(viewer.graph)
