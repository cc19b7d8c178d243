"""From the second pod's ADD to a link: on one node and two, in both orders, child warm and cold."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bed import PAIR, Bed, Node, Pod, labels_of_link, loopback
from benchmarks.figures import Results, in_ms, in_turns
from benchmarks.launch import Done, Running, run
from benchmarks.probe import Cable

TIMEOUT_S = 20.0
PAUSE_S = 0.0002

ETCD_WRITE = "reference/etcd-write"
LOOPBACK = "reference/loopback-add"


@dataclass(frozen=True, slots=True)
class Up:
    """One link: seconds until it was up, and the ADD that made it."""

    link_s: float
    add: Done


def until_up(running: Running, cable: Cable) -> Up:
    """Wait for a plugin and for the link that it is to make. *Raises* TimeoutError."""
    add: Done | None = None
    up_s: float | None = None
    while add is None or up_s is None:
        if up_s is None and cable.answers():
            up_s = time.perf_counter() - running.started
        if add is None:
            pause_s = PAUSE_S if up_s is None else 1.0
            if select.select([running.output], [], [], pause_s)[0] and running.read():
                add = running.reap().checked()
        elif up_s is None:
            time.sleep(PAUSE_S)
        if time.perf_counter() - running.started > TIMEOUT_S:
            raise TimeoutError(f"link {cable.number} is not up after {TIMEOUT_S:g} s")
    return Up(up_s, add)


class Pairs:
    """Makes pairs of pods, one after the other."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._number = 0

    def pods(self) -> tuple[Pod, Pod, Cable]:
        """Return a primary, its pair and their link."""
        self._number += 1
        names = f"a{self._number}", f"b{self._number}"
        primary = self._bed.pod(names[0], labels_of_link(self._number, "in1", names[1], "in2"))
        pair = self._bed.pod(names[1], PAIR)
        return primary, pair, self._bed.cable(self._number, primary, "in1", pair, "in2")

    def link_up(self, first: Node, second: Node, *, pair_first: bool, cold: bool) -> Up:
        primary, pair, cable = self.pods()
        one, other = (pair, primary) if pair_first else (primary, pair)
        self._bed.add(first, one)
        if cold:
            second.kill_child()
        up = until_up(Running(self._bed.task(second, "ADD", other)), cable)
        self._bed.clear([(first, one), (second, other)])
        return up


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    first: Node
    second: Node
    pair_first: bool
    cold: bool


def _warm(pairs: Pairs, *nodes: Node) -> None:
    """Have a child run on each node."""
    for node in nodes:
        pairs.link_up(node, node, pair_first=True, cold=False)


def measure(bed: Bed, results: Results, count: int) -> None:
    here, there = bed.nodes[0], bed.nodes[1]
    pairs = Pairs(bed)
    _warm(pairs, here, there)
    spare = bed.pod("reference")
    reference = bed.direct(here, "ADD", spare, loopback())
    cases = [
        _Case(f"{place}/{order}/{child}", here, second, order == "pair-first", child == "cold")
        for child in ("warm", "cold")
        for place, second in (("same-node", here), ("two-nodes", there))
        for order in ("pair-first", "primary-first")
    ]

    def link_up(case: _Case) -> Callable[[], Up]:
        return lambda: pairs.link_up(
            case.first, case.second, pair_first=case.pair_first, cold=case.cold
        )

    warm = {case.name: link_up(case) for case in cases if not case.cold}
    cold = {case.name: link_up(case) for case in cases if case.cold}
    writes: list[float] = []
    loopbacks: list[float] = []

    def refer() -> Up:
        writes.extend(bed.etcd_write() for _ in range(5))
        add = run(reference)
        loopbacks.append(add.wall_s)
        return Up(0.0, add)

    found = in_turns(count, {**warm, "": refer})
    found.update(in_turns(max(1, count // 3), {**cold, "": refer}))
    bed.remove_pod(spare)

    results.add(ETCD_WRITE, "one etcd write", "ms", in_ms(writes))
    results.add(LOOPBACK, "loopback alone, ADD", "ms", in_ms(loopbacks))
    for case in cases:
        ups, words = found[case.name], case.name.replace("/", ", ")
        results.add(
            f"link-up/{case.name}",
            f"link-up, {words}",
            "ms",
            in_ms(up.link_s for up in ups),
            ETCD_WRITE,
        )
        results.add(
            f"eligible-add/{case.name}",
            f"second ADD until it returns, {words}",
            "ms",
            in_ms(up.add.wall_s for up in ups),
            LOOPBACK,
        )
    _measure_lonely(bed, results, count)


def _measure_lonely(bed: Bed, results: Results, count: int) -> None:
    """Time ADD and DEL of an eligible pod whose far pod is not there, beside loopback's."""
    node = bed.nodes[0]
    times: dict[str, list[float]] = {}

    def note(name: str, done: Done) -> None:
        times.setdefault(f"{name}/wall", []).append(done.wall_s)
        times.setdefault(f"{name}/cpu", []).append(done.cpu_s)

    def lonely() -> None:
        pod = bed.pod("lonely", labels_of_link(1, "in1", "nobody", "in2"))
        note("add", bed.add(node, pod))
        note("del", bed.delete(node, pod))
        bed.wait_for_nothing()
        bed.remove_pod(pod)

    def alone() -> None:
        pod = bed.pod("alone")
        note("reference-add", run(bed.direct(node, "ADD", pod, loopback())))
        note("reference-del", run(bed.direct(node, "DEL", pod, loopback())))
        bed.remove_pod(pod)

    in_turns(count, {"lonely": lonely, "alone": alone})
    for operation in ("add", "del"):
        for kind in ("wall", "cpu"):
            reference = f"eligible/reference-{operation}/{kind}"
            name = operation.upper()
            results.add(
                reference,
                f"loopback alone, {name}, {kind}",
                "ms",
                in_ms(times[f"reference-{operation}/{kind}"]),
            )
            results.add(
                f"eligible/{operation}/{kind}",
                f"eligible pod, far pod not there, {name}, {kind}",
                "ms",
                in_ms(times[f"{operation}/{kind}"]),
                reference,
            )


def measure_restart(bed: Bed, results: Results, count: int) -> None:
    """Time a pod that is created again on the other node: from its DEL until the link answers."""
    here, there = bed.nodes[0], bed.nodes[1]
    pairs = Pairs(bed)
    _warm(pairs, here, there)
    since_delete: list[float] = []
    since_add: list[float] = []
    writes: list[float] = []
    for _ in range(count):
        primary, pair, cable = pairs.pods()
        bed.add(here, pair)
        until_up(Running(bed.task(here, "ADD", primary)), cable)
        again = bed.pod(primary.name, primary.labels)
        moved = bed.cable(cable.number, again, "in1", pair, "in2")
        started = time.perf_counter()
        bed.delete(here, primary)
        bed.remove_pod(primary)  # as a runtime: the sandbox goes before the pod is made anew
        running = Running(bed.task(there, "ADD", again))
        up = until_up(running, moved)
        since_add.append(up.link_s)
        since_delete.append(running.started - started + up.link_s)
        bed.clear([(there, again), (here, pair)])
        writes.append(bed.etcd_write())
    results.add("restart/etcd-write", "one etcd write", "ms", in_ms(writes))
    for name, text, values in (
        ("delete", "restart on the other node, from the DEL", since_delete),
        ("add", "restart on the other node, from the second ADD", since_add),
    ):
        results.add(f"restart/{name}", text, "ms", in_ms(values), "restart/etcd-write")
