"""Where a node's programs run: in a network namespace and in a mount namespace of the node's own.

Each machine has one /run/ratchet/front.sock. Nodes that shared it would share one warm child.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from ratchetctl.sim import netns, syscalls

SOCKETS = "/run/ratchet"


@dataclass(frozen=True, slots=True)
class Place:
    """The path of a network namespace; the descriptor of a mount namespace, None for ours."""

    network: str
    mounts: int | None = None

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Run a block with the calling thread in there. What it starts is born inside."""
        with netns.inside(self.network):
            if self.mounts is None:
                yield
                return
            # setns(2): a thread that shares its root and working directory cannot change mounts.
            syscalls.unshare(syscalls.CLONE_FS)
            directory = os.open(".", os.O_PATH | os.O_CLOEXEC)
            home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.setns(self.mounts, syscalls.CLONE_NEWNS, "a place")
                yield
            finally:
                syscalls.setns(home, syscalls.CLONE_NEWNS, "home")
                os.fchdir(directory)
                os.close(home)
                os.close(directory)


@contextlib.contextmanager
def shared(folder: str) -> Iterator[None]:
    """Have mount namespaces that are made from here on see what is mounted in a folder later."""
    netns.make_room(folder, passes_on=True)
    try:
        yield
    finally:
        netns.remove_room(folder)


@contextlib.contextmanager
def mounts() -> Iterator[int]:
    """Make a mount namespace with an empty folder for the front's socket; give its descriptor."""
    os.makedirs(SOCKETS, mode=0o700, exist_ok=True)
    # Slave: the pods' namespaces that are made later are to be seen.
    argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c"]
    script = f"mount -t tmpfs -o mode=700 tmpfs {SOCKETS} && echo made && exec cat"
    with subprocess.Popen(
        [*argv, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        if maker.stdout.readline() != "made\n":
            raise OSError(f"no mount on {SOCKETS} can be made")
        descriptor = os.open(f"/proc/{maker.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        maker.communicate()
    try:
        yield descriptor
    finally:
        os.close(descriptor)
