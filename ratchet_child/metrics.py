"""What the child counts. Free when nobody listens: `serve` is what turns counting on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

etcd_requests: Counter[str] = Counter()
etcd_seconds: Counter[str] = Counter()
totals: Counter[str] = Counter()


@contextmanager
def etcd_request(name: str) -> Iterator[None]:
    """Count and time a request to etcd, whatever becomes of it."""
    started = time.monotonic()
    try:
        yield
    finally:
        etcd_requests[name] += 1
        etcd_seconds[name] += time.monotonic() - started  # type: ignore[assignment]


def reconciled(seconds: float) -> None:
    """One pod has been worked on."""
    totals["reconciliations"] += 1
    etcd_seconds["reconcile"] += seconds  # type: ignore[assignment]


def serve(address: str | None, engine: object) -> None:
    """Offer the figures at an address, if one is configured."""


def stop() -> None:
    """End what `serve` has begun."""
