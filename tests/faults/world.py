"""The cluster of the fault suite, and the runtimes on its nodes.

The runtimes do what containerd and the kubelet do: an ADD that fails is followed by a DEL and tried
again in a new container, a DEL is repeated until it succeeds and may come late, without a namespace
or with an empty CNI_NETNS. The world also remembers which containers there are by now: that, and
nothing that Ratchet says, is what the invariants are computed from.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.faults import clock, doomed_child
from tests.faults.kernel import Process, processes
from tests.faults.members import Members
from tests.faults.plan import Operation, PodId, Topology
from tests.lab import underlay
from tests.lab.cluster import scratch_dir
from tests.lab.namespaces import Namespace, random_name, run
from tests.lab.polling import wait_for
from tests.lab.runtime import (
    Call,
    Config,
    Node,
    Outcome,
    Pod,
    has_open,
    is_supervisor,
    plugin_dir,
    request_config,
)

if TYPE_CHECKING:
    from tests.faults.stranger import Stranger

RETRY_S = 0.3
GIVE_UP_S = 90.0  # a runtime whose calls fail for so long after the fault: something is wrong
CALL_TIMEOUT_S = 60.0
WAIT_SECONDS = 0.5
STATE_DIR_BYTES = 512 * 1024
LOG_BYTES = 32 * 1024 * 1024
FRONT = "/run/ratchet/front.sock"  # the machine's: the nodes have none of their own


class StuckError(AssertionError):
    """An operation that a runtime repeats does not succeed."""


@dataclass(eq=False)
class Sandbox:
    """One container of a pod, on one node."""

    id: PodId
    node: int
    pod: Pod

    def __repr__(self) -> str:
        return f"{self.id}@{self.node}:{self.pod.container_id[:8]}"


def make_sandbox(pod: PodId, node: int) -> Sandbox:
    """Make a container, with its namespace."""
    sandbox = Sandbox(pod, node, Pod(pod.name, pod.namespace))
    sandbox.pod.netns.create()
    return sandbox


class FaultNode(Node):
    """A node whose address, clock and configuration an administrator may change."""

    lies: dict[str, str]  # what its programs' clock is made wrong with
    doomed: int | None = None  # the child that is to die at a step

    def config(self, **changes: Any) -> Config:
        config = super().config(
            etcd_host=self.etcd.hosts if isinstance(self.etcd, Members) else self.etcd.address,
            delegate={"type": "loopback", "cniVersion": "1.0.0"},
            boot_network={"type": "loopback", "cniVersion": "1.0.0"},
            child_path=self.child_program,
            wait_seconds=WAIT_SECONDS,
            log_level="info",
        )
        config.update(changes)
        return config

    @property
    def first_address(self) -> str:
        return underlay.node_address(self.number)

    @property
    def second_address(self) -> str:
        return f"10.99.0.{100 + self.number}"

    @property
    def child_program(self) -> str:
        """The wrapper through which the child is started; see `World.kill_at_step`."""
        return os.path.join(self.directory, "child")

    @property
    def kill_file(self) -> str:
        return os.path.join(self.directory, "kill-at-step")

    @property
    def clock_file(self) -> str:
        """By how many seconds the wall clock of this node's programs is wrong."""
        return os.path.join(self.directory, "clock")

    def environ(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        environ = super().environ(*args, **kwargs)
        return {**environ, **clock.using(self.lies, self.clock_file)}


class World:
    """Four nodes (or as many as wanted), an etcd, and the pods of a topology on them."""

    def __init__(self, topology: Topology, *, nodes: int, members: int) -> None:
        self.topology = topology
        self._undo = contextlib.ExitStack()
        self._lock = threading.Lock()
        self.attached: dict[PodId, Sandbox] = {}
        # Containers whose DEL is still to come although a newer one has taken their place.
        self.late: list[tuple[Sandbox, Operation]] = []
        self._sandboxes: set[Sandbox] = set()
        self._threads: set[threading.Thread] = set()  # of the runtimes
        self.killed: Counter[str] = Counter()  # what was still there to be killed
        self._stopping = threading.Event()
        self.stranger: Stranger | None = None  # whose pods are none of the topology's
        try:
            self._build(nodes, members)
        except BaseException:
            self.close()
            raise

    def _build(self, nodes: int, members: int) -> None:
        self.directory = tempfile.mkdtemp(prefix="rt-faults-", dir=scratch_dir())
        self._undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._lies = clock.make(os.path.join(self.directory, "clock"))
        self.underlay = Namespace(random_name("underlay"))
        self._undo.callback(self.underlay.remove)
        self.underlay.create()
        addresses = [f"10.99.0.{n}" for n in range(1, members + 1)]
        # A MAC address of its own: else it has a port's, which goes when a node is rebooted, while
        # the others look for etcd at that one until their neighbour tables are old.
        underlay.lay(self.underlay, addresses, mac="02:00:00:00:01:00")
        self.etcd = Members(
            self.underlay, addresses, 20000 + secrets.randbelow(10000), self.directory
        )
        self._undo.callback(self.etcd.stop)
        self.etcd.start()
        self.nodes: dict[int, FaultNode] = {}
        for number in range(1, nodes + 1):
            self._make_node(number)
        self._undo.callback(self._end_all)

    def close(self) -> None:
        """Remove everything that was made, whatever has become of it. Safe to call twice."""
        self._undo.close()

    def start(self, name: str, action: Callable[[], None]) -> threading.Thread:
        """Let a runtime do something in a thread of its own, which ends before the world does."""
        thread = threading.Thread(target=action, name=name)
        with self._lock:
            self._threads.add(thread)
        thread.start()
        return thread

    def finish(self, thread: threading.Thread) -> None:
        thread.join()
        with self._lock:
            self._threads.discard(thread)

    def _end_all(self) -> None:
        self.etcd.resume()
        self._stopping.set()
        while any(thread.is_alive() for thread in self._threads):
            for node in self.nodes.values():
                for call in list(node.calls):
                    call.process.kill()
            time.sleep(0.05)
        self.end_processes(self.own_processes())
        remove_dead_socket(FRONT)
        for sandbox in list(self._sandboxes):
            self.remove_sandbox(sandbox)

    # Nodes

    def _make_node(self, number: int) -> None:
        namespace = Namespace(random_name(f"node{number}"))
        directory = os.path.join(self.directory, f"node{number}")
        node = FaultNode(number, namespace, underlay.node_address(number), "", self.etcd, directory)
        self.nodes[number] = node
        os.makedirs(os.path.dirname(node.state_dir))
        with open(node.child_program, "w", encoding="utf-8") as file:
            file.write(
                _CHILD_PROGRAM.format(
                    file=shlex.quote(node.kill_file),
                    child=shlex.quote(os.path.join(plugin_dir(), "ratchet-child")),
                    python=shlex.quote(sys.executable),
                    doomed=shlex.quote(doomed_child.__file__),
                )
            )
        os.chmod(node.child_program, 0o755)
        node.lies = self._lies
        self._undo.callback(namespace.remove)
        self._undo.callback(unmount, node.state_dir)
        namespace.create()
        self._plug_in(node)

    def _plug_in(self, node: FaultNode) -> None:
        """Give a node its card and an empty /run, as a boot does."""
        port = self.port(node)
        self.underlay.ip("link", "delete", port, check=False)
        # A node that was rebooted has the card that it had before.
        mac = f"02:00:00:00:00:{node.number:02x}"
        underlay.plug_in(self.underlay, node.namespace, "eth0", port, mac=mac)
        for address in sorted({node.first_address, node.address}):
            underlay.add_address(node.namespace, address, "eth0")
        for ifname in ("lo", "eth0"):
            node.namespace.ip("link", "set", ifname, "up")
        os.makedirs(node.state_dir, exist_ok=True)
        options = f"size={STATE_DIR_BYTES},mode=0700"
        run("mount", "-t", "tmpfs", "-o", options, "ratchet-faults", node.state_dir)

    def port(self, node: FaultNode) -> str:
        """The node's port on the underlay's bridge."""
        return underlay.port_of("eth0", node.number)

    def reboot(self, node: FaultNode, down_s: float) -> None:
        """Lose everything that a node has in memory: processes, interfaces, /run.

        Its own namespace stays, empty: its number is what tells the machine from others.
        """
        for sandbox in [one for one in self.sandboxes() if one.node == node.number]:
            with self._lock:
                if self.attached.get(sandbox.id) is sandbox:
                    del self.attached[sandbox.id]
                self.late = [one for one in self.late if one[0] is not sandbox]
        while doomed := self.processes_of(node):  # one may just have started another
            self.end_processes(doomed)
        for sandbox in [one for one in self.sandboxes() if one.node == node.number]:
            self.remove_sandbox(sandbox)
        if self.stranger is not None:
            self.stranger.node_lost(node.number)
        self.underlay.ip("link", "delete", self.port(node), check=False)
        unmount(node.state_dir)
        time.sleep(down_s)
        self._plug_in(node)

    def use_address(self, node: FaultNode, address: str) -> None:
        """What an administrator does: another address on the node and in its configuration."""
        node.namespace.ip("addr", "add", f"{address}/24", "dev", "eth0", check=False)
        node.address = address

    # Processes

    def processes_of(self, node: FaultNode) -> list[Process]:
        if not node.namespace.exists:
            return []
        inode = node.namespace.inode
        return [one for one in processes() if one.netns == inode]

    def own_processes(self) -> list[Process]:
        """Every process that this world has started or had started, but for its etcd."""
        inodes = {
            namespace.inode
            for namespace in (
                *(node.namespace for node in self.nodes.values()),
                *(sandbox.pod.netns for sandbox in self.sandboxes()),
            )
            if namespace.exists
        }
        return [
            one
            for one in processes()
            if (one.netns in inodes or self.directory in one.command)
            and one.pid not in self.etcd.pids
            and one.pid != os.getpid()
        ]

    def child(self, node: FaultNode, among: list[Process] | None = None) -> int | None:
        """The child of a node, None when none runs."""
        return next((one for one in self._serving(node, among) if not is_supervisor(one)), None)

    def supervisor(self, node: FaultNode, among: list[Process] | None = None) -> int | None:
        """The supervisor of a node's child, None when none runs."""
        return next(filter(is_supervisor, self._serving(node, among)), None)

    def _serving(self, node: FaultNode, among: list[Process] | None) -> list[int]:
        """The processes that hold the node's lock."""
        lock = os.path.join(node.state_dir, "child.lock")
        those = self.processes_of(node) if among is None else among
        return [one.pid for one in those if has_open(one.pid, lock)]

    def kill_child(self, node: FaultNode, *, alone: bool = False) -> None:
        """kill -9 of the child, and of its supervisor before it, which would start it again."""
        doomed = (None if alone else self.supervisor(node), self.child(node))
        self.end_processes([Process(pid, 0, "") for pid in doomed if pid is not None])

    def kill_at_step(self, node: FaultNode, step: int) -> None:
        """Have the next child of a node die at its step of that number."""
        with open(node.kill_file, "w", encoding="utf-8") as file:
            file.write(f"{step}\n")

    def spare(self, node: FaultNode) -> None:
        """End the child that was to die at a step and has not: it would do so some other day."""
        try:
            os.unlink(node.kill_file)
        except FileNotFoundError:  # a child has been started with it
            self.killed["children at a step"] += 1
        pid = self.child(node)
        if pid is not None and pid == node.doomed and b"RATCHET_KILL_AT_STEP=" in _environ(pid):
            self.killed["children at a step"] -= 1
            self.kill_child(node)

    def end_processes(self, doomed: list[Process]) -> None:
        """kill -9, and wait until they are gone."""
        for one in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        for one in doomed:
            wait_for(f"process {one.pid} to end", lambda one=one: not _runs(one.pid))  # type: ignore[misc]

    def call(self, node: FaultNode) -> Outcome:
        """Call the plugin without a pod: what starts a child, as a supervisor would."""
        call = node.execute(node.config(cniVersion="1.1.0"), node.environ("STATUS"))
        try:
            return call.finish(CALL_TIMEOUT_S)
        finally:
            node.calls.remove(call)

    # Pods

    def sandboxes(self) -> list[Sandbox]:
        with self._lock:
            return list(self._sandboxes)

    def new_sandbox(self, pod: PodId, node: int) -> Sandbox:
        sandbox = make_sandbox(pod, node)
        with self._lock:
            self._sandboxes.add(sandbox)
        return sandbox

    def remove_sandbox(self, sandbox: Sandbox) -> None:
        sandbox.pod.netns.remove()
        with self._lock:
            self._sandboxes.discard(sandbox)

    def run_operation(self, operation: Operation) -> None:
        """Carry an operation through, whatever happens meanwhile. Raises StuckError."""
        before = self.attached.get(operation.pod)
        if operation.kind == "attach":
            self._attach(operation, operation.node)
        elif operation.kind == "detach":
            self._drop(operation, before)
        elif operation.kind == "restart":
            self._restart(operation, before)
        else:
            self._overlap(operation, before)

    def _restart(self, operation: Operation, before: Sandbox | None) -> None:
        if operation.del_when == "before":
            self._drop(operation, before)
            before = None
        self._attach(operation, operation.node)
        if before is not None and operation.del_when == "late":
            with self._lock:
                self.late.append((before, operation))
        elif before is not None:
            self.detach(before, operation)

    def _overlap(self, operation: Operation, before: Sandbox | None) -> None:
        """Two ADDs at once, of which the first stays, and the DEL of what was there before.

        That one comes with them or after them.
        """
        assert operation.other is not None
        second = self.new_sandbox(operation.pod, operation.other)
        beside: list[Callable[[], object]] = [lambda: self._add(second, None)]
        after = [second]
        if before is not None:
            if operation.del_when == "after":
                after.append(before)
            else:
                beside.append(lambda: self.detach(before, operation))
        errors: list[BaseException] = []

        def carefully(action: Callable[[], object]) -> None:
            try:
                action()
            except BaseException as error:  # noqa: BLE001 - told by the thread that waits for it
                errors.append(error)

        threads = [
            self.start(f"overlap {operation.pod}", lambda one=one: carefully(one))  # type: ignore[misc]
            for one in beside
        ]
        try:
            self._attach(operation, operation.node)
        finally:
            for thread in threads:
                self.finish(thread)
        if errors:
            raise errors[0]
        for sandbox in after:
            self.detach(sandbox, operation)

    def _attach(self, operation: Operation, node: int | None) -> None:
        """ADD until it succeeds, each time in a new container."""
        assert node is not None
        kill_s = operation.kill_add_s
        end = time.monotonic() + GIVE_UP_S
        while True:
            sandbox = self.new_sandbox(operation.pod, node)
            outcome = self._add(sandbox, kill_s)
            if outcome is not None and outcome.exit == 0:
                with self._lock:
                    self.attached[operation.pod] = sandbox
                return
            kill_s = None
            self.detach(sandbox, operation)
            if time.monotonic() > end or self._stopping.is_set():
                raise StuckError(f"ADD of {sandbox} fails: {outcome!r}")
            time.sleep(RETRY_S)

    def _add(self, sandbox: Sandbox, kill_s: float | None) -> Outcome | None:
        """One ADD; None when its parent was killed."""
        node = self.nodes[sandbox.node]
        labels = self.topology.labels(sandbox.id)
        call = node.start_add(sandbox.pod, labels, self.topology.annotations(sandbox.id))
        try:
            if kill_s is not None:
                time.sleep(kill_s)
                if call.process.poll() is None:
                    self._kill_parent(call)
                    return None
            return call.finish(CALL_TIMEOUT_S)
        finally:
            node.calls.remove(call)

    def _kill_parent(self, call: Call) -> None:
        call.kill()
        with self._lock:
            self.killed["parents"] += 1

    def _drop(self, operation: Operation, sandbox: Sandbox | None) -> None:
        if sandbox is None:
            return
        with self._lock:
            if self.attached.get(sandbox.id) is sandbox:
                del self.attached[sandbox.id]
        self.detach(sandbox, operation)

    def detach(self, sandbox: Sandbox, operation: Operation) -> None:
        """DEL until it succeeds, then remove the namespace, if that has not been done before."""
        node = self.nodes[sandbox.node]
        if operation.netns_gone:
            sandbox.pod.netns.remove()
        kill_s = operation.kill_del_s
        changes: dict[str, str | None] | None = {"CNI_NETNS": ""} if operation.netns_empty else None
        again = operation.del_again
        end = time.monotonic() + GIVE_UP_S
        while True:
            outcome = self._del(node, sandbox, kill_s, changes)
            kill_s = None
            if outcome is not None and outcome.exit == 0:
                if not again:
                    break
                again, changes = False, {"CNI_NETNS": ""}
                self.remove_sandbox(sandbox)
                continue
            if time.monotonic() > end or self._stopping.is_set():
                raise StuckError(f"DEL of {sandbox} fails: {outcome!r}")
            time.sleep(RETRY_S)
        self.remove_sandbox(sandbox)

    def _del(
        self,
        node: FaultNode,
        sandbox: Sandbox,
        kill_s: float | None,
        changes: dict[str, str | None] | None,
    ) -> Outcome | None:
        config = request_config(
            node.config(),
            self.topology.labels(sandbox.id),
            self.topology.annotations(sandbox.id),
        )
        call = node.start_delete(
            sandbox.pod, config=config, environ=changes, prev_result=changes is None
        )
        try:
            if kill_s is not None:
                time.sleep(kill_s)
                if call.process.poll() is None:
                    self._kill_parent(call)
                    return None
            outcome = call.finish(CALL_TIMEOUT_S)
        finally:
            node.calls.remove(call)
        if outcome.exit == 0:
            node.attachments.pop((sandbox.pod.container_id, "eth0"), None)
        return outcome


_CHILD_PROGRAM = """#!/bin/sh
# The next child, and no other, dies at the step whose number somebody has left here.
if {{ read -r step <{file}; }} 2>/dev/null; then
    rm -f {file}
    RATCHET_KILL_AT_STEP="$step" exec {python} {doomed} "$@"
fi
exec {child} "$@"
"""


def unmount(path: str) -> None:
    """Unmount all that is mounted there, one over the other or nothing. Safe to call twice."""
    while os.path.ismount(path):
        run("umount", "--lazy", path)


def remove_dead_socket(path: str) -> None:
    """Remove the socket that a process has left which was killed; one that is served stays."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(FileNotFoundError):
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _environ(pid: int) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()
    return b""


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie: those of other parents are not ours to reap."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
