"""The labels of pods, read from the API server for parents that ask.

In threads of their own, and with a clock: a name server, or an API server that sends a byte now and
then, may keep a thread for as long as it likes, but not the parent. So each question is answered by
a thread or by the clock, whichever comes first. Nothing is remembered of a pod: whoever asks wants
to know how it is now. Of the source it is remembered how the last question has ended.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from ratchet import log
from ratchet.errors import CniError, PodSourceError, PodUnknownError
from ratchet_child.model.clock import Clock

TIMEOUT_S = 5.0
_THREADS = 16  # as many as the reader keeps connections: a node starts its pods at once

Labels = tuple[dict[str, str], dict[str, str]]
Answer = Callable[[Labels | CniError], None]


class Lookups:
    """Questions under way. All methods are for one thread; answers are given in any."""

    def __init__(self, kubeconfig: str, clock: Clock) -> None:
        self._clock = clock
        self._kubeconfig = kubeconfig
        self._under_way: list[_Lookup] = []
        self._waiting: queue.SimpleQueue[_Lookup | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self._lock = threading.Lock()
        self._reader: Any = None
        self._error: CniError | None = None
        self._refused: _Lookup | None = None

    @property
    def error(self) -> CniError | None:
        """Why the source could not be read when it was asked last; None when it could."""
        return self._error

    def refused(self) -> CniError | None:
        """Return why the source refuses this node; None when it does not, as far as is known.

        A node that counts as not ready is given no pods whose labels anybody would ask for. So
        what was refused is asked again, for the next time that somebody wants to know.
        """
        error, last = self._error, self._refused
        if not isinstance(error, PodSourceError):
            return None
        if last is not None and last.is_answered:
            self.ask(last.namespace, last.name, None, lambda _: None)
            self._refused = self._under_way[-1]
        return error

    def ask(self, namespace: str, name: str, uid: Any, answer: Answer) -> None:
        """Have a pod's labels and annotations told, or the error that the parent is to report."""
        lookup = _Lookup(namespace, name, uid, self._clock.monotonic() + TIMEOUT_S, answer)
        self._under_way.append(lookup)
        if not self._idle.acquire(blocking=False) and self._threads < _THREADS:
            self._threads += 1
            # Not an executor's: the process would wait for these at its end.
            threading.Thread(target=self._run, name="labels", daemon=True).start()
        self._waiting.put(lookup)

    def settle(self) -> None:
        """Answer those whose time is over."""
        now = self._clock.monotonic()
        for lookup in self._under_way:
            if now >= lookup.deadline:
                pod = f"pod {lookup.namespace}/{lookup.name}"
                late = PodUnknownError(pod, "the API server does not answer in time")
                self._answer(lookup, late)
        self._under_way = [one for one in self._under_way if not one.is_answered]

    def next_deadline(self) -> float | None:
        """Return the moment (monotonic) at which `settle` must be called at the latest."""
        return min((lookup.deadline for lookup in self._under_way), default=None)

    def close(self) -> None:
        """End the threads, each when it has answered what has been asked."""
        for _ in range(self._threads):
            self._waiting.put(None)

    def _run(self) -> None:
        while (lookup := self._waiting.get()) is not None:
            self._look_up(lookup)
            self._idle.release()

    def _look_up(self, lookup: _Lookup) -> None:
        try:
            labels = self._pod_reader().fetch(
                lookup.namespace, lookup.name, lookup.uid, lookup.deadline
            )
        except CniError as error:
            self._answer(lookup, error)
        except Exception as error:  # noqa: BLE001 - the parent must hear of it
            log.crash("reading labels failed", error, pod=lookup.name)
            self._answer(lookup, CniError(199, "internal error", str(error)))
        else:
            self._answer(lookup, labels)

    def _answer(self, lookup: _Lookup, found: Labels | CniError) -> None:
        """Answer a question that has not been answered yet, and note how the source is."""
        if lookup.is_answered:
            return
        if isinstance(found, PodSourceError):
            self._refused = lookup
        is_pods = isinstance(found, PodUnknownError) and found.source_answers
        self._error = found if isinstance(found, CniError) and not is_pods else None
        lookup.answer(found)

    def _pod_reader(self) -> Any:
        with self._lock:
            if self._reader is None:
                # `requests` takes memory that a child without Kubernetes need not pay for.
                from ratchet.kubernetes import PodReader  # noqa: PLC0415 - memory that others need not pay for

                self._reader = PodReader(self._kubeconfig)
            return self._reader


class _Lookup:
    """One question, which is answered once."""

    def __init__(
        self, namespace: str, name: str, uid: Any, deadline: float, answer: Answer
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.uid = uid
        self.deadline = deadline
        self._answer = answer
        self._once = threading.Lock()

    @property
    def is_answered(self) -> bool:
        return self._once.locked()

    def answer(self, found: Labels | CniError) -> None:
        if self._once.acquire(blocking=False):
            self._answer(found)
