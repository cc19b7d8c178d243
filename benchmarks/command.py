"""`ratchetctl topo create --sim` and `destroy`, as a user runs them, for what measures them.

A simulation of the benchmark lies in memory, as the other nodes of the benchmark do: on a machine
whose /run is on a disk, etcd would wait for the disk at every write.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.bed import memory_folder
from ratchetctl.sim.directory import BASE_VARIABLE, SimDirectory

_TIMEOUT_S = 600


class CommandError(Exception):
    """A command has failed."""


@dataclass(frozen=True, slots=True)
class Created:
    """A topology that is there. `cpu_s` is the command's, and that of what it has waited for."""

    started: float  # perf_counter seconds
    wall_s: float
    cpu_s: float


class Lab:
    """A simulation that `create` makes and `destroy` ends; both may be called once."""

    def __init__(self, plugin_dir: str, folder: str) -> None:
        self._plugin_dir = plugin_dir
        self._folder = folder
        self._file = os.path.join(folder, "lab.clab.yml")
        self._place = ("--sim", "--name", f"rb-{secrets.token_hex(4)}")
        self.directory = SimDirectory(self._place[-1], os.path.join(folder, "sim"))

    def topo(self, *arguments: str) -> str:
        """Run `ratchetctl topo`; what it prints. *Raises* CommandError."""
        command = (*_program(self._plugin_dir), "topo", *arguments)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            env={**os.environ, BASE_VARIABLE: os.path.join(self._folder, "sim")},
        )
        if done.returncode != 0:
            raise CommandError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def create(self, topology: str, *options: str) -> Created:
        """Bring a topology up, which begins now. *Raises* CommandError."""
        with open(self._file, "w", encoding="utf-8") as file:
            file.write(topology)
        started = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.topo("create", self._file, *self._place, "--plugin-dir", self._plugin_dir, *options)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return Created(started, time.perf_counter() - started, cpu_s)

    def destroy(self) -> float:
        """End it; the seconds that takes."""
        started = time.perf_counter()
        self.topo("destroy", self._file, *self._place)
        return time.perf_counter() - started


@contextlib.contextmanager
def lab(plugin_dir: str) -> Iterator[Lab]:
    """Give a simulation that is not made yet, and leave nothing of it."""
    with tempfile.TemporaryDirectory(prefix="rb-", dir=memory_folder()) as folder:
        made = Lab(plugin_dir, folder)
        try:
            yield made
        finally:
            if made.directory.exists:
                made.destroy()


def _program(plugin_dir: str) -> Sequence[str]:
    """Return the built ratchetctl beside the plugin; without one, this interpreter's."""
    built = os.path.join(plugin_dir, "ratchetctl")
    return (built,) if os.access(built, os.X_OK) else (sys.executable, "-m", "ratchetctl")
