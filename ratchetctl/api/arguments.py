"""The options by which a command lets people choose a cluster; kubectl's names and meanings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from ratchetctl.api.client import connect

kubeconfig = click.option(
    "--kubeconfig",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="how to reach the cluster (default: KUBECONFIG, else ~/.kube/config, else the pod's"
    " service account)",
)
context = click.option(
    "--context", help="which context of the kubeconfig (default: the current one)"
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --kubeconfig, --context and --namespace; it gets a `cluster`, a Client."""

    @kubeconfig
    @context
    @click.option("-n", "--namespace", help="the namespace (default: the context's)")
    @functools.wraps(command)
    def wrapped(
        kubeconfig: str | None, context: str | None, namespace: str | None, **rest: Any
    ) -> Any:
        with connect(kubeconfig, context, namespace) as cluster:
            return command(cluster=cluster, **rest)

    return wrapped
