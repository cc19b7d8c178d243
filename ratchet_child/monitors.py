"""A thread that hears what becomes of Ratchet's interfaces in the pods' namespaces.

It has the engine take that up, which may have to wait for a pod that is being worked on; so nobody
else waits for it. A pod may change its ends as often as it likes: one that does so without end is
read less and less often, and then as a whole.
"""

from __future__ import annotations

import heapq
import os
import selectors
import threading
import time
from typing import NamedTuple

from ratchet import log
from ratchet_child.engine import Engine
from ratchet_child.kernel.netns import Monitor, News
from ratchet_child.model.keys import PodKey
from ratchet_child.pods.turns import backoff

_PAUSE_S = (0.05, 10.0)
_FORGIVEN_S = 30.0  # a pod that has been quiet for so long is read at once again


class _Noise(NamedTuple):
    """How often in a row a pod's monitor had more to tell than could be read, and when last."""

    times: int
    at: float  # monotonic seconds


class Monitors:
    """Waits for exactly the monitors that the engine has.

    They are closed here and nowhere else: a descriptor that was closed by another thread could
    stand for something else by the time it is heard.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self._pods: dict[Monitor, PodKey] = {}
        self._noise: dict[Monitor, _Noise] = {}
        self._paused: list[tuple[float, int, Monitor]] = []  # a heap, by when each is read again
        self._number = 0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="monitors", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have monitors taken up that have come or gone. From any thread."""
        if self._engine.registry.has_monitors or self._is_stopping:
            os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        """End the thread. *Blocks at most* for the work on one end."""
        self._is_stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        """Close all monitors, after the engine has ended."""
        self._take_up()
        for monitor in self._pods:
            monitor.close()
        self._selector.close()
        os.close(self._wake_fd)

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - a surprise must not end the rest
                log.crash("an event of the kernel's could not be handled", error)

    def _turn(self) -> None:
        self._take_up()
        now = time.monotonic()
        while self._paused and self._paused[0][0] <= now:
            monitor = heapq.heappop(self._paused)[2]
            if monitor in self._pods:
                self._selector.register(monitor, selectors.EVENT_READ)
        timeout_s = self._paused[0][0] - now if self._paused else None
        for key, _ in self._selector.select(timeout_s):
            if isinstance(key.fileobj, Monitor):
                self._hear(key.fileobj)
            else:
                os.eventfd_read(self._wake_fd)

    def _take_up(self) -> None:
        for monitor, pod in self._engine.registry.monitors():
            if pod is not None:
                self._pods[monitor] = pod
                self._selector.register(monitor, selectors.EVENT_READ)
                continue
            del self._pods[monitor]
            self._noise.pop(monitor, None)
            if monitor in self._selector.get_map():
                self._selector.unregister(monitor)
            monitor.close()

    def _hear(self, monitor: Monitor) -> None:
        pod = self._pods.get(monitor)
        if pod is None:
            return  # retired since it was heard
        news = monitor.read()
        if news is None or monitor.is_behind:
            self._pause(monitor)
        if news is None or news != News():
            self._engine.interfaces_changed(pod, news)

    def _pause(self, monitor: Monitor) -> None:
        now = time.monotonic()
        before = self._noise.get(monitor, _Noise(0, now))
        times = 1 if now - before.at > _FORGIVEN_S else before.times + 1
        self._noise[monitor] = _Noise(times, now)
        self._selector.unregister(monitor)
        self._number += 1  # monitors have no order of their own
        heapq.heappush(self._paused, (now + backoff(_PAUSE_S, times), self._number, monitor))
