"""The figures that were asked for, and whether this run has reached them. For reading only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


def _difference(name: str, reference: str) -> Value:
    """Return by how much a figure is larger than another one of the same run."""

    def value(results: Results) -> float | None:
        found, other = results.median(name), results.median(reference)
        return None if found is None or other is None else found - other

    return value


def _ratio(name: str) -> Value:
    return lambda results: results.ratio(name)


_PASS = "pass-through/loopback/add"


def _slower(names: Iterable[str], value_of: Callable[[Results, str], float | None]) -> Value:
    """Return the largest of several figures of which each has to be good enough."""

    def value(results: Results) -> float | None:
        found = (value_of(results, name) for name in names)
        return max((one for one in found if one is not None), default=None)

    return value


def _link_up(place: str, child: str, *, in_loopbacks: bool = False) -> Value:
    """Return the link-up of the slower order: pair first or primary first."""

    def value_of(results: Results, name: str) -> float | None:
        found = results.median(name)
        loopback = results.median("reference/loopback-add") if in_loopbacks else 1
        return None if found is None or loopback is None else found / loopback

    orders = ("pair-first", "primary-first")
    return _slower([f"link-up/{place}/{order}/{child}" for order in orders], value_of)


TARGETS = (
    Target(
        "unlabelled ADD, loopback : loopback alone, wall",
        1.5,
        "x",
        _ratio(f"{_PASS}/runtime/wall"),
        aim=1.3,
    ),
    Target(
        "the same, labels from the warm child that asks the API server",
        1.5,
        "x",
        _ratio(f"{_PASS}/child/wall"),
    ),
    Target(
        "the same, labels that the node's agent knows",
        1.5,
        "x",
        _ratio("pass-through/agent/add/agent/wall"),
    ),
    Target(
        "its CPU, the child's share included",
        1.8,
        "x",
        _ratio(f"{_PASS}/runtime/cpu-with-child"),
        aim=1.5,
    ),
    Target(
        "unlabelled ADD and DEL, bridge with host-local : alone, the slower",
        1.15,
        "x",
        _slower(
            [f"pass-through/bridge/{one}/runtime/wall" for one in ("add", "del")], Results.ratio
        ),
        aim=1.05,
    ),
    Target("40 unlabelled ADDs at once : directly", 2, "x", _ratio("at-once/runtime"), aim=1.5),
    Target("eligible ADD until it returns : loopback", 5, "x", _ratio("eligible/add/wall"), aim=4),
    Target(
        "link-up, one node : loopback",
        6,
        "x",
        _link_up("same-node", "warm", in_loopbacks=True),
        aim=5,
    ),
    Target(
        "link-up, two nodes : loopback",
        8,
        "x",
        _link_up("two-nodes", "warm", in_loopbacks=True),
        aim=6,
    ),
    Target("link-up, one node", 14, "ms", _link_up("same-node", "warm"), aim=10),
    Target("link-up, two nodes", 18, "ms", _link_up("two-nodes", "warm"), aim=12),
    Target(
        "link-up, one node, no child runs",
        150,
        "ms",
        _link_up("same-node", "cold"),
        aim=100,
    ),
    Target("20 pairs at once, one node", 0.4, "s", _median("pairs/one-node/links", 1e-3), aim=0.25),
    Target(
        "20 pairs at once, two nodes", 0.4, "s", _median("pairs/two-nodes/links", 1e-3), aim=0.25
    ),
    Target("the same: links missing, in any run", 0, "", _suffix("pairs/", "/missing")),
    Target("the same: VNIs used twice, in any run", 0, "", _median("pairs/vnis-twice")),
    Target("750 pods until every link answers", 10, "s", _median("tree/links"), aim=8),
    Target("750 pods, teardown", 10, "s", _median("tree/teardown"), aim=8),
    Target("750 pods: links missing", 0, "", _median("tree/missing")),
    Target(
        "750 hosts in the simulator until every link answers, beyond the 750 pods",
        2,
        "s",
        _difference("hosts/links", "tree/links"),
    ),
    Target("the same: links missing", 0, "", _median("hosts/missing")),
    Target(
        "200 OSPF routers until every loopback answers",
        60,
        "s",
        _median("routers/answer"),
        aim=45,
    ),
    Target("the same: loopbacks that do not answer", 0, "", _median("routers/missing")),
    Target("the same: memory", 2500, "MB", lambda r: _scaled(r.median("routers/memory"))),
    Target(
        "veth pairs a second, the child's : ip -batch",
        0.7,
        "x",
        _ratio("links/veth/child"),
        at_least=True,
    ),
    Target("idle child, RSS", 45, "MB", lambda r: _scaled(_most("memory/child-0/rss")(r)), aim=30),
    Target("idle child, CPU a minute", 50, "ms", _most("memory/idle-cpu")),
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
