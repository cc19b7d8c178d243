"""A simulation of random name for a test, driven as a person would: by the program's commands."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from ratchetctl.sim import netns, processes
from ratchetctl.sim.directory import SimDirectory
from tests.lab import forks

COMMAND_TIMEOUT_S = 120.0
PROGRAM = (sys.executable, "-m", "ratchetctl")
Done = forks.Done
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def ratchetctl(*arguments: str, stdin: str = "") -> Done:
    """Run one command and give its output, whatever its exit status."""
    return forks.run(arguments, stdin=stdin, timeout_s=COMMAND_TIMEOUT_S)


@contextlib.contextmanager
def served_graph(*arguments: str, **environ: str) -> Iterator[str]:
    """Run `ratchetctl topo graph … --serve`, and give the address of its page."""
    command = (*PROGRAM, "topo", "graph", *arguments, "--serve", "--port", "0")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environ}
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()
            process.wait(timeout=10)


def graph_state(url: str) -> dict[str, Any]:
    """Return what the page at an address reads again and again."""
    with urllib.request.urlopen(f"{url}state.json", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


class Simulation:
    """`ratchetctl sim … --name RANDOM`, and a look at what it left."""

    def __init__(self) -> None:
        self.name = f"t-{secrets.token_hex(4)}"
        self.directory = SimDirectory(self.name)
        self._held: list[int] = []

    def try_(
        self, command: str, *arguments: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return ratchetctl("sim", command, "--name", self.name, *arguments, stdin=stdin)

    def __call__(self, command: str, *arguments: str, stdin: str = "") -> str:
        """Run a sub-command that must succeed; what it printed."""
        done = self.try_(command, *arguments, stdin=stdin)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def exec(self, pod: str, *command: str) -> str:
        return self("exec", pod, "--", *command)

    def pings(self, pod: str, address: str) -> bool:
        """Say whether an echo request of a pod is answered.

        It does not go by `ratchetctl sim exec`, which costs fifty times as much as a ping does.
        """
        found = self.directory.read_pod("default", pod)
        assert found is not None, f"no pod {pod}"
        ping = ("ping", "-n", "-c1", "-W1", address)
        command = ("nsenter", f"--net={found.netns}", "--", *ping)
        return (
            subprocess.run(command, capture_output=True, timeout=COMMAND_TIMEOUT_S).returncode == 0
        )

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("status", "-o", "json"))
        return found

    def nodes_of_pods(self) -> dict[str, str]:
        return {pod["name"]: pod["node"] for pod in self.status()["pods"]}

    def namespaces(self) -> set[tuple[int, int]]:
        """What tells the namespaces of this simulation from others, to look for processes later.

        They are held open until `close`: the kernel gives the number of one that is gone to the
        next that anybody makes, whose processes would then be taken for this simulation's.
        """
        found = set()
        for path in self.directory.all_netns():
            with contextlib.suppress(OSError):
                self._held.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            if identity := netns.identity(path):
                found.add(identity)
        return found

    def remains(self, namespaces: set[tuple[int, int]]) -> list[str]:
        """Everything that should not be there any more."""
        found = []
        if os.path.exists(self.directory.path):
            found.append(self.directory.path)
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            found += [line for line in file if f"/{self.name}/" in line]
        found += [f"process {pid}" for pid in processes.pids(namespaces)]
        return found

    def close(self) -> None:
        namespaces = self.namespaces()
        try:
            self("down")
            assert self.remains(namespaces) == []
        finally:
            while self._held:
                os.close(self._held.pop())


def host_network() -> str:
    """The host's interfaces, addresses, routes and rules, to compare before and after."""
    shown = []
    for what in (("-o", "link"), ("-o", "address"), ("route",), ("rule",)):
        done = subprocess.run(("ip", *what), capture_output=True, text=True, check=True)
        shown.append(done.stdout)
    return "".join(shown)
