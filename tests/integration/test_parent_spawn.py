"""Waking the child: a stand-in for its program, real sockets, locks and processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet import client, messages, spawn
from ratchet.config import Config
from ratchet.errors import ChildError, StateError

# Says what it was given, then serves until it is killed. FAKE_MODE makes it misbehave.
FAKE_CHILD = """#!{python} -IS
import json, os, socket, sys, time
state = sys.argv[sys.argv.index("--state-dir") + 1]
with open(state + "/started", "a") as file:
    file.write(json.dumps({{
        "pid": os.getpid(), "argv": sys.argv[1:], "environ": dict(os.environ), "cwd": os.getcwd(),
        "sid": os.getsid(0),
        "fds": {{n: os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd")
                if os.path.islink("/proc/self/fd/" + n)}},
    }}) + "\\n")
mode = os.environ.get("FAKE_MODE", "")
if mode == "dies":
    sys.exit(3)
time.sleep(0.3)
listener = socket.socket(fileno=3)
served = 0
while True:
    conn, _ = listener.accept()
    line = conn.makefile().readline()
    request = json.loads(line)
    with open(state + "/requests", "a") as file:
        file.write(line)
    served += 1
    if mode == "dies once" and not os.path.exists(state + "/died"):
        open(state + "/died", "w").close()
        sys.exit(0)
    if mode == "sleeps":
        time.sleep(60)
    try:
        if mode == "nonsense":
            conn.sendall(b"nonsense\\n")
        else:
            answer = {{"ok": True, "pid": os.getpid(), "big": "x" * 300000}}
            conn.sendall(json.dumps(answer).encode() + b"\\n")
    except OSError:
        pass
    conn.close()
"""


class Node:
    """One state directory and its stand-in for the child, ended with the test."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "ratchet-child"
        self.program.write_text(FAKE_CHILD.format(python=sys.executable))
        self.program.chmod(0o755)
        self.state_dir = folder / "state"
        self.config = self.configured()

    def configured(self, **keys: Any) -> Config:
        return Config.parse(
            {
                "name": "net",
                "state_dir": str(self.state_dir),
                "child_path": str(self.program),
                **keys,
            }
        )

    def lines(self, name: str) -> list[Any]:
        path = self.state_dir / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def kill(self) -> None:
        for started in self.lines("started"):
            # Only what still holds this directory's lock: a number may be somebody else's by now.
            try:
                target = os.readlink(f"/proc/{started['pid']}/fd/4")
            except OSError:
                continue
            if target == str(self.state_dir / "child.lock"):
                os.kill(started["pid"], signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.kill()
    time.sleep(0.05)
    made.kill()


def test_without_spawn_nothing_is_started_and_nothing_made(node: Node) -> None:
    assert client.ask(node.config, messages.Health(), 1) is None
    assert not node.state_dir.exists()


def test_the_child_is_started_once_and_then_asked(node: Node) -> None:
    first = spawn.ask(node.config, messages.Health(), 10)
    again = client.ask(node.config, messages.Status(), 10)
    assert first is not None
    assert again is not None
    assert first["pid"] == again["pid"]
    assert len(first["big"]) == 300_000
    assert [line["op"] for line in node.lines("requests")] == ["health", "status"]
    assert node.lines("requests")[0]["settings"] == node.config.settings()
    assert json.loads((node.state_dir / "settings.json").read_text()) == node.config.settings()


def test_everything_in_the_state_directory_is_private(node: Node) -> None:
    spawn.ask(node.config, messages.Health(), 10)
    assert node.state_dir.stat().st_mode & 0o777 == 0o700
    for name in ("child.sock", "child.lock", "settings.json"):
        assert (node.state_dir / name).stat().st_mode & 0o777 == 0o600


def test_the_child_gets_its_descriptors_and_no_others(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNI_COMMAND", "ADD")
    monkeypatch.setenv("CNI_ARGS", "K8S_POD_NAME=x")
    monkeypatch.setenv("OTHER", "kept")
    # What the runtime may have left open in the plugin, below and above the child's five.
    leaked = [fcntl.fcntl(0, fcntl.F_DUPFD, number) for number in (3, 4, 5, 40)]
    before = os.getcwd()
    try:
        assert all(os.get_inheritable(fd) for fd in leaked)
        spawn.ask(node.config, messages.Health(), 10)
    finally:
        for fd in leaked:
            os.close(fd)
    assert os.getcwd() == before
    (started,) = node.lines("started")
    fds = {name: target for name, target in started["fds"].items() if "/proc/" not in target}
    listing = {name for name in fds if int(name) > 4 and fds[name].endswith("started")}
    assert set(fds) - listing == {"0", "1", "2", "3", "4"}
    assert fds["0"] == fds["1"] == fds["2"] == "/dev/null"
    assert fds["3"].startswith("socket:")
    assert fds["4"] == str(node.state_dir / "child.lock")
    assert started["argv"] == [
        "--state-dir", str(node.state_dir), "--listen-fd", "3", "--lock-fd", "4"
    ]  # fmt: skip
    assert started["cwd"] == "/"
    assert started["sid"] == started["pid"]
    assert started["environ"]["OTHER"] == "kept"
    assert not [key for key in started["environ"] if key.startswith("CNI_")]


def test_the_childs_output_goes_to_the_log_file(node: Node, tmp_path: Path) -> None:
    config = node.configured(log_file=str(tmp_path / "log"))
    spawn.ask(config, messages.Health(), 10)
    (started,) = node.lines("started")
    assert started["fds"]["1"] == started["fds"]["2"] == str(tmp_path / "log")


def test_forty_parents_at_once_start_one_child(node: Node) -> None:
    code = (
        "import json, sys; from ratchet import messages, spawn; from ratchet.config import Config;"
        "print(spawn.ask(Config.parse(json.loads(sys.argv[1])), messages.Health(), 30)['pid'])"
    )
    root = str(Path(__file__).parents[2])
    parents = [
        subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(node.config.settings())],
            stdout=subprocess.PIPE,
            cwd=root,
        )
        for _ in range(40)
    ]
    # communicate() ends when the pipe does: a child that kept a parent's stdout would make it hang.
    answers = {parent.communicate(timeout=60)[0].strip() for parent in parents}
    assert len(node.lines("started")) == 1
    assert answers == {str(node.lines("started")[0]["pid"]).encode()}


def test_a_killed_child_is_started_again(node: Node) -> None:
    first = spawn.ask(node.config, messages.Health(), 10)
    node.kill()
    assert client.ask(node.config, messages.Health(), 1) is None
    second = spawn.ask(node.config, messages.Health(), 10)
    assert first is not None
    assert second is not None
    assert first["pid"] != second["pid"]


def test_a_child_that_goes_away_with_the_request_is_asked_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies once")
    assert spawn.ask(node.config, messages.Health(), 10) is not None
    assert len(node.lines("started")) == 2


def test_a_child_that_always_dies_is_an_error_and_soon(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies")
    before = time.monotonic()
    with pytest.raises(ChildError):
        spawn.ask(node.config, messages.Health(), 30)
    assert time.monotonic() - before < 10
    assert len(node.lines("started")) == spawn.STARTS


def test_a_child_that_hangs_is_waited_for_no_longer_than_said(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "sleeps")
    before = time.monotonic()
    with pytest.raises(ChildError):
        spawn.ask(node.config, messages.Health(), 1.5)
    assert time.monotonic() - before < 3


def test_an_answer_that_is_none_is_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "nonsense")
    with pytest.raises(ChildError):
        spawn.ask(node.config, messages.Health(), 10)


def test_telling_does_not_wait_for_the_child(node: Node) -> None:
    before = time.monotonic()
    spawn.tell(node.config, messages.Deleted("c1.eth0"), 10)
    assert time.monotonic() - before < 0.25  # the stand-in takes 0.3 s to start
    deadline = time.monotonic() + 10
    while not node.lines("requests") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [line["op"] for line in node.lines("requests")] == ["deleted"]


def test_a_missing_program_is_an_error_that_names_it(node: Node) -> None:
    with pytest.raises(ChildError) as caught:
        spawn.ask(node.configured(child_path="/nowhere/child"), messages.Health(), 5)
    assert "/nowhere/child" in caught.value.msg
    # Neither the lock nor a socket that refuses stays in the way.
    assert spawn.ask(node.config, messages.Health(), 10) is not None


def test_the_program_is_found_in_cni_path(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNI_PATH", f"/nowhere:{node.program.parent}")
    monkeypatch.setattr(sys, "argv", ["/nowhere/ratchet"])
    config = node.configured(child_path=None)
    assert spawn.child_program(config, os.environ["CNI_PATH"]) == str(node.program)
    monkeypatch.setattr(sys, "argv", [str(node.program.parent / "ratchet")])
    assert spawn.child_program(config, "") == str(node.program)
    monkeypatch.setattr(sys, "argv", ["/nowhere/ratchet"])
    with pytest.raises(ChildError, match="ratchet-child is neither beside"):
        spawn.child_program(config, "")


def test_a_state_directory_with_a_long_path(node: Node, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100) / ("y" * 100)
    node.state_dir = long
    config = node.configured(state_dir=str(long))
    assert spawn.ask(config, messages.Health(), 10) is not None
    assert client.ask(config, messages.Health(), 10) is not None


def test_a_state_directory_that_cannot_be_made_is_a_state_error(node: Node, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = node.configured(state_dir=str(tmp_path / "file" / "state"))
    assert client.ask(config, messages.Health(), 1) is None
    with pytest.raises(StateError):
        spawn.ask(config, messages.Health(), 1)


def test_a_supervised_child_that_holds_the_lock_but_does_not_listen_yet_is_waited_for(
    node: Node,
) -> None:
    node.state_dir.mkdir(mode=0o700)
    lock = os.open(node.state_dir / "child.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    listener = socket.socket(socket.AF_UNIX)

    def serve() -> None:
        time.sleep(0.3)
        listener.bind(str(node.state_dir / "child.sock"))
        listener.listen()
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b'{"ok": true}\n')
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert spawn.ask(node.config, messages.Health(), 10) == {"ok": True}
    finally:
        thread.join()
        listener.close()
        os.close(lock)
    assert node.lines("started") == []
