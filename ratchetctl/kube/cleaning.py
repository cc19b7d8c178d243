"""`kubectl ratchet clean --stale`: takes out of etcd what nodes and pods have left that are gone.

It has to reach etcd, which from outside the cluster is not possible by default: deploy/ has a
CronJob that runs it inside, and a Job can be made of that at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import click

from ratchetctl.api.client import connect
from ratchetctl.errors import EtcdError, StatusError

LEAST_PAUSE_S = 75  # a node is heard of for a minute after it said so last
_FILE = click.Path(exists=True, dir_okay=False, readable=True)
_CERTIFICATES = {"etcd_ca_cert": "ca.crt", "etcd_cert": "tls.crt", "etcd_key": "tls.key"}
_NOWHERE = (
    "nothing says where etcd is (--etcd-host or --settings). In a cluster, have it done there:\n"
    "  kubectl -n ratchet create job clean-now --from=cronjob/ratchet-clean\n"
    "  kubectl -n ratchet logs -f job/clean-now"
)


@click.command()
@click.option("--stale", is_flag=True, help="what nodes and pods have left that are gone")
@click.option("--dry-run", is_flag=True, help="only show what would be removed")
@click.option("--yes", is_flag=True, help="remove it without asking")
@click.option(
    "--pause",
    metavar="SECONDS",
    type=click.IntRange(LEAST_PAUSE_S, 3600),
    default=LEAST_PAUSE_S + 15,
    show_default=True,
    help="between the two looks",
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="ADDRESS",
    help="a node (parent_address) that is gone for good; may be given several times",
)
@click.option(
    "--no-kubernetes",
    is_flag=True,
    help="do not ask the API server which pods there are; only --node counts",
)
@click.option("--with-v010", is_flag=True, help="remove what v0.1.0 has left, too")
@click.option("--kubeconfig", type=_FILE, help="how to reach the API server")
@click.option("--context", help="which context of the kubeconfig")
@click.option(
    "--etcd-host",
    envvar="RATCHET_ETCD_SERVICE_HOST",
    help="a host, or several host[:port] separated by commas",
)
@click.option(
    "--etcd-port",
    envvar="RATCHET_ETCD_SERVICE_PORT",
    type=click.IntRange(1, 65535),
    default=2379,
    show_default=True,
)
@click.option("--prefix", default="/ratchet", show_default=True, help="etcd_prefix of the nodes")
@click.option(
    "--etcd-certificates",
    metavar="DIR",
    envvar="RATCHET_ETCD_CERTIFICATES",
    type=click.Path(file_okay=False),
    help="a folder with ca.crt, tls.crt and tls.key for etcd; without these files, none are used",
)
@click.option(
    "--settings",
    metavar="FILE",
    envvar="RATCHET_SETTINGS",
    type=click.Path(dir_okay=False),
    help="a JSON object with keys of the nodes' configuration; those about etcd are taken",
)
def clean(
    stale: bool,
    dry_run: bool,
    yes: bool,
    pause: int,
    nodes: tuple[str, ...],
    no_kubernetes: bool,
    with_v010: bool,
    kubeconfig: str | None,
    context: str | None,
    **etcd: Any,
) -> None:
    """Remove keys from etcd that nobody owns any more.

    A node's keys stay while its child is heard of in etcd, and a pod's while Kubernetes has a pod
    of that name. What is found is looked at again after a pause, and removed if nothing about it
    has changed. `ratchetctl clean` removes every key instead.
    """
    from ratchetctl.kube import removing  # noqa: PLC0415 - loads the child's store, for this alone

    if not stale:
        raise click.UsageError("say --stale; `ratchetctl clean` removes every key")
    if no_kubernetes and not nodes:
        raise click.UsageError("--no-kubernetes: name the nodes that are gone, with --node ADDRESS")
    settings = settings_of(**etcd)
    with contextlib.ExitStack() as stack:
        client = None
        if not no_kubernetes:
            client = stack.enter_context(connect(kubeconfig, context))

        def living() -> removing.Living:
            pods = None if client is None else removing.living_pods(client)
            return removing.Living(pods, frozenset(nodes))

        def wait(seconds: float) -> None:
            click.echo(f"looking again in {seconds:.0f} s ...", err=True)
            time.sleep(seconds)

        store = removing.store_of(settings)
        found = removing.look_twice(store, living, pause, wait)
        for line in removing.shown(found):
            click.echo(line)
        if not found:
            click.echo("nothing is left of nodes and pods that are gone")
            return
        if dry_run:
            click.echo("nothing was removed (--dry-run)")
            return
        if not yes:
            click.confirm("Remove these?", abort=True)
        click.echo(f"removed {removing.remove(store, found, with_old=with_v010)}")
        if found.old and not with_v010:
            click.echo("what v0.1.0 has left was kept; --with-v010 removes it")


def settings_of(
    etcd_host: str | None,
    etcd_port: int,
    prefix: str,
    etcd_certificates: str | None,
    settings: str | None,
) -> dict[str, object]:
    """Return the keys of the configuration that say where etcd is, as the installer finds them.

    *Raises* StatusError when nothing does, and EtcdError for settings that cannot be read.
    """
    given = {} if settings is None else _settings(settings)
    found = {key: value for key, value in given.items() if key.startswith("etcd_")}
    if "etcd_host" not in found:
        if etcd_host is None:
            raise StatusError(_NOWHERE)
        found |= {"etcd_host": etcd_host, "etcd_port": etcd_port}
    found.setdefault("etcd_prefix", prefix)
    folder = etcd_certificates
    if folder is not None and not any(key in found for key in _CERTIFICATES):
        paths = {key: os.path.join(folder, name) for key, name in _CERTIFICATES.items()}
        if os.path.exists(paths["etcd_ca_cert"]):
            found |= paths
    return found


def _settings(path: str) -> Mapping[str, object]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise EtcdError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise EtcdError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise EtcdError(f"{path} is not a JSON object")
    return found
