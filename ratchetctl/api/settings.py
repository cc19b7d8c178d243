"""Which cluster is meant, and as whom: kubectl's rules for kubeconfigs, and a pod's own account.

As with kubectl, `--kubeconfig` names one file, KUBECONFIG several of which the first that says
something counts, ~/.kube/config is the default, and a pod without any of them uses its service
account. What stands in the chosen context is read by the parent's strict reader
(`ratchet.kubeconfig`), so both programs take and refuse the same; what only a person's kubeconfig
has (a plugin for credentials, a proxy, another identity) is read here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ratchet import kubeconfig
from ratchet.errors import PodSourceError
from ratchetctl.api.errors import ConfigError, NoConfigError

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
DEFAULT_FILE = "~/.kube/config"
DEFAULT_NAMESPACE = "default"

_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
# What is read in here, or by execution.py, and what the parent's reader would refuse.
_OWN_OF_USER = ("exec", "as", "as-uid", "as-groups", "as-user-extra")
_OWN_OF_CLUSTER = ("proxy-url",)


@dataclass(frozen=True, slots=True)
class Settings:
    """One context: a cluster, an identity and a namespace. `files` is what errors name."""

    context: str
    namespace: str
    files: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any] = field(repr=False)  # it may hold secrets
    exec_dir: str = ""  # where a relative command of the user's plugin is

    @property
    def exec(self) -> Mapping[str, Any] | None:
        """The user's plugin for credentials, if there is one and nothing that needs none."""
        found = self.user.get("exec")
        return found if isinstance(found, dict) else None

    @property
    def proxy(self) -> str | None:
        return self.cluster.get("proxy-url") or None

    def impersonation(self) -> list[tuple[str, str]]:
        """Return the headers with which the user acts as somebody else."""
        names = (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid"))
        found = [(header, str(self.user[key])) for key, header in names if self.user.get(key)]
        groups = self.user.get("as-groups") or []
        found += [("Impersonate-Group", str(group)) for group in groups]
        for name, values in (self.user.get("as-user-extra") or {}).items():
            found += [(f"Impersonate-Extra-{name}", str(value)) for value in values]
        return found

    def access(self, credentials: Mapping[str, str] | None = None) -> kubeconfig.Kubeconfig:
        """Return the cluster and identity, with what a plugin gave. Raises ConfigError."""
        cluster = {key: one for key, one in self.cluster.items() if key not in _OWN_OF_CLUSTER}
        user = {key: one for key, one in self.user.items() if key not in _OWN_OF_USER}
        whole = {
            "current-context": "one",
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
            "clusters": [{"name": "one", "cluster": cluster}],
            "users": [{"name": "one", "user": {**user, **(credentials or {})}}],
        }
        with _translated():
            return kubeconfig.parse(json.dumps(whole, default=str).encode(), self.files)


def find(
    path: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    account: str = SERVICE_ACCOUNT,
) -> Settings:
    """Return what the arguments, the environment and the files say. Raises ConfigError."""
    files = _files(path, environ)
    if not files:
        own = None if context else _in_cluster(namespace, environ, account)
        if own is None:
            raise NoConfigError(
                f"there is no kubeconfig: {DEFAULT_FILE} does not exist and KUBECONFIG names no"
                " file; name one with --kubeconfig"
            )
        return own
    with _translated():
        loaded = [(one, kubeconfig.load(one)) for one in files]
    shown = os.pathsep.join(files)
    name = context or next(
        (str(whole["current-context"]) for _, whole in loaded if whole.get("current-context")), None
    )
    if name is None:
        raise ConfigError(f"kubeconfig {shown}: current-context is missing; choose with --context")
    found, _ = _entry(loaded, shown, "contexts", "context", name)
    cluster, cluster_file = _entry(loaded, shown, "clusters", "cluster", found.get("cluster"))
    user: dict[str, Any] = {}
    user_file = shown
    if found.get("user"):
        user, user_file = _entry(loaded, shown, "users", "user", found["user"])
    return Settings(
        context=name,
        namespace=namespace or found.get("namespace") or DEFAULT_NAMESPACE,
        files=shown,
        cluster=_absolute(cluster, cluster_file),
        user=_absolute(user, user_file),
        exec_dir=os.path.dirname(os.path.abspath(user_file)),
    )


def _files(path: str | None, environ: Mapping[str, str]) -> list[str]:
    if path is not None:
        return [path]
    named = [one for one in environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    if named:
        # As with kubectl, those that are not there are left out.
        found = [one for one in named if os.path.exists(one)]
        if not found:
            raise ConfigError(f"KUBECONFIG names {os.pathsep.join(named)}, which does not exist")
        return found
    home = environ.get("HOME")
    default = os.path.join(home, ".kube", "config") if home else os.path.expanduser(DEFAULT_FILE)
    return [default] if os.path.exists(default) else []


def _in_cluster(namespace: str | None, environ: Mapping[str, str], folder: str) -> Settings | None:
    """Return a pod's own account, None outside of one."""
    host = environ.get("KUBERNETES_SERVICE_HOST")
    token = os.path.join(folder, "token")
    if not host or not os.path.exists(token):
        return None
    port = environ.get("KUBERNETES_SERVICE_PORT") or "443"
    try:
        with open(os.path.join(folder, "namespace"), encoding="utf-8") as file:
            own = file.read().strip()
    except OSError:
        own = ""
    return Settings(
        context="the pod's service account",
        namespace=namespace or own or DEFAULT_NAMESPACE,
        files=folder,
        cluster={
            "server": f"https://{f'[{host}]' if ':' in host else host}:{port}",
            "certificate-authority": os.path.join(folder, "ca.crt"),
        },
        user={"tokenFile": token},
    )


def _entry(
    loaded: list[tuple[str, dict[Any, Any]]], shown: str, list_name: str, kind: str, name: object
) -> tuple[dict[str, Any], str]:
    """Return what the first file that has it holds under a name, and that file."""
    known = []
    for path, whole in loaded:
        entries = whole.get(list_name)
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, dict):
                continue
            if entry.get("name") == name and isinstance(entry.get(kind), dict):
                return entry[kind], path
            known.append(str(entry.get("name")))
    choice = f"there are {', '.join(known[:20])}" if known else "there is none at all"
    what = f"{kind} {str(name)!a}" if name else f"name of a {kind}"
    raise ConfigError(f"kubeconfig {shown}: no {what}; {choice}")


def _absolute(fields: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the fields with paths that no longer depend on which file they stood in."""
    base = os.path.dirname(os.path.abspath(path))
    return {
        key: os.path.join(base, value)
        if key in _PATHS and isinstance(value, str) and value
        else value
        for key, value in fields.items()
    }


@contextmanager
def _translated() -> Iterator[None]:
    """Have the parent's errors be the operator's."""
    try:
        yield
    except PodSourceError as error:
        raise ConfigError(f"{error.subject}: {error.details}") from error
