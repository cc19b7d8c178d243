"""The figures that were asked for, and whether this run has reached them. For reading only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import Results

Value = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    """At most (or at least) so much of a figure."""

    text: str
    limit: float
    unit: str
    value: Value
    at_least: bool = False
    aim: float | None = None

    def verdict(self, results: Results) -> str:
        value = self.value(results)
        if value is None:
            return "not measured"
        good = value >= self.limit if self.at_least else value <= self.limit
        return "reached" if good else "MISSED"


def _median(name: str, factor: float = 1.0) -> Value:
    def value(results: Results) -> float | None:
        found = results.median(name)
        return None if found is None else found * factor

    return value


def _most(*names: str) -> Value:
    def value(results: Results) -> float | None:
        found = [max(results.series[name].values) for name in names if name in results.series]
        return max(found, default=None)

    return value


def _growth(key: str) -> Value:
    """Return the largest deviation from the smallest cluster, in percent."""

    def value(results: Results) -> float | None:
        ratios = [
            results.ratio(name)
            for name in results.series
            if name.startswith("growth/") and name.endswith(f"/{key}") and name.count("/") >= 2
        ]
        return max((abs(one - 1) * 100 for one in ratios if one is not None), default=None)

    return value


def _suffix(start: str, end: str) -> Value:
    def value(results: Results) -> float | None:
        names = [one for one in results.series if one.startswith(start) and one.endswith(end)]
        return _most(*names)(results)

    return value


def _child_of_1000(key: str) -> Value:
    """Return the figure of the child with the most links, however many in this run."""

    def value(results: Results) -> float | None:
        counts = [
            int(name.split("/")[1].removeprefix("child-"))
            for name in results.series
            if name.startswith("memory/child-") and name.endswith(key)
        ]
        if not counts:
            return None
        return _most(f"memory/child-{max(counts)}/{key}")(results)

    return value


def _ratio(name: str) -> Value:
    return lambda results: results.ratio(name)


_PASS = "pass-through/loopback/add"

TARGETS = (
    Target(
        "pass-through ADD, labels from the runtime : loopback",
        6,
        "x",
        _ratio(f"{_PASS}/runtime/wall"),
        aim=3.6,
    ),
    Target(
        "pass-through ADD, labels from the warm child : loopback",
        6,
        "x",
        _ratio(f"{_PASS}/child/wall"),
        aim=3.6,
    ),
    Target("CPU of the same, runtime", 6, "x", _ratio(f"{_PASS}/runtime/cpu"), aim=3.6),
    Target(
        "CPU of the same, warm child, its own share too",
        6,
        "x",
        _ratio(f"{_PASS}/child/cpu-with-child"),
        aim=3.6,
    ),
    Target("eligible ADD to return, warm child : loopback", 10, "x", _ratio("eligible/add/wall")),
    Target(
        "link-up, same node, pair first", 50, "ms", _median("link-up/same-node/pair-first/warm")
    ),
    Target(
        "link-up, same node, primary first",
        50,
        "ms",
        _median("link-up/same-node/primary-first/warm"),
    ),
    Target(
        "link-up, two nodes, pair first", 70, "ms", _median("link-up/two-nodes/pair-first/warm")
    ),
    Target(
        "link-up, two nodes, primary first",
        70,
        "ms",
        _median("link-up/two-nodes/primary-first/warm"),
    ),
    Target("20 pairs at once, one node", 1.5, "s", _median("pairs/one-node/links", 1e-3), aim=1.0),
    Target(
        "20 pairs at once, two nodes", 2.0, "s", _median("pairs/two-nodes/links", 1e-3), aim=1.0
    ),
    Target("the same: links missing, in any run", 0, "", _suffix("pairs/", "/missing")),
    Target("the same: VNIs used twice, in any run", 0, "", _median("pairs/vnis-twice")),
    Target("40 unlabelled ADDs at once : directly", 8, "x", _ratio("at-once/runtime"), aim=5),
    Target("750 pods until every link answers", 30, "s", _median("tree/links"), aim=15),
    Target("750 pods, teardown", 30, "s", _median("tree/teardown"), aim=15),
    Target("750 pods: links missing", 0, "", _median("tree/missing")),
    Target(
        "veth pairs a second, the child's : ip -batch",
        0.7,
        "x",
        _ratio("links/veth/child"),
        at_least=True,
    ),
    Target(
        "child's peak RSS with 1,000 links", 60, "MB", lambda r: _scaled(_child_of_1000("peak")(r))
    ),
    Target("memory of a further link", 10, "kB", _median("memory/per-link")),
    Target("growth: etcd requests per link, deviation", 10, "%", _growth("requests")),
    Target("growth: requests of one more pair, deviation", 10, "%", _growth("one-more/requests")),
    Target("growth: events of others' links heard", 0, "", _suffix("growth/", "/foreign")),
)


def _scaled(kilobytes: float | None) -> float | None:
    return None if kilobytes is None else kilobytes / 1024
