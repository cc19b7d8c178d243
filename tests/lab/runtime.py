"""The runtime's side of a node: pods, their labels, and plugins executed by the CNI protocol.

It does what containerd does (environment, standard input, libcni's memory of results) and knows
nothing of the programs under test but where they are.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.etcd_server import Etcd
from tests.lab.namespaces import Namespace, random_name
from tests.lab.polling import wait_for

Config = dict[str, Any]

REFERENCE_PLUGINS = "/usr/lib/cni"
# A runtime waits this long or longer for a plugin.
PLUGIN_TIMEOUT_S = 60.0
CNI_IFNAME = "eth0"
SUPERVISOR = "ratchet-super"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"


# The ways to reach the operations: what is installed as `ratchet`, the Python parent by itself, and
# the front with a child that serves it.
INSTALLED, PARENT, FRONT = "installed", "parent", "front"


def plugin_dir() -> str:
    """Return the folder with the programs under test: the built ones, else this interpreter's."""
    return os.environ.get("RATCHET_PLUGIN_DIR") or os.path.dirname(sys.executable)


# A pod's labels


def primary(
    ifname: str,
    address: str | None,
    pair: str,
    pair_ifname: str,
    pair_address: str | None,
    number: int = 1,
) -> dict[str, str]:
    """Return the labels that declare a link; `number` is that of the link in this pod."""
    prefix = "ratchet." if number == 1 else f"ratchet.{number}."
    labels = {
        "ratchet": "true",
        f"{prefix}local_ifname": ifname,
        f"{prefix}pair_name": pair,
        f"{prefix}pair_ifname": pair_ifname,
    }
    if number == 1:
        labels["ratchet.primary"] = "true"
    if address is not None:
        labels[f"{prefix}local_ip"] = address
    if pair_address is not None:
        labels[f"{prefix}pair_ip"] = pair_address
    return labels


def in1_in2(pair: str) -> dict[str, str]:
    """Return the labels of the example's primary pod."""
    return primary("in1", "192.168.2.100", pair, "in2", "192.168.2.101")


PAIR = {"ratchet": "true", "ratchet.primary": "false"}


# The runtime's side


@dataclass(frozen=True)
class Outcome:
    """What a runtime sees of one execution of a plugin."""

    exit: int
    stdout: bytes
    stderr: bytes
    elapsed_s: float

    @property
    def result(self) -> dict[str, Any]:
        """Return the decoded standard output of a success."""
        assert self.exit == 0, f"{self!r}"
        decoded: dict[str, Any] = json.loads(self.stdout)
        return decoded

    @property
    def error(self) -> dict[str, Any]:
        """Return the decoded CNI error of a failure, checked as CNI spec §5 Error demands."""
        assert self.exit != 0, f"{self!r}"
        assert b"Traceback" not in self.stdout, f"{self!r}"
        decoded: dict[str, Any] = json.loads(self.stdout)
        assert isinstance(decoded["code"], int), decoded
        assert decoded["code"] > 0, decoded
        assert isinstance(decoded["msg"], str), decoded
        assert decoded["msg"], decoded
        assert isinstance(decoded.get("details", ""), str), decoded
        return decoded

    @property
    def error_text(self) -> str:
        """Return what a user reads of the error in `kubectl describe pod`."""
        return f"{self.error['msg']} {self.error.get('details', '')}"

    def succeeded(self) -> Outcome:
        assert self.exit == 0, f"{self!r}"
        return self


class Call:
    """One running plugin."""

    def __init__(self, argv: list[str], environ: Mapping[str, str], stdin: bytes) -> None:
        self._started = time.monotonic()
        self._outcome: Outcome | None = None
        self.process = subprocess.Popen(
            argv,
            env=dict(environ),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        # A plugin that fails before it reads is no failure of ours.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(stdin)
            self.process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdin = None

    def finish(self, timeout_s: float = PLUGIN_TIMEOUT_S) -> Outcome:
        """Wait for the end *and* for the end of its output, as runtimes do. Safe to call twice."""
        if self._outcome is None:
            try:
                stdout, stderr = self.process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            elapsed_s = time.monotonic() - self._started
            self._outcome = Outcome(self.process.returncode, stdout, stderr, elapsed_s)
        return self._outcome

    def kill(self) -> None:
        """Kill it as a runtime does whose patience has ended. Safe to call twice."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Pod:
    """One sandbox: a namespace and a container ID. A pod that is re-created is a new one."""

    def __init__(self, name: str, namespace: str = "default") -> None:
        self.name = name
        self.namespace = namespace
        self.uid = str(uuid.uuid4())
        self.container_id = secrets.token_hex(32)
        self.netns = Namespace(random_name("pod"))

    def __repr__(self) -> str:
        return f"<pod {self.namespace}/{self.name} {self.container_id[:8]} {self.netns.name}>"

    def cni_args(self) -> str:
        return (
            f"IgnoreUnknown=1;K8S_POD_NAMESPACE={self.namespace};K8S_POD_NAME={self.name};"
            f"K8S_POD_INFRA_CONTAINER_ID={self.container_id};K8S_POD_UID={self.uid}"
        )


@dataclass
class Attachment:
    """What the runtime remembers of an attachment (libcni's cache)."""

    pod: Pod
    ifname: str
    config: Config
    result: dict[str, Any] | None = None


@dataclass
class Node:
    """A node: its namespace, its addresses, its folder, and the runtime that runs on it."""

    number: int
    namespace: Namespace
    address: str
    address6: str
    etcd: Etcd
    directory: str
    attachments: dict[tuple[str, str], Attachment] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    round: int = 0
    way: str = INSTALLED
    front: str | None = None  # another one than what was built
    server: subprocess.Popen[bytes] | None = None
    # What was logged before is no longer asked for.
    _log_from: int = 0

    @property
    def program(self) -> str:
        """Return the plugin under test. Without a compiler there is only the parent."""
        parent = os.path.join(plugin_dir(), "ratchet-parent")
        if self.way == PARENT and os.path.exists(parent):
            return parent
        if self.way == FRONT and self.front is not None:
            return self.front
        return os.path.join(plugin_dir(), "ratchet")

    @property
    def state_dir(self) -> str:
        return os.path.join(self.directory, str(self.round), "state")

    @property
    def log_file(self) -> str:
        return os.path.join(self.directory, str(self.round), "ratchet.log")

    def bridge_config(self, **changes: Any) -> Config:
        """Return the configuration of the usual plugin of this node: bridge and host-local."""
        config: Config = {
            "type": "bridge",
            "bridge": "cni0",
            "ipam": {
                "type": "host-local",
                "subnet": f"10.88.{self.number}.0/24",
                "dataDir": os.path.join(self.directory, str(self.round), "host-local"),
            },
        }
        return changed(config, changes)

    def config(self, **changes: Any) -> Config:
        """Return this node's `10-ratchet.conf`; a change to None leaves the key out."""
        config: Config = {
            "cniVersion": "1.0.0",
            "name": "ratchet-test",
            "type": "ratchet",
            "delegate": self.bridge_config(),
            "boot_network": {"type": "loopback"},
            "etcd_host": self.etcd.address,
            "etcd_port": self.etcd.port,
            "child_path": os.path.join(plugin_dir(), "ratchet-child"),
            "parent_interface": "eth0",
            "parent_address": self.address,
            "state_dir": self.state_dir,
            "log_file": self.log_file,
            "log_level": "debug",
        }
        return changed(config, changes)

    # The operations

    def environ(
        self,
        command: str,
        pod: Pod | None = None,
        ifname: str = CNI_IFNAME,
        changes: Mapping[str, str | None] | None = None,
    ) -> dict[str, str]:
        """Return a plugin's environment: with LD_LIBRARY_PATH and without HOME, as containerd's."""
        environ: dict[str, str | None] = {
            "CNI_COMMAND": command,
            "CNI_PATH": f"{plugin_dir()}:{REFERENCE_PLUGINS}",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LD_LIBRARY_PATH": "/opt/containerd/lib:",
        }
        if pod is not None:
            environ["CNI_CONTAINERID"] = pod.container_id
            environ["CNI_NETNS"] = pod.netns.path
            environ["CNI_IFNAME"] = ifname
            environ["CNI_ARGS"] = pod.cni_args()
        environ.update(changes or {})
        return {key: value for key, value in environ.items() if value is not None}

    def execute(
        self, config: Config | bytes, environ: Mapping[str, str], program: str | None = None
    ) -> Call:
        """Start the plugin under test, or another one, in this node's namespace."""
        if program is None and self.way == FRONT:
            self.serve_front()
        path = program or self.program
        stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
        call = Call(self.namespace.command(path), environ, stdin)
        self.calls.append(call)
        return call

    def start_add(
        self,
        pod: Pod,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
        *,
        config: Config | None = None,
        ifname: str = CNI_IFNAME,
        environ: Mapping[str, str | None] | None = None,
        **changes: Any,
    ) -> Call:
        """Start an ADD; `changes` are changes to this node's configuration."""
        request = request_config(config or self.config(**changes), labels, annotations)
        key = (pod.container_id, ifname)
        self.attachments.setdefault(key, Attachment(pod, ifname, request)).config = request
        return self.execute(request, self.environ("ADD", pod, ifname, environ))

    def add(
        self,
        pod: Pod,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
        *,
        config: Config | None = None,
        ifname: str = CNI_IFNAME,
        environ: Mapping[str, str | None] | None = None,
        **changes: Any,
    ) -> Outcome:
        """Attach a pod and return what the plugin answered."""
        call = self.start_add(
            pod, labels, annotations, config=config, ifname=ifname, environ=environ, **changes
        )
        outcome = call.finish()
        if outcome.exit == 0:
            with contextlib.suppress(ValueError):
                self.attachments[pod.container_id, ifname].result = json.loads(outcome.stdout)
        return outcome

    def start_delete(
        self,
        pod: Pod,
        *,
        config: Config | None = None,
        ifname: str = CNI_IFNAME,
        environ: Mapping[str, str | None] | None = None,
        prev_result: bool = True,
    ) -> Call:
        """Start a DEL with the configuration of the ADD, as libcni does."""
        return self._again("DEL", pod, config, ifname, environ, prev_result=prev_result)

    def delete(
        self,
        pod: Pod,
        *,
        config: Config | None = None,
        ifname: str = CNI_IFNAME,
        environ: Mapping[str, str | None] | None = None,
        prev_result: bool = True,
    ) -> Outcome:
        """Detach a pod; on success the runtime forgets the attachment."""
        outcome = self.start_delete(
            pod, config=config, ifname=ifname, environ=environ, prev_result=prev_result
        ).finish()
        if outcome.exit == 0:
            self.attachments.pop((pod.container_id, ifname), None)
        return outcome

    def check(
        self,
        pod: Pod,
        *,
        config: Config | None = None,
        ifname: str = CNI_IFNAME,
        environ: Mapping[str, str | None] | None = None,
    ) -> Outcome:
        """CHECK an attachment, with the result of its ADD as `prevResult`."""
        return self._again("CHECK", pod, config, ifname, environ, prev_result=True).finish()

    def gc(
        self,
        valid: list[tuple[Pod, str]] | None,
        *,
        config: Config | None = None,
        key: str = "cni.dev/valid-attachments",
    ) -> Outcome:
        """Send GC with the attachments that are still wanted; None sends no list at all."""
        request = copy.deepcopy(config or self.config(cniVersion="1.1.0"))
        if valid is not None:
            request[key] = [
                {"containerID": pod.container_id, "ifname": ifname} for pod, ifname in valid
            ]
        return self.execute(request, self.environ("GC")).finish()

    def status(self, *, config: Config | None = None) -> Outcome:
        request = config or self.config(cniVersion="1.1.0")
        return self.execute(request, self.environ("STATUS")).finish()

    def _again(
        self,
        command: str,
        pod: Pod,
        config: Config | None,
        ifname: str,
        environ: Mapping[str, str | None] | None,
        *,
        prev_result: bool,
    ) -> Call:
        known = self.attachments.get((pod.container_id, ifname))
        request = copy.deepcopy(
            config or (known.config if known else request_config(self.config(), {}, None))
        )
        if prev_result and known is not None and known.result is not None:
            request.setdefault("prevResult", known.result)
        return self.execute(request, self.environ(command, pod, ifname, environ))

    # Looking

    def records(self) -> list[str]:
        """Return the names of the attachment records, deleted ones too."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(os.path.join(self.state_dir, "attachments")))
        return []

    def children(self) -> list[int]:
        """Return the ids of the children on this node."""
        return sorted(pid for pid in self.serving() if not is_supervisor(pid))

    def supervisors(self) -> list[int]:
        """Return the ids of the processes that supervise the children on this node."""
        return sorted(pid for pid in self.serving() if is_supervisor(pid))

    def serving(self, there: set[int] | None = None) -> set[int]:
        """Return the ids of the processes on this node, or of these, that hold the child's lock."""
        lock = os.path.join(self.state_dir, "child.lock")
        if there is None:
            there = self.namespace.processes()
        return {pid for pid in there if has_open(pid, lock)}

    def serve_front(self) -> None:
        """Have a child serve the front, if none does."""
        if self.children():
            return
        path = os.path.join(self.directory, str(self.round), "child.conf")
        with open(path, "w") as file:
            json.dump(self.config(), file)
        argv = [os.path.join(plugin_dir(), "ratchet-child"), "--config", path]
        null = subprocess.DEVNULL
        self.reap()
        self.server = subprocess.Popen(
            self.namespace.command(*argv), cwd="/", stdin=null, stdout=null, stderr=null
        )
        pid = self.wait_child()
        wait_for(
            f"the front of node {self.number} to be served",
            lambda: _is_listened_at(f"/proc/{pid}/root/run/ratchet/front.sock"),
        )

    def reap(self) -> None:
        """Forget the child that served the front, which has ended or is about to."""
        if self.server is not None:
            self.server.wait(PLUGIN_TIMEOUT_S)
            self.server = None

    def kill_all(self) -> None:
        """Kill the child, and what would start it again; wait until they are gone."""
        killed: set[int] = set()

        def are_gone() -> bool:
            # Either starts the other again if it lives for long enough after it, and what it
            # has just started may be seen at the next look only: until the lock is free.
            found = self.serving()
            for pid in sorted(found, key=lambda pid: command_name(pid) != SUPERVISOR):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.update(found)
            # Who ends has no open files any more a moment before the lock is free, and leaves the
            # namespace after that: do_exit in kernel/exit.c.
            return not killed & self.namespace.processes() and self._is_unlocked()

        wait_for("child and supervisor to be gone", are_gone)

    def _is_unlocked(self) -> bool:
        """Whether nobody holds the lock of a child and its supervisor."""
        try:
            lock = os.open(os.path.join(self.state_dir, "child.lock"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    def next_round(self) -> None:
        """Forget everything that was kept and logged, and look as a node that has just booted."""
        shutil.rmtree(os.path.join(self.directory, str(self.round)), ignore_errors=True)
        self.round += 1
        self._log_from = 0
        os.mkdir(os.path.join(self.directory, str(self.round)))
        self.rest()

    def rest(self) -> None:
        """Have the node look as some time after its boot, when its child has ended by itself."""
        mark_at_rest(self.state_dir)

    def boot(self) -> None:
        """Have the node look as after a boot that has left no process and no file in /run."""
        shutil.rmtree(self.state_dir)

    @property
    def is_at_rest(self) -> bool:
        """Say whether a child has noted that nothing is left to do."""
        return os.path.exists(self._at_rest)

    @property
    def _at_rest(self) -> str:
        return os.path.join(self.state_dir, "at-rest")

    def wait_child(self) -> int:
        # One that is about to supervise does not say so yet.
        wait_for(f"the child of node {self.number}", lambda: self.supervisors() and self.children())
        return self.children()[0]

    def log(self) -> str:
        """Return what was logged since the last `forget_log` in this round."""
        with contextlib.suppress(FileNotFoundError), open(self.log_file) as log:
            log.seek(self._log_from)
            return log.read()
        return ""

    def end_calls(self) -> None:
        """Kill the calls that still run, and forget all of them."""
        for call in self.calls:
            if call.process.poll() is None:
                call.kill()
            else:
                call.finish()
        self.calls.clear()

    def forget_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._log_from = os.path.getsize(self.log_file)


def request_config(
    config: Config, labels: Mapping[str, str], annotations: Mapping[str, str] | None
) -> Config:
    """Return a configuration as a runtime sends it for a pod (CNI conventions: labels)."""
    request = copy.deepcopy(config)
    args = request.setdefault("args", {}).setdefault("cni", {})
    args["labels"] = [{"key": key, "value": value} for key, value in labels.items()]
    if annotations is not None:
        request.setdefault("runtimeConfig", {})[ANNOTATIONS] = dict(annotations)
    return request


def script(folder: Path, name: str, text: str) -> dict[str, str]:
    """Write a plugin in shell and return the environment with which it is found."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"CNI_PATH": f"{plugin_dir()}:{folder}:{REFERENCE_PLUGINS}"}


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a configuration with changes; a change to None leaves the key out."""
    return {key: value for key, value in {**config, **changes}.items() if value is not None}


def mark_at_rest(state_dir: str) -> None:
    """Leave what a child leaves that has ended by itself."""
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    with open(BOOT_ID) as boot_id, open(os.path.join(state_dir, "at-rest"), "w") as mark:
        mark.write(boot_id.read())


def is_supervisor(pid: int) -> bool:
    """Say whether a process supervises a child. A fork that is to be the child has its name yet."""
    return command_name(pid) == SUPERVISOR and command_name(parent_of(pid)) != SUPERVISOR


def parent_of(pid: int) -> int:
    """Return the parent of a process; 0 when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
    return 0


def command_name(pid: int) -> str:
    """Return the name of a process's command; "" when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
    return ""


def _is_listened_at(path: str) -> bool:
    """Say whether somebody listens at a socket. A child that was killed leaves its socket there."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def has_open(pid: int, path: str) -> bool:
    """Say whether a process has a file open."""
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") == path:
                    return True
    return False
