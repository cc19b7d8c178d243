"""`ratchetctl topo create|apply|destroy`: the arguments, what is said, and the exit status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console

from ratchetctl.errors import TopologyError
from ratchetctl.interruption import interruptible, undone
from ratchetctl.sim import configuration, runtime
from ratchetctl.sim.directory import SimDirectory
from ratchetctl.sim.progress import Progress
from ratchetctl.sim.simulator import DEFAULT_PARALLEL, Plan, Simulator
from ratchetctl.topo import check, live
from ratchetctl.topo.arguments import read_topology, reading, simulating
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.model import Topology

WAITS, WRONG = 3, 4  # exit statuses, as `status` has them
DEFAULT_NODES = 2
DEFAULT_WAIT_S = 60.0

F = TypeVar("F", bound=Callable[..., Any])


def register(group: click.Group) -> None:
    """Add the commands that work on a simulation."""
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
                default=DEFAULT_WAIT_S,
                show_default=True,
                type=click.FloatRange(min=0),
                metavar="SECONDS",
                help="how long to wait at most",
            ),
            click.option(
                "--run",
                "runs",
                is_flag=True,
                help="set loopback addresses, start FRR and run the nodes' exec commands, with this"
                " machine's programs",
            ),
            click.option(
                "--parallel",
                default=DEFAULT_PARALLEL,
                show_default=True,
                type=click.IntRange(1, 64),
                help="plugins that run at once on each node",
            ),
        )
    ):
        command = option(command)
    return command


@click.command()
@reading
@simulating
@_waiting
@click.option("--nodes", default=DEFAULT_NODES, show_default=True, help="how many machines")
@click.option(
    "--plugin-dir",
    "plugin_dirs",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="where CNI plugins are (before the usual places)",
)
@click.option(
    "--conf",
    type=click.Path(exists=True, dir_okay=False),
    help="network configuration (.conf or .conflist) for the machines, fitted to each",
)
def create(
    sim: bool,
    name: str,
    namespace: str,
    wait: bool,
    timeout_s: float,
    runs: bool,
    parallel: int,
    nodes: int,
    plugin_dirs: Sequence[str],
    conf: str | None,
    **source: Any,
) -> None:
    """Make a simulation and bring the topology up in it."""
    _only_sim(sim, "apply", source["file"])
    topology = _checked(**source)
    plan = Plan(
        nodes=nodes,
        template=configuration.read(conf) if conf else None,
        plugin_dirs=runtime.search_path(plugin_dirs),
    )
    simulator = _simulator(name, parallel)
    with interruptible():
        attached = live.create(simulator, plan, topology, namespace)
        with undone(simulator.down):
            _finish(simulator, topology, attached, namespace, wait, timeout_s, runs)


@click.command()
@reading
@simulating
@_waiting
def apply(
    sim: bool,
    name: str,
    namespace: str,
    wait: bool,
    timeout_s: float,
    runs: bool,
    parallel: int,
    **source: Any,
) -> None:
    """Make what runs what the file says: exactly the difference.

    Pods whose labels change are attached anew; the others are not touched.
    """
    _only_sim(sim, "apply", source["file"])
    topology = _checked(**source)
    simulator = _simulator(name, parallel)
    with interruptible():
        attached = live.apply(simulator, topology, namespace, _say)
        _finish(simulator, topology, attached, namespace, wait, timeout_s, runs)


@click.command()
@reading
@simulating
def destroy(sim: bool, name: str, namespace: str, **source: Any) -> None:  # noqa: ARG001 - as others
    """Detach the topology's pods, and end the simulation if that leaves none."""
    _only_sim(sim, "delete", source["file"])
    topology = read_topology(**source)
    with interruptible():
        refused = live.destroy(_simulator(name), topology.name)
    if refused:
        raise TopologyError(f"these processes could not be ended: {', '.join(map(str, refused))}")


def _finish(
    simulator: Simulator,
    topology: Topology,
    attached: Sequence[Any],
    namespace: str,
    wait: bool,
    timeout_s: float,
    runs: bool,
) -> None:
    """Start what is to run, and wait for the links."""
    if runs:
        for sentence in live.run(simulator.directory, topology, attached, namespace):
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


def _only_sim(sim: bool, verb: str, file: str) -> None:
    if not sim:
        raise click.UsageError(
            "give --sim for the simulator; on a cluster:"
            f" ratchetctl topo render {file} | kubectl {verb} -f -"
        )


def _say(text: str) -> None:
    click.echo(text, err=True)


def _simulator(name: str, parallel: int = DEFAULT_PARALLEL) -> Simulator:
    return Simulator(SimDirectory(name), Progress(Console(stderr=True)), _say, parallel)
