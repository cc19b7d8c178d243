"""GoBGP in a pod: gobgpd, which the program gobgp asks over the pod's own lo.

GoBGP speaks BGP and writes no route into the kernel.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import subprocess
from collections.abc import Mapping

from ratchetctl.errors import SimError
from ratchetctl.sim.routers.started import Started
from ratchetctl.sim.sandbox import Sandbox

TYPES = {".conf": "toml", ".toml": "toml", ".yml": "yaml", ".yaml": "yaml", ".json": "json"}
NAMES = ("gobgp", "gobgpd")
LOG = "gobgpd.log"
CHECK_TIMEOUT_S = 60.0


def is_configuration(path: str) -> bool:
    stem, ending = posixpath.splitext(posixpath.basename(path))
    return stem in NAMES and ending in TYPES


def start(sandbox: Sandbox, files: Mapping[str, str]) -> Started:
    """Start gobgpd with these files of the container, one of which is its configuration."""
    started = Started("GoBGP")
    if shutil.which("gobgpd") is None:
        started.fail("gobgpd", "is not installed on this machine: install gobgpd")
        return started
    path = next((path for path in files if is_configuration(path)), None)
    if path is None:
        started.fail("gobgpd", "there is no gobgpd.conf among the pod's files")
        return started
    form = TYPES[posixpath.splitext(path)[1]]
    # Its image has the file in /, where the machine has room for none.
    inside = f"/run/gobgpd/{posixpath.basename(path)}"
    others = {one: content for one, content in files.items() if one != path}
    for refused in sandbox.place({**others, inside: files[path]}):
        started.fail("gobgpd", refused)
    command = ("gobgpd", "-t", form, "-f", inside)
    try:
        checked = sandbox.run((*command, "--dry-run"), CHECK_TIMEOUT_S)
        if checked.returncode != 0:
            lines = checked.stdout.strip().splitlines()[-1:] or ["it says nothing"]
            started.fail("gobgpd", f"refuses {path}: {lines[0]}")
            return started
        with open(os.path.join(sandbox.folder, LOG), "ab") as log:
            process = sandbox.start(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except SimError as error:
        started.fail("gobgpd", str(error))
        return started
    # It outlives us; Python would otherwise warn of a child that was not waited for.
    process.returncode = 0
    started.runs.append("gobgpd")
    return started
