"""Whole requests in this process: `skel.main` with the real operations.

Stand-ins are at the boundary of the process only: what runs a plugin or becomes one (`invoke`),
what asks the child (`spawn`), and the log's last step. The state directory is a real one. What must
not be is written down in `Bed.check`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet import client, messages, plugin, spawn
from ratchet import main as ratchet_main
from ratchet.attachments import Directory
from ratchet.cni import codec, invoke, skel
from ratchet.cni.errors import CniError, DelegateError
from ratchet.errors import ChildError, StateError
from tests.fuzz.cni_parsers import COMMANDS, CONFIG_KEYS, RESULTS, check_answer
from tests.fuzz.mutate import Mutator
from tests.fuzz.pod_parsers import ANNOTATIONS, LABELS, make_labels
from tests.fuzz.runner import Check, Target
from tests.fuzz.shared_parsers import ALL_KEYS, _memory, quiet
from tests.lab.polling import wait_for

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "", "1.1.0", "0.4.0")
ENVIRON = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/proc/self/ns/uts",  # there, and not the node's network namespace
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=router-1",
    "CNI_PATH": "/opt/cni/bin",
}
# A plugin's own errors, and what it says instead of an answer.
FAILURES: tuple[Exception, ...] = (
    CniError(1, "incompatible CNI versions"),
    CniError(7, "bad\nconfiguration", "\x1b[31m"),
    CniError(11, "try again"),
    CniError(999, "its own"),
    DelegateError("plugin x was killed by signal 9"),
)
CHILD: tuple[Any, ...] = (
    {"ok": True, "complete": True, "links": []},
    {"ok": True, "complete": False, "links": [{"ifname": "in1", "peer": "r2", "state": "waiting"}]},
    {"ok": True, "complete": False, "links": [{}, 5, None, {"state": []}]},
    {"ok": True, "complete": True, "links": {"a": 1}},
    {"ok": False, "code": 106, "msg": "no", "details": ""},
    {"ok": False, "code": 11, "msg": "later", "details": "x"},
    {"ok": False, "code": "11", "msg": None, "details": 5},
    {"ok": True, "labels": {"ratchet": "true"}, "annotations": {}},
    {"ok": True, "labels": {"ratchet": 5}, "annotations": {}},
    {"ok": True, "labels": [], "annotations": None},
    {"ok": True, "etcd": None},
    {"ok": True, "etcd": {"why": "\n"}},
    {},
    None,
    ChildError("cannot connect", "x"),
    StateError("cannot write", "x"),
)


class BecameError(BaseException):
    """Where the process would have become a plugin: nothing of ours comes after that."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the plugin."""

    environ: dict[str, str]
    stdin: bytes
    plugins: tuple[Any, ...]
    """What plugins do, one after another: a result, None, or an exception."""
    child: tuple[Any, ...]
    """What the child answers, one after another."""


def make_call(mutator: Mutator) -> list[Call]:
    """One or several calls for the same container, as a runtime makes them."""
    which = mutator.random.random()
    if which < 0.45:
        commands: tuple[str, ...] = ("ADD",)
    elif which < 0.65:
        commands = ("ADD", mutator.pick(COMMANDS))
    elif which < 0.8:
        commands = ("ADD", "ADD", "CHECK", "DEL", "DEL")
    else:
        commands = (mutator.pick(COMMANDS),)
    seed = _config(mutator)
    return [_call(mutator, command, seed) for command in commands]


def _config(mutator: Mutator) -> dict[str, Any]:
    config: dict[str, Any] = {
        "cniVersion": mutator.pick(VERSIONS),
        "name": "net",
        "type": "ratchet",
        "delegate": {"type": "bridge"},
        "etcd_host": "127.0.0.1",
        "label_source": "runtime",
    }
    if mutator.chance(0.3):
        config["boot_network"] = {"plugins": [{"type": "ptp"}, {"type": "portmap"}], "name": "b"}
    if mutator.chance(0.1):
        del config["delegate"]
        config["prevResult"] = mutator.pick(RESULTS)
    config["wait"] = mutator.pick(("present", "all", "none", "all"))
    labels, annotations = LABELS, ANNOTATIONS
    if mutator.chance(0.35):
        labels, annotations, _, _ = make_labels(mutator)
    if mutator.chance(0.85):
        config["args"] = {"cni": {"labels": dict(labels)}}
        config["runtimeConfig"] = {"io.kubernetes.cri.pod-annotations": dict(annotations)}
    if mutator.chance(0.1):
        config["label_source"] = "kubernetes"
        config["kubeconfig"] = "/nonexistent/kubeconfig"
    return config


def _call(mutator: Mutator, command: str, seed: dict[str, Any]) -> Call:
    environ = {**ENVIRON, "CNI_COMMAND": command}
    if mutator.chance(0.15):
        key = mutator.pick(tuple(environ))
        text = mutator.pick((mutator.text(), mutator.string(environ[key])))
        environ[key] = os.fsdecode(text.encode("utf-8", "surrogatepass")).replace("\0", "")
    config: Any = copy.deepcopy(seed)
    if command == "GC":
        config["cni.dev/valid-attachments"] = mutator.pick(
            ([], [{"containerID": "c1", "ifname": "eth0"}], None)
        )
    if mutator.chance(0.4):
        config = mutator.tree(config, (*ALL_KEYS, *CONFIG_KEYS, *LABELS))
    if isinstance(config, dict):
        # Where this test has its own; what else they may be is for the parsers' targets.
        for key in ("state_dir", "log_file", "kubeconfig", "docker_socket"):
            config.pop(key, None)
        config["state_dir"] = "@"
        config["docker_socket"] = "/nonexistent/docker.sock"
        if config.get("label_source") == "kubernetes":
            config["kubeconfig"] = "/nonexistent/kubeconfig"
    stdin = json.dumps(config).encode()
    if mutator.chance(0.3):
        spoilt = mutator.json(config)
        stdin = spoilt if _is_kept_here(spoilt) else stdin
    return Call(
        environ,
        stdin,
        tuple(_plugin(mutator) for _ in range(8)),
        tuple(mutator.pick(CHILD) for _ in range(4)),
    )


def _is_kept_here(stdin: bytes) -> bool:
    """Whether it still has the state directory of this test, or nobody can read it."""
    try:
        found = json.loads(stdin)
    except (ValueError, RecursionError):
        return True
    return not isinstance(found, dict) or found.get("state_dir") == "@"


def _plain(value: Any) -> bytes:
    return codec.encode(value)


def _plugin(mutator: Mutator) -> Any:
    which = mutator.random.random()
    if which < 0.6:
        return mutator.pick(RESULTS)
    if which < 0.7:
        return mutator.pick(FAILURES)
    if which < 0.75:
        return None
    if which < 0.8:
        return {"supportedVersions": mutator.pick((["0.4.0", "1.1.0"], 5, {"1.1.0": 1}, None))}
    made = mutator.tree(mutator.pick(RESULTS))
    # A plugin's answer has been decoded, and is an object by then.
    try:
        decoded = codec.decode(_plain(made))
    except (ValueError, RecursionError):
        return DelegateError("plugin x did not print a result")
    return decoded if isinstance(decoded, dict) else DelegateError("did not print a result")


class Bed:
    """A state directory, and the stand-ins around it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.state_dir = f"{folder}/state"
        self.call: Call | None = None
        self.plugins: list[Any] = []
        self.child: list[Any] = []
        self.told = False
        self.undone_badly = False
        self.detached = False

    # The stand-ins --------------------------------------------------------------------------------

    def find(self, plugin_type: str, path: str) -> str:
        return f"/opt/cni/bin/{plugin_type}"

    def run(
        self,
        config: Mapping[str, Any],
        path: str,
        environ: Mapping[str, str],
        timeout_s: float | None = None,
    ) -> dict[str, Any] | None:
        codec.encode(config)
        answer = self.plugins.pop(0) if self.plugins else None
        if isinstance(answer, Exception):
            if environ.get("CNI_COMMAND") == "DEL":
                self.undone_badly = True
            raise answer
        return copy.deepcopy(answer)

    def become(self, config: Mapping[str, Any], path: str, environ: Mapping[str, str]) -> None:
        codec.encode(config)
        raise BecameError

    def ask(
        self, config: Any, request: messages.Request, timeout_s: float
    ) -> dict[str, Any] | None:
        codec.encode({**messages.request_to_json(request), "settings": config.settings()})
        assert timeout_s > 0
        if isinstance(request, messages.Attached):
            self.told = True
        answer = self.child.pop(0) if self.child else None
        if isinstance(answer, Exception):
            raise answer
        return copy.deepcopy(answer)

    def start_and_ask(
        self, config: Any, request: messages.Request, timeout_s: float
    ) -> dict[str, Any]:
        answer = self.ask(config, request, timeout_s)
        if answer is None:
            raise ChildError("it cannot be started")
        return answer

    def tell(self, config: Any, request: messages.Request, timeout_s: float) -> None:
        self.start_and_ask(config, request, timeout_s)

    # What must hold -------------------------------------------------------------------------------

    def check(self, calls: list[Call]) -> None:
        """Each call prints one result or one error, and an error leaves nothing behind.

        Nothing but: a record that the child has seen is left for it to clean up, and one whose boot
        network could not be detached is kept until it is.
        """
        for call in calls:
            before = self.tree()
            self.plugins, self.child = list(call.plugins), list(call.child)
            self.told = self.undone_badly = False
            stdin = call.stdin.replace(b'"@"', f'"{self.state_dir}"'.encode())
            stdout = io.BytesIO()
            try:
                with quiet(), _only_in(self.folder):
                    status = skel.main(
                        call.environ,
                        io.BytesIO(stdin),
                        stdout,
                        plugin.OPERATIONS,
                        ratchet_main.crashed,
                    )
            except BecameError:
                assert not stdout.getvalue()
                assert self.tree() == before, "a pod of the delegate's has left something"
                continue
            command = call.environ.get("CNI_COMMAND", "")
            check_answer(status, stdout.getvalue(), command)
            if status and command == "ADD":
                self._check_undone(before)
            elif status and command not in ("DEL", "GC"):
                assert self.tree() == before, "an error has left something behind"
        self.clear()

    def _check_undone(self, before: dict[str, bytes]) -> None:
        added = self.tree().keys() - before.keys()
        for path in added:
            kind = path.split("/")[0]
            if path.endswith(".deleted"):
                continue  # the child's, who removes it
            assert kind == "boot", f"left behind: {path}"
            assert self.undone_badly, f"left behind, though it was detached: {path}"

    def tree(self) -> dict[str, bytes]:
        """Every file below the state directory, with what is in it."""
        found = {}
        for folder, _, names in os.walk(self.state_dir):
            # What is kept of delegates, and of failures that repeat, is no trace of a pod.
            kept = os.path.basename(folder) == "versions"
            for name in () if kept else (one for one in names if not one.endswith(".failed.json")):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, self.state_dir)] = file.read()
        return found

    def clear(self) -> None:
        for folder, _, names in os.walk(self.state_dir):
            for name in names:
                os.unlink(os.path.join(folder, name))
        for one in Directory(self.state_dir).live():
            raise AssertionError(f"{one} is still there")


@contextlib.contextmanager
def bed_opened() -> Iterator[Check]:
    with tempfile.TemporaryDirectory(prefix="ratchet-fuzz-", dir=_memory()) as folder:
        bed = Bed(folder)
        with _replaced(bed):
            yield bed.check


@contextlib.contextmanager
def _replaced(bed: Bed) -> Iterator[None]:
    places: list[tuple[Any, str, Any]] = [
        (invoke, "find", bed.find),
        (invoke, "run", bed.run),
        (invoke, "become", bed.become),
        (client, "ask", bed.ask),
        (spawn, "ask", bed.start_and_ask),
        (spawn, "tell", bed.tell),
        (spawn, "attend", lambda _: None),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, stand_in in places:
        setattr(module, name, stand_in)
    try:
        yield
    finally:
        for module, name, real in before:
            setattr(module, name, real)


# Nothing is written elsewhere ---------------------------------------------------------------------

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# What changes a file's name or place: its arguments are paths, or begin with one.
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")
_FORBIDDEN = ("os.exec", "os.fork", "os.posix_spawn", "os.system", "subprocess.Popen")


class _Hook:
    """An audit hook cannot be removed: this one is installed once, and turned on for a folder."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.thread = 0
        self.broken: str | None = None
        sys.addaudithook(self._look)

    def _look(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None or threading.get_ident() != self.thread:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & _WRITES and path != "/dev/null":
                self._expect_inside(event, path)
        elif event in _CHANGES:
            for path in args[:2] if event in ("os.rename", "os.link", "os.symlink") else args[:1]:
                self._expect_inside(event, path)
        elif event in _FORBIDDEN or (event == "socket.connect"):
            self.broken = f"{event} {args}"
            raise BecameError(self.broken)

    def _expect_inside(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            return
        text = os.path.normpath(os.fsdecode(path))
        if not text.startswith(f"{self.folder}/"):
            self.broken = f"{event} {text!r}"
            raise BecameError(self.broken)


_hook: list[_Hook] = []


@contextlib.contextmanager
def _only_in(folder: str) -> Iterator[None]:
    """Nothing is written or changed outside a folder, and nothing is started or connected to."""
    if not _hook:
        _hook.append(_Hook())
    hook = _hook[0]
    # Modules are imported in here that nobody has compiled before.
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    hook.broken, hook.thread, hook.folder = None, threading.get_ident(), folder
    try:
        yield
    finally:
        hook.folder = None
        sys.dont_write_bytecode = kept
        assert hook.broken is None, hook.broken


# Plugins that lie, as real processes --------------------------------------------------------------

BEHAVIOURS = (
    "true",
    "exit 1",
    "exit 255",
    "kill -9 $$",
    "kill -TERM $$",
    "exec 1>&-; exit 0",
    "exec 1>&-; exit 3",
    "cat",
    "cat >&2; exit 1",
    'printf \'{"code": 5, "msg": "no"}\'; exit 1',
    'printf \'{"code": 5, "msg": "no"}\'; exit 0',
    'printf \'{"code": "5", "msg": []}\'; exit 1',
    'printf \'{"code": -1, "msg": "no"}\'; exit 1',
    'printf \'{"code": 0, "msg": "no"}\'; exit 1',
    'printf \'{"code": true, "msg": "no"}\'; exit 1',
    'printf \'{"code": 99999999999999999999, "msg": "no"}\'; exit 1',
    'printf \'{"code": 5, "msg": ""}\'; exit 1',
    'printf \'{"code": 5, "msg": "a\\\\nb", "details": {"a": [1]}}\'; exit 1',
    'printf \'{"cniVersion": "1.0.0"}{}\'',
    "printf '\\377\\376'",
    "printf '[]'",
    "printf 'null'",
    "printf '\"text\"'",
    "printf 'Traceback (most recent call last):'; exit 1",
    'printf \'{"cniVersion": "1.0.0", "ips": 5}\'',
    'printf \'{"cniVersion": 5, "ips": [{"address": "10.0.0.1/24", "interface": 7}]}\'',
    "printf '  \\n  '",
    "head -c 300000 /dev/zero",
    "head -c 17000000 /dev/zero",
    "head -c 100000 /dev/zero | tr '\\0' '['",
    "head -c 100000 /dev/zero | tr '\\0' '['; exit 1",
    "(sleep 0.05; printf '{}') & wait",
)


def make_lie(mutator: Mutator) -> tuple[str, Any]:
    behaviour = mutator.pick(BEHAVIOURS)
    if mutator.chance(0.4):
        data = mutator.json(mutator.tree(mutator.pick(RESULTS))).replace(b"\0", b"")[:5000]
        behaviour = f"cat <<'@END@'\n{data.decode('latin-1')}\n@END@\n"
        behaviour += mutator.pick(("", "exit 1", "kill -9 $$"))
    return behaviour, mutator.pick(COMMANDS[:-1])


@contextlib.contextmanager
def liar_opened() -> Iterator[Check]:
    """A plugin that is a shell script, run by the real `invoke.run`."""
    with tempfile.TemporaryDirectory(prefix="ratchet-fuzz-", dir=_memory()) as folder:
        os.mkdir(f"{folder}/bin")
        program = f"{folder}/bin/liar"
        bed = Bed(folder)
        # A plugin is found again, and becoming one is running it.
        real_find, real_run = invoke.find, invoke.run

        def check(made: tuple[str, str]) -> None:
            behaviour, command = made
            with open(program, "w", encoding="latin-1") as file:
                file.write(f"#!/bin/sh\n{behaviour}\n")
            os.chmod(program, 0o700)
            descriptors = os.listdir("/proc/self/fd")
            for boot in (True, False):
                _serve_with_liar(bed, folder, command, boot=boot)
            bed.clear()
            # Among tests another thread of this process may have one open for a moment.
            wait_for(
                "descriptors to be closed",
                lambda: len(os.listdir("/proc/self/fd")),
                until=lambda count: count == len(descriptors),
                timeout_s=2,
            )
            with contextlib.suppress(ChildProcessError):
                pid, _ = os.waitpid(-1, os.WNOHANG)
                assert pid == 0, "a process was not waited for"

        with _replaced(bed):
            invoke.find, invoke.run = real_find, real_run
            yield check


def _serve_with_liar(bed: Bed, folder: str, command: str, *, boot: bool) -> None:
    config = {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "ratchet",
        "delegate": {"plugins": [{"type": "liar"}, {"type": "liar"}]},
        "etcd_host": "127.0.0.1",
        "label_source": "runtime",
        "state_dir": bed.state_dir,
        "args": {"cni": {"labels": {**LABELS, "ratchet": "true" if boot else "false"}}},
        "cni.dev/valid-attachments": [],
    }
    before = bed.tree()
    bed.child = [{"ok": True, "complete": True, "links": []}] * 3
    environ = {**os.environ, **ENVIRON, "CNI_COMMAND": command, "CNI_PATH": f"{folder}/bin"}
    stdout = io.BytesIO()
    try:
        with quiet(), _no_stderr():
            status = skel.main(
                environ,
                io.BytesIO(_plain(config)),
                stdout,
                plugin.OPERATIONS,
                ratchet_main.crashed,
            )
    except BecameError:
        return
    check_answer(status, stdout.getvalue(), command)
    if status and command == "ADD":
        bed.undone_badly = True  # the same plugin is asked to undo
        bed._check_undone(before)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Plugins write to our standard error; nobody wants to read that here."""
    kept = os.dup(2)
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


TARGETS: tuple[Target, ...] = (
    Target("request", make_call, bed_opened, 1, kind="request"),
    Target("lying-plugin", make_lie, liar_opened, 1, kind="process"),
)
