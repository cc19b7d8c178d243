"""`ratchetctl sim …`: the arguments and what is printed; the work is done by simulator.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console

from ratchetctl import tables
from ratchetctl.errors import SimError
from ratchetctl.interruption import interruptible, undone
from ratchetctl.manifest import Manifest, read
from ratchetctl.sim import (
    configuration,
    containers,
    environment,
    etcd,
    forward,
    links,
    netns,
    runtime,
    sandbox,
    schedule,
    status,
)
from ratchetctl.sim.directory import SimDirectory
from ratchetctl.sim.progress import Progress
from ratchetctl.sim.simulator import DEFAULT_PARALLEL, UNDERLAY, Plan, Simulator
from ratchetctl.sim.work import Work

DEFAULT_NODES = 2
DEFAULT_WAIT_S = 60.0

F = TypeVar("F", bound=Callable[..., Any])

_name = click.option(
    "--name", default="default", show_default=True, help="the name of the simulation"
)
_parallel = click.option(
    "--parallel",
    default=DEFAULT_PARALLEL,
    show_default=True,
    type=click.IntRange(1, 64),
    help="how many plugins run at the same time on each node",
)


def _files(required: bool) -> Callable[[F], F]:
    return click.option(
        "-f",
        "--file",
        "files",
        multiple=True,
        required=required,
        help="Kubernetes YAML: a file, a folder, or - for standard input",
    )


@click.group()
def sim() -> None:
    """Make a cluster on this machine and work with it.

    Nodes and pods are network namespaces; plugins, tunnels and etcd are real. The commands need
    root. They never touch the host's own network.
    """


@sim.command()
@_files(required=False)
@_name
@_parallel
@click.option("--nodes", default=DEFAULT_NODES, show_default=True, help="how many nodes")
@click.option(
    "--node-label", "labels", multiple=True, metavar="NODE:KEY=VALUE", help="give a node a label"
)
@click.option("--etcd", "given", metavar="HOST:PORT", help="use this etcd instead of a private one")
@click.option("--etcd-prefix", default="/ratchet", show_default=True, help="the directory in etcd")
@click.option(
    "--plugin-dir",
    "plugin_dirs",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="a directory with CNI plugins, searched before the usual places",
)
@click.option(
    "--conf",
    type=click.Path(exists=True, dir_okay=False),
    help="the nodes' network configuration (.conf or .conflist), which is adapted to each node",
)
@click.option(
    "--boot-network",
    metavar="TYPE",
    help="the boot network of eligible pods, for instance loopback",
)
@click.option("--keep", is_flag=True, help="leave everything as it is when something fails")
@click.option(
    "--wait",
    "waits",
    is_flag=True,
    help="wait for every link (without it: a moment, for those whose pods are both there)",
)
@click.option(
    "--timeout",
    "timeout_s",
    default=DEFAULT_WAIT_S,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="how long to wait at most",
)
def up(
    files: Sequence[str],
    name: str,
    parallel: int,
    nodes: int,
    labels: Sequence[str],
    given: str | None,
    etcd_prefix: str,
    plugin_dirs: Sequence[str],
    conf: str | None,
    boot_network: str | None,
    keep: bool,
    waits: bool,
    timeout_s: float,
) -> None:
    """Make a cluster, and attach the pods of the files if there are any.

    Exit status: 0 every link is up, 1 the command failed and has left nothing, 2 wrong arguments,
    3 a link waits, 4 a link is in error.
    """
    if conf and boot_network:
        raise click.UsageError(
            "--boot-network is for the simulator's own configuration, not --conf"
        )
    manifest = _read(files)
    if given:
        etcd.parse_endpoint(given)
    plan = Plan(
        nodes=nodes,
        node_labels=[schedule.parse_label(label) for label in labels],
        template=configuration.read(conf) if conf else None,
        boot_network=boot_network,
        plugin_dirs=runtime.search_path(plugin_dirs),
        etcd=given,
        etcd_prefix="/" + etcd_prefix.strip("/"),
    )
    directory, simulator = SimDirectory(name), _simulator(name, parallel)
    with interruptible():
        simulator.up(plan, manifest.pods, keep=keep)
        with undone(lambda: None if keep else simulator.down()):
            links.wait(directory, timeout_s if waits else links.SETTLE_S, all_pods=waits)
    _show(directory, "table")


@sim.command()
@_files(required=True)
@_name
@_parallel
def apply(files: Sequence[str], name: str, parallel: int) -> None:
    """Attach those pods of the files that are new or have changed."""
    manifest = _read(files)
    with interruptible():
        _simulator(name, parallel).apply(manifest.pods)


@sim.command()
@click.argument("pods", nargs=-1, required=True, metavar="POD...")
@_name
@_parallel
def delete(pods: Sequence[str], name: str, parallel: int) -> None:
    """Detach pods ([NAMESPACE/]NAME) and end what runs in them."""
    with interruptible():
        _simulator(name, parallel).delete(pods)


@sim.command()
@click.argument("pods", nargs=-1, required=True, metavar="POD...")
@click.option("--node", help="attach the pods on this node instead of their own")
@_name
@_parallel
def restart(pods: Sequence[str], node: str | None, name: str, parallel: int) -> None:
    """Delete pods and attach them again, as new containers.

    What `sim run` started in a pod is started again.
    """
    directory, simulator = SimDirectory(name), _simulator(name, parallel)
    with interruptible():
        work = {pod: directory.read_work(simulator.pod(pod)) for pod in pods}
        simulator.restart(pods, node)
        again = [(simulator.pod(pod), Work.from_json(one)) for pod, one in work.items() if one]
        with directory.locked():
            for sentence in containers.run(directory, again, parallel):
                click.echo(sentence)


@sim.command()
@click.argument("pods", nargs=-1, metavar="[POD]...")
@_files(required=True)
@_name
def run(pods: Sequence[str], files: Sequence[str], name: str) -> None:
    """Start what the pods' containers would run.

    This machine's programs run in namespaces of the pods: FRR, BIRD or GoBGP for a container that
    mounts a configuration of it, and the container's command for any other. What runs already is
    ended first. Files are the machine's, so run only what you would run as root.

    What cannot run is listed, and makes the exit status 1.
    """
    manifest = read(files)
    directory = SimDirectory(name)
    simulator = _simulator(name)
    wanted = {simulator.pod(pod).full_name for pod in pods}
    chosen = [pod for pod in manifest.pods if not wanted or pod.full_name in wanted]
    with interruptible(), directory.locked():
        work = [
            (simulator.pod(pod.full_name), Work.of(pod, manifest.config_maps)) for pod in chosen
        ]
        for sentence in containers.run(directory, work, DEFAULT_PARALLEL):
            click.echo(sentence)


@sim.command(name="exec")
@click.argument("target", metavar="POD")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("--node", is_flag=True, help="POD is the name of a node")
@_name
def execute(target: str, command: Sequence[str], node: bool, name: str) -> None:
    """Run a command in a pod, or in the network of a node.

    It is one of this machine's programs, and finds the pod's own network, processes, host name and
    /run: `vtysh` reaches the router of the pod. ratchetctl ends with the command's exit status.
    """
    directory, simulator = SimDirectory(name), _simulator(name)
    environ = environment.without_bundle(dict(os.environ))
    if not node:
        pod = simulator.pod(target)
        inside = sandbox.of(directory, pod)
        status = inside.execute(command, {**environ, "HOSTNAME": pod.name})
        if os.WIFSIGNALED(status):
            _end_by(os.WTERMSIG(status))
        sys.exit(os.waitstatus_to_exitcode(status))
    netns.enter_for_exec(directory.netns(simulator.node(target).name))
    sandbox.become(command, environ)


def _end_by(number: int) -> None:
    """End as the command has, so that a shell sees it too."""
    with contextlib.suppress(OSError):  # SIGKILL has no other
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@sim.command(name="status")
@_name
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table")
def show_status(name: str, output: str) -> None:
    """Show nodes, pods and links.

    Exit status: 0 every link is up, 1 there is no simulation, 3 a link waits, 4 a link is in error.
    """
    _show(SimDirectory(name), output)


def _show(directory: SimDirectory, output: str) -> None:
    """Show the simulation, and end with an exit status that says how its links are."""
    found = status.collect(directory)
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        status.show(found, tables.console())
    click.get_current_context().exit(links.exit_status(found["pods"]))


@sim.command()
@_name
def keys(name: str) -> None:
    """Show Ratchet's keys in etcd."""
    directory = SimDirectory(name)
    prefix = directory.read_state().etcd_prefix
    for key, value in etcd.keys(directory.netns(UNDERLAY), prefix).items():
        click.echo(f"{key} = {value}")


@sim.command()
@_name
def down(name: str) -> None:
    """End a simulation and remove every trace of it.

    The command does no harm when there is no simulation.
    """
    with interruptible():
        refused = _simulator(name).down()
    if refused:
        raise SimError(f"these processes could not be ended: {', '.join(map(str, refused))}")


@sim.command(name="forward", hidden=True)
@click.argument("underlay")
@click.argument("listen")
@click.argument("target")
def forward_etcd(underlay: str, listen: str, target: str) -> None:
    """Forward TCP from the underlay to the host's network."""
    forward.serve(underlay, etcd.parse_endpoint(listen), etcd.parse_endpoint(target))


def _read(files: Sequence[str]) -> Manifest:
    manifest = read(files)
    for note in manifest.notes:
        click.echo(f"note: {note}", err=True)
    return manifest


def _simulator(name: str, parallel: int = DEFAULT_PARALLEL) -> Simulator:
    console = Console(stderr=True)
    return Simulator(
        SimDirectory(name), Progress(console), lambda text: click.echo(text, err=True), parallel
    )
