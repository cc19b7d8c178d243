"""The child's socket: a real child, whose etcd lies at times and whose callers say anything.

It answers or hangs up, lives on, answers a right request promptly afterwards, is as it was before
when a right configuration comes back, and hears its node's keys again when etcd is well. It has no
pods: what it does with these is for the fault suite.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ratchet.config import Config
from ratchet_child.model.keys import Published
from tests.fuzz.hostile_pods import HostilePods
from tests.fuzz.lying_etcd import Liar, Lie, make_lie
from tests.fuzz.mutate import Mutator
from tests.fuzz.runner import Check, Target
from tests.fuzz.shared_parsers import CONFIG, REQUEST_KEYS, REQUESTS
from tests.lab.namespaces import free_port
from tests.lab.polling import wait_for

ADDRESS = "10.0.0.1"
PROMPT_S = 2.0
# What waits: for etcd (3 s), the API server (5 s), a change of configuration.
PATIENT_S = 12.0
MOST_DESCRIPTORS = 60  # of a child without pods, when nobody is connected
MOST_MEMORY_KB = 400 << 10
CROWD = 700
# For so long a change is not undone by who has not heard of it.
CHANGING_S = 1.1

_PATHS = ("kubeconfig", "docker_socket", "etcd_password_file", "etcd_ca_cert", "etcd_cert")


@dataclass(frozen=True, slots=True)
class Talk:
    """What is done to the child."""

    kind: str
    data: bytes = b""
    settings: dict[str, Any] = field(default_factory=dict)
    started_s: Any = None
    lies: tuple[Lie, ...] = ()


def make_talk(mutator: Mutator) -> Talk:
    which = mutator.random.random()
    if which < 0.55:
        return Talk(mutator.pick(("line", "line", "line", "pieces", "half")), _line(mutator))
    if which < 0.65:
        kind = mutator.pick(("unfinished", "unfinished", "silent"))
        return Talk(kind, mutator.raw(_line(mutator)).replace(b"\n", b" "))
    if which < 0.67:
        return Talk(
            "unfinished", b'{"op": "' + b"x" * mutator.pick((2**20 - 50, 2**20 + 50, 2**22))
        )
    if which < 0.68:
        return Talk("crowd")
    if which < 0.9:
        started_s: Any = mutator.pick(
            (*(None, True, "5", -1, 0, 1e308, float("nan"), float("inf"), 10**400, [], 5.5),)
        )
        return Talk("settings", settings=_settings(mutator), started_s=started_s)
    lies = [make_lie(mutator) for _ in range(mutator.pick((1, 3, 6)))]
    return Talk("etcd", lies=tuple(lie for lie in lies if lie.how != "huge"))


def _line(mutator: Mutator) -> bytes:
    seed = dict(mutator.pick(REQUESTS))
    if mutator.chance(0.2):
        seed["timeout_s"] = mutator.pick(
            (float("nan"), float("inf"), -1, 1e308, "5", 10**400, True)
        )
    if mutator.chance(0.2):
        seed["attachment"] = mutator.pick(
            ("../../../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "x" * 10**6, "..", "", 5)
        )
    data = mutator.json(mutator.tree(seed, REQUEST_KEYS)) + b"\n"
    return mutator.raw(data) if mutator.chance(0.15) else data


def _settings(mutator: Mutator) -> dict[str, Any]:
    """The changes to right settings."""
    changed: Any = mutator.tree(
        {key: value for key, value in CONFIG.items() if mutator.chance(0.15)}, tuple(CONFIG)
    )
    if not isinstance(changed, dict):
        return {}
    if mutator.chance(0.1):
        changed |= {"parent_interface": "nonexistent0", "parent_address": None}
    if mutator.chance(0.1):
        changed |= {"etcd_username": "u", "etcd_password_file": "/nonexistent/password"}
    # Files that are there are another's. The log's place is for who writes configurations.
    for key in _PATHS:
        if isinstance(changed.get(key), str) and os.path.exists(changed[key].split("\0")[0]):
            changed[key] = "/nonexistent"
    changed.pop("log_file", None)
    changed.pop("metrics_address", None)
    return changed


class Bed:
    """An etcd, a liar in front of it, and a child; with hostile pods if it is so asked."""

    def __init__(self, folder: str, *, is_hostile: bool = False) -> None:
        self.folder = folder
        self.state_dir = f"{folder}/state"
        self.log = f"{folder}/child.log"
        self.liar = Liar()
        self.liar.start()
        self._etcd_port = free_port()
        self.liar.honest = ("127.0.0.1", self._etcd_port)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._talks = 0
        self._left_open: list[socket.socket] = []
        self._read_to = 0
        configuration = {
            "name": "net",
            "type": "ratchet",
            "etcd_host": "127.0.0.1",
            "etcd_port": self.liar.port,
            "parent_address": ADDRESS,
            "parent_interface": "lo",
            "state_dir": self.state_dir,
            "log_file": self.log,
            "kubeconfig": "/nonexistent/kubeconfig",
        }
        self.settings = Config.parse(configuration).settings()
        self._pods = HostilePods(configuration) if is_hostile else None
        with open(f"{folder}/ratchet.conf", "w", encoding="utf-8") as file:
            json.dump(configuration, file)

    def start(self) -> None:
        client = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{free_port()}"
        self._run(
            *("etcd", "--name", "only", "--data-dir", f"{self.folder}/etcd", "--enable-v2"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"only={peer}", "--log-level", "error"),
        )
        wait_for("etcd to answer", self._etcd_answers, timeout_s=20)
        config = f"{self.folder}/ratchet.conf"
        self._run(sys.executable, "-m", "ratchet_child.main", "--config", config, "--stay")
        wait_for("the child to answer", lambda: self._is_well(PATIENT_S), timeout_s=20)
        self._first_child = self._child()
        if self._pods is not None:
            self._pods.start()

    def close(self) -> None:
        try:
            if self._pods is not None:
                self._pods.close()
        finally:
            self._end()

    def _end(self) -> None:
        for one in self._left_open:
            one.close()
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENT_S)
            process.kill()
            process.wait()
        self.liar.close()

    def _run(self, *command: str) -> None:
        with open(f"{self.folder}/{os.path.basename(command[0])}.out", "ab") as output:
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            )

    # Talking --------------------------------------------------------------------------------------

    def check(self, talk: Talk) -> None:
        self._talks += 1
        if talk.kind == "settings":
            self._change(talk)
        elif talk.kind == "etcd":
            self._lie(talk)
        elif talk.kind == "crowd":
            self._crowd()
        else:
            self._say(talk)
        answer = self.ask({"op": "status"}, PROMPT_S)
        assert answer is not None
        assert answer["ok"], answer
        assert answer["node"] == ADDRESS, "the child has another configuration"
        if self._talks % 20 == 0 or talk.kind in ("crowd", "settings", "etcd"):
            self._check_process()

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Ask a right question; None when the child hangs up."""
        line = json.dumps(request).encode() + b"\n"
        with self._connected() as sock:
            sock.settimeout(timeout_s)
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(line)
            return _answer(sock, timeout_s)

    def _say(self, talk: Talk) -> None:
        sock = self._connected()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if talk.kind == "pieces":
                for place in range(0, min(len(talk.data), 300), 7):
                    sock.sendall(talk.data[place : place + 7])
                sock.sendall(talk.data[300:])
            else:
                sock.sendall(talk.data)
        if talk.kind == "silent":
            self._left_open.append(sock)
            if len(self._left_open) > 20:
                self._left_open.pop(0).close()
            return
        with sock:
            if talk.kind in ("unfinished", "half"):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
            if talk.kind in ("line", "pieces") and b"\n" not in talk.data:
                return  # it may wait for the rest, and is left alone
            _answer(sock, PATIENT_S)

    def _crowd(self) -> None:
        """Many who say nothing must not keep a right request from being answered."""
        crowd = []
        try:
            for _ in range(CROWD):
                crowd.append(self._connected())
            answer = self.ask({"op": "status"}, PROMPT_S)
            assert answer is not None
            assert answer["ok"]
        finally:
            for sock in crowd:
                sock.close()

    def _change(self, talk: Talk) -> None:
        """Wrong settings are refused or taken; the right ones are taken again soon after."""
        settings = {**self.settings, **talk.settings}
        request = {"op": "attached", "attachment": "c1.eth0", "wait": "present", "timeout_s": 0}
        request |= {"settings": settings, "started_s": talk.started_s}
        answer = self.ask(request, PATIENT_S)
        assert answer is not None
        assert not answer["ok"]
        assert answer["code"] in (7, 50, 104, 107, 108), answer

        if answer["code"] == 108:  # they were taken, and the question was answered
            time.sleep(CHANGING_S)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.ask({**request, "settings": self.settings, "started_s": now}, PATIENT_S)
        wait_for("the child to be well", lambda: self._is_well(PATIENT_S), timeout_s=20)

    def _lie(self, talk: Talk) -> None:
        """While etcd lies and after it, the child answers; then it hears its node's keys again."""
        for lie in talk.lies:
            self.liar.lie = lie
            self.liar.hang_up()
            answer = self.ask({"op": "health"}, PATIENT_S)
            assert answer is not None
            assert answer["ok"], answer
            time.sleep(0.05)
        self.liar.lie = None
        self.liar.hang_up()
        wait_for("etcd to be well", lambda: self._is_well(PATIENT_S), timeout_s=20)
        # What the node once had and no longer has is taken back: the watch lives.
        key = f"/ratchet/nodes/{ADDRESS}/pods/gone-{self._talks}"
        self._put(key, Published("c0", (), self.state_dir).dumps())
        wait_for("a trace of a pod to go", lambda: not self._has(key), timeout_s=30)

    def _is_well(self, timeout_s: float) -> bool:
        try:
            status = self.ask({"op": "status"}, timeout_s)
            health = self.ask({"op": "health"}, timeout_s)
        except OSError:
            return False
        return (
            status is not None
            and health is not None
            and status.get("node") == ADDRESS
            and status.get("parent_interface") == "lo"
            and health.get("etcd", "") is None
        )

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENT_S)

        def connect() -> bool:
            try:
                sock.connect(f"{self.state_dir}/child.sock")
            except BlockingIOError:  # the backlog is full, unix(7)
                return False
            return True

        try:
            wait_for("a connection", connect, timeout_s=PATIENT_S)
        except BaseException:
            sock.close()
            raise
        return sock

    # Looking --------------------------------------------------------------------------------------

    def _check_process(self) -> None:
        child = self._child()
        assert child == self._first_child, "the child has died"
        wait_for(
            "the child to close its descriptors",
            lambda: len(os.listdir(f"/proc/{child}/fd")),
            until=lambda count: count < MOST_DESCRIPTORS,
            timeout_s=5,
        )
        with open(f"/proc/{child}/status", encoding="ascii") as file:
            words = dict(line.split(":", 1) for line in file)
        assert int(words["VmRSS"].split()[0]) < MOST_MEMORY_KB, words["VmRSS"]
        assert int(words["Threads"]) < 40, words["Threads"]
        with open(self.log, encoding="utf-8") as file:
            file.seek(self._read_to)
            news = file.read()
            self._read_to = file.tell()
        assert "traceback=" not in news, news[news.index("traceback=") - 300 :][:3000]

    def _child(self) -> int:
        """The process that answers: the one that the supervisor has started."""
        supervisor = self._processes[-1]
        assert supervisor.poll() is None, "the supervisor has ended"
        with open(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children") as file:
            return int(file.read().split()[0])

    def _etcd_answers(self) -> bool:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self._etcd_port}/health"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(json.load(answer)["health"] == "true")
        return False

    def _put(self, key: str, value: str) -> None:
        request = urllib.request.Request(self._url(key), method="PUT")
        request.data = b"value=" + urllib.parse.quote(value).encode()
        with urllib.request.urlopen(request, timeout=5):
            pass

    def _has(self, key: str) -> bool:
        try:
            with urllib.request.urlopen(self._url(key), timeout=5):
                return True
        except urllib.error.HTTPError as error:
            with error:
                assert error.code == 404
            return False

    def _url(self, key: str) -> str:
        return f"http://127.0.0.1:{self._etcd_port}/v2/keys{key}"


def _answer(sock: socket.socket, timeout_s: float) -> dict[str, Any] | None:
    """One line of JSON and the end, or only the end. Raises TimeoutError when nothing comes."""
    end = time.monotonic() + timeout_s
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            sock.settimeout(max(0.001, end - time.monotonic()))
            part = sock.recv(65536)
            if not part:
                break
            data += part
    if not data:
        return None
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert len(data) < 100_000, "an answer that repeats a huge request"
    answer = json.loads(data)
    assert type(answer["ok"]) is bool
    assert answer["ok"] or answer["code"] != 199, answer
    found: dict[str, Any] = answer
    return found


@contextlib.contextmanager
def child_opened(*, is_hostile: bool = False) -> Iterator[Check]:
    assert shutil.which("etcd"), "no program etcd"
    with tempfile.TemporaryDirectory(prefix="ratchet-fuzz-") as folder:
        bed = Bed(folder, is_hostile=is_hostile)
        try:
            bed.start()
            yield bed.check
        finally:
            bed.close()


TARGETS: tuple[Target, ...] = (
    Target("child", make_talk, child_opened, 1, kind="child"),
    Target(
        "child-beside-hostile-pods",
        make_talk,
        functools.partial(child_opened, is_hostile=True),
        1,
        kind="child",
    ),
)
