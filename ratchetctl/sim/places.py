"""Where a node's plugins run: in the node's network, and with a /run/ratchet of the node's own.

A machine has one /run/ratchet/front.sock, and behind it the child to which the front hands its
calls. Simulated nodes would share it, and only the calls of one of them would be served by a warm
child: the front tells nodes apart by their namespaces. So each node has a mount namespace, which a
bind mount keeps, as it does for networks. Apart from /run/ratchet it shows what the machine has;
namespaces of pods that are made later too, for which their folder passes mounts on.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from ratchetctl.node import STATE_DIRS
from ratchetctl.sim import netns, syscalls

_MOUNTS = "/proc/thread-self/mountinfo"


def make(path: str, sockets: str) -> None:
    """Make a node's mount namespace, in which the folder `sockets` is /run/ratchet.

    It is kept at `path`, in a folder that `netns.make_room` made. Needs CAP_SYS_ADMIN.
    """
    os.makedirs(STATE_DIRS, mode=0o700, exist_ok=True)
    os.makedirs(sockets, mode=0o700, exist_ok=True)
    with open(path, "xb"), ThreadPoolExecutor(1) as pool:
        thread = pool.submit(_inside, sockets).result()
        # From outside: a mount namespace cannot hold itself.
        syscalls.mount(f"/proc/self/task/{thread}/ns/mnt", path, None, syscalls.MS_BIND)


def enter(network: str, path: str) -> None:
    """Put the calling thread into a node, for good; what it starts is born inside."""
    if os.path.exists(path):
        # setns(2): a thread that shares its root and working directory cannot change mounts.
        syscalls.unshare(syscalls.CLONE_FS)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(descriptor, syscalls.CLONE_NEWNS, path)
        finally:
            os.close(descriptor)
    netns.enter(network)


def _inside(sockets: str) -> int:
    """Put the calling thread into a new mount namespace, and return the thread."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    # What is mounted over /run/ratchet is to be seen here only; everything else goes on.
    syscalls.mount("none", _mount_of(STATE_DIRS), None, syscalls.MS_SLAVE)
    syscalls.mount(sockets, STATE_DIRS, None, syscalls.MS_BIND)
    return threading.get_native_id()


def _mount_of(path: str) -> str:
    """Return the mount that a path lies on; proc_pid_mountinfo(5)."""
    real = os.path.realpath(path)
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    return max((one for one in points if f"{real}/".startswith(f"{one.rstrip('/')}/")), key=len)
