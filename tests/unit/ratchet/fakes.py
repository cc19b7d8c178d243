"""Plugins and the child, as the operations see them, without processes and sockets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ratchet import client, messages, reported, spawn, statedir
from ratchet.cni import invoke
from ratchet.cni.errors import CniError, DelegateError
from ratchet.cni.skel import Request
from ratchet.cni.version import SUPPORTED
from ratchet.errors import ChildError


class Became(BaseException):
    """Thrown where the process would have been replaced by a plugin."""

    def __init__(self, config: dict[str, Any], environ: Mapping[str, str]) -> None:
        self.config = config
        self.environ = environ


class Call:
    def __init__(self, config: dict[str, Any], environ: Mapping[str, str], path: str) -> None:
        self.type = config["type"]
        self.config = config
        self.environ = dict(environ)
        self.command = environ.get("CNI_COMMAND", "")
        self.path = path


class Plugins:
    """Every plugin there is; each answers with a result or raises, and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: dict[tuple[str, str], Any] = {}
        self.newest = "1.1.0"
        self.missing: set[str] = set()
        self.before: Callable[[Call], None] = lambda call: None

    def answer(self, command: str, plugin_type: str, answer: Any) -> None:
        self.answers[command, plugin_type] = answer

    def ran(self) -> list[tuple[str, str]]:
        return [(call.command, call.type) for call in self.calls]

    def find(self, plugin_type: str, path: str) -> str:
        if plugin_type in self.missing:
            raise DelegateError(f"plugin {plugin_type} is in no directory of CNI_PATH")
        return f"{path}/{plugin_type}"

    def run(
        self,
        config: Mapping[str, Any],
        path: str,
        environ: Mapping[str, str],
        timeout_s: float | None = None,
    ) -> dict[str, Any] | None:
        call = Call(copy.deepcopy(dict(config)), environ, path)
        if call.type in self.missing:
            raise DelegateError(f"plugin {call.type} is in no directory of CNI_PATH")
        self.before(call)
        if call.command == "VERSION":
            return {"supportedVersions": [v for v in SUPPORTED if v <= self.newest]}
        self.calls.append(call)
        if config.get("cniVersion", "") > self.newest:
            raise CniError(1, "incompatible CNI versions")
        answer = self.answers.get((call.command, call.type))
        if isinstance(answer, Exception):
            raise answer
        if answer is None and call.command == "ADD":
            return {"cniVersion": config.get("cniVersion", "0.1.0")}
        return copy.deepcopy(answer)

    def become(self, config: Mapping[str, Any], path: str, environ: Mapping[str, str]) -> None:
        raise Became(dict(config), environ)


class Child:
    """The child: ``answer`` None means that none runs and none can be started."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = {"ok": True, "complete": True, "links": []}
        self.asked: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.attended = 0  # how often it was to be started without being asked anything

    def ask(
        self, config: object, request: messages.Request, timeout_s: float
    ) -> dict[str, Any] | None:
        self.asked.append(messages.request_to_json(request))
        return self.answer

    def start_and_ask(
        self, config: object, request: messages.Request, timeout_s: float
    ) -> dict[str, Any]:
        answer = self.ask(config, request, timeout_s)
        if answer is None:
            raise ChildError("it cannot be started")
        return answer

    def tell(self, config: object, request: messages.Request, timeout_s: float) -> None:
        self.told.append(messages.request_to_json(request))
        if self.answer is None:
            raise ChildError("it cannot be started")

    def attend(self, config: object) -> None:
        self.attended += 1


def install(monkeypatch: pytest.MonkeyPatch) -> tuple[Plugins, Child]:
    plugins, child = Plugins(), Child()
    monkeypatch.setattr(statedir, "stamp", lambda path: path)
    monkeypatch.setattr(invoke, "find", plugins.find)
    monkeypatch.setattr(invoke, "run", plugins.run)
    monkeypatch.setattr(invoke, "become", plugins.become)
    monkeypatch.setattr(reported, "_route_type", lambda host: None)  # it asks the kernel
    monkeypatch.setattr(client, "ask", child.ask)
    monkeypatch.setattr(spawn, "ask", child.start_and_ask)
    monkeypatch.setattr(spawn, "tell", child.tell)
    monkeypatch.setattr(spawn, "attend", child.attend)
    return plugins, child


def request(command: str, config: dict[str, Any], **changes: str) -> Request:
    values = {
        "container_id": "c1",
        "netns": "/proc/self/ns/uts",  # there, and not the node's network namespace
        "ifname": "eth0",
        "args": "IgnoreUnknown=1",
        "path": "/opt/cni/bin",
        **changes,
    }
    environ = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": values["container_id"],
        "CNI_NETNS": values["netns"],
        "CNI_IFNAME": values["ifname"],
        "CNI_ARGS": values["args"],
        "CNI_PATH": values["path"],
        "OTHER": "kept",
    }
    return Request(
        command,
        container_id=values["container_id"],
        netns=values["netns"],
        ifname=values["ifname"],
        args=values["args"],
        path=values["path"],
        environ=environ,
        config=config,
    )
