"""`ratchetctl topo create|apply|destroy|show|diff` on a cluster: what is said, the exit status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console

from ratchetctl import tables
from ratchetctl.api.client import Client
from ratchetctl.errors import TopologyError
from ratchetctl.interruption import interruptible
from ratchetctl.sim.progress import Progress
from ratchetctl.topo import cluster as clusters
from ratchetctl.topo import reports
from ratchetctl.topo.cluster import Cluster
from ratchetctl.topo.model import Topology
from ratchetctl.topo.placing import Place
from ratchetctl.topo.plan import Plan, named
from ratchetctl.topo.reports import Report

WAITS, WRONG = 3, 4  # exit statuses, as `status` has them
CLIENT, SERVER = "client", "server"
DRY_RUNS = (CLIENT, SERVER)
DEFAULT_WAIT_S = 300.0  # images have to be pulled
MOST_NAMES = 8


def create(
    place: Place, topology: Topology, dry_run: str | None, wait: bool, timeout_s: float
) -> None:
    """Make a topology that is not there yet; what fails leaves nothing. Raises OperatorError."""
    with _opened(place, topology) as (client, cluster):
        plan = cluster.plan()
        if plan.changed or plan.remade or plan.unchanged or plan.removed:
            raise TopologyError(
                f"the topology {topology.name} is in the namespace {client.namespace} already;"
                " make the difference with: ratchetctl topo apply"
            )
        if _is_dry(cluster, plan, False, dry_run):
            return
        cluster.check(plan, force=False)
        try:
            with interruptible():
                cluster.carry_out(plan, force=False)
        except BaseException:
            _say("it is being removed again")
            cluster.remove(cluster.mine())
            raise
        _finish(cluster, topology, wait, timeout_s)


def apply(
    place: Place,
    topology: Topology,
    dry_run: str | None,
    force: bool,
    restart: bool,
    wait: bool,
    timeout_s: float,
) -> None:
    """Make exactly the difference. Raises OperatorError."""
    with _opened(place, topology) as (_, cluster):
        plan = cluster.plan(restart)
        for remade in plan.remade:
            _say(f"{named(remade.obj)} is made anew: {remade.why}")
        if plan.stale_files:
            names = ", ".join(plan.stale_files[:MOST_NAMES])
            more = len(plan.stale_files) - MOST_NAMES
            names += f" and {more} more" if more > 0 else ""
            _say(f"files changed of {names}; the pods go on with the old ones: --restart")
        if _is_dry(cluster, plan, force, dry_run):
            return
        cluster.check(plan, force)
        with interruptible():
            cluster.carry_out(plan, force)
        _say(plan.counted())
        _finish(cluster, topology, wait, timeout_s)


def destroy(place: Place, topology: Topology, dry_run: str | None) -> None:
    """Remove what is the topology's and nothing else. Safe to call twice."""
    with _opened(place, topology) as (client, cluster):
        mine = cluster.mine()
        if dry_run is not None:
            for one in mine:
                click.echo(f"- {named(one)}")
            if dry_run == SERVER:
                cluster.remove(mine, dry_run=True)
            return
        if not mine:
            _say(f"nothing of the topology {topology.name} is in the namespace {client.namespace}")
            return
        with interruptible():
            cluster.remove(mine)


def diff(place: Place, topology: Topology) -> bool:
    """Show what `apply` would change; whether that is anything."""
    with _opened(place, topology) as (_, cluster):
        plan = cluster.plan()
        for line in plan.lines():
            click.echo(line)
        return bool(plan)


def show(place: Place, topology: Topology) -> None:
    """Show the topology's pods by machine, and how their links are."""
    with _opened(place, topology) as (client, cluster):
        show_reports(topology, f"namespace {client.namespace}", cluster.reports())


def show_reports(topology: Topology, where: str, found: Sequence[Report]) -> None:
    """Print a table of pods; the exit status says whether all links are up."""
    links = len(topology.all_links)
    up = clusters.links_up(found, links)
    console = tables.console()
    console.print(f"{topology.name} in {where}: {len(found)} pods, {up} of {links} links are up\n")
    table = tables.table("machine", "pod", "phase", "ends up", "trouble")
    for one in sorted(found, key=lambda one: one.machine or "~"):
        ends = f"{one.up}/{one.ends}"
        table.add_row(one.machine or "-", one.name, one.phase, ends, one.trouble)
    console.print(table)
    _exit(found)


@contextmanager
def _opened(place: Place, topology: Topology) -> Iterator[tuple[Client, Cluster]]:
    with place.client() as client:
        progress = Progress(Console(stderr=True))
        yield client, Cluster(client, topology, _say, progress)


def _is_dry(cluster: Cluster, plan: Plan, force: bool, dry_run: str | None) -> bool:
    if dry_run is None:
        return False
    for line in plan.lines():
        click.echo(line)
    if dry_run == SERVER:
        cluster.check(plan, force, every=True)
        _say("the API server would take it")
    return True


def _finish(cluster: Cluster, topology: Topology, wait: bool, timeout_s: float) -> None:
    """Wait for the links, and tell where the pods are."""
    found = cluster.wait(timeout_s) if wait else cluster.reports()
    for machine, names in clusters.by_machine(found):
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        pods = "1 pod" if len(names) == 1 else f"{len(names)} pods"
        _say(f"{machine}: {pods} ({', '.join(names[:MOST_NAMES])}{more})")
    if not wait:
        return
    links = len(topology.all_links)
    _say(f"{clusters.links_up(found, links)} of {links} links are up")
    late = [one for one in found if one.state != reports.UP]
    if late and all(one.runs and not one.is_told for one in late):
        _say(
            "the pods run, but no agent has told of their links: run ratchet-child with --stay on"
            " the nodes (docs/agent.md), or use --no-wait"
        )
    else:
        for line in cluster.causes(found):
            _say(line)
    _exit(found)


def _exit(found: Sequence[Report]) -> None:
    states = {one.state for one in found}
    if reports.ERROR in states:
        click.get_current_context().exit(WRONG)
    if reports.WAITING in states:
        click.get_current_context().exit(WAITS)


def _say(text: str) -> None:
    click.echo(text, err=True)
