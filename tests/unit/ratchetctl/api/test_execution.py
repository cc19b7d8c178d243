"""What plugins for credentials write."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ratchetctl.api import execution
from ratchetctl.api.errors import ConfigError
from ratchetctl.api.settings import Settings

V1 = "client.authentication.k8s.io/v1"
SETTINGS = Settings("lab", "default", "config", {"server": "https://10.0.0.1"}, {})
SECRET = "s3cr3t"


def written(status: Any, version: str = V1, kind: str = "ExecCredential") -> bytes:
    return json.dumps({"apiVersion": version, "kind": kind, "status": status}).encode()


def read(content: bytes) -> execution.Credential:
    return execution.read(SETTINGS, content, "login", V1)


def test_a_token_is_taken_until_it_ends() -> None:
    found = read(written({"token": SECRET, "expirationTimestamp": "2026-01-01T00:00:00Z"}))
    assert found.fields == {"token": SECRET}
    assert found.ends == 1767225600
    assert found.is_good(found.ends - 60)
    assert not found.is_good(found.ends - 1)
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00.000000000Z", "2026-01-01T00:00:00.5+00:00"],
)
def test_every_spelling_of_a_time_is_read(text: str) -> None:
    found = read(written({"token": SECRET, "expirationTimestamp": text})).ends
    assert found is not None
    assert round(found) in (1767225600, 1767225601)


def test_a_certificate_is_taken_with_its_key() -> None:
    found = read(written({"clientCertificateData": "CERT", "clientKeyData": "KEY"}))
    assert found.fields == {
        "client-certificate-data": base64.b64encode(b"CERT").decode(),
        "client-key-data": base64.b64encode(b"KEY").decode(),
    }
    assert found.ends is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "login did not write an ExecCredential"),
        (SECRET.encode(), "login did not write an ExecCredential"),
        (b"[]", "login did not write an ExecCredential"),
        (written(None), "login did not write an ExecCredential"),
        (written({"token": SECRET, "expirationTimestamp": "soon"}), "did not write"),
        (written({}), "gave neither a token nor a certificate"),
        (written({"token": SECRET}, kind="Secret"), "wrote 'Secret'"),
        (written({"token": SECRET}, "client.authentication.k8s.io/v1beta1"), "v1 was asked for"),
    ],
)
def test_what_is_no_credential_is_told_and_never_shown(content: bytes, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(content)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_versions_that_kubernetes_has_given_up_are_refused() -> None:
    spec = {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "login"}
    with pytest.raises(ConfigError, match=r"v1alpha1'.*allowed are .*v1beta1"):
        execution.run(SETTINGS, spec)


def test_a_plugin_that_wants_a_terminal_is_not_started_without() -> None:
    spec = {"apiVersion": V1, "command": "login", "interactiveMode": "Always"}
    with pytest.raises(ConfigError, match="wants a terminal"):
        execution.run(SETTINGS, spec)
