"""The nodes of the fault suite: their card, state directory, clock and processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterable
from typing import Any

from tests.faults import clock, doomed_child
from tests.faults.kernel import Process, processes
from tests.faults.members import Members
from tests.faults.topology import CARD
from tests.lab import underlay
from tests.lab.namespaces import Namespace, random_name, run
from tests.lab.polling import wait_for
from tests.lab.runtime import Config, Node, Outcome, is_supervisor, plugin_dir

CALL_TIMEOUT_S = 60.0
WAIT_SECONDS = 0.5
STATE_DIR_BYTES = 512 * 1024


class FaultNode(Node):
    """A node whose address, clock and configuration an administrator may change."""

    lies: dict[str, str]  # what its programs' clock is made wrong with
    doomed: int | None = None  # the child that is to die at a step

    @classmethod
    def make(cls, number: int, etcd: Members, folder: str, lies: dict[str, str]) -> FaultNode:
        """Make a node, which is not there before it is plugged in, nor after `remove`."""
        namespace = Namespace(random_name(f"node{number}"))
        directory = os.path.join(folder, f"node{number}")
        node = cls(number, namespace, underlay.node_address(number), "", etcd, directory)
        node.lies = lies
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
        return node

    def plug_in(self, underlay_: Namespace) -> None:
        """Give the node its card and an empty /run, as a boot does."""
        self.pull_out(underlay_)
        # A node that was rebooted has the card that it had before.
        mac = f"02:00:00:00:00:{self.number:02x}"
        underlay.plug_in(underlay_, self.namespace, CARD, self.port, mac=mac)
        for address in sorted({self.first_address, self.address}):
            underlay.add_address(self.namespace, address, CARD)
        for ifname in ("lo", CARD):
            self.namespace.ip("link", "set", ifname, "up")
        os.makedirs(self.state_dir, exist_ok=True)
        options = f"size={STATE_DIR_BYTES},mode=0700"
        run("mount", "-t", "tmpfs", "-o", options, "ratchet-faults", self.state_dir)

    def pull_out(self, underlay_: Namespace) -> None:
        """Take the card and all that is in memory away. Safe to call twice."""
        underlay_.ip("link", "delete", self.port, check=False)
        unmount(self.state_dir)

    def remove(self) -> None:
        """Remove the node. Safe to call twice."""
        unmount(self.state_dir)
        self.namespace.remove()

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
    def port(self) -> str:
        """The node's port on the underlay's bridge."""
        return underlay.port_of(CARD, self.number)

    @property
    def first_address(self) -> str:
        return underlay.node_address(self.number)

    @property
    def second_address(self) -> str:
        return f"10.99.0.{100 + self.number}"

    @property
    def child_program(self) -> str:
        """The wrapper through which the child is started; see `kill_at_step`."""
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

    def use_address(self, address: str) -> None:
        """What an administrator does: another address on the node and in its configuration."""
        self.namespace.ip("addr", "add", f"{address}/24", "dev", CARD, check=False)
        self.address = address

    def call(self) -> Outcome:
        """Call the plugin without a pod: what starts a child, as a supervisor would."""
        call = self.execute(self.config(cniVersion="1.1.0"), self.environ("STATUS"))
        try:
            return call.finish(CALL_TIMEOUT_S)
        finally:
            self.calls.remove(call)

    # Processes

    def processes(self) -> list[Process]:
        if not self.namespace.exists:
            return []
        inode = self.namespace.inode
        return [one for one in processes() if one.netns == inode]

    def running_child(self, among: Iterable[Process] | None = None) -> int | None:
        """The child, None when none runs."""
        return next((one for one in self._holders(among) if not is_supervisor(one)), None)

    def supervising(self, among: Iterable[Process] | None = None) -> int | None:
        """The supervisor of the child, None when none runs."""
        return next(filter(is_supervisor, self._holders(among)), None)

    def _holders(self, among: Iterable[Process] | None) -> set[int]:
        """The processes that hold the node's lock."""
        return self.serving(None if among is None else {one.pid for one in among})

    def kill_child(self, *, alone: bool = False) -> None:
        """kill -9 of the child, and of its supervisor before it, which would start it again."""
        doomed = (None if alone else self.supervising(), self.running_child())
        end_processes([Process(pid, 0, "") for pid in doomed if pid is not None])

    def kill_at_step(self, step: int) -> None:
        """Have the next child die at its step of that number."""
        with open(self.kill_file, "w", encoding="utf-8") as file:
            file.write(f"{step}\n")

    def spare(self) -> bool:
        """End the child that was to die at a step and has not: it would do so some other day.

        Return whether one has died at its step.
        """
        try:
            os.unlink(self.kill_file)
            started = False
        except FileNotFoundError:  # a child has been started with it
            started = True
        pid = self.running_child()
        if pid is not None and pid == self.doomed and b"RATCHET_KILL_AT_STEP=" in _environ(pid):
            self.kill_child()
            return False
        return started


_CHILD_PROGRAM = """#!/bin/sh
# The next child, and no other, dies at the step whose number somebody has left here.
if {{ read -r step <{file}; }} 2>/dev/null; then
    rm -f {file}
    RATCHET_KILL_AT_STEP="$step" exec {python} {doomed} "$@"
fi
exec {child} "$@"
"""


def end_processes(doomed: list[Process]) -> None:
    """kill -9, and wait until they are gone."""
    for one in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    for one in doomed:
        wait_for(f"process {one.pid} to end", lambda one=one: not _runs(one.pid))  # type: ignore[misc]


def unmount(path: str) -> None:
    """Unmount all that is mounted there, one over the other or nothing. Safe to call twice."""
    while os.path.ismount(path):
        run("umount", "--lazy", path)


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
