"""When to look whether this is still the node that it was: at its own address and interface.

The kernel's news of a node come many together, and on some nodes all the time, so a look waits for
a moment after the first of them and rests after the last look. What a look leads to is the child's
to say (``child``); what the kernel has is ``kernel.this_node``'s.
"""

from __future__ import annotations

import time

from ratchet.config import Config
from ratchet_child.kernel.this_node import UnderlayMonitor
from ratchet_child.model.local import Node

_TOGETHER_S = 0.2  # changes of the node's addresses and routes come together
_REST_S = 1.0  # between two looks, on a node where much happens


class UnderlayWatch:
    """Hears of the node's own interfaces, addresses and routes, in the namespace where it is made.

    `due` is the time of the next look in monotonic seconds, None while nothing has been heard.
    """

    def __init__(self) -> None:
        self.due: float | None = None
        self._monitor = UnderlayMonitor()
        self._looked_at = 0.0  # monotonic seconds

    def fileno(self) -> int:
        """Return the descriptor that can be read when there is something to hear."""
        return self._monitor.fileno()

    def heard(self, node: Node) -> None:
        """Read what there is to hear, and have a look due if it concerns the node."""
        if self._monitor.concerns(node) and self.due is None:
            self.due = max(time.monotonic() + _TOGETHER_S, self._looked_at + _REST_S)

    def look(self, config: Config) -> Node:
        """Return the node as it is now. *Raises* KernelError and OSError."""
        self._looked_at = time.monotonic()
        node = self._monitor.find(config)
        self.due = None
        return node

    def look_again(self) -> None:
        """Have another look due, as the last one led to nothing."""
        self.due = self._looked_at + _REST_S
