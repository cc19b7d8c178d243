"""The child's view of the attachment records. What has not changed is not read again."""

from __future__ import annotations

import os

from ratchet.attachments import DELETED_SUFFIX, Attachment, load
from ratchet.statedir import RECORD_SUFFIX, RECORDS


class Records:
    """The records of one state directory, as of the last `scan`."""

    def __init__(self, state_dir: str) -> None:
        self._folder = os.path.join(state_dir, RECORDS)
        self._seen: dict[str, tuple[int, int]] = {}
        self.live: dict[str, Attachment] = {}  # by path; unfinished ones are not in it
        self.deleted: dict[str, Attachment] = {}

    def scan(self) -> bool:
        """Read what is new or has changed; whether anything has."""
        changed = False
        present: set[str] = set()
        for entry in self._entries():
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # renamed since it was listed
            present.add(entry.path)
            changed = self._take(entry.path, status) or changed
        for path in self._seen.keys() - present:
            changed = self._drop(path) or changed
            del self._seen[path]
        return changed

    def refresh(self, name: str) -> bool:
        """Read the one live record of that attachment; whether it has changed."""
        if "/" in name or "\0" in name:
            return False
        path = os.path.join(self._folder, name + RECORD_SUFFIX)
        try:
            return self._take(path, os.stat(path))
        except (OSError, UnicodeEncodeError):
            return False

    def forget(self, path: str) -> None:
        self._seen.pop(path, None)
        self._drop(path)

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder) as entries:
                return [
                    entry
                    for entry in entries
                    if not entry.name.startswith(".")
                    and entry.name.endswith((RECORD_SUFFIX, DELETED_SUFFIX))
                ]
        except OSError:
            return []

    def _take(self, path: str, status: os.stat_result) -> bool:
        stamp = (status.st_mtime_ns, status.st_ino)
        if self._seen.get(path) == stamp:
            return False
        self._seen[path] = stamp
        attachment = load(path)
        if attachment is None:
            return self._drop(path)
        if path.endswith(DELETED_SUFFIX):
            self.deleted[path] = attachment
        elif attachment.result is not None:
            self.live[path] = attachment
        else:  # the boot network's ADD has not finished
            return self._drop(path)
        return True

    def _drop(self, path: str) -> bool:
        return (self.live.pop(path, None) or self.deleted.pop(path, None)) is not None
