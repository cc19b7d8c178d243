"""Trouble with the API server, and what is kept for an agent that starts while it is away."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ratchet_child.agent.credentials import Credentials
from ratchet_child.agent.errors import ApiError, AwayError, RefusedError
from ratchet_child.agent.lasting import FILE, Lasting
from ratchet_child.agent.seen import SeenPods
from ratchet_child.agent.troubles import (
    EVENTS,
    READING,
    STATUS,
    Rights,
    Watched,
    name_trouble,
    troubles,
)
from tests.lab.api_objects import REVIEW, check
from tests.unit.ratchet_child.agent.pods import LABELS, seen


class Clock:
    now = 5000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Server:
    def __init__(self, *missing: str) -> None:
        self.missing = set(missing)
        self.asked: list[str] = []
        self.selectors: list[str | None] = []
        self.error: ApiError | None = None

    def post(self, path: str, body: Any, needs: str) -> dict[str, Any]:
        check(REVIEW, body)
        if self.error is not None:
            raise self.error
        asked = body["spec"]["resourceAttributes"]
        self.selectors.append(asked.get("fieldSelector", {}).get("rawSelector"))
        named = " ".join(filter(None, map(asked.get, ("verb", "group", "resource", "subresource"))))
        self.asked.append(named)
        return {"status": {"allowed": named not in self.missing}}


ALL = READING + EVENTS + STATUS


def test_every_right_is_asked_for_now_and_then() -> None:
    clock, server = Clock(), Server()
    rights = Rights(ALL, clock, "k", "n")
    rights.review(server)
    assert server.asked == [
        "get pods",
        "list pods",
        "watch pods",
        "create events.k8s.io events",
        "patch events.k8s.io events",
        "patch pods status",
    ]
    of_node = "spec.nodeName=n"
    assert server.selectors == [None, of_node, of_node, None, None, None]
    clock.now += 400
    rights.review(server)
    assert len(server.asked) == 6
    clock.now = rights.due
    rights.review(server)
    assert len(server.asked) == 12
    assert rights.trouble() is None


def test_what_is_missing_is_named_and_asked_for_again_soon() -> None:
    clock, server = Clock(), Server("get pods", "patch pods status")
    rights = Rights(ALL, clock, "kubeconfig k", "n")
    assert not rights.review(server)
    assert rights.trouble() == (
        "RBAC: the user of kubeconfig k lacks the right to get pods, patch pods/status"
    )
    server.missing = {"get pods", "list pods"}
    clock.now += 30
    assert rights.review(server)  # one of them is there again
    server.missing.clear()
    clock.now += 30
    assert rights.review(server)
    assert rights.trouble() is None
    clock.now = rights.due
    assert not rights.review(server)


@pytest.mark.parametrize("error", [AwayError("away"), RefusedError("401")])
def test_what_cannot_be_asked_is_not_missing(error: ApiError) -> None:
    clock, server = Clock(), Server()
    server.error = error
    rights = Rights(ALL, clock, "k", "n")
    rights.review(server)
    assert rights.trouble() is None


def test_a_refusal_has_rights_looked_at_soon() -> None:
    clock = Clock()
    rights = Rights(ALL, clock, "k", "n")
    rights.review(Server())
    rights.hurry()
    assert rights.due <= clock.now + 1


def test_an_api_server_that_restarts_is_no_trouble() -> None:
    away, refused = AwayError("away"), RefusedError("403")
    assert troubles(Watched(away, 5.0), None) == ()
    assert troubles(Watched(away, 15.0), None) == ("pods are not watched: away",)
    assert troubles(Watched(refused, 0.0), None) == ("pods are not watched: 403",)
    assert troubles(Watched(None, 100.0), "token", None, "rights") == ("token", "rights")


@pytest.mark.parametrize(
    ("known", "oldest_s", "is_trouble"),
    [(0, 61.0, True), (0, 30.0, False), (0, None, False), (1, 61.0, False), (None, 61.0, False)],
)
def test_a_node_name_that_nobody_knows_is_told(
    known: int | None, oldest_s: float | None, is_trouble: bool
) -> None:
    found = name_trouble("node-7", known, oldest_s)
    assert (found is not None) == is_trouble
    assert found is None or "node-7" in found


# Credentials ------------------------------------------------------------------------------------


def token(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


def credentials(folder: Path, content: str, clock: Clock) -> Credentials:
    (folder / "token").write_text(content)
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "l", "user": "u"}}],
        "clusters": [{"name": "l", "cluster": {"server": "https://10.0.0.1:6443/prefix"}}],
        "users": [{"name": "u", "user": {"tokenFile": "token"}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    return Credentials(str(folder / "kubeconfig"), clock)


def test_the_server_is_taken_apart(tmp_path: Path) -> None:
    access = credentials(tmp_path, "t", Clock()).current()
    assert (access.host, access.port, access.prefix) == ("10.0.0.1", 6443, "/prefix")
    assert access.headers["Authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("iat", "exp", "told"),
    [
        (1000, 9000, None),
        (1000, 5300, "expires in 5 min"),
        (1000, 4900, "has expired"),
        (None, 5060, "expires in 1 min"),
        (None, None, None),
        (1000, "soon", None),
        (1000, float("inf"), None),
        (1000, True, None),
    ],
)
def test_a_token_says_when_it_ends(
    tmp_path: Path, iat: object, exp: object, told: str | None
) -> None:
    found = credentials(tmp_path, token(iat=iat, exp=exp), Clock()).trouble()
    assert (found is None) if told is None else (found is not None and told in found)


@pytest.mark.parametrize("text", ["opaque", "a.b.c", "..", "a.e30.c", "a.WzFd.c"])
def test_a_token_that_says_nothing_is_no_trouble(tmp_path: Path, text: str) -> None:
    assert credentials(tmp_path, text, Clock()).trouble() is None


def test_a_file_that_breaks_takes_nothing_away(tmp_path: Path) -> None:
    found = credentials(tmp_path, "one", Clock())
    assert found.current().config.token == "one"
    (tmp_path / "token").unlink()
    assert "token" in (found.trouble() or "")
    assert found.current().config.token == "one"
    (tmp_path / "token").write_text("two")
    assert found.current().config.token == "two"
    assert found.trouble() is None


def test_a_file_that_comes_late_is_found(tmp_path: Path) -> None:
    found = credentials(tmp_path, "one", Clock())
    (tmp_path / "token").unlink()
    with pytest.raises(RefusedError, match="token"):
        found.current()
    (tmp_path / "token").write_text("two")
    assert found.current().config.token == "two"


# What is kept -----------------------------------------------------------------------------------


def test_what_was_seen_is_known_to_the_next_agent(tmp_path: Path) -> None:
    before, after = SeenPods(), SeenPods()
    before.put(seen(LABELS, {"ratchet.mtu": "1300"}, uids=("u1", "static")))
    lasting = Lasting(str(tmp_path), "n")
    assert lasting.save(before, 100.0) is None
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    Lasting(str(tmp_path), "n").load(after)
    found = after.find("default", "a", "static")
    assert found is not None
    assert found.fields == (LABELS, {"ratchet.mtu": "1300"})
    assert not found.is_told


def test_it_is_written_when_something_has_changed_and_not_all_the_time(tmp_path: Path) -> None:
    pods, lasting = SeenPods(), Lasting(str(tmp_path), "n")
    lasting.save(pods, 100.0)
    assert not (tmp_path / FILE).exists()
    pods.put(seen(LABELS))
    lasting.save(pods, 100.0)
    (tmp_path / FILE).unlink()
    pods.put(seen(LABELS, version="2"))
    assert lasting.save(pods, 101.0) is None
    pods.put(seen({}))
    assert lasting.save(pods, 101.0) == 102.0
    assert not (tmp_path / FILE).exists()
    lasting.save(pods, 101.5, at_once=True)
    assert (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "5",
        "{}",
        '{"version": 9, "node": "n", "pods": []}',
        '{"version": 1, "node": "other", "pods": [["d", "a", ["u"], {}, {}]]}',
        '{"version": 1, "node": "n", "pods": [["d", "a", [], {}, {}]]}',
        '{"version": 1, "node": "n", "pods": [["d", "a", ["u"], {"a": 5}, {}]]}',
        '{"version": 1, "node": "n", "pods": [["d", 5, ["u"], {}, {}]]}',
        '{"version": 1, "node": "n", "pods": [["d"]]}',
        '{"version": 1, "node": "n", "pods": 5}',
        "[" * 100_000,
    ],
)
def test_what_is_damaged_or_anothers_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    pods = SeenPods()
    Lasting(str(tmp_path), "n").load(pods)
    assert len(pods) == 0
