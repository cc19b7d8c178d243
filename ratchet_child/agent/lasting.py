"""What was seen of the node's pods last, kept in the state directory for the next agent.

An agent that is upgraded, or killed, while the API server is away would otherwise know nothing, and
no sandbox could be made anew until that is back. The file holds no more than labels and annotations
of Ratchet's, and is as private as the records beside it. A reboot empties it with them.
"""

from __future__ import annotations

import json
import os
from itertools import chain
from typing import Any

from ratchet import log, statedir
from ratchet_child.agent.seen import SeenPod, SeenPods

FILE = "seen.json"
_VERSION = 1
_LARGEST_BYTES = 16 << 20
_PAUSE_S = 2.0


class Lasting:
    """Keeps the file as the pods are. For one thread."""

    def __init__(self, state_dir: str, node: str) -> None:
        self._path = os.path.join(state_dir, FILE)
        self._node = node
        self._saved = 0  # the revision that the file has
        self._due = 0.0  # monotonic seconds

    def load(self, seen: SeenPods) -> None:
        """Take up what an earlier agent of this node has left. What is damaged counts for nothing.

        The pods carry no version: they were told of, but not to this process.
        """
        try:
            with open(self._path, "rb") as file:
                found = json.loads(file.read(_LARGEST_BYTES))
            if found["version"] != _VERSION or found["node"] != self._node:
                return
            pods = [_read(one) for one in found["pods"]]
        except FileNotFoundError:
            return
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            log.warning("what was seen last cannot be read", path=self._path, error=repr(error))
            return
        seen.replace(pods)
        self._saved = seen.revision
        log.info("what was seen last is known again", pods=len(pods))

    def save(self, seen: SeenPods, now: float, *, at_once: bool = False) -> float | None:
        """Write the file if it is not right; the moment (monotonic) at which to call again."""
        revision = seen.revision
        if revision == self._saved:
            return None
        if now < self._due and not at_once:
            return self._due
        self._due, self._saved = now + _PAUSE_S, revision
        written = {
            "version": _VERSION,
            "node": self._node,
            "pods": [
                [pod.namespace, pod.name, pod.uids, pod.labels, pod.annotations]
                for pod in seen.all()
            ],
        }
        try:
            statedir.write_private(self._path, json.dumps(written).encode())
        except OSError as error:
            log.warning("what was seen cannot be kept", path=self._path, error=str(error))
        return None


def _read(one: Any) -> SeenPod:
    """Return a pod as it was written. *Raises* what a value of the wrong kind does."""
    namespace, name, uids, labels, annotations = one
    for part in (namespace, name, *uids, *chain(*labels.items(), *annotations.items())):
        if not isinstance(part, str):
            raise TypeError(f"{part!r} is not a string")
    return SeenPod(namespace, name, (uids[0], *uids[1:]), "", labels, annotations)
