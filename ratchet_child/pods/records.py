"""The child's view of the attachment records. What has not changed is not read again."""

from __future__ import annotations

import contextlib
import os

from ratchet.attachments import DELETED_SUFFIX, Attachment, load
from ratchet.cni.dataclasses import replace
from ratchet.statedir import RECORD_SUFFIX, RECORDS
from ratchet_child.model.keys import PodKey


class Records:
    """The records of one state directory, as of the last `scan`."""

    def __init__(self, state_dir: str) -> None:
        self._folder = os.path.join(state_dir, RECORDS)
        self._seen: dict[str, tuple[int, int]] = {}
        self._paths: dict[PodKey, set[str]] = {}
        self.live: dict[str, Attachment] = {}  # by path; unfinished ones are not in it
        self.deleted: dict[str, Attachment] = {}

    def of(self, pod: PodKey) -> tuple[list[Attachment], dict[str, Attachment]]:
        """Return a pod's live records, and its deleted ones by path."""
        paths = self._paths.get(pod, ())
        live = [self.live[path] for path in paths if path in self.live]
        return live, {path: self.deleted[path] for path in paths if path in self.deleted}

    def named(self, name: str) -> Attachment | None:
        """Return the live record of an attachment, None without one."""
        return self.live.get(self._path(name))

    def scan(self) -> set[PodKey]:
        """Read what is new or has changed; the pods of these records."""
        changed: set[PodKey] = set()
        present: set[str] = set()
        for entry in self._entries():
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # renamed since it was listed
            present.add(entry.path)
            changed |= self._take(entry.path, status)
        for path in self._seen.keys() - present:
            changed |= self._drop(path)
            del self._seen[path]
        return changed

    def refresh(self, name: str) -> set[PodKey]:
        """Read the one live record of that attachment, if it has changed; its pods."""
        if "/" in name or "\0" in name:
            return set()
        path = self._path(name)
        try:
            return self._take(path, os.stat(path))
        except (OSError, UnicodeEncodeError):
            return set()

    def refresh_deleted(self, name: str) -> set[PodKey]:
        """Read what one attachment's record has become by being marked deleted; its pods."""
        changed: set[PodKey] = set()
        path = self._path(name)
        if path in self._seen and not os.path.lexists(path):
            changed |= self._drop(path)
            del self._seen[path]
        for entry in self._entries():
            if entry.name.startswith(f"{name}.") and entry.name.endswith(DELETED_SUFFIX):
                with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                    changed |= self._take(entry.path, entry.stat())
        return changed

    def forget(self, path: str) -> None:
        self._seen.pop(path, None)
        self._drop(path)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name + RECORD_SUFFIX)

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

    def _take(self, path: str, status: os.stat_result) -> set[PodKey]:
        stamp = (status.st_mtime_ns, status.st_ino)
        if self._seen.get(path) == stamp:
            return set()
        self._seen[path] = stamp
        attachment = load(path)
        changed = self._drop(path)
        if attachment is None:
            return changed
        is_finished = attachment.is_finished
        # The boot network is the parents' business, and takes more memory than the links.
        attachment = replace(attachment, boot=None, result={})
        if path.endswith(DELETED_SUFFIX):
            self.deleted[path] = attachment
        elif is_finished:
            self.live[path] = attachment
        else:  # the boot network's ADD has not finished
            return changed
        pod = pod_of(attachment)
        self._paths.setdefault(pod, set()).add(path)
        return changed | {pod}

    def _drop(self, path: str) -> set[PodKey]:
        attachment = self.live.pop(path, None) or self.deleted.pop(path, None)
        if attachment is None:
            return set()
        pod = pod_of(attachment)
        self._paths[pod].discard(path)
        if not self._paths[pod]:
            del self._paths[pod]
        return {pod}


def pod_of(attachment: Attachment) -> PodKey:
    """Return the pod that a record is of."""
    return PodKey(attachment.namespace, attachment.pod)
