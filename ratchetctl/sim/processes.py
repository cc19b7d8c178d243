"""Ends the processes that live in namespaces of a simulation.

Who belongs to a simulation is read from the kernel: a process whose network namespace is one that
the simulation made. So etcd, ratchet children, routers and shells are found alike, also after a
crash, with no pid file to trust. A process is held by a pidfd while it is looked at, so that a pid
that is used again cannot be hit.

The first process of a PID namespace takes no SIGTERM. When it is killed, the kernel kills all of
its namespace with it, also what has left the network namespace.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

GRACE_S = 3.0
KILLED_S = 5.0

Namespace = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Process:
    """A running process and a pidfd that holds it."""

    pid: int
    descriptor: int


def end(namespaces: Collection[Namespace], grace_s: float = GRACE_S) -> list[int]:
    """End every process in these namespaces but ourselves; the pids that refused to go.

    SIGTERM first, SIGKILL after grace_s. Blocks at most grace_s and KILLED_S. Safe to call twice.
    """
    spared = _ourselves()
    found = _inside(namespaces, spared)
    first = [process for process in found if is_first(str(process.pid))]
    others = [process for process in found if process not in first]
    _signal(others, signal.SIGTERM)
    left = _wait(others, grace_s) + first
    # What SIGTERM made others start meanwhile, and what ignored it.
    left += _inside(namespaces, spared | {process.pid for process in left})
    _signal(left, signal.SIGKILL)
    return [process.pid for process in _close(_wait(left, KILLED_S))]


def end_namespace(first: int, grace_s: float = GRACE_S) -> None:
    """End what is in the PID namespace whose first process this is, and that process."""
    its = namespace(str(first), "pid")
    if its is None:
        return
    found = _inside({its}, (), "pid")
    others = [process for process in found if process.pid != first]
    _signal(others, signal.SIGTERM)
    left = _wait(others, grace_s) + [process for process in found if process.pid == first]
    _signal(left, signal.SIGKILL)
    _close(_wait(left, KILLED_S))


def is_first(pid: str) -> bool:
    """Say whether a process is the first one of a PID namespace below ours."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            numbers = next((line.split()[1:] for line in file if line.startswith("NSpid:")), [])
    except OSError:
        return False
    return len(numbers) > 1 and numbers[-1] == "1"


def pids(namespaces: Collection[Namespace], kind: str = "net") -> list[int]:
    """Return the processes in these namespaces."""
    return [process.pid for process in _close(_inside(namespaces, set(), kind))]


def _inside(
    namespaces: Collection[Namespace], spared: Collection[int], kind: str = "net"
) -> list[Process]:
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) in spared:
            continue
        if namespace(entry, kind) not in namespaces:
            continue
        try:
            descriptor = os.pidfd_open(int(entry))
        except OSError:
            continue
        # Once more, now that the pid cannot be given to another process.
        if namespace(entry, kind) in namespaces:
            found.append(Process(int(entry), descriptor))
        else:
            os.close(descriptor)
    return found


def namespace(pid: str, kind: str = "net") -> Namespace | None:
    """Return the network namespace of a process, or one of another kind; None: it has gone."""
    try:
        status = os.stat(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _ourselves() -> set[int]:
    """Return this process and its ancestors: a person may work from inside a node."""
    spared, pid = set(), os.getpid()
    while pid > 0:
        spared.add(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name, in brackets, may hold anything: proc_pid_stat(5).
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return spared


def _signal(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process.descriptor, number)


def _wait(processes: Iterable[Process], timeout_s: float) -> list[Process]:
    """Return the processes that are left after timeout_s; reap and close the others."""
    waiting = {process.descriptor: process for process in processes}
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left_s * 1000):
            poll.unregister(descriptor)
            process = waiting.pop(descriptor)
            os.close(descriptor)
            # Ours to reap where we started it, init's otherwise.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    return list(waiting.values())


def _close(processes: list[Process]) -> list[Process]:
    for process in processes:
        os.close(process.descriptor)
    return processes
