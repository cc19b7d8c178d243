"""Files that a parent was writing when it was killed.

A file is written beside its place, under a name with a dot before and the writer's process ID
behind, and then renamed. That takes milliseconds, so one that has been there for seconds is
nobody's any more. Whether its writer still lives is not asked: it may be in another PID namespace,
and its number somebody else's.
"""

from __future__ import annotations

import os

from ratchet import log, statedir

_AGE_S = 5.0


class UnfinishedFiles:
    """Those of one state directory."""

    def __init__(self, state_dir: str) -> None:
        self._folders = [
            state_dir,
            os.path.join(state_dir, statedir.RECORDS),
            os.path.join(state_dir, statedir.BOOTS),
        ]
        self._seen: dict[tuple[str, int], float] = {}  # path and inode, first seen at

    def sweep(self, now: float) -> None:
        """Remove what has been there for a while, by a clock that never jumps."""
        before, self._seen = self._seen, {}
        for folder in self._folders:
            for path, inode in _unfinished(folder):
                since = before.get((path, inode), now)
                if now - since < _AGE_S:
                    self._seen[path, inode] = since
                else:
                    log.warning("a file that nobody finished is removed", path=path)
                    statedir.remove(path)


def _unfinished(folder: str) -> list[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            return [
                (entry.path, entry.inode())
                for entry in entries
                if entry.name.startswith(".") and entry.name.rpartition(".")[2].isdigit()
            ]
    except OSError:
        return []
