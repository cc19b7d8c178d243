"""A plugin for credentials: the program that a kubeconfig names under `exec`, as GKE and EKS do.

Kubernetes' own documents call the protocol client-go credential plugins: the program is told what
it is for in KUBERNETES_EXEC_INFO and writes an ExecCredential with a token, or a certificate with
its key. What it writes is never shown: it is a secret.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ratchetctl.api.errors import ConfigError
from ratchetctl.api.settings import Settings

VERSIONS = tuple(f"client.authentication.k8s.io/{one}" for one in ("v1", "v1beta1"))
INFO = "KUBERNETES_EXEC_INFO"
LONGEST_S = 300.0  # it may ask a person for a password, or open a browser
RENEW_S = 10.0  # before it ends
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Credential:
    """What a plugin gave, as fields of a kubeconfig's user; `ends` is seconds since the epoch."""

    fields: Mapping[str, str] = field(repr=False)
    ends: float | None

    def is_good(self, now: float) -> bool:
        return self.ends is None or now < self.ends - RENEW_S


def run(settings: Settings, spec: Mapping[str, Any]) -> Credential:
    """Run the plugin. *Raises* ConfigError. *Blocks at most* `LONGEST_S`."""
    version = spec.get("apiVersion")
    if version not in VERSIONS:
        raise _error(settings, f"apiVersion {version!a}: allowed are {' and '.join(VERSIONS)}")
    command = spec.get("command")
    if not isinstance(command, str) or not command:
        raise _error(settings, "command is missing")
    is_interactive = _is_interactive(settings, spec)
    environ = dict(os.environ)
    for one in spec.get("env") or ():
        environ[str(one["name"])] = str(one["value"])
    environ[INFO] = json.dumps(_info(settings, spec, version, is_interactive))
    if os.sep in command:
        command = os.path.join(settings.exec_dir, command)
    arguments = [str(one) for one in spec.get("args") or ()]
    try:
        ran = subprocess.run(
            [command, *arguments],
            env=environ,
            stdin=None if is_interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=LONGEST_S,
            check=False,
        )
    except FileNotFoundError as error:
        hint = str(spec.get("installHint") or "").strip()
        raise _error(
            settings, f"the program {command} is not there{f': {hint}' if hint else ''}"
        ) from error
    except OSError as error:
        raise _error(settings, f"the program {command} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        # Without the cause, which holds what the program wrote.
        raise _error(settings, f"{command} took longer than {LONGEST_S:.0f} s") from None
    if ran.returncode != 0:
        raise _error(settings, f"{command} ended with status {ran.returncode}")
    return read(settings, ran.stdout, command, version)


def read(settings: Settings, written: bytes, command: str, version: str) -> Credential:
    """Read what a plugin wrote. *Raises* ConfigError."""
    try:
        whole = json.loads(written[:MOST_BYTES])
        status = whole["status"]
        found_version, kind = whole["apiVersion"], whole["kind"]
        fields = {}
        if status.get("token"):
            fields["token"] = str(status["token"])
        for theirs, ours in (
            ("clientCertificateData", "client-certificate-data"),
            ("clientKeyData", "client-key-data"),
        ):
            if status.get(theirs):
                fields[ours] = base64.b64encode(status[theirs].encode()).decode()
        ends = _time(status.get("expirationTimestamp"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _error(settings, f"{command} did not write an ExecCredential") from None
    if kind != "ExecCredential" or found_version != version:
        raise _error(
            settings,
            f"{command} wrote {str(kind)[:60]!a} of {str(found_version)[:60]!a}, and ExecCredential"
            f" of {version} was asked for",
        )
    if not fields:
        raise _error(settings, f"{command} gave neither a token nor a certificate")
    return Credential(fields, ends)


def _info(
    settings: Settings, spec: Mapping[str, Any], version: str, is_interactive: bool
) -> dict[str, Any]:
    told: dict[str, Any] = {"interactive": is_interactive}
    if spec.get("provideClusterInfo"):
        told["cluster"] = _cluster(settings)
    return {"apiVersion": version, "kind": "ExecCredential", "spec": told}


def _cluster(settings: Settings) -> dict[str, Any]:
    names = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")
    found = {name: settings.cluster[name] for name in names if settings.cluster.get(name)}
    ca = settings.cluster.get("certificate-authority-data")
    path = settings.cluster.get("certificate-authority")
    if not ca and path:
        try:
            with open(path, "rb") as file:
                ca = base64.b64encode(file.read(MOST_BYTES)).decode()
        except OSError as error:
            raise _error(settings, f"cannot read {path}: {error.strerror}") from error
    if ca:
        found["certificate-authority-data"] = ca
    for one in settings.cluster.get("extensions") or ():
        if one.get("name") == "client.authentication.k8s.io/exec":
            found["config"] = one.get("extension")
    return found


def _is_interactive(settings: Settings, spec: Mapping[str, Any]) -> bool:
    mode = spec.get("interactiveMode") or "IfAvailable"
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not is_terminal:
        raise _error(settings, "the program wants a terminal (interactiveMode: Always)")
    return is_terminal and mode != "Never"


def _time(text: str | None) -> float | None:
    if text is None:
        return None
    # RFC 3339; Python 3.10 knows neither Z nor more than six digits.
    head, _, fraction = text.rstrip("Zz").partition(".")
    zone = "+00:00" if text[-1:] in "Zz" else ""
    if fraction:
        digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
        zone = zone or fraction[len(digits) :]
    return datetime.fromisoformat(f"{head}{zone}").timestamp()


def _error(settings: Settings, what: str) -> ConfigError:
    return ConfigError(f"kubeconfig {settings.files}: user.exec: {what}")
