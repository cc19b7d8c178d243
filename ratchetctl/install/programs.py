"""Puts the built programs where the runtime looks for plugins, and what was there before back.

Each build has a folder of its own, BIN/ratchet.node/<build>, and is put to use by renaming symbolic
links, as `make install` does (packaging/install.sh): a program that was started before goes on with
its own files, which therefore stay until the next build comes. The folder has another name than
that of `make install`, so that neither removes what the other has installed.

What stood under one of our names is kept in BIN/ratchet.node/before, and comes back at the end.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable

from ratchetctl.errors import InstallError
from ratchetctl.install import files

# The child first: a new parent never starts an old child.
NAMES = ("ratchet-child", "ratchet", "ratchetctl")
TREE = "ratchet.node"
_BEFORE = "before"
_PARTIAL = "partial"
_ID_CHARS = 12
_NOT_COPIED = (".built",)


def install(source: str, bin_dir: str, attempt: Callable[[str], None] | None = None) -> bool:
    """Have the programs of a built folder be the node's. Safe to call again; whether it changed.

    ``attempt`` is called with the copied folder before it is put to use, and raises InstallError
    if the programs do not run: they may need a newer C library than the node has.
    """
    missing = [name for name in NAMES if not os.path.isfile(os.path.join(source, name))]
    if missing:
        raise InstallError(f"{source} does not hold the built programs: {missing[0]} is missing")
    tree = os.path.join(bin_dir, TREE)
    os.makedirs(tree, mode=0o755, exist_ok=True)
    files.remove_leftovers(bin_dir)
    build = _build_id(source)
    old = _build_in_use(bin_dir)
    _copy(source, os.path.join(tree, build))
    if attempt is not None:
        try:
            attempt(os.path.join(tree, build))
        except InstallError:
            if build != old:
                files.remove_tree(os.path.join(tree, build))
            if not files.names(tree):
                os.rmdir(tree)
            raise
    for name in NAMES:
        path = os.path.join(bin_dir, name)
        _keep(path, os.path.join(tree, _BEFORE, name))
        files.link(f"{TREE}/{build}/{name}", path)
    for name in files.names(tree):
        if name not in (build, old or build, _BEFORE):
            files.remove_tree(os.path.join(tree, name))
    return old != build


def uninstall(bin_dir: str) -> None:
    """Take the programs away, and put back what was there before. Safe to call twice."""
    tree = os.path.join(bin_dir, TREE)
    for name in reversed(NAMES):
        path = os.path.join(bin_dir, name)
        if not _is_ours(path):
            continue  # somebody else has put something there since
        before = os.path.join(tree, _BEFORE, name)
        if os.path.lexists(before):
            _put(before, path)
        else:
            files.remove(path)
    files.remove_tree(tree)
    if os.path.isdir(bin_dir):
        files.remove_leftovers(bin_dir)
        files.sync_folder(tree)


def _build_id(source: str) -> str:
    """Return what tells one build from another: a digest of all names, modes and contents."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            if name in _NOT_COPIED:
                continue
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            digest.update(f"{os.path.relpath(path, source)} {mode & 0o111}\0".encode())
            if stat.S_ISLNK(mode):
                digest.update(os.readlink(path).encode())
                continue
            with open(path, "rb") as file:
                while data := file.read(1 << 20):
                    digest.update(data)
    return digest.hexdigest()[:_ID_CHARS]


def _build_in_use(bin_dir: str) -> str | None:
    path = os.path.join(bin_dir, NAMES[-1])
    return os.readlink(path).split("/")[1] if _is_ours(path) else None


def _is_ours(path: str) -> bool:
    return os.path.islink(path) and os.readlink(path).startswith(f"{TREE}/")


def _copy(source: str, target: str) -> None:
    """Copy a build, whole or not at all."""
    if os.path.isdir(target):
        return
    partial = os.path.join(os.path.dirname(target), _PARTIAL)
    files.remove_tree(partial)
    shutil.copytree(source, partial, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    for folder, _, names in os.walk(partial):
        os.chmod(folder, 0o755)  # noqa: S103 - programs are for everybody
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)
    # syncfs(2) has no function in Python; sync(2) brings the copies to the disk before their name.
    os.sync()
    os.replace(partial, target)
    files.sync_folder(target)


def _keep(path: str, before: str) -> None:
    """Keep what stands under one of our names. It stays in use until ours takes its place."""
    if _is_ours(path) or not os.path.lexists(path):
        return
    if os.path.isdir(path) and not os.path.islink(path):
        raise InstallError(f"{path} is a folder; Ratchet's program has to go there")
    if os.path.lexists(before) and os.path.samestat(os.lstat(path), os.lstat(before)):
        return
    os.makedirs(os.path.dirname(before), mode=0o755, exist_ok=True)
    _put(path, before)
    files.sync_folder(before)


def _put(path: str, place: str) -> None:
    """Have the same file or link in another place as well, from one moment to the next."""
    new = files.temporary(place)
    files.remove(new)
    os.link(path, new, follow_symlinks=False)
    os.replace(new, place)
