"""The program `ratchet-child` with a kill switch: it ends as `kill -9` would end it, at a step.

The environment variable RATCHET_KILL_AT_STEP is the number of the step. Only the first child of a
supervisor is doomed: the next one would die at the same step.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

VARIABLE = "RATCHET_KILL_AT_STEP"


class Switch:
    """Kills the process at the step with that number."""

    def __init__(self, step: int) -> None:
        self._left = step
        self._lock = threading.Lock()

    def reach(self, point: str) -> None:
        """Count a step."""
        with self._lock:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    from ratchet_child.supervision import supervisor

    if supervisor.is_asked_for(sys.argv[1:]):
        os.register_at_fork(after_in_parent=lambda: os.environ.pop(VARIABLE, None))
        return supervisor.main(sys.argv[1:], _serve)
    from ratchet_child import command

    return command.main(sys.argv[1:])


def _serve(arguments: Sequence[str], listener: int, keeper: Any) -> int:
    from ratchet_child import serving, steps

    step = int(os.environ.get(VARIABLE) or 0)
    if step:
        steps.on_step = Switch(step).reach
    return serving.serve(arguments, listener, keeper)


if __name__ == "__main__":
    sys.exit(main())
