"""`ratchetctl topo create|apply|destroy`: the arguments, what is said, and the exit status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console

from ratchetctl.errors import TopologyError
from ratchetctl.given import only
from ratchetctl.interruption import interruptible, undone
from ratchetctl.sim import configuration, runtime
from ratchetctl.sim.progress import Progress
from ratchetctl.sim.simulator import DEFAULT_PARALLEL, Plan, Simulator
from ratchetctl.topo import check, live, on_cluster
from ratchetctl.topo.arguments import read_topology, reading
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.model import Topology
from ratchetctl.topo.placing import Place, placing

WAITS, WRONG = on_cluster.WAITS, on_cluster.WRONG
SIM_ONLY = ("runs", "parallel")
DEFAULT_NODES = 2
DEFAULT_WAIT_S = 60.0

F = TypeVar("F", bound=Callable[..., Any])


def register(group: click.Group) -> None:
    """Add the commands that work on a cluster or a simulation."""
    for command in (create, apply, destroy):
        group.add_command(command)


def _waiting(command: F) -> F:
    for option in reversed(
        (
            click.option(
                "--wait/--no-wait", default=True, show_default=True, help="wait for every link"
            ),
            click.option(
                "--timeout",
                "timeout_s",
                type=click.FloatRange(min=0),
                metavar="SECONDS",
                help=f"how long to wait at most (default: {on_cluster.DEFAULT_WAIT_S:.0f}; with"
                f" --sim {DEFAULT_WAIT_S:.0f})",
            ),
            click.option(
                "--run",
                "runs",
                is_flag=True,
                help="with --sim: set loopback addresses, start FRR and run the nodes' exec"
                " commands, with this machine's programs",
            ),
            click.option(
                "--parallel",
                default=DEFAULT_PARALLEL,
                show_default=True,
                type=click.IntRange(1, 64),
                help="with --sim: plugins that run at once on each machine",
            ),
        )
    ):
        command = option(command)
    return command


def _dry(command: F) -> F:
    return click.option(
        "--dry-run",
        "dry_run",
        type=click.Choice(on_cluster.DRY_RUNS),
        help="on a cluster: show what would be done, and ask the API server too whether it would"
        " take that (server), or not (client)",
    )(command)


@click.command()
@reading
@placing
@_waiting
@click.option(
    "--nodes", default=DEFAULT_NODES, show_default=True, help="with --sim: how many machines"
)
@click.option(
    "--plugin-dir",
    "plugin_dirs",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="with --sim: where CNI plugins are (before the usual places)",
)
@click.option(
    "--conf",
    type=click.Path(exists=True, dir_okay=False),
    help="with --sim: network configuration (.conf or .conflist) for the machines, fitted to each",
)
@click.option(
    "--boot-network",
    metavar="TYPE",
    help="with --sim: where pods get their eth0 from, for instance bridge; loopback: they have none"
    " (default: bridge if the file says anything that could use it)",
)
@_dry
def create(
    place: Place,
    wait: bool,
    timeout_s: float | None,
    runs: bool,
    parallel: int,
    nodes: int,
    plugin_dirs: Sequence[str],
    conf: str | None,
    boot_network: str | None,
    dry_run: str | None,
    **source: Any,
) -> None:
    """Bring a topology up on a cluster, or with --sim in a new simulation.

    What fails leaves nothing behind. On a cluster, pods are listed by machine at the end.
    """
    only(place.sim, "--sim", *SIM_ONLY, "nodes", "plugin_dirs", "conf", "boot_network")
    only(not place.sim, "a cluster", "dry_run")
    if conf and boot_network:
        raise click.UsageError("--boot-network is not for use with --conf, which says it")
    topology = _checked(**source)
    if not place.sim:
        on_cluster.create(place, topology, dry_run, wait, _timeout(place, timeout_s))
        return
    plan = Plan(
        nodes=nodes,
        template=configuration.read(conf) if conf else None,
        boot_network=boot_network,
        plugin_dirs=runtime.search_path(plugin_dirs),
    )
    simulator = _simulator(place, parallel)
    with interruptible():
        attached = live.create(simulator, plan, topology, place.pods_namespace, _say)
        with undone(simulator.down):
            _finish(simulator, topology, attached, place, wait, _timeout(place, timeout_s), runs)


@click.command()
@reading
@placing
@_waiting
@_dry
@click.option(
    "--force-conflicts",
    "force",
    is_flag=True,
    help="on a cluster: take over fields that somebody else manages",
)
@click.option(
    "--restart", is_flag=True, help="on a cluster: make pods anew whose files changed, too"
)
def apply(
    place: Place,
    wait: bool,
    timeout_s: float | None,
    runs: bool,
    parallel: int,
    dry_run: str | None,
    force: bool,
    restart: bool,
    **source: Any,
) -> None:
    """Make what runs what the file says: exactly the difference.

    On a cluster, links of running pods are changed in place; a pod is made anew only where a field
    changed that a running pod cannot change, and that is said first. In the simulator, pods whose
    labels change are attached anew. What is the topology's and no longer in the file is removed.
    """
    only(place.sim, "--sim", *SIM_ONLY)
    only(not place.sim, "a cluster", "dry_run", "force", "restart")
    topology = _checked(**source)
    timeout_s = _timeout(place, timeout_s)
    if not place.sim:
        on_cluster.apply(place, topology, dry_run, force, restart, wait, timeout_s)
        return
    simulator = _simulator(place, parallel)
    with interruptible():
        attached = live.apply(simulator, topology, place.pods_namespace, _say)
        _finish(simulator, topology, attached, place, wait, timeout_s, runs)


@click.command()
@reading
@placing
@_dry
def destroy(place: Place, dry_run: str | None, **source: Any) -> None:
    """Remove what is the topology's, and nothing else.

    In the simulator its pods are detached, and the simulation ends if that leaves none.
    """
    only(not place.sim, "a cluster", "dry_run")
    topology = read_topology(**source)
    if not place.sim:
        on_cluster.destroy(place, topology, dry_run)
        return
    with interruptible():
        refused = live.destroy(_simulator(place), topology.name)
    if refused:
        raise TopologyError(f"these processes could not be ended: {', '.join(map(str, refused))}")


def show(place: Place, topology: Topology) -> None:
    """Show a topology's pods in a simulation. Raises SimError."""
    found = live.reports(place.directory(), topology, place.pods_namespace)
    on_cluster.show_reports(topology, f"simulation {place.name}", found)


def _finish(
    simulator: Simulator,
    topology: Topology,
    attached: Sequence[Any],
    place: Place,
    wait: bool,
    timeout_s: float,
    runs: bool,
) -> None:
    """Start what is to run, and wait for the links."""
    if runs:
        for sentence in live.run(simulator.directory, topology, attached, place.pods_namespace):
            _say(sentence)
    if not wait:
        return
    counts = live.wait(simulator.directory, topology, timeout_s)
    up, wanted, links = counts["up"], topology.ends, len(topology.all_links)
    _say(f"{links - (max(wanted - up, 0) + 1) // 2} of {links} links are up")
    if up >= wanted:
        return
    others = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if count)
    _say(f"ends: {others}; look at `ratchetctl sim status --name {simulator.directory.name}`")
    click.get_current_context().exit(WRONG if counts["error"] else WAITS)


def _checked(**source: Any) -> Topology:
    """Read a topology that is to run: what cannot work is refused before anything is made."""
    topology = read_topology(**source)
    found = Findings()
    check.check(topology, found)
    found.raise_errors()
    return topology


def _say(text: str) -> None:
    click.echo(text, err=True)


def _timeout(place: Place, given: float | None) -> float:
    if given is not None:
        return given
    return DEFAULT_WAIT_S if place.sim else on_cluster.DEFAULT_WAIT_S


def _simulator(place: Place, parallel: int = DEFAULT_PARALLEL) -> Simulator:
    return Simulator(place.directory(), Progress(Console(stderr=True)), _say, parallel)
