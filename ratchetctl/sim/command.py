"""`ratchetctl sim …`: the arguments and what is printed; the work is done by simulator.py."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console

from ratchetctl import tables
from ratchetctl.errors import SimError
from ratchetctl.interruption import interruptible
from ratchetctl.manifest import Manifest, read
from ratchetctl.sim import (
    configuration,
    containers,
    environment,
    etcd,
    forward,
    netns,
    runtime,
    schedule,
    status,
)
from ratchetctl.sim.directory import SimDirectory
from ratchetctl.sim.progress import Progress
from ratchetctl.sim.simulator import DEFAULT_PARALLEL, UNDERLAY, Plan, Simulator

DEFAULT_NODES = 2
# As a shell answers: execve(2) says that there is no such program, or that it cannot be run.
NOT_FOUND, NOT_EXECUTABLE = 127, 126

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
) -> None:
    """Make a cluster, and attach the pods of the files if there are any."""
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
    with interruptible():
        _simulator(name, parallel).up(plan, manifest.pods, keep=keep)
    status.show(SimDirectory(name), tables.console())


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
    """Delete pods and attach them again, as new containers."""
    with interruptible():
        _simulator(name, parallel).restart(pods, node)


@sim.command()
@click.argument("pods", nargs=-1, metavar="[POD]...")
@_files(required=True)
@_name
def run(pods: Sequence[str], files: Sequence[str], name: str) -> None:
    """Start what the pods' containers would run.

    This machine's programs run in the pods' network namespaces: FRR for a container that mounts a
    ConfigMap with an frr.conf, and the container's command for any other. Only the network is
    isolated, so run only files that you would run as root.
    """
    manifest = read(files)
    directory = SimDirectory(name)
    simulator = _simulator(name)
    wanted = {simulator.pod(pod).full_name for pod in pods}
    with interruptible(), directory.locked():
        for pod in manifest.pods:
            if wanted and pod.full_name not in wanted:
                continue
            state = simulator.pod(pod.full_name)
            for sentence in containers.run(directory, state, pod, manifest):
                click.echo(sentence)


@sim.command(name="exec")
@click.argument("target", metavar="POD")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("--node", is_flag=True, help="POD is the name of a node")
@_name
def execute(target: str, command: Sequence[str], node: bool, name: str) -> None:
    """Run a command in the network of a pod or node.

    ratchetctl ends with the exit status of the command.
    """
    directory, simulator = SimDirectory(name), _simulator(name)
    path = directory.netns(simulator.node(target).name) if node else simulator.pod(target).netns
    netns.enter_for_exec(path)
    try:
        os.execvpe(command[0], list(command), environment.without_bundle(dict(os.environ)))  # noqa: S606 - what exec is for
    except OSError as error:
        click.echo(f"ratchetctl: {command[0]}: {error.strerror}", err=True)
        sys.exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


@sim.command(name="status")
@_name
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table")
def show_status(name: str, output: str) -> None:
    """Show nodes, pods and links."""
    directory = SimDirectory(name)
    if output == "json":
        click.echo(json.dumps(status.collect(directory), indent=2))
    else:
        status.show(directory, tables.console())


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
