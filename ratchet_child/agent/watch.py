"""The watch: a list of the node's pods, and then whatever becomes of them.

The Kubernetes API's own way (API concepts, "Efficient detection of changes"): a list gives a
resource version, a watch goes on from there, bookmarks bring the version forward while nothing
happens, and 410 Gone means that it is too old and the pods have to be listed again. A watch that is
cut goes on from the last version, and nothing is listed again for it.

The list is asked of the API server's memory (``resourceVersion=0``, later "not older than what we
have seen"), where one node's pods cost what they weigh. Asked of etcd, they would cost what all
pods of the cluster do. Only where the memory cannot serve is etcd asked.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ratchet import log
from ratchet_child.agent.errors import ApiError, AwayError, ExpiredError
from ratchet_child.agent.listing import LARGEST_OBJECT, ListReader
from ratchet_child.agent.seen import SeenPods, read_pod, version_of
from ratchet_child.model.clock import Clock

PODS = "/api/v1/pods"
LIST, WATCH = "list pods", "watch pods"
# Short enough that a right that was taken away is noticed before it is missed for long.
_LASTS_S = (240.0, 300.0)
_LIST_S = 60.0
_LATE_S = 30.0
_AT_ONCE_S = 0.5
# A bookmark comes every minute. A server that says nothing for this long has lost its history (an
# etcd from a backup), and what it tells of may never come to the version that was seen.
_MUTE_S = 200.0
_GONE_STATUS = (410,)
_FROM_MEMORY, _FROM_ETCD = "0", ""


class Streams(Protocol):
    """What the watch uses of a `Connection`."""

    def stream(self, path: str, query: dict[str, str], needs: str, *, lasts_s: float) -> Any: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class Backoff:
    """How long to wait after failures in a row: twice as long each time, never the same twice.

    When an API server comes back, the nodes of a cluster must not come back in step.
    """

    def __init__(self, first_s: float = 0.5, most_s: float = 30.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._failures = 0

    def failed(self, at_least_s: float | None = None) -> float:
        """Note a failure and return the seconds to wait."""
        whole_s: float = min(self._first_s * 2**self._failures, self._most_s)
        self._failures = min(self._failures + 1, 16)
        return max(at_least_s or 0.0, whole_s / 2) + random.uniform(0, whole_s / 2)  # noqa: S311

    def worked(self) -> None:
        self._failures = 0


class Watch:
    """Keeps `SeenPods` as the API server has it, for as long as it runs."""

    def __init__(
        self,
        connection: Streams,
        node: str,
        seen: SeenPods,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called when something has changed, here or at the watch itself."""
        self._connection = connection
        self._node = node
        self._seen = seen
        self._clock = clock
        self._on_change = on_change
        self._stopping = threading.Event()
        self._backoff = Backoff()
        self._version: str | None = None  # None: they have to be listed
        self._list_from = _FROM_MEMORY
        self._has_said = False  # since the watch began
        self._is_live = False
        self._lost_at: float | None = None  # monotonic seconds
        self._error: ApiError | None = None
        self.lists = 0
        self.watches = 0

    # What others may ask, from any thread ---------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Whether the server tells of changes at this moment."""
        return self._is_live

    @property
    def error(self) -> ApiError | None:
        """Why it does not; None when it does."""
        return self._error

    @property
    def has_listed(self) -> bool:
        """Whether it ever told which pods there are."""
        return self.lists > 0

    def lost_for_s(self) -> float:
        """Return for how long nothing has been told."""
        lost_at = self._lost_at
        return 0.0 if lost_at is None else self._clock.monotonic() - lost_at

    def stop(self) -> None:
        """End the thread that runs, soon."""
        self._stopping.set()
        self._connection.abort()

    # The thread ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch until it is stopped."""
        while not self._stopping.is_set():
            pause_s = self._turn()
            self._stopping.wait(pause_s)
        self._connection.close()

    def _turn(self) -> float:
        """List or watch once; return the seconds to wait then."""
        started = self._clock.monotonic()
        self._has_said = False
        try:
            if self._version is None:
                self._list()
            self._watch(self._version or "")
        except ExpiredError:
            log.info("the API server no longer knows what was seen last, pods are listed again")
            self._version = None
            # What its memory holds may be older still.
            self._list_from = _FROM_ETCD
            self._lost(None)
            return self._backoff.failed()
        except ApiError as error:
            is_cut = self._has_said and isinstance(error, AwayError) and error.status is None
            if not is_cut:
                return self._failed(error)
            log.debug("the watch was cut", error=str(error))
        except Exception as error:  # noqa: BLE001 - the agent must go on
            log.crash("watching pods failed", error)
            self._version = None
            return self._failed(AwayError(f"internal error: {error}"))
        # It has ended as watches do, or was cut. One that ends at once is a failure all the same.
        self._lost(None)
        if not self._has_said and self._clock.monotonic() - started >= _MUTE_S:
            self._version = None
        if self._has_said or self._clock.monotonic() - started >= _AT_ONCE_S:
            self._backoff.worked()
            return random.uniform(0, 0.2)  # noqa: S311
        return self._backoff.failed()

    def _failed(self, error: ApiError) -> float:
        if str(error) != str(self._error) and not self._stopping.is_set():
            log.warning("pods cannot be watched", error=str(error))
        self._lost(error)
        return self._backoff.failed(getattr(error, "retry_after_s", None))

    def _lost(self, error: ApiError | None) -> None:
        if self._is_live or self._lost_at is None:
            self._lost_at = self._clock.monotonic()
        was_error, self._error = self._error, error or self._error
        if self._is_live or was_error is not self._error:
            self._is_live = False
            self._on_change()

    def _list(self) -> None:
        query = {"fieldSelector": f"spec.nodeName={self._node}"}
        if self._list_from:
            query["resourceVersion"] = self._list_from
        pods = []
        try:
            with self._connection.stream(PODS, query, LIST, lasts_s=_LIST_S) as response:
                reader = ListReader(response.read)
                for item in reader.items():
                    try:
                        pods.append(read_pod(item))
                    except ValueError as error:
                        log.warning("a pod of the list is not understood", error=str(error))
        except AwayError as error:
            if error.status == 504:  # its memory is older than what we have seen
                self._list_from = _FROM_ETCD
            raise
        try:
            version = version_of(reader.head)
        except ValueError as error:
            raise AwayError("the API server's list has no resource version") from error
        self._seen.replace(pods)
        self.lists += 1
        self._list_from = self._version = version
        log.debug("pods listed", pods=len(pods), version=version)
        self._on_change()

    def _watch(self, version: str) -> None:
        """Watch until the server ends it. *Raises* ApiError, also when it is cut."""
        lasts_s = random.uniform(*_LASTS_S)  # noqa: S311
        query = {
            "fieldSelector": f"spec.nodeName={self._node}",
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": f"{lasts_s:.0f}",
        }
        self.watches += 1
        with self._connection.stream(PODS, query, WATCH, lasts_s=lasts_s + _LATE_S) as response:
            self._live()
            while not self._stopping.is_set():
                line = response.readline(LARGEST_OBJECT)
                if not line:
                    return
                if line.strip():
                    self._hear(line)
                    self._has_said = True

    def _live(self) -> None:
        if not self._is_live:
            if self._error is not None:
                log.info("pods are watched again", lost_s=f"{self.lost_for_s():.1f}")
            self._is_live, self._error, self._lost_at = True, None, None
            self._on_change()

    def _hear(self, line: bytes) -> None:
        """Take up one event. *Raises* ApiError."""
        try:
            event = json.loads(line)
            kind, obj = event["type"], event["object"]
        except (ValueError, RecursionError, LookupError, TypeError) as error:
            raise AwayError("the API server's watch is not JSON") from error
        if kind == "ERROR":
            raise _error(obj)
        try:
            version = version_of(obj)
            if kind in ("ADDED", "MODIFIED"):
                self._seen.put(read_pod(obj))
            elif kind == "DELETED":
                self._seen.drop(read_pod(obj).uid)
        except ValueError as error:
            log.warning("a pod of the watch is not understood", error=str(error))
            return
        self._version = self._list_from = version
        if kind != "BOOKMARK":
            self._on_change()


def _error(obj: object) -> ApiError:
    """Return the error that a watch ends with."""
    code = obj.get("code") if isinstance(obj, dict) else None
    reason = obj.get("reason") if isinstance(obj, dict) else None
    if code in _GONE_STATUS or reason in ("Expired", "Gone"):
        return ExpiredError("watch pods: the resource version is too old")
    return AwayError(f"the API server has ended the watch ({code})")
