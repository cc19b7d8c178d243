"""A node with mounts and processes of its own, besides the network that the harness gives it.

Runtimes mount, leave processes behind that outlive them, and write below /run and /var/lib/cni.
All of that happens in a mount and a PID namespace here: the test's machine never sees a mount, and
with the first process of the namespace everything else is gone, whatever state it was in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

from tests.lab.namespaces import Namespace
from tests.lab.polling import wait_for
from tests.lab.runtime import Node

CGROUPS = "/sys/fs/cgroup"
CNI_CACHE = "/var/lib/cni"  # libcni's, in the runtimes' programs
START_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0

# Mounts are passed on within the machine, as systemd has it. Orphans come to the first process; the
# kernel reaps them for one that ignores SIGCHLD.
_INIT = f"""
mount --make-rshared / && for folder; do mount -t tmpfs -o mode=755 tmpfs "$folder" || exit; done &&
mkdir -p /run/netns {CNI_CACHE} && mount -t tmpfs tmpfs {CNI_CACHE} &&
exec env --ignore-signal=CHLD sleep infinity
"""


class Machine:
    """A node of the harness as a machine on which a runtime can be at home."""

    def __init__(self, node: Node, cgroup: str, folders: tuple[str, ...] = ()) -> None:
        """Take a node; `folders` are to be the machine's own besides /run, and empty."""
        self.node = node
        self._folders = ("/run", *folders)
        self.cgroup = cgroup  # parent of all that the runtime makes on this machine
        self._process: subprocess.Popen[bytes] | None = None
        self.init = 0

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),  # should the tests be killed
                *("nsenter", f"--net={self.node.namespace.path}"),
                # What others unmount goes away here too, lest a copy keeps their namespaces alive.
                *("unshare", "--mount", "--propagation", "slave"),
                *("--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", "-c", _INIT, "sh", *self._folders),
            ],
            stdin=subprocess.DEVNULL,
        )
        above = self._process

        def init() -> int | None:
            assert above.poll() is None, "the namespaces of a machine cannot be made"
            found = [pid for pid in children_of(above.pid) if program_of(pid) == "sleep"]
            return found[0] if found else None

        self.init = wait_for("the first process of a machine", init, timeout_s=START_TIMEOUT_S) or 0

    def stop(self) -> None:
        """End everything on the machine. Safe to call twice."""
        if self._process is None:
            return
        if self.init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process = None
        remove_cgroup(self.cgroup)

    def path(self, inside: str) -> str:
        """Return the path by which the tests see a file of the machine."""
        return f"/proc/{self.init}/root{inside}"

    def command(self, *argv: str) -> list[str]:
        """Return the argument list that runs a program on the machine."""
        return ["nsenter", f"--target={self.init}", "--net", "--mount", "--pid", "--", *argv]

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a program on the machine and return its output."""
        done = subprocess.run(
            self.command(*argv), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
        )
        if check:
            assert done.returncode == 0, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def spawn(self, *argv: str, log: str) -> subprocess.Popen[bytes]:
        """Start a server on the machine; it is the only child of the process that is returned."""
        with open(log, "ab") as output:
            return subprocess.Popen(
                self.command(*argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    # Looking

    def processes(self) -> dict[int, str]:
        """Return the programs that run on the machine, those in containers too, by process id.

        The ids are the machine's own, by which its runtime calls them.
        """
        found = {}
        for entry in self.listed("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError), open(self.path(f"/proc/{entry}/comm")) as comm:
                    found[int(entry)] = comm.read().strip()
        return found

    def netns_of(self, pid: int) -> Namespace:
        """Return the network namespace of a process of the machine."""
        return PathNamespace(self.path(f"/proc/{pid}/ns/net"))

    def mounts(self) -> set[str]:
        """Return the paths of the mounts that only this machine has."""
        with open(f"/proc/{self.init}/mountinfo") as own, open("/proc/self/mountinfo") as all_:
            return {line.split()[4] for line in own} - {line.split()[4] for line in all_}

    def listed(self, inside: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(self.path(inside)))
        return []


class PathNamespace(Namespace):
    """A network namespace that has no name. `ip` has no other way to say this than a name."""

    def __init__(self, path: str) -> None:
        super().__init__(f"../..{path}")
        self.path = path


def children_of(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
                # proc(5): the name in parentheses may hold anything.
                if int(stat.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry))
    return found


def program_of(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as comm:
        return comm.read().strip()


def remove_cgroup(name: str) -> None:
    """Remove a control group and those in it, whose processes were killed. Safe to call twice."""
    end = time.monotonic() + START_TIMEOUT_S
    while left := [path for path in cgroups(name) if not _remove_tree(path)]:
        assert time.monotonic() < end, f"control groups that will not go: {left}"
        time.sleep(0.05)


def cgroups(name: str) -> list[str]:
    """Return the paths of a control group, in version 1 one for each controller."""
    roots = [CGROUPS, *(os.path.join(CGROUPS, entry) for entry in os.listdir(CGROUPS))]
    return [path for root in roots if os.path.isdir(path := f"{root}/{name.lstrip('/')}")]


def _remove_tree(path: str) -> bool:
    for folder, _, files in os.walk(path, topdown=False):
        # podman writes a plain file into the folder of a controller that is not mounted. The files
        # of a real control group cannot be unlinked; they go with it.
        for file in files:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, file))
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not os.path.exists(path)
