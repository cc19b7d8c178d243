"""Which interface of which pod is meant: POD:IFNAME; here, in a simulation or on a cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ratchetctl import given, node, remote, status
from ratchetctl.api import arguments
from ratchetctl.errors import StatusError
from ratchetctl.kube import reading
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
    """Give a command the argument POD:IFNAME and what says where the pod is.

    It gets a Target, or a Remote where the pod is on a cluster.
    """

    @click.argument("interface", metavar="[NAMESPACE/]POD:IFNAME")
    @click.option(
        "--cluster",
        is_flag=True,
        help="the pod is on a cluster: its node's agent does the work, reached by `kubectl exec`",
    )
    @arguments.kubeconfig
    @arguments.context
    @click.option("-n", "--namespace", help="the pod's namespace (default: the context's)")
    @click.option(
        "--system-namespace",
        "system",
        default=reading.SYSTEM_NAMESPACE,
        show_default=True,
        help="where Ratchet's agents are",
    )
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
        cluster: bool,
        kubeconfig: str | None,
        context: str | None,
        namespace: str | None,
        system: str,
        sim: bool,
        name: str,
        config_file: str | None,
        state_dir: str | None,
        **rest: Any,
    ) -> Any:
        if cluster and sim:
            raise click.UsageError("give either --cluster or --sim")
        given.only(cluster, "--cluster", "kubeconfig", "context", "namespace", "system")
        given.only(sim, "--sim", "name")
        given.only(not (cluster or sim), "this node", "config_file", "state_dir")
        if cluster:
            where = remote.Cluster(kubeconfig, context, namespace, system)
            return command(remote.find(where, *_parts(interface)), **rest)
        return command(find(interface, name if sim else None, config_file, state_dir), **rest)

    return wrapped


def find(
    interface: str, simulation: str | None, config_file: str | None, state_dir: str | None
) -> Target:
    """Return the interface that is meant. *Raises* StatusError and SimError."""
    pod, ifname = _parts(interface)
    if simulation is not None:
        return _simulated(pod, ifname, SimDirectory(simulation))
    where = node.state_dir_of(config_file, state_dir)
    return _of_node(pod, ifname, where)


def _parts(interface: str) -> tuple[str, str]:
    pod, colon, ifname = interface.rpartition(":")
    if not (pod and colon and ifname):
        raise StatusError(f"{interface!r} is no interface of a pod: write POD:IFNAME")
    return pod, ifname


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
