"""The system calls that namespaces are made of, for which Python has no function.

They are made through ctypes because a process of `ip`, `nsenter` or `mount` for each pod would take
longer than attaching it. (Python has os.setns and os.unshare only from 3.12 on.) Each names what it
was about in its OSError.
"""

from __future__ import annotations

import ctypes
import errno
import os

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Give the calling thread namespaces (or, by CLONE_FS, a working directory) of its own."""
    _call(_libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int, what: str) -> None:
    """Put the calling thread into a namespace, or into those of a process by its pidfd."""
    _call(_libc.setns(descriptor, flags), f"setns {what}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    _call(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind and os.fsencode(kind),
            ctypes.c_ulong(flags),
            os.fsencode(options) if options else None,
        ),
        f"mount {target}",
    )


def unmount(target: str) -> bool:
    """Detach what is mounted on a path, whoever still uses it. False: nothing was."""
    return bool(_libc.umount2(os.fsencode(target), _MNT_DETACH) == 0)


def _call(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        reason = os.strerror(number)
        if number == errno.EPERM:
            reason += ": this needs root (CAP_SYS_ADMIN)"
        raise OSError(number, f"{what}: {reason}")
