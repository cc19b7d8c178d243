"""A child that counts its calls from module to module: what `rooms` starts on its nodes.

It takes the package as it is, and knows nothing of its layout. Counting begins afresh with SIGUSR1
and is written to a file by SIGUSR2. Its times mean nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from types import FrameType

PACKAGE = "ratchet_child"

Caller = tuple[str, str]


class Calls:
    """Which module has called which, by the kind of thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._counted: dict[str, Counter[Caller]] = {}

    def trace(self, frame: FrameType, event: str, _: object) -> None:
        """Note a call of a function of the package, with the one of the package that led to it.

        That may be further up: a library that calls back leads from its caller to what it calls.
        Python's own callers, such as a thread that starts, are the empty name.
        """
        if event != "call":
            return
        called = module(frame)
        if called is None:
            return
        above, caller = frame.f_back, None
        while above is not None and caller is None:
            caller = module(above)
            above = above.f_back
        kind = threading.current_thread().name.partition("-")[0]
        self._counted.setdefault(kind, Counter())[caller or "", called] += 1

    def begin(self, *_: object) -> None:
        self._counted = {}

    def write(self, *_: object) -> None:
        counted = self._counted
        found = {kind: [[*key, times] for key, times in counted[kind].items()] for kind in counted}
        with open(f"{self._path}.new", "w") as file:
            json.dump(found, file)
        os.rename(f"{self._path}.new", self._path)


def module(frame: FrameType) -> str | None:
    """Return the frame's module without the package's name; None outside the package."""
    name = frame.f_globals.get("__name__", "")
    return name[len(PACKAGE) + 1 :] if name.startswith(f"{PACKAGE}.") else None


def run(path: str) -> int:
    """Run as the child, and write to `path` what is counted."""
    from ratchet_child.main import main  # noqa: PLC0415 - its imports are not what is counted

    calls = Calls(path)
    signal.signal(signal.SIGUSR1, calls.begin)
    signal.signal(signal.SIGUSR2, calls.write)
    threading.setprofile(calls.trace)
    sys.setprofile(calls.trace)
    return main()
