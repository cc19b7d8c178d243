"""`ratchetctl topo random|clos|…`: networks of well-known shapes, written as definitions."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import click

from ratchetctl.topo import addresses, generate, ospf, write
from ratchetctl.topo.kinds import KINDS
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import Topology
from ratchetctl.topo.names import pod_name

MOST_SEEDS = 1 << 32
VERSIONS = {"ipv4": (4,), "ipv6": (6,), "none": (), "both": (4, 6)}
ROUTER_KIND = "frr"

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[F], F]


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
        click.option(
            "--kind",
            default="linux",
            show_default=True,
            type=click.Choice(sorted(KINDS)),
            help="the nodes' kind",
        ),
        click.option("--image", help="the nodes' image (default: the kind's)"),
        click.option(
            "--ospf",
            "with_ospf",
            is_flag=True,
            help="FRR routers with OSPF on every link and a loopback address each",
        ),
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
    with_ospf = drawing["with_ospf"]
    kind = ROUTER_KIND if with_ospf else drawing["kind"]
    image = drawing["image"] or kind_of(kind).image
    if image is None:
        raise click.UsageError(f"--kind {kind} has no image of its own: give --image")
    drawn = generate.topology(drawing["name"] or shape, names, pairs, kind, image)
    loopbacks = drawing["loopbacks"]
    if with_ospf and loopbacks == "none":
        loopbacks = "ipv4"
    drawn = addressed(drawn, drawing["version"], drawing["prefix_len"], drawing["pool"], loopbacks)
    if with_ospf:
        drawn = replace(drawn, nodes=ospf.configured(drawn))
    for piece in write.definition(drawn, comment):
        click.echo(piece, nl=False)
