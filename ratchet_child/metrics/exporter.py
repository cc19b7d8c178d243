"""The Prometheus endpoint that shows what the child counts, when `metrics_address` is set.

prometheus_client costs memory and start-up time, so only a child that serves imports it. A thread
of its own resolves the address, waits until it can listen there, and answers one request at a time:
pods matter more than their figures, and whoever reaches the address must not exhaust the child's
memory.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ratchet import __version__, log
from ratchet_child.metrics.figures import Counts, figures

_RETRY_S = 2.0
_CLIENT_TIMEOUT_S = 2.0


class Endpoint:
    """An HTTP server for Prometheus at `host:port`, for as long as it is not closed."""

    def __init__(self, address: str, counts: Callable[[], Counts]) -> None:
        self.address = address
        self._counts = counts
        self._closed = threading.Event()
        self._server: Any = None
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give the address up. *Blocks at most* a second."""
        self._closed.set()
        server = self._server
        if server is not None:
            # It waits for a connection; this ends the wait.
            with contextlib.suppress(OSError):
                server.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=1)

    def _run(self) -> None:
        told: str | None = None
        while not self._closed.is_set():
            try:
                self._server = _server(self.address, self._counts)
            except (OSError, UnicodeError) as error:  # a name that cannot be encoded
                if told != str(error):
                    told = str(error)
                    log.error("metrics cannot be served", address=self.address, error=told)
                self._closed.wait(_RETRY_S)
                continue
            log.info("metrics are served", address=self.address)
            while not self._closed.is_set():
                self._server.handle_request()
            self._server.server_close()


def _server(address: str, counts: Callable[[], Counts]) -> Any:
    """Listen at an address. *Raises* OSError."""
    # Only a child that serves pays for these.
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer  # noqa: PLC0415 - see above

    from prometheus_client import (  # noqa: PLC0415 - see above
        CollectorRegistry,
        ProcessCollector,
        make_wsgi_app,
    )

    class Handler(WSGIRequestHandler):
        def setup(self) -> None:
            super().setup()
            # For the whole of it: a time-out of the socket would begin anew with each byte.
            self._timer = threading.Timer(_CLIENT_TIMEOUT_S, self._hang_up)
            self._timer.daemon = True
            self._timer.start()

        def finish(self) -> None:
            self._timer.cancel()
            super().finish()

        def _hang_up(self) -> None:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            """Log nothing: scrapes are not worth a line."""

    class Server(WSGIServer):
        def server_bind(self) -> None:
            # The standard library's asks the DNS for the own name, which may take seconds.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
            self.server_name, self.server_port = "ratchet-child", self.server_address[1]
            self.setup_environ()

        def handle_error(self, *_: object) -> None:
            """Ignore it: whoever asked has gone away."""

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(counts))
    ProcessCollector(registry=registry)
    host, _, port = address.rpartition(":")
    family, *_, where = socket.getaddrinfo(
        host.strip("[]") or "0.0.0.0", int(port), type=socket.SOCK_STREAM
    )[0]
    Server.address_family = family
    server = Server(where, Handler)  # type: ignore[arg-type]
    server.set_app(make_wsgi_app(registry))
    return server


class _Collector:
    """Reads the figures at the moment of a scrape."""

    def __init__(self, counts: Callable[[], Counts]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Any]:
        counts = self._counts()
        yield from _of_node(counts)
        with figures.lock:
            families = list(_of_figures())
        yield from families


def _of_node(counts: Counts) -> Iterator[Any]:
    from prometheus_client.core import (  # noqa: PLC0415 - only a child that serves pays for it
        GaugeMetricFamily,
        InfoMetricFamily,
    )

    yield InfoMetricFamily("ratchet_build", "The program.", {"version": __version__})
    links = GaugeMetricFamily("ratchet_links", "Links of this node's pods.", labels=["state"])
    for state, count in counts.links.items():
        links.add_metric([state], count)
    yield links
    yield GaugeMetricFamily(
        "ratchet_link_faults",
        "Links that are up, but of which the kernel has refused a property.",
        counts.faults,
    )
    pods = GaugeMetricFamily("ratchet_pods", "Labelled pods of this node.", labels=["state"])
    pods.add_metric(["attached"], counts.attached)
    pods.add_metric(["superseded"], counts.superseded)
    pods.add_metric(["error"], counts.troubled)
    yield pods
    yield GaugeMetricFamily("ratchet_etcd_up", "Whether etcd answers.", int(counts.etcd))
    yield GaugeMetricFamily(
        "ratchet_parent_address_known",
        "Whether the node has a parent_address.",
        int(counts.has_address),
    )
    yield GaugeMetricFamily(
        "ratchet_parent_address_shared",
        "Whether another machine has the node's parent_address, too.",
        int(counts.is_address_shared),
    )
    yield GaugeMetricFamily(
        "ratchet_silent_nodes",
        "Nodes of this node's peers that have not been heard of.",
        counts.silent_nodes,
    )
    yield GaugeMetricFamily(
        "ratchet_labels_up",
        "Whether the last question about labels was answered.",
        int(counts.labels),
    )
    if counts.agent is not None:
        yield GaugeMetricFamily(
            "ratchet_agent_watching",
            "Whether the API server tells the agent of changes.",
            int(counts.agent.watching),
        )
        yield GaugeMetricFamily(
            "ratchet_agent_pods", "Pods of this node that the agent knows.", counts.agent.pods
        )
        yield GaugeMetricFamily(
            "ratchet_agent_troubles",
            "What is wrong between the agent and the API server.",
            counts.agent.troubles,
        )


def _of_figures() -> Iterator[Any]:
    from prometheus_client.core import (  # noqa: PLC0415 - only a child that serves pays for it
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    for name, text, by in (
        ("ratchet_etcd_request_seconds", "Requests to etcd but watches.", figures.etcd),
        ("ratchet_request_seconds", "Requests of parents and ratchetctl.", figures.requests),
        ("ratchet_end_operation_seconds", "What was done to ends of links.", figures.ends),
    ):
        family = HistogramMetricFamily(name, text, labels=["operation"])
        for operation, durations in by.items():
            family.add_metric([operation], durations.buckets(), durations.seconds)
        yield family
    errors = CounterMetricFamily(
        "ratchet_etcd_request_errors",
        "Requests to etcd that failed, watches among them.",
        labels=["operation"],
    )
    for operation, count in figures.etcd_errors.items():
        errors.add_metric([operation], count)
    yield errors
    front = CounterMetricFamily(
        "ratchet_front_calls",
        "Calls of the plugin that the front brought, by what became of them.",
        labels=["result"],
    )
    for result, count in figures.front.items():
        front.add_metric([result], count)
    yield front
    fallbacks = CounterMetricFamily(
        "ratchet_front_fallbacks",
        "Calls that the parent served in place of the front, as far as they were told of.",
        labels=["reason"],
    )
    for reason, count in figures.fallbacks.items():
        fallbacks.add_metric([reason], count)
    yield fallbacks
    yield CounterMetricFamily(
        "ratchet_labels_recalled",
        "Questions about labels that were answered from the agent's memory.",
        figures.recalled,
    )
    yield CounterMetricFamily(
        "ratchet_end_failures", "Ends that could not be made.", figures.end_failures
    )
    yield HistogramMetricFamily(
        "ratchet_reconciliation_seconds",
        "Reconciliations of one pod.",
        buckets=figures.reconciliations.buckets(),
        sum_value=figures.reconciliations.seconds,
    )
    yield CounterMetricFamily(
        "ratchet_retries", "Reconciliations that failed and were tried again.", figures.retries
    )
    yield GaugeMetricFamily(
        "ratchet_last_reconciliation_timestamp_seconds",
        "When a pod was worked on last, seconds since the epoch.",
        figures.last_reconciliation,
    )
