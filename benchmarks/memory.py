"""What the programs take: memory, descriptors, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.bed import PAIR, Bed, Node, Pod, labels_of_link, loopback
from benchmarks.crowd import KUBELET_PARALLEL, bring_up
from benchmarks.etcd import memory_kb, threads_cpu_s
from benchmarks.figures import Results
from benchmarks.launch import Task
from benchmarks.probe import Cable

SETTLE_S = 1.0

# The kernel counts the memory of the process that a program was started from as the program's own
# (getrusage(2), ru_maxrss), so a small one starts it: less than its own size cannot be seen.
_PEAK = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:2], os.environ)
_, status, usage = os.wait4(pid, 0)
sys.stderr.write(f"{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss}")
"""


def measure(
    bed: Bed, results: Results, pods: int, links_per_pod: tuple[int, int], idle_s: float
) -> None:
    """Measure the programs; a child with a pod and without links for `idle_s` of doing nothing."""
    _measure_parent(bed, results)
    here, there = bed.nodes[0], bed.nodes[1]
    resident: dict[int, list[float]] = {}
    for per_pod in (0, *links_per_pod):
        for node in (here, there):
            node.kill_child()
        placed, cables = _rows(bed, here, there, pods if per_pod else 1, per_pod)
        tasks = [bed.task(node, "ADD", pod) for node, pod in placed]
        outcome = bring_up(tasks, cables, KUBELET_PARALLEL)
        if outcome.missing:
            results.problem(f"memory: {outcome.missing} of {len(cables)} links missing")
        time.sleep(SETTLE_S)
        children = [pid for pid in (node.child() for node in (here, there)) if pid is not None]
        text = f"child with {len(cables)} links"
        base = f"memory/child-{len(cables)}"

        def first(key: str, per_pod: int = per_pod) -> str | None:
            return f"memory/child-0/{key}" if per_pod else None

        rss = [float(memory_kb(pid, "VmRSS")) for pid in children]
        resident[len(cables)] = rss
        results.add(
            f"{base}/peak",
            f"{text}, peak RSS",
            "kB",
            [float(memory_kb(pid, "VmHWM")) for pid in children],
            first("peak"),
        )
        results.add(f"{base}/rss", f"{text}, RSS", "kB", rss, first("rss"))
        supervisors = [pid for pid in (node.supervisor() for node in (here, there)) if pid]
        results.add(
            f"{base}/supervisor",
            f"supervisor of a {text}, RSS",
            "kB",
            [float(memory_kb(pid, "VmRSS")) for pid in supervisors],
            first("supervisor"),
        )
        results.add(
            f"{base}/descriptors",
            f"{text} and {len(placed) // 2 or 1} pods, file descriptors",
            "",
            [float(len(os.listdir(f"/proc/{pid}/fd"))) for pid in children],
            first("descriptors"),
        )
        results.add(
            f"{base}/threads",
            f"{text}, threads",
            "",
            [float(memory_kb(pid, "Threads")) for pid in children],
            first("threads"),
        )
        if not per_pod and idle_s:
            spent = [threads_cpu_s(pid) for pid in children]
            time.sleep(idle_s)
            spent = [threads_cpu_s(pid) - one for pid, one in zip(children, spent, strict=True)]
            a_minute = [one * 60e3 / idle_s for one in spent]
            results.add("memory/idle-cpu", "idle child, cpu a minute", "ms", a_minute)
        bed.clear(placed)
    (few, before), (many, after) = sorted(resident.items())[1:]
    results.add(
        "memory/per-link",
        f"memory of a further link, from {few} to {many} links",
        "kB",
        [(b - a) / (many - few) for a, b in zip(before, after, strict=True)],
    )


def _measure_parent(bed: Bed, results: Results) -> None:
    node = bed.nodes[0]
    unlabelled, eligible = bed.pod("plain"), bed.pod("eligible", PAIR)
    for name, text, task in (
        ("interpreter", "a Python interpreter that does nothing", None),
        ("loopback", "the loopback plugin", bed.direct(node, "ADD", unlabelled, loopback())),
        ("unlabelled", "parent, unlabelled pod", bed.task(node, "ADD", unlabelled)),
        ("eligible", "parent, eligible pod", bed.task(node, "ADD", eligible)),
    ):
        peak = _peak_kb(bed, task)
        reference = None if name == "interpreter" else "memory/parent/interpreter"
        results.add(f"memory/parent/{name}", f"peak RSS: {text}", "kB", [peak], reference)
    bed.remove_pod(unlabelled)
    bed.clear([(node, eligible)])


def _peak_kb(bed: Bed, task: Task | None) -> float:
    """Return the peak RSS of a program, or of the one that starts it if larger, or for None."""
    program = "/bin/true" if task is None else task.program
    with bed.nodes[0].place.inside():
        done = subprocess.run(
            [sys.executable, "-ISEc", _PEAK, program],
            input=b"" if task is None else task.stdin,
            env={} if task is None else dict(task.environ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
    status, peak = done.stderr.split()[-2:]
    if int(status):
        raise RuntimeError(f"{program}: {done.stderr.decode(errors='replace')}")
    return float(peak)


def _rows(
    bed: Bed, here: Node, there: Node, pods: int, links: int
) -> tuple[list[tuple[Node, Pod]], list[Cable]]:
    """Link as many pods on each of two nodes, each one here with several over there."""
    far = [bed.pod(f"y{number}", PAIR) for number in range(pods)]
    placed = [(there, pod) for pod in far]
    cables = []
    for row in range(pods):
        labels = dict(PAIR)
        ends = []
        for column in range(links):
            number = row * links + column + 1
            peer = far[(row + column) % pods]
            ends.append((number, f"u{column}", peer, f"d{row}"))
            labels.update(labels_of_link(number, f"u{column}", peer.name, f"d{row}", column + 1))
        pod = bed.pod(f"x{row}", labels)
        placed.append((here, pod))
        cables += [bed.cable(number, pod, up, peer, down) for number, up, peer, down in ends]
    return placed, cables
