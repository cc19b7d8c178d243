"""What the child counts. Showing it is the exporter's business.

Counting is plain arithmetic and needs nothing but the standard library, so every room may count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ratchet.cni.dataclasses import dataclass, field

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# All that can be counted is shown from the start: a counter that appears has no rate.
ETCD = ("get", "tree", "set", "create", "swap", "remove", "prune", "remove_tree")
WATCH = "watch"  # lasts until there is news: its duration says nothing
REQUESTS = ("attached", "check", "deleted", "health", "labels", "status")
UNKNOWN = "unknown"  # whatever else is written to the child's socket
# What became of calls that the front brought, as far as this process sees it.
ANSWERED = "answered"
DELEGATED = "delegated"  # the front became the delegate
PARENT = "parent"  # this process had it become the parent
ABANDONED = "abandoned"  # the front did not wait, or was killed
FRONT_RESULTS = (ANSWERED, DELEGATED, PARENT, ABANDONED)
# Why the parent served a call: first what this process says, then what parents tell.
FALLBACKS = (
    *("state_dir", "namespace", "path"),
    *("no-child", "busy", "late", "lost", "nonsense", "stranger", "input", "streams"),
)
ENDS = ("make", "mend", "replace", "remove")


@dataclass(slots=True)
class Durations:
    """A histogram: how many took at most each bucket's bound, and all seconds together."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        place = next((i for i, bound in enumerate(BUCKETS_S) if seconds <= bound), len(BUCKETS_S))
        self.counts[place] += 1
        self.seconds += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """Return cumulative counts by upper bound, as Prometheus has them."""
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        total = 0
        result = []
        for bound, count in zip(bounds, self.counts, strict=True):
            total += count
            result.append((bound, total))
        return result


@dataclass(slots=True)
class Counts:
    """How many links and pods are in each state, and how the node and its sources are."""

    links: dict[str, int]
    etcd: bool
    faults: int = 0  # links that are up, but of which the kernel has refused a property
    labels: bool = True
    attached: int = 0
    superseded: int = 0
    troubled: int = 0
    has_address: bool = True
    is_address_shared: bool = False
    silent_nodes: int = 0
    agent: AgentCounts | None = None  # None: the child is no agent


@dataclass(frozen=True, slots=True)
class AgentCounts:
    """How the agent is."""

    watching: bool
    pods: int
    troubles: int


class Figures:
    """The counts of this process. Whoever changes or reads them holds the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.etcd = {name: Durations() for name in ETCD}
        self.etcd_errors = dict.fromkeys((*ETCD, WATCH), 0)
        self.requests = {name: Durations() for name in (*REQUESTS, UNKNOWN)}
        self.ends = {name: Durations() for name in ENDS}
        self.end_failures = 0
        self.front = dict.fromkeys(FRONT_RESULTS, 0)
        self.fallbacks = dict.fromkeys(FALLBACKS, 0)
        self.reconciliations = Durations()
        self.retries = 0
        self.last_reconciliation = 0.0  # seconds since the epoch
        self.recalled = 0


figures = Figures()


def etcd_took(name: str, seconds: float) -> None:
    """Note how long a request has taken that etcd has answered."""
    _add(figures.etcd[name], seconds)


def etcd_failed(name: str) -> None:
    """Count a request that etcd did not answer, or answered with nonsense."""
    with figures.lock:
        figures.etcd_errors[name] += 1


def served(operation: object, seconds: float) -> None:
    """Count a request that has been answered; `operation` is what it asked for, whatever it was."""
    _add(figures.requests[str(operation) if operation in REQUESTS else UNKNOWN], seconds)


def front_served(result: str) -> None:
    """Count a call that the front brought and that is over."""
    with figures.lock:
        figures.front[result] += 1


def front_fell_back(reason: object) -> None:
    """Count a call that the parent serves; `reason` is why, whatever that is."""
    if isinstance(reason, str) and reason in FALLBACKS:
        with figures.lock:
            figures.fallbacks[reason] += 1


def front() -> dict[str, dict[str, int]]:
    """Return what became of calls through the front, and why parents served the rest."""
    with figures.lock:
        return {"calls": dict(figures.front), "fallbacks": dict(figures.fallbacks)}


def end_done(operation: str, seconds: float) -> None:
    """Count an end that has been made, mended, replaced or removed."""
    _add(figures.ends[operation], seconds)


@contextmanager
def end_operation(name: str) -> Iterator[None]:
    """Count and time what is done to an end, if it succeeds."""
    started = time.monotonic()
    yield
    end_done(name, time.monotonic() - started)


def end_failed() -> None:
    """Count an end that could not be made."""
    with figures.lock:
        figures.end_failures += 1


def tried_in_vain() -> None:
    """Count a reconciliation that has failed and will be tried again."""
    with figures.lock:
        figures.retries += 1


def reconciled(seconds: float) -> None:
    """Count a run of work on one pod."""
    with figures.lock:
        figures.reconciliations.add(seconds)
        figures.last_reconciliation = time.time()


def recalled() -> None:
    """Count a question about labels that was answered from the agent's memory."""
    with figures.lock:
        figures.recalled += 1


def _add(durations: Durations, seconds: float) -> None:
    with figures.lock:
        durations.add(seconds)
