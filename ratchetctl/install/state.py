"""Removes what a node's child has kept, when Ratchet leaves the node.

Records of pods that are attached stay: whoever installs Ratchet again takes them up. So does all of
it while a child runs.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress

from ratchet import statedir
from ratchetctl.install import files

_LOOK_S = 0.1
# Above a network's own folder, in /run and in /var/lib.
_SHARED = "ratchet"


def forget(state_dir: str, root: str, wait_s: float = 0.0) -> bool:
    """Remove a network's state directory, and what outlives a reboot; whether that is so.

    `root` is the node's root directory. *Blocks at most* `wait_s`, for a child that is ending.
    """
    folders = [_inside(root, state_dir)]
    lasting = statedir.lasting_dir(state_dir)
    if lasting is not None:
        folders.append(_inside(root, lasting))
    end = time.monotonic() + wait_s
    while _is_in_use(folders):
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_S)
    for folder in folders:
        files.remove_tree(folder)
        above = os.path.dirname(folder)
        if os.path.basename(above) == _SHARED:
            with suppress(OSError):  # another network's
                os.rmdir(above)
    return True


def _inside(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _is_in_use(folders: list[str]) -> bool:
    for folder in folders:
        for part in (statedir.RECORDS, statedir.BOOTS):
            if files.names(os.path.join(folder, part)):
                return True
    try:
        lock = os.open(os.path.join(folders[0], statedir.LOCK), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
