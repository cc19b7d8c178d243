"""Running plugins as a runtime does, at little cost of our own.

posix_spawn(3) shares our memory with the new process until its exec, so the size of this process
does not matter, as it would with fork. What remains is measured with /bin/true and reported;
nothing is subtracted.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.place import Place

TIMEOUT_S = 120.0

Config = Mapping[str, Any]


class LaunchError(Exception):
    """A plugin that failed, with what it said."""


@dataclass(frozen=True, slots=True)
class Task:
    """A plugin to run: its program, environment and standard input, and the node it runs on."""

    program: str
    environ: Mapping[str, str]
    stdin: bytes
    node: Place
    name: str = ""  # for its caller

    @classmethod
    def of(
        cls, program: str, environ: Mapping[str, str], config: Config, node: Place, name: str = ""
    ) -> Task:
        return cls(program, environ, json.dumps(config).encode(), node, name)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of it. `cpu_s` counts the processes that it has waited for as well."""

    wall_s: float
    cpu_s: float
    status: int
    stdout: bytes
    ended: float  # perf_counter seconds

    def checked(self) -> Done:
        """Return this, if it has succeeded. *Raises* LaunchError when it has failed."""
        if self.status:
            raise LaunchError(f"exit {self.status}: {self.stdout.decode(errors='replace')}")
        return self


class Running:
    """A plugin that runs. Its end is the end of its output and of the process, as for libcni."""

    def __init__(self, task: Task) -> None:
        self.task = task
        source = os.memfd_create("cni-config")
        os.write(source, task.stdin)
        os.lseek(source, 0, os.SEEK_SET)
        self.output, writing = os.pipe()
        null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self._parts: list[bytes] = []
        try:
            with task.node.inside():
                self.started = time.perf_counter()
                self.pid = os.posix_spawn(
                    task.program,
                    [task.program],
                    task.environ,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, source, 0),
                        (os.POSIX_SPAWN_DUP2, writing, 1),
                        (os.POSIX_SPAWN_DUP2, null, 2),
                    ],
                )
        except OSError as error:
            os.close(self.output)
            raise LaunchError(f"{task.program}: {error.strerror}") from error
        finally:
            for descriptor in (source, writing, null):
                os.close(descriptor)

    def read(self) -> bool:
        """Take what has been printed; whether that was the end. *Blocks* when there is nothing."""
        part = os.read(self.output, 65536)
        self._parts.append(part)
        return not part

    def finish(self) -> Done:
        """Wait for the end. *Blocks.*"""
        while not self.read():
            pass
        return self.reap()

    def reap(self) -> Done:
        """Wait for the end of the process, once its output has ended."""
        _, status, usage = os.wait4(self.pid, 0)
        ended = time.perf_counter()
        os.close(self.output)
        return Done(
            ended - self.started,
            usage.ru_utime + usage.ru_stime,
            os.waitstatus_to_exitcode(status),
            b"".join(self._parts),
            ended,
        )


def run(task: Task) -> Done:
    """Run a plugin to its end. *Raises* LaunchError when it fails."""
    return Running(task).finish().checked()


class Crowd:
    """Many plugins at once, on each node at most so many, as kubelets do it."""

    def __init__(self, tasks: Iterable[Task], parallel: int) -> None:
        self._parallel = parallel
        self._waiting: dict[Place, list[Task]] = {}
        self._on_node: dict[Place, int] = {}
        self._running: dict[int, Running] = {}
        self._poll = select.poll()
        for task in tasks:
            self._waiting.setdefault(task.node, []).append(task)
        for waiting in self._waiting.values():
            waiting.reverse()
        self._deadline = time.perf_counter() + TIMEOUT_S
        self._fill()

    @property
    def is_over(self) -> bool:
        return not self._running

    def step(self, timeout_s: float) -> list[tuple[Task, Done]]:
        """Return those that ended within that time; start further ones in their place."""
        ended = []
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            running = self._running[descriptor]
            if running.read():
                self._poll.unregister(descriptor)
                del self._running[descriptor]
                ended.append((running.task, running.reap().checked()))
                self._on_node[running.task.node] -= 1
        self._fill()
        if self._running and time.perf_counter() > self._deadline:
            raise LaunchError(f"{len(self._running)} plugins have not ended in {TIMEOUT_S:.0f} s")
        return ended

    def all(self) -> Iterator[tuple[Task, Done]]:
        """Return all of them, as they end."""
        while not self.is_over:
            yield from self.step(1.0)

    def _fill(self) -> None:
        for node, waiting in self._waiting.items():
            while waiting and self._on_node.get(node, 0) < self._parallel:
                running = Running(waiting.pop())
                self._on_node[node] = self._on_node.get(node, 0) + 1
                self._running[running.output] = running
                self._poll.register(running.output, select.POLLIN)
