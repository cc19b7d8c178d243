"""Finding a pod's network namespace from outside: by the cgroup of its processes in /proc.

The kubelet puts a pod's processes below a cgroup that carries the pod's UID, whichever runtime
starts them: ``…/pod<UID>/…`` with the driver cgroupfs, ``…-pod<UID with _>.slice/…`` with systemd
(kubernetes: pkg/kubelet/cm/pod_container_manager_linux.go). The oldest of them is the sandbox's
own, which lives as long as the sandbox; a container may have gone on into another namespace.

A cgroup's name is no identity either: where a container may write its own cgroup, it can make one
below that is called as another pod's. So the outermost pod in a path is the one that counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ratchet.cni.dataclasses import dataclass

NAMESPACES = "/run/netns"
_TICKS = os.sysconf("SC_CLK_TCK")
_LARGEST = 1 << 16
_POD = re.compile(r"pod[0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where a pod's network namespace is, and when its sandbox was started (CLOCK_BOOTTIME)."""

    netns: str
    started_s: float


def find_sandboxes(
    uids: Iterable[str], proc: str = "/proc", namespaces: str = NAMESPACES
) -> dict[str, Sandbox]:
    """Return the sandboxes of pods that have one, by UID. Pods of the host's network have none."""
    marks = {mark: uid for uid in uids for mark in (f"pod{uid}", f"pod{uid.replace('-', '_')}")}
    oldest: dict[str, tuple[float, int]] = {}
    for pid in _pids(proc) if marks else ():
        uid = _of_pod(_read(f"{proc}/{pid}/cgroup"), marks)
        started_s = None if uid is None else _started_s(_read(f"{proc}/{pid}/stat"))
        if uid is not None and started_s is not None:
            oldest[uid] = min(oldest.get(uid, (started_s, pid)), (started_s, pid))
    found = {}
    for uid, (started_s, pid) in oldest.items():
        netns = _namespace(f"{proc}/{pid}/ns/net", namespaces)
        if netns is not None:
            found[uid] = Sandbox(netns, started_s)
    return found


def is_there(sandbox: Sandbox) -> bool:
    """Say whether a sandbox that was found is still there."""
    process, of_process, _ = sandbox.netns.partition("/ns/net")
    if not of_process:
        return os.path.exists(sandbox.netns)
    return _started_s(_read(f"{process}/stat")) == sandbox.started_s


def _pids(proc: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(proc) if name.isascii() and name.isdigit()]
    except OSError:
        return []


def _of_pod(cgroups: str, marks: dict[str, str]) -> str | None:
    for line in cgroups.splitlines():
        for part in line.split("/"):
            # pod<UID>, or kubepods-burstable-pod<UID>.slice
            name = part.removesuffix(".slice")
            name = name[max(name.find("pod", name.rfind("-pod")), 0) :]
            uid = marks.get(name)
            if uid is not None:
                return uid
            if _POD.fullmatch(name):
                break  # what follows is that pod's own
    return None


def _started_s(stat: str) -> float | None:
    """Return when a process was started, in seconds since the boot: proc(5), stat, field 22."""
    fields = stat.rpartition(")")[2].split()
    try:
        return int(fields[19]) / _TICKS
    except (IndexError, ValueError):
        return None


def _namespace(path: str, namespaces: str) -> str | None:
    """Return a path of a namespace that lasts as long as it does; None for the host's own.

    Runtimes mount it below /run/netns. A path in /proc may be another process's one day.
    """
    try:
        there, own = os.stat(path), os.stat("/proc/self/ns/net")
    except OSError:
        return None
    identity = there.st_dev, there.st_ino
    if identity == (own.st_dev, own.st_ino):
        return None
    try:
        with os.scandir(namespaces) as entries:
            for entry in entries:
                status = os.stat(entry.path)
                if (status.st_dev, status.st_ino) == identity:
                    return entry.path
    except OSError:
        pass  # not there, or one has gone since it was listed
    return path


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return ""
