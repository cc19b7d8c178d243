"""Leaving the cgroup of the runtime, whose end would be the end of the child.

A parent is a process of the runtime's, and so is all that it starts: a service manager that ends
the runtime's service with all its processes would end the child of pods that live on. Where systemd
runs, it is asked to put the processes into a scope of their own; nobody else may move them there.
Elsewhere they move themselves to the root cgroup, if they may. Only what groups processes is left
(cgroup v2, the named hierarchies of v1), not a limit of memory that a v1 controller sets.
"""

from __future__ import annotations

import os

from ratchet import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SYSTEMD = "/run/systemd/system"  # sd_booted(3)
MOUNTS = "/sys/fs/cgroup"
BUSCTL = ("/usr/bin/busctl", "/bin/busctl")


def leave(pids: Sequence[int], name: str) -> list[str] | None:
    """Move processes out of the runtime's cgroup. Never raises.

    Returns the command that asks systemd to do it, where there is one.
    """
    groups = _groups()
    if os.path.isdir(SYSTEMD):
        is_service = any(".service" in path for path in groups.values())
        return _ask_systemd(pids, name) if is_service else None
    for hierarchy, path in groups.items():
        if path != "/":
            _move_to_root(hierarchy, pids)
    return None


def _groups() -> dict[str, str]:
    """Return this process's cgroups: cgroup v2's (as "") and those of the named hierarchies."""
    found = {}
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controllers.startswith("name="):
            found[controllers.removeprefix("name=")] = path
    return found


def _move_to_root(hierarchy: str, pids: Sequence[int]) -> None:
    # cgroup v2 alone, or beside v1; nothing is made where none of them is.
    places = ("", "/unified") if hierarchy == "" else (f"/{hierarchy}",)
    for place in places:
        try:
            file = os.open(f"{MOUNTS}{place}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            for pid in pids:
                os.write(file, b"%d\n" % pid)
        except OSError as error:
            log.warning(
                "the child stays in the runtime's cgroup and ends with it", error=error.strerror
            )
        finally:
            os.close(file)
        return


def _ask_systemd(pids: Sequence[int], name: str) -> list[str] | None:
    for program in BUSCTL:
        if os.access(program, os.X_OK):
            return scope_command(program, pids, name)
    log.warning("the child stays in the runtime's cgroup and ends with it: no busctl")
    return None


def scope_command(program: str, pids: Sequence[int], name: str) -> list[str]:
    """Return the command that has systemd start a scope with the processes in it.

    StartTransientUnit, org.freedesktop.systemd1(5).
    """
    properties = [
        *("Description", "s", "Ratchet's child, which outlives the container runtime"),
        *("CollectMode", "s", "inactive-or-failed"),
        *("PIDs", "au", str(len(pids)), *map(str, pids)),
    ]
    return [
        *(program, "--system", "--timeout=10", "call", "org.freedesktop.systemd1"),
        *("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "StartTransientUnit"),
        *("ssa(sv)a(sa(sv))", f"{name}.scope", "fail", "3", *properties, "0"),
    ]
