"""The programs of the commit before, for upgrades and downgrades between two real builds.

Made of the programs under test, with the modules and the front that git has, and kept below build/
for as long as the sources stay the same.
"""

from __future__ import annotations

import hashlib
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

from tests.e2e.test_build import PROGRAMS, ROOT

# What the programs are made of.
SOURCES = ("ratchet", "ratchet_child", "ratchetctl", "front", "packaging", "setup.cfg")
KEPT = ROOT / "build" / "before"
BUILD_TIMEOUT_S = 60
# How their modules are compiled: as packaging/ratchet.spec has it.
PACKAGES = {"ratchet": 2, "ratchet_child": 0, "ratchetctl": 0}


class NoHistoryError(Exception):
    """Of the commit before nothing is here: this is no repository, or one that was cut short."""


def programs() -> Path:
    """Return the folder with the programs of the newest commit whose sources are others.

    Raises NoHistoryError.
    """
    commit = _commit_before()
    version = f"{sys.version} {_git('ls-tree', commit, '--', *SOURCES)}"
    built = KEPT / hashlib.sha256(version.encode()).hexdigest()[:16]
    if not built.exists():
        shutil.rmtree(KEPT, ignore_errors=True)
        KEPT.mkdir(parents=True)
        _build(commit, built)
    return built


def _commit_before() -> str:
    """Return the parent of the commit that was the last one to touch the sources."""
    last = _git("rev-list", "--first-parent", "--max-count=1", "HEAD", "--", *SOURCES)
    # A clone that was cut short has that commit, and nothing before it.
    before = _git("rev-list", "--first-parent", "--max-count=1", "--skip=1", last)
    if not before:
        raise NoHistoryError(f"git has nothing here from before {last[:12]}")
    return before


def _build(commit: str, built: Path) -> None:
    """Put the modules and the front of a commit in the place of those of the programs under test.

    To have PyInstaller look for what belongs to three programs takes half a minute of a processor,
    and what is around the modules is this environment's in any case.
    """
    tree = KEPT / "tree"
    tree.mkdir()
    archive = KEPT / "tree.tar"
    _git("archive", f"--output={archive}", commit)
    subprocess.run(["tar", "-x", "-f", archive, "-C", tree], check=True)
    made = KEPT / "made"
    shutil.copytree(PROGRAMS, made, symlinks=True)
    for package, optimize in PACKAGES.items():
        for module in (made / "lib" / package).rglob("*.pyc"):
            module.unlink()
        for source in (tree / package).rglob("*.py"):
            name = source.relative_to(tree)
            py_compile.compile(
                str(source),
                str(made / "lib" / name.with_suffix(".pyc")),
                dfile=str(name),
                doraise=True,
                optimize=optimize,
                invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
            )
    if not (made / "ratchet").is_symlink():
        front = (f"{tree}/packaging/front.sh", "release", f"{made}/ratchet")
        subprocess.run(front, check=True, timeout=BUILD_TIMEOUT_S)
    made.rename(built)
    shutil.rmtree(tree)
    archive.unlink()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NoHistoryError("there is no git here") from error
    if done.returncode != 0:
        raise NoHistoryError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
