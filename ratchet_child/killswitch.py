"""Points at which a test may kill the child. Off, and costing a comparison, unless asked for.

The environment variable RATCHET_KILL_AT_STEP is the number of the step (an etcd request, a netlink
request, a record removed) at which the process ends as `kill -9` would end it. Nothing else in the
project may read it; no installed configuration sets it.
"""

from __future__ import annotations

import os
import signal
import threading

_VARIABLE = "RATCHET_KILL_AT_STEP"
_left = int(os.environ.get(_VARIABLE) or 0)
_lock = threading.Lock()


def reach(point: str) -> None:  # noqa: ARG001 - for the reader of the calling line
    """Kill the process if it is to die at this step."""
    global _left  # noqa: PLW0603 - one number for the whole process
    if _left:
        with _lock:
            _left -= 1
            if not _left:
                os.kill(os.getpid(), signal.SIGKILL)
