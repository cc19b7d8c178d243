"""Hearing bells: the one watch of this node, on `nodes/<its address>`.

A watch in etcd v2 is a long poll from an index on. When it has heard nothing for a while, or its
place in the history (1,000 events over all keys) is lost, the node's keys are listed instead: bells
stay there for `BELL_TTL_S`, so whatever was rung since is in the list. Only after a silence longer
than that, or in another etcd than before, does the node look at all of its links again.
"""

from __future__ import annotations

import contextlib
import threading

from ratchet import log
from ratchet.errors import StoreError
from ratchet_child.engine import Engine
from ratchet_child.model import keys
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.pairing.ringing import BELL_TTL_S, targets
from ratchet_child.store.api import Event, HistoryLostError, Store

_RETRY_S = 0.3
_LONGEST_RETRY_S = 10.0  # where no pod waits for etcd
_LOST_S = 0.02  # not at once, should the next answer be the same
# Longer than a quiet watch with its list, so that an idle node looks at nothing; shorter than a
# bell stands, so that the list shows whatever was rung meanwhile.
_LONGEST_SILENCE_S = BELL_TTL_S - 5
_GONE = ("delete", "expire", "compareAndDelete")


class Bells:
    """A thread that watches for one engine. It ends some time after `stop`."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine
        self._clock = engine.clock
        self._stopped = threading.Event()
        self._index = 0
        self._cluster: str | None = None  # whose index that is
        self._listed_at: float | None = None  # monotonic seconds
        self._retry_s = _RETRY_S
        self._told: set[str] = set()  # why etcd is away, since it answered last
        self._thread = threading.Thread(target=self._run, name="bells", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Have the thread end. Does not wait: a long poll takes its time."""
        self._stopped.set()

    def _run(self) -> None:
        told = self._told
        while not self._stopped.is_set():
            try:
                self._listen()
            except HistoryLostError:
                log.info("the watch has lost its place in etcd's history")
                self._stopped.wait(_LOST_S)
            except StoreError as error:
                if error.details not in told:  # members may fail in turn, each in its way
                    log.warning("etcd is away", error=str(error))
                    told.add(error.details)
                self._engine.etcd_is_away(str(error))
                self._wait_to_retry()
            except Exception as error:  # noqa: BLE001 - the node must not grow deaf
                log.crash("watching failed", error)
                self._listed_at = None
                self._stopped.wait(_RETRY_S)

    def _wait_to_retry(self) -> None:
        """Wait a little; less and less often for as long as this node has no pods."""
        self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S)
        waited_s = 0.0
        while not self._stopped.wait(_RETRY_S):
            waited_s += _RETRY_S
            if not self._engine.registry.is_idle:
                self._retry_s = _RETRY_S
            if waited_s >= self._retry_s:
                return

    def _listen(self) -> None:
        """List, then watch until nothing has been heard for a while."""
        asked_at = self._clock.monotonic()
        found = self._engine.pairing.node(self._engine.node.address)
        missed = self._listed_at is None or asked_at - self._listed_at > _LONGEST_SILENCE_S
        cluster = self._store.cluster
        if cluster != self._cluster or found.index < self._index:
            missed = True  # etcd has been set up anew, or restored
        for modified, pod, names in () if missed else found.bells:
            if modified > self._index:
                self._engine.rung(pod, names)
        for pod, (written, modified) in () if missed else found.published.items():
            if modified > self._index:
                self._engine.listed(pod, written)
        self._engine.etcd_is_back(found.published if missed else None)
        self._retry_s = _RETRY_S
        if self._told:
            log.info("etcd answers again")
            self._told.clear()
        self._index, self._cluster, self._listed_at = found.index, cluster, asked_at
        while not self._stopped.is_set():
            self._engine.keep_alive()
            try:
                event = self._store.watch(keys.node(self._engine.node.address), self._index + 1)
            except StoreError as error:
                # Whether etcd is away is told by whether it lists the keys again.
                log.debug("the watch was cut", error=str(error))
                self._stopped.wait(_LOST_S if self._clock.monotonic() - asked_at > 1 else _RETRY_S)
                return
            if event is None or self._store.cluster != cluster:
                return
            self._listed_at = self._clock.monotonic()
            self._index = event.index
            self._hear(event)

    def _hear(self, event: Event) -> None:
        own = keys.node(self._engine.node.address)
        if event.action in _GONE and f"{own}/pods/".startswith(f"{event.key}/".lstrip("/")):
            self._engine.look_again()  # a directory above the node's pods was removed
            return
        with contextlib.suppress(ValueError):  # no pod is called so
            match event.key.removeprefix(f"{own}/").split("/"):
                case ["bell", pod] if event.action not in _GONE:
                    self._engine.rung(PodKey.parse(pod), targets(event.value))
                case ["pods", pod]:
                    written = None if event.action in _GONE else _published(event.value)
                    self._engine.listed(PodKey.parse(pod), written)
                case _:
                    pass


def _published(text: str) -> Published | None:
    """Return what the node has published for a pod; None for what it cannot have written."""
    try:
        return Published.loads(text)
    except ValueError:
        return None
