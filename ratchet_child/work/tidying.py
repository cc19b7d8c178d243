"""Leaving nothing with containers that live on after they were detached, in a thread of its own.

Nobody tells that a container lives on, so the panel is looked at now and then, for as long as a leg
waits in a container's namespace; an idle node is not woken for it. To move the legs of
a pod with hundreds of links takes seconds, for which nobody who has something else to do waits.
"""

from __future__ import annotations

import threading

from ratchet import log
from ratchet.errors import KernelError
from ratchet_child.pods.registry import Registry
from ratchet_child.work.ends import Ends

_EVERY_S = 2.0


class Tidying:
    """Has the ends tidied until it is stopped."""

    def __init__(self, ends: Ends, registry: Registry) -> None:
        self._ends = ends
        self._registry = registry
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="panel", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread. *Blocks at most* for the legs of one pod."""
        self._end.set()
        self._ends.may_be_untidy.set()  # wakes the thread
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            self._ends.may_be_untidy.wait()
            if self._end.wait(_EVERY_S):
                return
            try:
                self._ends.tidy(self._registry.namespaces_in_use)
            except KernelError as error:
                log.debug("the legs that wait are looked after later", error=str(error))
            except Exception as error:  # noqa: BLE001 - a surprise must not end the rest
                log.crash("the legs that wait could not be looked after", error)
