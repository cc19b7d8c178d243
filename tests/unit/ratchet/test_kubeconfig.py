"""What is read from a kubeconfig, and how it is told what is not supported."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import PodSourceError
from ratchet.kubeconfig import Kubeconfig, Material, parse, read

SERVER = "https://10.96.0.1:6443"
SECRET = "s3cr3t"


def whole(cluster: Any = None, user: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "node",
        "contexts": [
            {"name": "other", "context": {"cluster": "other", "user": "other"}},
            {"name": "node", "context": {"cluster": "here", "user": "me"}},
        ],
        "clusters": [{"name": "here", "cluster": {"server": SERVER} | (cluster or {})}],
        "users": [{"name": "me", "user": {"token": SECRET} if user is None else user}],
    } | more


def reading(value: Any) -> Kubeconfig:
    return parse(json.dumps(value).encode(), "/etc/cni/net.d/kubeconfig")


def refusal(value: Any) -> str:
    with pytest.raises(PodSourceError) as caught:
        reading(value)
    said = str(caught.value)
    assert "/etc/cni/net.d/kubeconfig" in said
    assert SECRET not in said
    return said


def test_json_and_yaml_are_the_same() -> None:
    value = whole({"certificate-authority": "/ca.crt"})
    assert parse(yaml.safe_dump(value).encode(), "/etc/cni/net.d/kubeconfig") == reading(value)


def test_the_current_context_is_read() -> None:
    config = reading(whole({"server": f"{SERVER}/", "tls-server-name": "kubernetes"}))
    assert config == Kubeconfig(
        server=SERVER,
        ca=None,
        verify=True,
        tls_server_name="kubernetes",
        token=SECRET,
        certificate=None,
        key=None,
        files=("/etc/cni/net.d/kubeconfig",),
    )


def test_paths_are_relative_to_the_kubeconfig() -> None:
    config = reading(
        whole(
            {"certificate-authority": "pki/ca.crt"},
            {"client-certificate": "/me.crt", "client-key": "../me.key"},
        )
    )
    assert config.ca == Material("/etc/cni/net.d/pki/ca.crt", None)
    assert config.files[1:] == (
        "/etc/cni/net.d/pki/ca.crt",
        "/me.crt",
        "/etc/cni/net.d/../me.key",
    )


def test_content_goes_before_files() -> None:
    data = base64.encodebytes(b"x" * 100).decode()
    config = reading(whole({"certificate-authority": "/ca", "certificate-authority-data": data}))
    assert config.ca == Material(None, b"x" * 100)
    assert config.files == ("/etc/cni/net.d/kubeconfig",)


def test_a_token_file_goes_before_a_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" from-file\n")
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(whole(user={"token": SECRET, "tokenFile": "token"})))
    config = read(str(path))
    assert config.token == "from-file"
    assert config.files == (str(path), str(tmp_path / "token"))


def test_a_context_without_a_user_is_nobody() -> None:
    contexts = [{"name": "node", "context": {"cluster": "here"}}]
    assert reading(whole(contexts=contexts, users=None)).token is None


def test_secrets_are_not_shown() -> None:
    key = base64.b64encode(SECRET.encode()).decode()
    shown = repr(reading(whole(user={"client-certificate-data": key, "client-key-data": key})))
    assert SECRET not in shown + repr(reading(whole()))
    assert key not in shown


@pytest.mark.parametrize(
    "field",
    ["exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra"],
)
def test_what_is_not_supported_in_a_user_is_named(field: str) -> None:
    said = refusal(whole(user={"token": SECRET, field: SECRET}))
    assert f"user.{field} is not supported" in said


def test_what_is_not_supported_in_a_cluster_is_named() -> None:
    assert "cluster.proxy-url is not supported" in refusal(whole({"proxy-url": "http://p"}))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([], "not an object"),
        ({}, "current-context is missing"),
        (whole(**{"current-context": "none"}), "contexts has no entry named 'none'"),
        (whole(**{"current-context": 1}), "current-context has to be a string"),
        (whole(contexts={}), "contexts has to be a list"),
        (whole(contexts=[{"name": "node"}]), "contexts has no context under 'node'"),
        (whole(clusters=[None, 1]), "clusters has no entry named 'here'"),
        (whole(users=[]), "users has no entry named 'me'"),
        (whole({"server": None}), "cluster.server is missing"),
        (whole({"server": 1}), "cluster.server has to be a string"),
        (whole({"certificate-authority-data": "é"}), "certificate-authority-data is not base64"),
        (whole({"certificate-authority": "a\0"}), "certificate-authority is not a path"),
        (whole({"insecure-skip-tls-verify": "yes"}), "insecure-skip-tls-verify"),
        (whole({"insecure-skip-tls-verify": True, "certificate-authority": "/ca"}), "insecure"),
        (whole(user={"client-certificate": "/crt"}), "user.client-key is missing"),
        (whole(user={"client-key": "/key"}), "user.client-certificate is missing"),
        (whole(user={"client-key-data": f"{SECRET}!"}), "user.client-key-data is not base64"),
        (whole(user={"token": [SECRET]}), "user.token has to be a string"),
        (whole(user={"token": f"{SECRET}\r\nX: y"}), "user.token is not a bearer token"),
        (whole(user={"token": f"{SECRET} x"}), "user.token is not a bearer token"),
        (whole(user={"tokenFile": "/no/such/file"}), "user.tokenFile: cannot read"),
    ],
)
def test_what_is_wrong_is_named(value: Any, named: str) -> None:
    assert named in refusal(value)


@pytest.mark.parametrize(
    "server",
    [
        "10.96.0.1:6443",
        "ftp://host",
        "https://",
        "https://host:port",
        "https://host:99999",
        "https://host:0",
        "https://user:s3cr3t@host",
        "https://host/?x",
        "https://host/#x",
        "https://ho st",
        "https://hôst",
        "https://host\n",
        "https://[::1",
        "http://host",
    ],
)
def test_a_server_is_an_https_url(server: str) -> None:
    assert "cluster.server" in refusal(whole({"server": server}))


def test_plain_http_is_for_those_without_credentials() -> None:
    assert reading(whole({"server": "http://[::1]:8001"}, {})).server == "http://[::1]:8001"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\0",
        b"a: [",
        b"token: s3cr3t: s3cr3t",
        b"a: *s3cr3t",
        b"? [s3cr3t]\n: 1",
        b"a: 2001-99-99",
        b"!!python/object/apply:os.system [s3cr3t]",
        b"[" * 200_000,
        b"- " * 200_000 + b"s3cr3t",
        b"a\n--- b",
    ],
)
def test_what_cannot_be_read_is_told_without_its_content(content: bytes) -> None:
    with pytest.raises(PodSourceError) as caught:
        parse(content, "/kubeconfig")
    assert SECRET not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(PodSourceError, match=str(path)):
            read(str(path))
    (tmp_path / "huge").write_bytes(b" " * (2 << 20))
    with pytest.raises(PodSourceError, match="larger than 1 MiB"):
        read(str(tmp_path / "huge"))


def test_an_empty_token_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(whole(user={"tokenFile": "token"})))
    with pytest.raises(PodSourceError, match=r"user\.tokenFile .* is empty"):
        read(str(path))


@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()))
def test_any_content_is_read_or_an_error_of_ours(content: bytes) -> None:
    with suppress(PodSourceError):
        parse(content, "/kubeconfig")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)


@given(data=st.data())
def test_any_value_in_any_place_is_read_or_an_error_of_ours(data: st.DataObject) -> None:
    fields = ["server", "certificate-authority", "certificate-authority-data", "tls-server-name"]
    fields += ["insecure-skip-tls-verify", "proxy-url", "token", "client-key", "exec", "name"]
    wild = st.dictionaries(st.sampled_from(fields), json_values, max_size=3)
    value = whole(data.draw(wild), data.draw(wild), **data.draw(wild))
    value[data.draw(st.sampled_from([*value]))] = data.draw(json_values)
    with suppress(PodSourceError):
        assert isinstance(reading(value), Kubeconfig)


def test_brackets_round_an_ipv4_address_are_taken_off() -> None:
    """Calico's node container writes them."""
    assert reading(whole({"server": "https://[10.96.0.1]:443"})).server == "https://10.96.0.1:443"
    assert reading(whole({"server": "https://[fd00::1]:443"})).server == "https://[fd00::1]:443"
