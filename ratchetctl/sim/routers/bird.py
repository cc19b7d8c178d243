"""BIRD in a pod: one daemon, whose control socket birdc finds where it always is."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Mapping

from ratchetctl.errors import SimError
from ratchetctl.sim.routers.started import Started
from ratchetctl.sim.sandbox import Sandbox

RUN = "/run/bird"
NAME = "bird.conf"
START_TIMEOUT_S = 60.0


def is_configuration(path: str) -> bool:
    return posixpath.basename(path) == NAME


def start(sandbox: Sandbox, files: Mapping[str, str]) -> Started:
    """Start BIRD with these files of the container, one of which is its configuration."""
    started = Started("BIRD")
    # Debian has it where only root looks.
    program = shutil.which("bird") or shutil.which("/usr/sbin/bird")
    if program is None:
        started.fail("bird", "is not installed on this machine: install bird2")
        return started
    os.makedirs(sandbox.own(RUN), exist_ok=True)
    for refused in sandbox.place(files):
        started.fail("bird", refused)
    path = next((path for path in files if is_configuration(path)), None)
    if path is None:
        started.fail("bird", f"there is no {NAME} among the pod's files")
        return started
    try:
        done = sandbox.run((program, "-c", path), START_TIMEOUT_S)
    except SimError as error:
        started.fail("bird", str(error))
        return started
    if done.returncode != 0:
        started.fail(
            "bird", done.stdout.strip().removeprefix("bird: ") or f"ended with {done.returncode}"
        )
    else:
        started.runs.append("bird")
    return started
