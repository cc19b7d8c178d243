"""What the child counts, and the Prometheus endpoint that shows it when `metrics_address` is set.

Counting is plain arithmetic, so that it can stand everywhere; prometheus_client, which costs memory
and start-up time, is only imported by a child that serves.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ratchet import log

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


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
        """Cumulative counts by upper bound, as Prometheus has them."""
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        total = 0
        result = []
        for bound, count in zip(bounds, self.counts, strict=True):
            total += count
            result.append((bound, total))
        return result


class Figures:
    """The counts of this process."""

    def __init__(self) -> None:
        self.etcd: dict[str, Durations] = {}
        self.reconciliations = Durations()
        self.requests: dict[str, Durations] = {}
        self.ends: Counter[str] = Counter()  # by what was done: make, mend, replace, remove, fail
        self.retries = 0
        self.last_reconciliation = 0.0  # seconds since the epoch


figures = Figures()


@contextmanager
def etcd_request(name: str) -> Iterator[None]:
    """Count and time a request to etcd, whatever becomes of it."""
    started = time.monotonic()
    try:
        yield
    finally:
        figures.etcd.setdefault(name, Durations()).add(time.monotonic() - started)


def served(operation: str, seconds: float) -> None:
    """A parent's request has been answered."""
    figures.requests.setdefault(operation, Durations()).add(seconds)


def reconciled(seconds: float) -> None:
    """One pod has been worked on."""
    figures.reconciliations.add(seconds)
    figures.last_reconciliation = time.time()


class Endpoint:
    """An HTTP server for Prometheus. *Raises* OSError when the address cannot be used."""

    def __init__(self, address: str, links_by_state: Callable[[], dict[str, int]]) -> None:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - only a child that serves pays for it

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(links_by_state))
        host, _, port = address.rpartition(":")
        self._server, self._thread = start_http_server(
            int(port),
            addr=host.strip("[]") or "0.0.0.0",
            registry=registry,
        )
        log.info("metrics are served", address=address)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class _Collector:
    """Reads the figures at the moment of a scrape."""

    def __init__(self, links_by_state: Callable[[], dict[str, int]]) -> None:
        self._links_by_state = links_by_state

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import (  # noqa: PLC0415 - only a child that serves pays for it
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        links = GaugeMetricFamily("ratchet_links", "Links of this node's pods.", labels=["state"])
        for state, count in self._links_by_state().items():
            links.add_metric([state], count)
        yield links
        for name, text, by in (
            ("ratchet_etcd_request_seconds", "Requests to etcd.", figures.etcd),
            ("ratchet_request_seconds", "Requests of parents.", figures.requests),
        ):
            family = HistogramMetricFamily(name, text, labels=["operation"])
            for operation, durations in list(by.items()):
                family.add_metric([operation], durations.buckets(), durations.seconds)
            yield family
        yield HistogramMetricFamily(
            "ratchet_reconciliation_seconds",
            "Reconciliations of one pod.",
            buckets=figures.reconciliations.buckets(),
            sum_value=figures.reconciliations.seconds,
        )
        ends = CounterMetricFamily("ratchet_ends", "Ends made, mended, ...", labels=["operation"])
        for operation, count in list(figures.ends.items()):
            ends.add_metric([operation], count)
        yield ends
        yield CounterMetricFamily(
            "ratchet_retries", "Reconciliations that failed and were tried again.", figures.retries
        )
        yield GaugeMetricFamily(
            "ratchet_last_reconciliation_timestamp_seconds",
            "When a pod was worked on last, seconds since the epoch.",
            figures.last_reconciliation,
        )
