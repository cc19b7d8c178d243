"""A command of ratchetctl that runs at a pod of a cluster: beside the agent of the pod's node.

What is started in an agent's container finds ratchetctl and the node. kubectl starts it there and
carries its streams: it knows every way to a cluster and both protocols of `exec`. Whoever may do
that has the agents' rights, so it takes a right of its own.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, NoReturn

import click

from ratchetctl import given
from ratchetctl.api.client import Client, connect
from ratchetctl.api.errors import ForbiddenError, MissingError
from ratchetctl.api.resources import PODS
from ratchetctl.errors import StatusError
from ratchetctl.kube import reading
from ratchetctl.kube.cluster import Pod
from ratchetctl.sim import environment

PROGRAM = "ratchetctl"
# What is to end with us hears this often that we are there.
HEARD_EVERY_S = 10.0
_NO_KUBECTL = "the program kubectl is missing, which reaches the node"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster, as a person has said it, and where Ratchet's agents are in it."""

    kubeconfig: str | None
    context: str | None
    namespace: str | None
    system: str


@dataclass(frozen=True, slots=True)
class Remote:
    """An interface of a pod of a cluster, and the agent's pod on the same node."""

    cluster: Cluster
    interface: str
    node: str
    agent: str
    program: str

    def repeat(
        self, *more: str, without: Sequence[str] = (), output: IO[bytes] | None = None
    ) -> NoReturn:
        """Run the current command there, with the options that it was given, and end as it does.

        What it writes comes to our own streams, or to `output`. It hears us until we end. Raises
        StatusError when it cannot be started.
        """
        options = given.again((*LOCATING, *without))
        status = self._run((*given.words(), self.interface, *options, *more), output)
        click.get_current_context().exit(status)

    def _run(self, command: Sequence[str], output: IO[bytes] | None) -> int:
        hearing, saying = os.pipe()
        try:
            process = subprocess.Popen(
                (*self._kubectl(), "--", self.program, *command),
                stdin=hearing,
                stdout=output,
                env=environment.without_bundle(dict(os.environ)),
            )
        except FileNotFoundError as error:
            there = f"`ratchetctl {' '.join(command)}` on {self.node}"
            raise StatusError(f"{_NO_KUBECTL}: install it, or run {there}") from error
        finally:
            os.close(hearing)
        with os.fdopen(saying, "wb", buffering=0) as voice:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(HEARD_EVERY_S)
                    # Who has read so far reads no more: an end as good as any.
                    return 0 if status == -signal.SIGPIPE else status
                with contextlib.suppress(BrokenPipeError):
                    voice.write(b"\n")

    def _kubectl(self) -> list[str]:
        cluster = self.cluster
        options = (
            ("--kubeconfig", cluster.kubeconfig),
            ("--context", cluster.context),
            ("--namespace", cluster.system),
            ("--container", reading.AGENT),
        )
        said = [word for name, value in options if value for word in (name, value)]
        return ["kubectl", "exec", "--stdin", *said, self.agent]


# The parameters of a command that say where the pod is.
LOCATING = (
    "cluster",
    "kubeconfig",
    "context",
    "namespace",
    "system",
    "sim",
    "name",
    "config_file",
    "state_dir",
)


def find(cluster: Cluster, pod: str, ifname: str) -> Remote:
    """Return an interface of a pod, [NAMESPACE/]NAME. *Raises* StatusError and ClusterError."""
    with connect(cluster.kubeconfig, cluster.context, cluster.namespace) as client:
        namespace, slash, name = pod.rpartition("/")
        found = _pod(client, namespace if slash else client.namespace, name)
        if found.node is None:
            raise StatusError(f"pod {found.full_name} has no node yet")
        agents = reading.agents(client, cluster.system)
    if agents is None:
        raise ForbiddenError(f"not allowed to list pods in namespace {cluster.system}")
    interface = f"{found.full_name}:{ifname}"
    agent = next((one for one in agents if one.node == found.node), None)
    if agent is None:
        raise StatusError(
            f"no agent of Ratchet's runs as a pod in namespace {cluster.system} on {found.node},"
            f" the node of {found.full_name}: run ratchetctl there, for {interface}, without"
            " --cluster"
        )
    if not agent.is_ready:
        why = f": {agent.why_not_ready}" if agent.why_not_ready else ""
        raise StatusError(f"the agent of {found.node}, {agent.pod}, is not ready{why}")
    if agent.programs is None:
        raise StatusError(f"the pod {agent.pod} does not say where its programs are")
    program = posixpath.join(agent.programs, PROGRAM)
    return Remote(cluster, interface, found.node, agent.pod, program)


def _pod(client: Client, namespace: str, name: str) -> Pod:
    """Return a pod by its own name, or by the one that it has to other pods."""
    try:
        found = reading.read_pod(client.get(PODS, name, namespace))
    except MissingError:
        found = None
    if found is None:
        found = reading.cluster(client, namespace).find(namespace, name)
    if found is None:
        raise StatusError(f"there is no pod {name} of Ratchet's in namespace {namespace}")
    return found
