"""Changing what the record of a live attachment says, without ever undoing a DEL.

A parent makes a record and, at the DEL, takes it away by renaming it. Between the moment at which
the child has read it and the moment at which it writes, a DEL may have done so; a file that is then
renamed into its place would bring a pod back that is gone. So the new record is *exchanged* with
the one that is there, which the kernel refuses when nothing is there (renameat2(2),
RENAME_EXCHANGE), and what comes out is looked at: if it is not what was read, an ADD has written it
meanwhile, and it is put back in the same way. A DEL that comes at any moment takes whatever is
there then, and nothing is made that it would not find.

Nobody else rewrites a record that it has not made: see decision 16.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading

from ratchet import statedir
from ratchet.attachments import Attachment, load
from ratchet.cni import codec
from ratchet.cni.dataclasses import replace
from ratchet.errors import StateError
from ratchet.labels import Wiring

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)


def rewrite(state_dir: str, attachment: Attachment, wiring: Wiring) -> bool:
    """Have the record of an attachment declare what its pod's labels say of links.

    Return False when it is gone or another one.

    What else the record holds stays as it is. *Raises* StateError when it cannot be written.
    """
    path = statedir.record_path(state_dir, attachment.container_id, attachment.ifname)
    # Whoever sweeps what killed processes leave knows such names. A parent writes beside the record
    # as well, and in another PID namespace its number may be ours.
    folder, name = os.path.split(path)
    new = f"{folder}/.{name}.rewriting.{threading.get_native_id()}"
    try:
        before = _identity(path)
        found = load(path)
        if found is None or before is None or found.netns != attachment.netns:
            return False
        changed = replace(
            found, links=wiring.links, uplinks=wiring.uplinks, expected=wiring.expected
        )
        statedir.write_private(new, codec.encode(changed.to_json()))
        try:
            return _exchange_for(new, path, before)
        finally:
            statedir.remove(new)
    except OSError as error:
        raise StateError(f"cannot write {path}", error.strerror or repr(error)) from error


def _exchange_for(new: str, path: str, before: tuple[int, int]) -> bool:
    """Put a file into the place of the one that was read; False when that is not there.

    *Raises* OSError.
    """
    if not _exchange(new, path):
        return False
    if _identity(new) == before:
        return True
    # Somebody has written it since it was read. A DEL that comes now takes ours, with the same
    # container, and leaves nothing to be put back.
    _exchange(new, path)
    return False


def _exchange(one: str, other: str) -> bool:
    """Exchange two files in one step; False when one of them is not there. *Raises* OSError."""
    paths = os.fsencode(one), os.fsencode(other)
    if _libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        return False
    raise OSError(number, os.strerror(number), other)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
