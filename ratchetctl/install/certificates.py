"""`ratchetctl certificates`: keeps etcd's certificates in Secrets, for the job that makes them.

The job of deploy/etcd/certificates fetches what there is into a folder, has openssl make what is
missing (certificates.sh), and publishes the folder again. Each Secret is a folder of files.
"""

from __future__ import annotations

import base64
import binascii
import os
from http import HTTPStatus

import click

from ratchetctl.errors import InstallError
from ratchetctl.install import credentials, files
from ratchetctl.install.api import MERGE, Api, said
from ratchetctl.install.credentials import ServiceAccount

SECRETS = {
    "ca": ("ratchet-etcd-ca", ("ca.crt", "ca.key")),
    "server": ("ratchet-etcd-server", ("ca.crt", "tls.crt", "tls.key")),
    "client": ("ratchet-etcd-client", ("ca.crt", "tls.crt", "tls.key")),
}
FOLDER = click.Path(file_okay=False, exists=True)


@click.group()
def certificates() -> None:
    """Keep etcd's certificates in Secrets (run by a job in the cluster)."""


@certificates.command()
@click.argument("folder", type=FOLDER)
def fetch(folder: str) -> None:
    """Write the certificates that there are into FOLDER."""
    for name in fetch_into(folder, _api()):
        click.echo(f"there is {name} already")


@certificates.command()
@click.argument("folder", type=FOLDER)
def publish(folder: str) -> None:
    """Have the Secrets hold the certificates in FOLDER."""
    for name in publish_from(folder, _api()):
        click.echo(f"{name} is written")


def fetch_into(folder: str, api: Api) -> list[str]:
    """Write what the Secrets hold; the names of those that are there. Raises InstallError."""
    found = []
    for part, (name, keys) in SECRETS.items():
        path = f"{_path(api)}/{name}"
        answer = api.ask("GET", path)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            continue
        if answer.status_code != HTTPStatus.OK:
            raise InstallError(f"{path}: the API server answers {said(answer)}")
        try:
            data = answer.json().get("data") or {}
            decoded = {key: base64.b64decode(data[key], validate=True) for key in keys}
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            # It would be made anew, and everybody who has the old one would be shut out.
            raise InstallError(f"Secret {name} does not hold {', '.join(keys)}") from error
        os.makedirs(os.path.join(folder, part), mode=0o700, exist_ok=True)
        for key, value in decoded.items():
            files.write(os.path.join(folder, part, key), value)
        found.append(name)
    return found


def publish_from(folder: str, api: Api) -> list[str]:
    """Write the Secrets; the names of those that have changed. Raises InstallError."""
    changed = []
    for part, (name, keys) in SECRETS.items():
        data = {}
        for key in keys:
            path = os.path.join(folder, part, key)
            content = files.read(path)
            if not content:
                raise InstallError(f"{path} is missing")
            data[key] = base64.b64encode(content).decode()
        if _write(api, name, data):
            changed.append(name)
    return changed


def _write(api: Api, name: str, data: dict[str, str]) -> bool:
    path = _path(api)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
    found = api.ask("GET", f"{path}/{name}")
    if found.status_code == HTTPStatus.OK and found.json().get("data") == data:
        return False
    if found.status_code == HTTPStatus.NOT_FOUND:
        answer = api.ask("POST", path, secret)
    else:
        answer = api.ask("PATCH", f"{path}/{name}", {"data": data}, MERGE)
    if answer.status_code not in (HTTPStatus.OK, HTTPStatus.CREATED):
        raise InstallError(f"Secret {name}: the API server answers {said(answer)}")
    return True


def _path(api: Api) -> str:
    namespace, _ = api.identity()
    return f"/api/v1/namespaces/{namespace}/secrets"


def _api() -> Api:
    server = credentials.api_server_of(os.environ)
    if server is None or not os.path.isdir(credentials.SERVICE_ACCOUNT):
        raise InstallError("there is no service account: this command is for a pod of the cluster")
    return Api(ServiceAccount(credentials.SERVICE_ACCOUNT, server))
