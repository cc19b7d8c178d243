"""What a child gives its supervisor to keep is there in the next child, whoever has died."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet_child.supervision import successor
from ratchet_child.supervision.keeper import Keeper
from tests.lab.polling import wait_for

THOUSANDS = 3000

# A child that does what it is told over its socket, and nothing else.
PROGRAM = """#!{python}
import json, os, select, socket, sys
sys.path.insert(0, {root!r})
from ratchet_child.supervision import supervisor

def serve(arguments, listener, keeper):
    keeper.ready()
    listening = socket.socket(fileno=listener)
    while True:
        poller = select.poll()
        for fd in (listening.fileno(), keeper.fileno()):
            poller.register(fd, select.POLLIN)
        if listening.fileno() not in dict(poller.poll()):
            word = keeper.receive()
            if word is None:
                keeper.renew(listening.fileno())
                continue
            return 0  # to finish
        connection, _ = listening.accept()
        word, *rest = connection.recv(1000).decode().split()
        if word == "keep":
            for number in range(int(rest[1])):
                fd = os.memfd_create("kept")
                os.write(fd, f"{{rest[0]}} {{number}}".encode())
                keeper.keep(f"{{rest[0]}}-{{number}}", fd)
                os.close(fd)
        elif word == "drop":
            keeper.drop(rest[0])
        elif word == '{{"op":':  # "hand_over", what a successor asks
            keeper.hand_over(connection.fileno())
            return 0
        elif word == "over":
            keeper.over()
            return 0
        kept = {{name: os.pread(fd, 100, 0).decode() for name, fd in keeper.kept().items()}}
        connection.sendall(json.dumps([os.getpid(), os.getppid(), kept]).encode())
        connection.close()

if "--help" in sys.argv:
    sys.exit(0)
sys.exit(supervisor.main(sys.argv[1:], serve))
"""


class Node:
    """A state directory with such a child."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "program"
        self.program.write_text(
            PROGRAM.format(python=sys.executable, root=str(Path(__file__).parents[2]))
        )
        self.program.chmod(0o755)
        self.state_dir = folder / "state"
        self.state_dir.mkdir(mode=0o700)
        self.log = folder / "log"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.state_dir / "child.sock"))
        listener.listen()
        lock = os.open(self.state_dir / "child.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        arguments = ["--state-dir", str(self.state_dir)]
        arguments += ["--listen-fd", str(listener.fileno()), "--lock-fd", str(lock)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.program), *arguments],
                pass_fds=[listener.fileno(), lock],
                stderr=log,
            )
        listener.close()
        os.close(lock)

    def connection(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(self.state_dir / "child.sock"))
        return connection

    def ask(self, words: str) -> tuple[int, int, dict[str, str]]:
        """Return the child, its supervisor, and what is kept."""
        with self.connection() as connection:
            connection.sendall(words.encode())
            parts = []
            while part := connection.recv(1 << 20):
                parts.append(part)
        child, parent, kept = json.loads(b"".join(parts))
        return child, parent, kept

    def is_locked(self) -> bool:
        with (self.state_dir / "child.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def end(self) -> None:
        if self.is_locked():
            with contextlib.suppress(OSError, ValueError):
                self.ask("over")
        self.process.wait(10)
        wait_for("the end", self.is_locked, until=lambda locked: not locked)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.end()


def names(what: str, count: int) -> dict[str, str]:
    return {f"{what}-{number}": f"{what} {number}" for number in range(count)}


def test_thousands_are_kept_across_a_death_until_they_are_dropped(node: Node) -> None:
    child, supervisor, kept = node.ask(f"keep panel {THOUSANDS}")
    assert kept == names("panel", THOUSANDS)
    os.kill(child, signal.SIGKILL)
    another, same, kept = node.ask("drop panel-7")
    assert (another, same) != (child, supervisor)
    assert same == supervisor
    expected = names("panel", THOUSANDS)
    del expected["panel-7"]
    assert kept == expected
    os.kill(another, signal.SIGKILL)
    assert node.ask("what")[2] == expected


def test_a_name_that_is_kept_again_stands_for_the_newer_descriptor(node: Node) -> None:
    node.ask("keep panel 2")
    child, _, kept = node.ask("keep panel 1")
    before = len(os.listdir(f"/proc/{child}/fd"))
    assert kept == names("panel", 2)
    node.ask("keep panel 2")
    assert len(os.listdir(f"/proc/{child}/fd")) == before


def test_they_are_kept_across_the_death_of_the_supervisor_and_then_of_the_child(
    node: Node,
) -> None:
    child, supervisor, _ = node.ask("keep panel 40")
    os.kill(supervisor, signal.SIGKILL)
    node.process.wait(10)
    same, _, kept = node.ask("what")
    assert same == child
    wait_for("another supervisor", lambda: _children_of(child))
    time.sleep(0.3)  # it takes them up
    os.kill(child, signal.SIGKILL)
    another, _, again = node.ask("what")
    assert another != child
    assert again == kept == names("panel", 40)


def test_they_are_kept_across_an_update(node: Node) -> None:
    child, supervisor, _ = node.ask("keep panel 500")
    new = node.program.with_name("new")
    shutil.copy2(node.program, new)
    new.rename(node.program)
    wait_for("another child", lambda: node.ask("what")[0], until=lambda pid: pid != child)
    _, same, kept = node.ask("what")
    assert same == supervisor
    assert kept == names("panel", 500)
    assert "becoming the program" in node.log.read_text()


def test_who_takes_over_gets_the_socket_the_lock_and_what_is_kept(node: Node) -> None:
    node.ask("keep panel 300")
    held = successor.ask(lambda use: use(str(node.state_dir / "child.sock")))
    assert isinstance(held, successor.Held)
    node.process.wait(10)
    try:
        assert node.is_locked()
        with node.connection() as client, socket.socket(fileno=held.listener) as listener:
            accepted, _ = listener.accept()
            with accepted:
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"
        kept = {name: os.pread(fd, 100, 0).decode() for name, fd in held.kept.items()}
        assert kept == names("panel", 300)
    finally:
        for fd in (held.lock, *held.kept.values()):
            os.close(fd)


def test_without_a_supervisor_a_keeper_keeps_for_itself() -> None:
    keeper = Keeper()
    reading, writing = os.pipe()
    keeper.keep("pipe", writing)
    os.close(writing)
    os.write(keeper.kept()["pipe"], b"x")
    assert os.read(reading, 1) == b"x"
    keeper.drop("pipe")
    keeper.drop("pipe")
    assert keeper.kept() == {}
    assert os.read(reading, 1) == b""
    os.close(reading)


def _children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
