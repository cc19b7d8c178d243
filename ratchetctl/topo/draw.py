"""`ratchetctl topo random|clos|…`: networks of well-known shapes, written as definitions."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ratchetctl.topo import addresses, generate, kinds, write
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import Link, Topology
from ratchetctl.topo.names import pod_name
from ratchetctl.topo.routing.configured import configured
from ratchetctl.topo.routing.router import BGP, OSPF, PROTOCOLS

MOST_SEEDS = 1 << 32
VERSIONS = {"ipv4": (4,), "ipv6": (6,), "none": (), "both": (4, 6)}
ROUTER_KIND, HOST_KIND = "frr", "linux"
HOSTS = "host"  # how the names of hosts begin in the shapes that have them

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[F], F]


def _extend(_context: click.Context, _parameter: click.Parameter, files: Sequence[str]) -> None:
    for path in files:
        kinds.extend(path)


kinds_option = click.option(
    "--kinds",
    envvar="RATCHET_KINDS",
    multiple=True,
    type=click.Path(),
    is_eager=True,
    expose_value=False,
    callback=_extend,
    help="a file with further device kinds (also RATCHET_KINDS)",
)


def _known(name: str | None) -> str | None:
    if name is not None and name not in kinds.KINDS:
        raise click.BadParameter(f"{name!a}: the kinds are {', '.join(sorted(kinds.KINDS))}")
    return name


def addressing(default: str) -> Sequence[Callable[[Any], Any]]:
    """Return the options that hand out addresses; `default` is what links get without them."""
    return (
        click.option(
            "--addresses",
            "version",
            type=click.Choice(("none", "ipv4", "ipv6")),
            default=default,
            show_default=True,
            help="what links without addresses get: a /31 or /127 each",
        ),
        click.option(
            "--prefix-len",
            "prefix_len",
            type=click.IntRange(1, 127),
            help="a longer or shorter network for each link, as in 30",
        ),
        click.option("--pool", metavar="NETWORK", help="where the links' networks are taken from"),
        click.option(
            "--loopbacks",
            type=click.Choice(("none", "ipv4", "ipv6", "both")),
            default="none",
            show_default=True,
            help="what every node gets on lo",
        ),
    )


def addressed(
    topology: Topology, version: str, prefix_len: int | None, pool: str | None, loopbacks: str
) -> Topology:
    """Hand out what the options ask for. Raises TopologyError."""
    for number in VERSIONS[version]:
        if pool is not None:
            pool = addresses.parse_pool(pool, number)
        topology = addresses.hand_out(topology, number, prefix_len, pool)
    for number in VERSIONS[loopbacks]:
        topology = addresses.hand_out_loopbacks(topology, number)
    return topology


def register(group: click.Group) -> None:
    """Add the commands that draw."""
    for command in (random_, clos, fat_tree, ring, mesh, grid):
        group.add_command(command)


def _drawing(command: F) -> F:
    options: tuple[Callable[[Any], Any], ...] = (
        click.option("--name", help="the topology's name (default: the shape)"),
        kinds_option,
        click.option(
            "--kind",
            callback=lambda _context, _parameter, value: _known(value),
            metavar="KIND",
            help="the nodes' kind (default: linux, and frr with --routing); `kinds` lists them",
        ),
        click.option("--image", help="the nodes' image (default: the kind's)"),
        click.option(
            "--routing",
            type=click.Choice(PROTOCOLS),
            help="routers with this protocol on every link and a loopback address each",
        ),
        click.option("--ospf", "routing", flag_value=OSPF, help="the same as --routing ospf"),
        *addressing("ipv4"),
    )
    for option in reversed(options):
        command = option(command)
    return command


_prefix = click.option("--prefix", default="r", show_default=True, help="how nodes' names begin")


@click.command(name="random")
@click.argument("nodes", type=click.IntRange(min=1))
@click.argument("extra", type=click.IntRange(min=0), metavar="EXTRA_LINKS")
@click.option("--seed", type=click.IntRange(0, MOST_SEEDS - 1), help="repeats a drawing")
@_prefix
@_drawing
def random_(nodes: int, extra: int, seed: int | None, prefix: str, **drawing: Any) -> None:
    """Draw a random connected network.

    A uniform spanning tree of NODES nodes by loop-erased random walk, and EXTRA_LINKS further links
    between pairs that have none.
    """
    seed = secrets.randbelow(MOST_SEEDS) if seed is None else seed
    names = _names(nodes, prefix)
    pairs = [(names[a], names[b]) for a, b in generate.random_links(nodes, extra, seed)]
    _emit("random", names, pairs, f"ratchetctl topo random {nodes} {extra} --seed {seed}", drawing)


@click.command()
@click.argument("spines", type=click.IntRange(min=1))
@click.argument("leaves", type=click.IntRange(min=1))
@click.argument("hosts", type=click.IntRange(min=0), default=1)
@_drawing
def clos(spines: int, leaves: int, hosts: int, **drawing: Any) -> None:
    """Draw a leaf-spine network: every leaf to every spine, HOSTS at each leaf (1)."""
    names, pairs = generate.clos(spines, leaves, hosts)
    _emit("clos", names, pairs, f"ratchetctl topo clos {spines} {leaves} {hosts}", drawing)


@click.command(name="fat-tree")
@click.argument("ports", type=click.IntRange(min=2), metavar="K")
@click.option("--hosts/--no-hosts", default=True, show_default=True, help="with hosts")
@_drawing
def fat_tree(ports: int, hosts: bool, **drawing: Any) -> None:
    """Draw the fat tree of switches with K ports: 5K²/4 switches, K³/4 hosts."""
    names, pairs = generate.fat_tree(ports, hosts)
    _emit("fat-tree", names, pairs, f"ratchetctl topo fat-tree {ports}", drawing)


@click.command()
@click.argument("nodes", type=click.IntRange(min=3))
@_prefix
@_drawing
def ring(nodes: int, prefix: str, **drawing: Any) -> None:
    """Draw a ring."""
    names = _names(nodes, prefix)
    _emit("ring", names, generate.ring(names), f"ratchetctl topo ring {nodes}", drawing)


@click.command()
@click.argument("nodes", type=click.IntRange(min=1))
@_prefix
@_drawing
def mesh(nodes: int, prefix: str, **drawing: Any) -> None:
    """Draw a full mesh: a link between any two nodes."""
    names = _names(nodes, prefix)
    _emit("mesh", names, generate.mesh(names), f"ratchetctl topo mesh {nodes}", drawing)


@click.command()
@click.argument("rows", type=click.IntRange(min=1))
@click.argument("columns", type=click.IntRange(min=1))
@_drawing
def grid(rows: int, columns: int, **drawing: Any) -> None:
    """Draw a grid: every node linked with those beside, above and below it."""
    names, pairs = generate.grid(rows, columns)
    _emit("grid", names, pairs, f"ratchetctl topo grid {rows} {columns}", drawing)


def _names(count: int, prefix: str) -> list[str]:
    """Return names that need no change to be pods'."""
    if pod_name(f"{prefix}1") != f"{prefix}1":
        raise click.UsageError(f"--prefix {prefix!a}: use lower-case letters, digits and '-'")
    return generate.numbered(count, prefix)


def _emit(
    shape: str,
    names: Sequence[str],
    pairs: generate.Pairs,
    comment: str,
    drawing: dict[str, Any],
) -> None:
    """Write a drawing to standard output."""
    routing = drawing["routing"]
    kind = drawing["kind"] or (ROUTER_KIND if routing else HOST_KIND)
    image = drawing["image"] or kind_of(kind).image
    if image is None:
        raise click.UsageError(f"--kind {kind} has no image of its own: give --image")
    drawn = generate.topology(drawing["name"] or shape, names, pairs, kind, image)
    version, loopbacks = drawing["version"], drawing["loopbacks"]
    if routing:
        drawn = _with_routers(drawn, routing)
        source = click.get_current_context().get_parameter_source("version")
        if routing == BGP and source is ParameterSource.DEFAULT:
            # Its sessions need none: what is left to number are links with hosts.
            version = "none"
            drawn = addresses.hand_out(
                drawn, 4, drawing["prefix_len"], drawing["pool"], chosen=_has_host
            )
    drawn = addressed(drawn, version, drawing["prefix_len"], drawing["pool"], loopbacks)
    if routing:
        drawn = configured(_with_routes(drawn))
    for piece in write.definition(drawn, comment):
        click.echo(piece, nl=False)


def _with_routers(drawn: Topology, routing: str) -> Topology:
    """Return the drawing with its switches as routers, and its hosts as hosts."""
    host = kind_of(HOST_KIND)
    nodes = [
        replace(node, kind=HOST_KIND, image=host.image or "", command=host.command, env=host.env)
        if node.name.startswith(HOSTS)
        else replace(node, routing=routing)
        for node in drawn.nodes
    ]
    return replace(drawn, nodes=tuple(nodes))


def _with_routes(drawn: Topology) -> Topology:
    """Return the drawing with the hosts' routes to everything else in it."""
    gateways = {
        near.node: far.address
        for link in drawn.links
        for near, far in (link.ends, reversed(link.ends))
        if near.node.startswith(HOSTS) and far.address is not None
    }
    nodes = []
    for node in drawn.nodes:
        gateway = gateways.get(node.name)
        if gateway is not None:
            pools = (addresses.LINKS[gateway.version], addresses.LOOPBACKS[gateway.version])
            routes = tuple(f"ip route replace {pool} via {gateway.ip}" for pool in pools)
            node = replace(node, commands=(*node.commands, *routes))  # noqa: PLW2901 - same node, completed
        nodes.append(node)
    return replace(drawn, nodes=tuple(nodes))


def _has_host(link: Link) -> bool:
    return any(end.node.startswith(HOSTS) for end in link.ends)
