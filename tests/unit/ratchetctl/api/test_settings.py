"""Which cluster is meant, and as whom."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ratchetctl.api import settings
from ratchetctl.api.errors import ConfigError

SERVER = "https://10.0.0.1:6443"
SECRET = "s3cr3t"


def write(path: Path, **fields: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **fields}))
    return str(path)


def context(name: str, cluster: str = "here", user: str = "me", **more: str) -> dict[str, Any]:
    return {"name": name, "context": {"cluster": cluster, "user": user, **more}}


def cluster(name: str = "here", **more: Any) -> dict[str, Any]:
    return {"name": name, "cluster": {"server": SERVER, **more}}


def user(name: str = "me", **fields: Any) -> dict[str, Any]:
    return {"name": name, "user": fields or {"token": SECRET}}


def one(path: Path, **more: Any) -> str:
    fields = {
        "current-context": "lab",
        "contexts": [context("lab", namespace="blue"), context("other")],
        "clusters": [cluster()],
        "users": [user()],
    }
    return write(path, **{**fields, **more})


def test_the_current_context_gives_cluster_user_and_namespace(tmp_path: Path) -> None:
    found = settings.find(one(tmp_path / "config"), environ={})
    assert (found.context, found.namespace) == ("lab", "blue")
    access = found.access()
    assert (access.server, access.token) == (SERVER, SECRET)


def test_arguments_go_before_what_the_file_says(tmp_path: Path) -> None:
    found = settings.find(one(tmp_path / "config"), "other", "red", environ={})
    assert (found.context, found.namespace) == ("other", "red")
    assert settings.find(one(tmp_path / "config"), "other", environ={}).namespace == "default"


def test_of_several_files_the_first_that_says_something_counts(tmp_path: Path) -> None:
    first = write(
        tmp_path / "a" / "config",
        contexts=[context("lab", "far")],
        users=[user(**{"client-certificate": "me.crt", "client-key": "me.key"})],
    )
    second = one(tmp_path / "b" / "config", clusters=[cluster(), cluster("far", **{"x": 1})])
    missing = str(tmp_path / "missing")
    environ = {"KUBECONFIG": os.pathsep.join((first, missing, second))}
    found = settings.find(environ=environ)
    assert found.context == "lab"  # from the second, as the first says nothing of it
    assert found.cluster == {"server": SERVER, "x": 1}
    # A relative path begins where the file is that it stands in.
    assert found.user["client-certificate"] == str(tmp_path / "a" / "me.crt")
    assert found.exec_dir == str(tmp_path / "a")


def test_the_default_file_is_that_of_kubectl(tmp_path: Path) -> None:
    one(tmp_path / ".kube" / "config")
    assert settings.find(environ={"HOME": str(tmp_path)}).context == "lab"


def test_a_pod_uses_its_service_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "namespace").write_text("green\n")
    environ = {
        "HOME": str(tmp_path / "nobody"),
        "KUBERNETES_SERVICE_HOST": "fd00::1",
        "KUBERNETES_SERVICE_PORT": "443",
    }
    found = settings.find(environ=environ, account=str(tmp_path))
    assert found.namespace == "green"
    access = found.access()
    assert (access.server, access.token) == ("https://[fd00::1]:443", SECRET)


@pytest.mark.parametrize(
    ("changes", "chosen", "said"),
    [
        ({"current-context": ""}, None, "current-context is missing; choose with --context"),
        ({}, "nope", "no context 'nope'; there are lab, other"),
        ({"clusters": []}, None, "no cluster 'here'; there is none at all"),
        ({"users": [user("you")]}, None, "no user 'me'; there are you"),
        ({"contexts": [{"name": "lab", "context": {}}]}, None, "no name of a cluster"),
    ],
)
def test_what_is_missing_is_named_with_what_there_is(
    tmp_path: Path, changes: dict[str, Any], chosen: str | None, said: str
) -> None:
    path = one(tmp_path / "config", **changes)
    with pytest.raises(ConfigError) as caught:
        settings.find(path, chosen, environ={})
    assert said in str(caught.value)
    assert path in str(caught.value)


def test_no_kubeconfig_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name one with --kubeconfig"):
        settings.find(environ={"HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match="nowhere, which does not exist"):
        settings.find(environ={"KUBECONFIG": "nowhere"})


def test_what_the_parent_refuses_is_refused_here_too(tmp_path: Path) -> None:
    path = one(tmp_path / "config", users=[user(username="me", password=SECRET)])
    with pytest.raises(ConfigError) as caught:
        settings.find(path, environ={}).access()
    assert "user.username is not supported" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_plugins_token_takes_the_place_of_the_users(tmp_path: Path) -> None:
    spec = {"apiVersion": "client.authentication.k8s.io/v1", "command": "login"}
    found = settings.find(one(tmp_path / "config", users=[user(exec=spec)]), environ={})
    assert found.exec == spec
    assert found.access({"token": SECRET}).token == SECRET


def test_acting_as_somebody_else_becomes_headers(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"token": SECRET, "as": "jane", "as-groups": ["dev", "ops"]}
    acting = user(**fields)
    found = settings.find(one(tmp_path / "config", users=[acting]), environ={})
    assert found.impersonation() == [
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
    ]
    found.access()


def test_settings_do_not_show_secrets(tmp_path: Path) -> None:
    assert SECRET not in repr(settings.find(one(tmp_path / "config"), environ={}))
