"""`ratchetctl node`: install Ratchet on this node, follow its network's changes, take it away.

The DaemonSet in deploy/ runs these commands; they work as well by hand, as root. What Kubernetes
tells a container (addresses, Services, the service account) they take from the environment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Any, TypeVar

import click

from ratchet import log
from ratchetctl.errors import InstallError
from ratchetctl.install import credentials, following, installation, trial
from ratchetctl.install.cluster import Cluster
from ratchetctl.install.credentials import ServiceAccount
from ratchetctl.install.installation import Site

# What a kubelet tells every container of the Service ratchet-etcd in its namespace.
ETCD_HOST, ETCD_PORT = "RATCHET_ETCD_SERVICE_HOST", "RATCHET_ETCD_SERVICE_PORT"
DEFAULT_ETCD_PORT = 2379
WAIT_S = 1.0
TELL_S = 30.0
CHILD_ENDS_S = 10.0  # the agent is told to end at the same moment

FOLDER = click.Path(file_okay=False)
Command = TypeVar("Command", bound=Callable[..., None])


@click.group()
def node() -> None:
    """Install Ratchet on this node, or take it away."""


def _folders(command: Command) -> Command:
    for option in (
        click.option(
            "--bin-dir",
            type=FOLDER,
            default="/opt/cni/bin",
            show_default=True,
            envvar="RATCHET_BIN_DIR",
            help="where the runtime looks for plugins",
        ),
        click.option(
            "--conf-dir",
            type=FOLDER,
            default="/etc/cni/net.d",
            show_default=True,
            envvar="RATCHET_CONF_DIR",
            help="where the runtime looks for network configurations",
        ),
    ):
        command = option(command)
    return command


def _site(command: Command) -> Command:
    for option in (
        click.option(
            "--api-server",
            metavar="URL",
            envvar="RATCHET_API_SERVER",
            help="the API server's own address, instead of the Service kubernetes",
        ),
        click.option(
            "--etcd-certificates",
            type=FOLDER,
            envvar="RATCHET_ETCD_CERTIFICATES",
            help="a folder with ca.crt, tls.crt and tls.key for etcd",
        ),
        click.option(
            "--node-address",
            metavar="ADDRESS",
            envvar="RATCHET_NODE_ADDRESS",
            help="parent_address, unless the settings name it or parent_interface",
        ),
        click.option(
            "--settings",
            "settings_file",
            metavar="FILE",
            type=click.Path(dir_okay=False),
            envvar="RATCHET_SETTINGS",
            help="a JSON object with keys of Ratchet's configuration",
        ),
        click.option(
            "--form",
            type=click.Choice(installation.FORMS),
            default=installation.FORMS[0],
            show_default=True,
            envvar="RATCHET_FORM",
            help="how Ratchet and the usual plugin are put together",
        ),
    ):
        command = option(command)
    return _folders(command)


_host_root = click.option(
    "--host-root",
    metavar="DIR",
    default="/",
    show_default=True,
    envvar="RATCHET_HOST_ROOT",
    help="the node's root directory: programs are tried, and the child's files removed there",
)


@node.command()
@_site
@click.option("--wait", is_flag=True, help="wait until there is a network configuration")
@click.option("--programs", type=FOLDER, help="the built programs (default: those beside this one)")
@_host_root
def install(wait: bool, programs: str | None, host_root: str, **told: Any) -> None:
    """Install the programs and the configuration.

    The network configuration that the runtime uses now stays as it is, and becomes the delegate of
    Ratchet's, which is a file of its own that comes first. No program is restarted. You may run
    the command again at any time, also to upgrade, and after it was interrupted.
    """
    site, cluster = _told(**told)
    log.configure(None, "info", "ratchetctl", to_stderr=True)
    if site.form != installation.AGENT:
        source = programs or _beside_this()
        if installation.install_programs(site, source, partial(trial.attempt, root=host_root)):
            log.info("the programs are installed", bin_dir=site.bin_dir)
    token = _token(cluster)
    told_at: float | None = None
    while True:
        try:
            outcome = installation.configure(site, token)
        except installation.NoNetworkError as error:
            if not wait:
                raise
            if told_at is None or time.monotonic() - told_at > TELL_S:
                log.info(str(error))
                told_at = time.monotonic()
            time.sleep(WAIT_S)
            continue
        log.info(outcome.text)
        return


@node.command()
@_site
@click.option(
    "--daemonset",
    metavar="NAME",
    help="when told to stop, take Ratchet away if this DaemonSet is gone",
)
@_host_root
def follow(daemonset: str | None, host_root: str, **told: Any) -> None:
    """Keep the configuration right until SIGTERM.

    When the configuration that Ratchet wraps changes, or the settings, certificates or tokens do,
    Ratchet's is written anew.
    """
    site, cluster = _told(**told)
    log.configure(None, "info", "ratchetctl", to_stderr=True)
    if daemonset is not None and cluster is None:
        raise InstallError("--daemonset needs a service account, which only a pod has")
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    following.run(following.Follower(site, cluster), stop)
    if daemonset is not None and cluster is not None and following.is_over(cluster, daemonset):
        installation.uninstall(site, host_root, CHILD_ENDS_S)
        log.info("Ratchet is gone from this node", conf_dir=site.conf_dir, bin_dir=site.bin_dir)


@node.command()
@_folders
def uninstall(conf_dir: str, bin_dir: str) -> None:
    """Take the configuration and the programs away.

    What was there before is there again. Links of pods that run stay until their pods go, and so
    does what Ratchet has recorded of them.
    """
    installation.uninstall(Site(os.path.abspath(conf_dir), os.path.abspath(bin_dir)), root="/")
    click.echo(f"Ratchet is gone from {conf_dir} and {bin_dir}")


def _told(
    conf_dir: str,
    bin_dir: str,
    form: str,
    settings_file: str | None,
    node_address: str | None,
    etcd_certificates: str | None,
    api_server: str | None,
) -> tuple[Site, Cluster | None]:
    environ = os.environ
    account = None
    url = api_server or credentials.api_server_of(environ)
    if url is not None and os.path.isdir(credentials.SERVICE_ACCOUNT):
        account = ServiceAccount(credentials.SERVICE_ACCOUNT, url.rstrip("/"))
    host = environ.get(ETCD_HOST)
    port = environ.get(ETCD_PORT) or str(DEFAULT_ETCD_PORT)
    if not port.isdigit():
        raise InstallError(f"{ETCD_PORT}: {port!a}: must be a port")
    site = Site(
        # The plugin has another working directory, and its configuration names these folders.
        conf_dir=os.path.abspath(conf_dir),
        bin_dir=os.path.abspath(bin_dir),
        form=form,
        settings_file=settings_file,
        node_address=node_address,
        etcd=(host, int(port)) if host else None,
        etcd_certificates=etcd_certificates,
        account=account,
    )
    return site, None if account is None else Cluster(account)


def _token(cluster: Cluster | None) -> str | None:
    """Return a token that outlives this pod; None where there is none, or none is given."""
    if cluster is None:
        return None
    try:
        return cluster.token()
    except InstallError as error:
        log.warning("the node uses the token of this pod", error=error)
        return None


def _beside_this() -> str:
    """Return the folder of built programs that this one is in. Raises InstallError."""
    if not getattr(sys, "frozen", False):
        raise InstallError("this ratchetctl is not a built one: name the programs by --programs")
    return os.path.dirname(os.path.realpath(sys.executable))
