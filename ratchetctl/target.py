"""Which interface of which pod is meant: POD:IFNAME, on this node or in a simulation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ratchetctl import node, status
from ratchetctl.errors import StatusError
from ratchetctl.sim.directory import SimDirectory


@dataclass(frozen=True, slots=True)
class Target:
    """An interface by the name that its link has for it. `pod` is the name for other pods."""

    state_dir: str
    namespace: str
    pod: str
    container_id: str
    netns: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}:{self.ifname}"


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument POD:IFNAME and what says where the pod is; it gets a Target."""

    @click.argument("interface", metavar="POD:IFNAME")
    @click.option("--sim", is_flag=True, help="the pod is in a simulation")
    @click.option("--name", default="default", show_default=True, help="the simulation's name")
    @click.option(
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        help="this node's 10-ratchet.conf or .conflist",
    )
    @click.option("--state-dir", metavar="DIR", help="the network's state directory")
    @functools.wraps(command)
    def wrapped(
        interface: str,
        sim: bool,
        name: str,
        config_file: str | None,
        state_dir: str | None,
        **rest: Any,
    ) -> Any:
        return command(find(interface, name if sim else None, config_file, state_dir), **rest)

    return wrapped


def find(
    interface: str, simulation: str | None, config_file: str | None, state_dir: str | None
) -> Target:
    """Return the interface that is meant. *Raises* StatusError and SimError."""
    pod, colon, ifname = interface.rpartition(":")
    if not (pod and colon and ifname):
        raise StatusError(f"{interface!r} is no interface of a pod: write POD:IFNAME")
    if simulation is not None:
        return _simulated(pod, ifname, SimDirectory(simulation))
    where = node.state_dir_of(config_file, state_dir)
    return _of_node(pod, ifname, where)


def _simulated(pod: str, ifname: str, directory: SimDirectory) -> Target:
    namespace, slash, short = pod.rpartition("/")
    found = directory.read_pod(namespace if slash else "default", short)
    if found is None:
        directory.read_state()  # says when there is no simulation at all
        known = ", ".join(one.full_name for one in directory.pods()[:20]) or "none"
        raise StatusError(f"no pod {pod!r} in the simulation {directory.name!r}: there are {known}")
    where = directory.state_dir(found.node)
    for one in node.read(where).pods:
        if one.container_id == found.container_id:
            return _target(where, one, ifname)
    raise StatusError(f"pod {pod} of the simulation {directory.name!r} has no links")


def _of_node(pod: str, ifname: str, state_dir: str) -> Target:
    found = node.read(state_dir)
    named = [one for one in status.named(found, pod) if one.state != node.SUPERSEDED]
    if len(named) != 1:
        names = ", ".join(one.full_name for one in named) or "superseded ones only"
        raise StatusError(f"{pod!r} is more than one pod or none: there are {names}")
    return _target(state_dir, named[0], ifname)


def _target(state_dir: str, pod: node.Pod, ifname: str) -> Target:
    return Target(state_dir, pod.namespace, pod.name, pod.container_id, pod.netns, ifname)
