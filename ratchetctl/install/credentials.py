"""What a node needs to be known to the API server and to etcd, as files beside the configurations.

A pod's token, certificates and addresses reach the installer as files and variables of its
container; the plugin runs outside of it, so they are copied to the node, and again whenever they
change. All of it lies in one folder, which only root can read: NET_D/ratchet.node.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ratchetctl.errors import InstallError
from ratchetctl.install import files

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
FOLDER = "ratchet.node"
KUBECONFIG = "ratchet.kubeconfig"
TOKEN = "token"  # noqa: S105 - a file's name
CA = "ca.crt"
_CLUSTER = "cluster"
_USER = "ratchet"
# As a Secret of the type kubernetes.io/tls has them, with its CA.
_ETCD_FOLDER = "etcd"
_ETCD_FILES = {"etcd_ca_cert": "ca.crt", "etcd_cert": "tls.crt", "etcd_key": "tls.key"}


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account's folder as the kubelet mounts it, and the API server's address."""

    folder: str
    api_server: str

    @property
    def ca_path(self) -> str:
        return os.path.join(self.folder, CA)

    @property
    def token_path(self) -> str:
        return os.path.join(self.folder, TOKEN)

    def token(self) -> str:
        """Return the pod's own token. Raises InstallError."""
        found = files.read(self.token_path)
        if not found or not found.strip():
            raise InstallError(f"{self.token_path}: the service account's token is missing")
        return found.decode("ascii", "replace").strip()

    def ca(self) -> bytes:
        """Return the API server's authority. Raises InstallError."""
        found = files.read(self.ca_path)
        if not found:
            raise InstallError(f"{self.ca_path}: the API server's authority is missing")
        return found


def api_server_of(environ: Mapping[str, str]) -> str | None:
    """Return the API server's URL as every container is told it; None outside of one."""
    host = environ.get("KUBERNETES_SERVICE_HOST")
    if not host:
        return None
    port = environ.get("KUBERNETES_SERVICE_PORT") or "443"
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def write_kubeconfig(folder: str, account: ServiceAccount, token: str) -> str:
    """Write a kubeconfig, the files that it names first; its path."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    ca, token_file = os.path.join(folder, CA), os.path.join(folder, TOKEN)
    files.write(ca, account.ca())
    files.write(token_file, token.encode())
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": _CLUSTER,
                "cluster": {"server": account.api_server, "certificate-authority": ca},
            }
        ],
        "users": [{"name": _USER, "user": {"tokenFile": token_file}}],
        "contexts": [{"name": _CLUSTER, "context": {"cluster": _CLUSTER, "user": _USER}}],
        "current-context": _CLUSTER,
    }
    path = os.path.join(folder, KUBECONFIG)
    files.write(path, (json.dumps(whole, indent=2) + "\n").encode())
    return path


def copy_etcd(folder: str, source: str) -> dict[str, str]:
    """Copy etcd's certificates to the node; the keys of the configuration that name them."""
    found = {}
    for name in _ETCD_FILES.values():
        path = os.path.join(source, name)
        data = files.read(path)
        if data is None:
            raise InstallError(f"{path}: a certificate for etcd is missing")
        found[name] = data
    target = os.path.join(folder, _ETCD_FOLDER)
    for made in (folder, target):
        os.makedirs(made, mode=0o700, exist_ok=True)
    for name, data in found.items():
        files.write(os.path.join(target, name), data)
    return {key: os.path.join(target, name) for key, name in _ETCD_FILES.items()}
