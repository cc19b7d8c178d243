"""The programs of the commit before, for upgrades and downgrades between two real builds.

Built with this checkout's environment, from what git has, and kept below build/ for as long as the
sources stay the same.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.test_build import ROOT

# What the programs are made of.
SOURCES = ("ratchet", "ratchet_child", "ratchetctl", "front", "packaging", "setup.cfg")
KEPT = ROOT / "build" / "before"
BUILD_TIMEOUT_S = 600


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
    tree = KEPT / "tree"
    tree.mkdir()
    archive = KEPT / "tree.tar"
    _git("archive", f"--output={archive}", commit)
    subprocess.run(["tar", "-x", "-f", archive, "-C", tree], check=True)
    done = subprocess.run(
        [tree / "packaging" / "build.sh", built, sys.prefix],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    assert done.returncode == 0, f"{commit}: {done.stdout}{done.stderr}"
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
