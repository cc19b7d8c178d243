"""Many pods at once: twenty pairs, forty unlabelled pods, and a tree of hundreds on four nodes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.bed import PAIR, Bed, Node, Pod, labels_of_link, loopback
from benchmarks.etcd import cpu_s, memory_kb
from benchmarks.figures import Results, in_ms, in_turns
from benchmarks.launch import Crowd, Task, run
from benchmarks.passthrough import Beside
from benchmarks.probe import Cable

ALL_AT_ONCE = 1000
KUBELET_PARALLEL = 10  # what a kubelet and containerd have under way at once on a fresh node
TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.002
STEP_S = 0.001


@dataclass(frozen=True, slots=True)
class Outcome:
    """A crowd and its links."""

    adds_s: float  # until the last ADD had returned
    links_s: float  # until the last link answered
    missing: int
    strangers: int
    cpu_s: float  # of the parents, their delegates included


def bring_up(tasks: Sequence[Task], cables: Sequence[Cable], parallel: int) -> Outcome:
    """Run ADDs, and look at the links until all answer."""
    pending = {id(cable): cable for cable in cables}
    started = time.perf_counter()
    crowd = Crowd(tasks, parallel)
    adds_s = links_s = cpu = 0.0
    next_look = 0.0
    while not crowd.is_over or pending:
        if crowd.is_over:
            time.sleep(STEP_S)
        else:
            for _, done in crowd.step(STEP_S):
                cpu += done.cpu_s
                adds_s = done.ended - started
        now = time.perf_counter()
        if now >= next_look:
            for key, cable in list(pending.items()):
                if cable.answers():
                    links_s = time.perf_counter() - started
                    del pending[key]
            # Looking at hundreds of links must not take the time that is measured.
            next_look = now + max(LOOK_EVERY_S, 10 * (time.perf_counter() - now))
        if now - started > TIMEOUT_S and crowd.is_over:
            break
    return Outcome(adds_s, links_s, len(pending), sum(one.strangers() for one in cables), cpu)


# Pairs ------------------------------------------------------------------------------------------


def measure_pairs(bed: Bed, results: Results, count: int, pairs: int) -> None:
    """Time pairs at once, on one node and on two, each beside as many loopback ADDs at once."""
    here, there = bed.nodes[0], bed.nodes[1]
    _warm(bed, (here, there))
    outcomes: dict[str, list[Outcome]] = {"one-node": [], "two-nodes": []}
    twice = 0

    def pairs_on(name: str, second: Node) -> Callable[[], None]:
        def bring() -> None:
            nonlocal twice
            placed, tasks, cables = _pairs(bed, here, second, pairs)
            outcomes[name].append(bring_up(tasks, cables, ALL_AT_ONCE))
            twice += bed.vnis_used_twice()
            bed.clear(placed)

        return bring

    direct: list[float] = []

    def refer() -> None:
        direct.append(_direct_at_once(bed, here, 2 * pairs))

    in_turns(
        count,
        {
            "one-node": pairs_on("one-node", here),
            "two-nodes": pairs_on("two-nodes", there),
            "": refer,
        },
    )
    reference = "pairs/direct"
    results.add(reference, f"{2 * pairs} loopback ADDs at once, directly", "ms", in_ms(direct))
    for name, found in outcomes.items():
        text = f"{pairs} pairs at once, {name.replace('-', ' ')}"
        for key, what, values in (
            ("links", "until all answer", [one.links_s for one in found]),
            ("adds", "until all ADDs have returned", [one.adds_s for one in found]),
            ("cpu", "cpu of the plugins", [one.cpu_s for one in found]),
        ):
            results.add(f"pairs/{name}/{key}", f"{text}, {what}", "ms", in_ms(values), reference)
        results.add(
            f"pairs/{name}/missing",
            f"{text}, links missing",
            "",
            [float(one.missing) for one in found],
        )
        results.add(
            f"pairs/{name}/strangers",
            f"{text}, frames from strangers",
            "",
            [float(one.strangers) for one in found],
        )
    results.add("pairs/vnis-twice", "VNIs used twice, all runs", "", [float(twice)])


def _pairs(
    bed: Bed, first: Node, second: Node, count: int
) -> tuple[list[tuple[Node, Pod]], list[Task], list[Cable]]:
    placed, cables = [], []
    for number in range(1, count + 1):
        a, b = f"p{number}", f"q{number}"
        primary = bed.pod(a, labels_of_link(number, "in1", b, "in2"))
        pair = bed.pod(b, PAIR)
        placed += [(first, primary), (second, pair)]
        cables.append(bed.cable(number, primary, "in1", pair, "in2"))
    return placed, [bed.task(node, "ADD", pod) for node, pod in placed], cables


def _warm(bed: Bed, nodes: Iterable[Node]) -> None:
    """Have a child run on each node."""
    for node in nodes:
        pod = bed.pod("warm", PAIR)
        bed.add(node, pod)
        bed.clear([(node, pod)])


# Unlabelled pods --------------------------------------------------------------------------------


def measure_unlabelled(
    bed: Bed, results: Results, count: int, pods: int, beside: list[Beside]
) -> None:
    """Time unlabelled pods at once, through ratchet and directly, and between rounds their DELs."""
    node = bed.nodes[0]
    anchor = bed.pod("anchor", PAIR)  # has a child run, which serves the front
    bed.add(node, anchor)
    placed = [bed.pod(f"web{number}") for number in range(pods)]

    def at_once(task: Callable[[str, Pod], Task]) -> Callable[[], float]:
        adds, dels = ([task(command, pod) for pod in placed] for command in ("ADD", "DEL"))

        def call() -> float:
            seconds = bring_up(adds, (), ALL_AT_ONCE).adds_s
            for one in dels:
                run(one)
            return seconds

        return call

    subjects = {
        "direct": at_once(lambda command, pod: bed.direct(node, command, pod, loopback())),
        "runtime": at_once(lambda command, pod: bed.task(node, command, pod)),
    }
    for one in beside:
        subjects[one.name] = at_once(
            lambda command, pod, one=one: one.task(bed, node, command, pod)  # type: ignore[misc]
        )
    found = in_turns(count, subjects)
    for name, seconds in found.items():
        through = {"direct": "directly", "runtime": "through ratchet"}.get(name, name)
        results.add(
            f"at-once/{name}",
            f"{pods} unlabelled loopback ADDs at once, {through}",
            "ms",
            in_ms(seconds),
            None if name == "direct" else "at-once/direct",
        )
    for pod in placed:
        bed.remove_pod(pod)
    bed.clear([(node, anchor)])


def _direct_at_once(bed: Bed, node: Node, count: int) -> float:
    placed = [bed.pod(f"direct{number}") for number in range(count)]
    tasks = [bed.direct(node, "ADD", pod, loopback()) for pod in placed]
    seconds = bring_up(tasks, (), ALL_AT_ONCE).adds_s
    for pod in placed:
        bed.remove_pod(pod)
    return seconds


# A tree -----------------------------------------------------------------------------------------


def measure_tree(bed: Bed, results: Results, pods: int, seed: int) -> None:
    """Time a random tree on all nodes: until every link answers, then until nothing is left."""
    nodes = bed.nodes
    for node in nodes:
        node.kill_child()
    placed, cables = _tree(bed, pods, seed)
    parallel = KUBELET_PARALLEL
    reference = _reference(bed, placed, parallel)
    tasks = [bed.task(node, "ADD", pod) for node, pod in placed]
    etcd_before = bed.etcd.cpu_s()
    up = bring_up(tasks, cables, parallel)
    children = [pid for pid in (node.child() for node in nodes) if pid is not None]
    results.add("tree/direct", f"{pods} loopback ADDs on {len(nodes)} nodes", "s", [reference])
    text = f"tree of {pods} pods on {len(nodes)} nodes"
    for key, what, value in (
        ("links", "until every link answers", up.links_s),
        ("adds", "until all ADDs have returned", up.adds_s),
        ("cpu/plugins", "cpu of the plugins", up.cpu_s),
        ("cpu/children", "cpu of the children", sum(map(cpu_s, children))),
        ("cpu/etcd", "cpu of etcd", bed.etcd.cpu_s() - etcd_before),
    ):
        results.add(f"tree/{key}", f"{text}, {what}", "s", [value], "tree/direct")
    results.add("tree/missing", f"{text}, links missing", "", [float(up.missing)])
    results.add("tree/strangers", f"{text}, frames from strangers", "", [float(up.strangers)])
    results.add("tree/vnis-twice", f"{text}, VNIs used twice", "", [float(bed.vnis_used_twice())])
    results.add(
        "tree/child-rss",
        f"{text}, peak RSS of a child",
        "kB",
        [float(memory_kb(pid, "VmHWM")) for pid in children],
    )
    _measure_teardown(bed, results, text, placed, parallel)


def _measure_teardown(
    bed: Bed, results: Results, text: str, placed: list[tuple[Node, Pod]], parallel: int
) -> None:
    by_name = {pod.name: pod for _, pod in placed}
    children = [pid for pid in (node.child() for node in bed.nodes) if pid is not None]
    children_before, etcd_before = sum(map(cpu_s, children)), bed.etcd.cpu_s()
    plugins = 0.0
    started = time.perf_counter()
    crowd = Crowd([bed.task(node, "DEL", pod) for node, pod in placed], parallel)
    for task, done in crowd.all():
        plugins += done.cpu_s
        bed.remove_pod(by_name[task.name])  # a runtime's next step
    dels_s = time.perf_counter() - started
    while any(node.records() for node in bed.nodes):  # they go last, after their keys
        time.sleep(LOOK_EVERY_S)
    bed.wait_for_nothing()
    whole_s = time.perf_counter() - started
    for key, what, value in (
        ("teardown", "teardown until nothing is left", whole_s),
        ("dels", "until all DELs have returned", dels_s),
        ("teardown-cpu/plugins", "teardown, cpu of the plugins", plugins),
        (
            "teardown-cpu/children",
            "teardown, cpu of the children",
            sum(map(cpu_s, children)) - children_before,
        ),
        ("teardown-cpu/etcd", "teardown, cpu of etcd", bed.etcd.cpu_s() - etcd_before),
    ):
        results.add(f"tree/{key}", f"{text}, {what}", "s", [value], "tree/direct")


def _tree(bed: Bed, count: int, seed: int) -> tuple[list[tuple[Node, Pod]], list[Cable]]:
    """Have each pod but the first declare a link to a random earlier one, on a random node."""
    chance = random.Random(seed)
    pods = [bed.pod("t0", PAIR)]
    cables = []
    for number, of in enumerate(parents(chance, count), start=1):
        parent = pods[of]
        labels = labels_of_link(number, "up", parent.name, f"down{number}")
        pods.append(bed.pod(f"t{number}", labels))
        cables.append(bed.cable(number, pods[-1], "up", parent, f"down{number}"))
    placed = [(chance.choice(bed.nodes), pod) for pod in pods]
    chance.shuffle(placed)
    return placed, cables


def parents(chance: random.Random, count: int) -> list[int]:
    """Return, for each pod of a random tree but the first, the earlier one that it is linked to."""
    return [chance.randrange(number) for number in range(1, count)]


def _reference(bed: Bed, placed: list[tuple[Node, Pod]], parallel: int) -> float:
    """Time the same ADDs by the loopback plugin alone."""
    tasks = [bed.direct(node, "ADD", pod, loopback()) for node, pod in placed]
    return bring_up(tasks, (), parallel).adds_s
