"""FRR in a pod's network namespace: zebra and ospfd, each with its own sockets and pid files.

FRR finds its parts by paths that are one for the whole machine. Every router gets a folder instead:
-z for zebra's socket, -i for the pid files, --vty_socket for vtysh. The daemons give up root, so
the folder is frr's. The configuration goes in through vtysh, as FRR's own start script does it,
because it hands each daemon the lines that it knows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from ratchetctl.errors import SimError
from ratchetctl.sim import environment, netns

# Debian, Ubuntu; then where FRR's own packages and Fedora put them.
FOLDERS = ("/usr/lib/frr", "/usr/libexec/frr", "/usr/sbin")
DAEMONS = ("zebra", "ospfd")
USER = "frr"
START_TIMEOUT_S = 20.0


def start(folder: str, namespace: str, frr_conf: str) -> None:
    """Start FRR with this configuration in the namespace at this path. Raises SimError.

    folder is the pod's own and exists.
    """
    programs = next((one for one in FOLDERS if os.path.exists(f"{one}/zebra")), None)
    vtysh = shutil.which("vtysh")
    if programs is None or vtysh is None:
        raise SimError("FRR is missing: install frr")
    sockets = socket_folder(folder)
    os.mkdir(sockets, 0o750)
    try:
        shutil.chown(sockets, USER, USER)
    except LookupError as error:
        raise SimError(f"FRR is not installed completely: {error}") from error
    configuration = os.path.join(sockets, "frr.conf")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(frr_conf)
    shutil.chown(configuration, USER, USER)
    with netns.inside(namespace):
        for daemon in DAEMONS:
            _run(
                f"{programs}/{daemon}",
                "--daemon",
                *("--pid_file", f"{sockets}/{daemon}.pid"),
                *("--socket", f"{sockets}/zserv.api"),
                *("--vty_socket", sockets),
                *("--vty_port", "0"),
                # Nothing is read from /etc/frr, which is the machine's own.
                *("--config_file", "/dev/null"),
                *("--log", f"file:{sockets}/{daemon}.log"),
            )
        _run(vtysh, "--vty_socket", sockets, "--config_dir", sockets, "-f", configuration)


def show(folder: str, command: str) -> str:
    """Return what a router answers to one vtysh command. Raises SimError."""
    sockets = socket_folder(folder)
    return _run("vtysh", "--vty_socket", sockets, "--config_dir", sockets, "-c", command)


def socket_folder(folder: str) -> str:
    return os.path.join(folder, "frr")


def _run(*command: str) -> str:
    done = _done(command)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise SimError(f"{command[0]} ended with {done.returncode}: {said}")
    return done.stdout


def _done(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment.clean(),
            timeout=START_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SimError(f"{command[0]} did not answer in {START_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise SimError(f"{command[0]}: {error.strerror}") from error
