"""FRR in a pod: the daemons that its configuration names, started as FRR's own script does.

First the daemons, then `vtysh -b`, which hands each the lines of frr.conf that it knows. Paths are
those of the package: in the pod they are the pod's own, so vtysh and everything else find this
router without being told.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence

from ratchetctl.errors import SimError
from ratchetctl.sim.routers import frr_daemons
from ratchetctl.sim.routers.frr_daemons import Plan
from ratchetctl.sim.routers.started import Started
from ratchetctl.sim.sandbox import Sandbox

# Debian, Ubuntu; then where FRR's own packages and Fedora put them.
PROGRAMS = ("/usr/lib/frr", "/usr/libexec/frr", "/usr/sbin")
ETC, RUN, LOG = "/etc/frr", "/run/frr", "/var/log/frr"
CRASHES = "/var/tmp/frr"  # noqa: S108 - its folder, and in a pod the pod's own
FOLDERS = (ETC, LOG, CRASHES)
USER = "frr"
START_TIMEOUT_S = 60.0  # many routers start at the same time
# As in FRR's own script; more than the machine allows is left as it is.
_LIMITED = 'ulimit -Sn "$0" 2>/dev/null; exec "$@"'
_LINES = 5


def start(sandbox: Sandbox, files: Mapping[str, str]) -> Started:
    """Start FRR with these files of the container."""
    started = Started("FRR")
    programs = next((one for one in PROGRAMS if os.path.exists(f"{one}/zebra")), None)
    if programs is None or shutil.which("vtysh") is None:
        started.fail("FRR", "is not installed on this machine: install frr")
        return started
    plan = frr_daemons.plan(files, sandbox.pod.name)
    for name, why in plan.left_out:
        started.fail(name, why)
    try:
        _prepare(sandbox, plan, started)
    except LookupError as error:
        started.fail("FRR", f"is not installed completely: {error}")
        return started
    for daemon in plan.daemons:
        program = f"{programs}/{daemon.name}"
        if not os.path.exists(program):
            started.fail(daemon.name, f"this machine's FRR has no {program}")
            continue
        log = f"{LOG}/{daemon.name}.log"
        daemonised = (program, "-d", "--log", f"file:{log}", *daemon.options)
        command = ("/bin/sh", "-c", _LIMITED, str(plan.max_fds), *daemonised)
        if _run(sandbox, started, daemon.name, *command):
            started.runs.append(daemon.name)
        _tell(started, daemon.name, _refused_by_daemon(sandbox.own(log)))
    if plan.is_integrated and started.runs:
        _run(sandbox, started, "vtysh", "vtysh", "-b")
    return started


def _prepare(sandbox: Sandbox, plan: Plan, started: Started) -> None:
    os.makedirs(sandbox.own(RUN), exist_ok=True)
    own = {f"{ETC}/{name}": content for name, content in plan.files.items()}
    for refused in sandbox.place({**plan.others, **own}, FOLDERS):
        started.fail("FRR", refused)
    # The daemons give up root.
    for folder in (RUN, *FOLDERS):
        for path in (sandbox.own(folder), *_inside(sandbox.own(folder))):
            shutil.chown(path, USER, USER)


def _inside(folder: str) -> Iterator[str]:
    return (os.path.join(folder, name) for name in os.listdir(folder))


def _run(sandbox: Sandbox, started: Started, name: str, *command: str) -> bool:
    try:
        done = sandbox.run(command, START_TIMEOUT_S)
    except SimError as error:
        started.fail(name, str(error))
        return False
    # A line that is not understood is no reason for FRR to stop, and none to keep silent about.
    lines = [line.strip() for line in done.stdout.splitlines()]
    refused = [line for line in lines if line.startswith("line ")]
    if done.returncode != 0 and not refused:
        refused = [f"ended with {done.returncode}: {' / '.join(lines[:2]) or 'no word'}"]
    _tell(started, name, refused)
    return done.returncode == 0


def _refused_by_daemon(log: str) -> list[str]:
    """Return the lines of its own file that a daemon has refused, which only its log tells."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            return [line.rpartition("] ")[2].strip() for line in file if " config line " in line]
    except FileNotFoundError:
        return []


def _tell(started: Started, name: str, refused: Sequence[str]) -> None:
    for line in refused[:_LINES]:
        started.fail(name, line)
    if len(refused) > _LINES:
        started.fail(name, f"and {len(refused) - _LINES} more such lines")
