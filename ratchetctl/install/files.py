"""Writes, replaces and removes files so that a process that is killed leaves the old or the new.

Temporary names begin with a dot and end in `.new`, which no runtime takes for a configuration; what
a killed process has left of them, the next one removes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ratchetctl.errors import InstallError

_SUFFIX = ".ratchet.new"


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn what the system refuses into an InstallError that says what was being done."""
    try:
        yield
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise InstallError(f"cannot {doing}:{where}: {error.strerror or error}") from error


def temporary(path: str) -> str:
    """Return the name beside a file under which its next content is made."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}{_SUFFIX}")


def write(path: str, data: bytes, mode: int = 0o600) -> bool:
    """Write a file by a rename, unless it has this content and mode; whether it was written."""
    if read(path) == data and os.stat(path).st_mode & 0o7777 == mode:
        return False
    new = temporary(path)
    remove(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(new, path)
    sync_folder(path)
    return True


def link(target: str, path: str) -> None:
    """Have a path be a symbolic link, from one moment to the next."""
    with suppress(OSError):
        if os.readlink(path) == target:
            return
    new = temporary(path)
    remove(new)
    os.symlink(target, new)
    os.replace(new, path)
    sync_folder(path)


def read(path: str) -> bytes | None:
    """Return a regular file's content; None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def remove(path: str) -> bool:
    """Remove a file or link. Safe to call twice; whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def remove_tree(path: str) -> None:
    """Remove a folder of ours with all that is in it. Safe to call twice."""
    if os.path.islink(path):
        remove(path)
    elif os.path.lexists(path):
        shutil.rmtree(path)


def remove_leftovers(folder: str) -> None:
    """Remove what a killed process has left under temporary names."""
    for name in names(folder):
        if name.startswith(".") and name.endswith(_SUFFIX):
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                remove_tree(path)
            else:
                remove(path)


def names(folder: str) -> list[str]:
    """Return what is in a folder, sorted; nothing where there is none."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def sync_folder(path: str) -> None:
    """Bring the renames in a file's folder to the disk."""
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
