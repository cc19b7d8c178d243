"""Keeps a node's configuration right for as long as the node runs.

The plugin whose configuration Ratchet has as its delegate may change it at any time: its own
DaemonSet writes the file anew when it is upgraded. Settings, certificates and tokens change, too.
Files are looked at once a second rather than watched, which costs a few system calls and works the
same on every file system.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Event

from ratchet import log
from ratchetctl.errors import InstallError
from ratchetctl.install import files, installation
from ratchetctl.install.cluster import Cluster, Wanted
from ratchetctl.install.installation import NoNetworkError, Site

PERIOD_S = 1.0
RETRY_S = 5.0
# A plugin that replaces its file by removing it first does not take long.
GRACE_S = 5.0
# Another program renames our file. It is not fought with, but given a chance to have learnt better.
PUSHED_ASIDE_S = 60.0
# The API server may know a token for 10 s after its service account has gone.
GOODBYE_S = 20.0
_ASK_AGAIN_S = 2.0
CILIUM = (
    "Cilium has renamed Ratchet's configuration, because it is to be the only one on its nodes:"
    " set its Helm value cni.exclusive to false (cni-exclusive in the ConfigMap cilium-config)"
)


class Follower:
    """Brings the configuration up to date whenever something that it is made from changes."""

    def __init__(
        self,
        site: Site,
        cluster: Cluster | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._cluster = cluster
        self._clock = clock
        self._seen: object = None
        self._try_at = 0.0
        self._missing_since: float | None = None
        self._told: str | None = None
        self._untold: str | None = None  # why the node has no token of its own

    def look(self) -> None:
        """Look once, and act on what has changed."""
        now = self._clock()
        if now < self._try_at:
            return
        try:
            self._look(now)
        except NoNetworkError as error:
            self._without_network(now, error)
        except InstallError as error:
            self._tell(str(error))
            self._seen, self._try_at = None, now + RETRY_S

    def _look(self, now: float) -> None:
        if self._push_back(now):
            return
        token = self._token()
        seen = (token, _signature(self._site))
        if seen == self._seen:
            return
        outcome = installation.configure(self._site, token)
        self._missing_since = None
        if outcome.changed or self._told is not None:
            log.info(outcome.text)
        self._told = None
        # As it is now: what has just been written is no change.
        self._seen = (token, _signature(self._site))

    def _push_back(self, now: float) -> bool:
        """Say that Cilium wants to be the only one, and wait; whether it is so."""
        aside = installation.pushed_aside(self._site.conf_dir)
        if not aside:
            return False
        self._tell(CILIUM)
        for name in aside:
            files.remove(os.path.join(self._site.conf_dir, name))
        self._seen, self._try_at = None, now + PUSHED_ASIDE_S
        return True

    def _without_network(self, now: float, error: InstallError) -> None:
        """Take ours away as well when the cluster's own plugin has taken its configuration away."""
        self._seen = None
        if self._missing_since is None:
            self._missing_since = now
        if now - self._missing_since < GRACE_S:
            return
        installation.unconfigure(self._site.conf_dir)
        self._tell(f"{error} Ratchet waits for one")

    def _token(self) -> str | None:
        if self._cluster is None:
            return None
        try:
            token = self._cluster.token()
        except InstallError as error:
            if str(error) != self._untold:
                log.warning("the node uses the token of this pod", error=error)
            self._untold = str(error)
            return None
        self._untold = None
        return token

    def _tell(self, text: str) -> None:
        """Log what is wrong once, until it is something else or over."""
        if text != self._told:
            log.error(text)
        self._told = text


def run(follower: Follower, stop: Event) -> None:
    """Follow until told to stop."""
    while not stop.is_set():
        follower.look()
        stop.wait(PERIOD_S)


def is_over(cluster: Cluster, daemonset: str, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Tell whether Ratchet is leaving the cluster, or only this pod the node.

    *Blocks at most* GOODBYE_S and a request.
    """
    tries = int(GOODBYE_S / _ASK_AGAIN_S)
    for number in range(tries):
        wanted = cluster.wants(daemonset)
        if wanted in (Wanted.YES, Wanted.NO):
            return wanted is Wanted.NO
        if number + 1 < tries:
            sleep(_ASK_AGAIN_S)
    log.warning("Ratchet stays on this node: nobody says whether it is leaving", why=wanted.value)
    return False


def _signature(site: Site) -> tuple[tuple[str, int, int, int], ...]:
    """Return what differs when one of the files has changed that the configuration is made from."""
    watched = [site.conf_dir, site.folder, os.path.join(site.folder, "etcd")]
    if site.etcd_certificates is not None:
        watched.append(site.etcd_certificates)
    if site.account is not None:
        watched.append(site.account.folder)
    paths = [os.path.join(folder, name) for folder in watched for name in files.names(folder)]
    if site.settings_file is not None:
        paths.append(site.settings_file)
    return tuple(one for path in paths if (one := _stamp(path)) is not None)


def _stamp(path: str) -> tuple[str, int, int, int] | None:
    """Return what changes with a file. The kubelet's are links to links: the file itself counts."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if os.path.isdir(path):
        return None
    return path, status.st_ino, status.st_mtime_ns, status.st_size
