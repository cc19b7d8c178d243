"""Where a topology runs: the options --sim and --kubeconfig, --context, --namespace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ratchetctl.api import arguments
from ratchetctl.api.client import Client, connect
from ratchetctl.api.errors import ConfigError, NoConfigError
from ratchetctl.given import only
from ratchetctl.sim.directory import SimDirectory

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Place:
    """A simulation on this machine, or a cluster."""

    sim: bool
    name: str
    namespace: str | None
    kubeconfig: str | None
    context: str | None

    @property
    def pods_namespace(self) -> str:
        """The namespace in a simulation."""
        return self.namespace or DEFAULT_NAMESPACE

    def directory(self) -> SimDirectory:
        return SimDirectory(self.name)

    def client(self) -> Client:
        """Return a client of the cluster. Raises ConfigError."""
        try:
            return connect(self.kubeconfig, self.context, self.namespace)
        except NoConfigError as error:
            raise ConfigError(f"{error}, or give --sim for the simulator") from error


def placing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say where; it gets a `place`."""

    @click.option("--sim", is_flag=True, help="on this machine, in the simulator")
    @click.option(
        "--name", default="default", show_default=True, help="with --sim: which simulation"
    )
    @arguments.kubeconfig
    @arguments.context
    @click.option(
        "-n",
        "--namespace",
        help="the pods' namespace (default: the context's; in the simulator: default)",
    )
    @functools.wraps(command)
    def wrapped(
        sim: bool,
        name: str,
        kubeconfig: str | None,
        context: str | None,
        namespace: str | None,
        **rest: Any,
    ) -> Any:
        only(not sim, "a cluster", "kubeconfig", "context")
        only(sim, "--sim", "name")
        return command(place=Place(sim, name, namespace, kubeconfig, context), **rest)

    return wrapped
