"""Tries whether programs run on this node, before any pod depends on them.

The programs bring their Python along, but not the C library: built on a newer distribution than the
node's they do not start, and with them no pod would. A container has a C library of its own, so it
tries them in the node's root.
"""

from __future__ import annotations

import os
import subprocess

from ratchet import log
from ratchetctl.errors import InstallError

TIMEOUT_S = 30.0
# A question that every plugin answers without a network (CNI spec 1.1.0 §2, VERSION).
_ASKED: tuple[tuple[tuple[str, ...], dict[str, str], bytes], ...] = (
    (("ratchet",), {"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "1.0.0"}'),
    (("ratchet-child", "--help"), {}, b""),
)


def attempt(folder: str, root: str) -> None:
    """Run the programs of a folder in a root directory. Raises InstallError.

    Where the root cannot be entered, a warning has to do.
    """
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        log.warning("the programs are not tried on this node", root=root, error=error.strerror)
        return
    try:
        for command, environ, stdin in _ASKED:
            _run(folder, command, environ, stdin, descriptor)
    finally:
        os.close(descriptor)


def _run(
    folder: str, command: tuple[str, ...], environ: dict[str, str], stdin: bytes, root: int
) -> None:
    name, *arguments = command
    program = os.path.join(folder, name)
    try:
        done = subprocess.run(
            [program, *arguments],
            # Nothing of ours: libraries of this container are not the node's.
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environ},
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            preexec_fn=lambda: _enter(root),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallError(f"{program} does not run on this node: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise InstallError(
            f"{program} does not run on this node: {said or f'status {done.returncode}'}: build"
            " the programs on a machine with the node's distribution, or an older one"
        )


def _enter(root: int) -> None:
    os.fchdir(root)
    os.chroot(".")
