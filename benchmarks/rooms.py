"""`python -m benchmarks.rooms`: what of the child is entered when one pod is linked.

A primary is there, and its pair is attached: on the same node, and on another one. Printed are the
modules that are entered, the rooms (sub-packages) they are in, and how often a call leads from one
module into another one, or from one room into another one. It is a measure of how far a reader has
to walk, and not of time. All that the child does for the pair's ADD counts, in all of its threads,
and once more in its workers alone; across nodes, that is what the pair's node does.

The numbers vary a little, as threads meet in different ways: shown is the run in the middle.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.bed import PAIR, Bed, Node, labels_of_link
from benchmarks.launch import Running
from benchmarks.linkup import until_up

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUNS = 9
SETTLE_S = 0.4  # less than the second after which a pod that waits looks again by itself
TIMEOUT_S = 10.0
WORKER = "worker"  # the first part of the threads' names

_PROGRAM = """#!{python}
import sys
sys.path.insert(0, {root!r})
from benchmarks.traced_child import run
sys.exit(run({counted!r}))
"""


@dataclass(frozen=True, slots=True)
class Walk:
    """What was called for one pod: how often one module has led to another one."""

    by_thread: dict[str, Counter[tuple[str, str]]]

    @property
    def calls(self) -> Counter[tuple[str, str]]:
        return sum(self.by_thread.values(), Counter[tuple[str, str]]())

    @property
    def in_workers(self) -> Walk:
        return Walk({kind: self.by_thread[kind] for kind in self.by_thread if kind == WORKER})

    @property
    def modules(self) -> list[str]:
        return sorted({called for _, called in self.calls})

    @property
    def rooms(self) -> list[str]:
        return sorted({room(called) for _, called in self.calls})

    @property
    def module_changes(self) -> int:
        return sum(times for (a, b), times in self.calls.items() if a and a != b)

    @property
    def room_changes(self) -> int:
        return sum(times for (a, b), times in self.calls.items() if a and room(a) != room(b))

    @property
    def total(self) -> int:
        return sum(self.calls.values())


def room(module: str) -> str:
    """Return the sub-package of a module, "." for one that is in none."""
    return module.rpartition(".")[0] or "."


class Measured:
    """A bed whose nodes have a traced child each."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._number = 0
        for node in bed.nodes:
            program = self._program(node)
            with open(program, "w") as file:
                text = _PROGRAM.format(
                    python=sys.executable, root=ROOT, counted=self._counted(node)
                )
                file.write(text)
            os.chmod(program, 0o755)

    def link(self, first: Node, second: Node) -> Walk:
        """Attach a pair of pods, and count what the second one's child does for it."""
        self._number += 1
        names = f"a{self._number}", f"b{self._number}"
        primary = self._bed.pod(names[0], labels_of_link(self._number, "in1", names[1], "in2"))
        pair = self._bed.pod(names[1], PAIR)
        cable = self._bed.cable(self._number, primary, "in1", pair, "in2")
        self._bed.add(first, primary, child_path=self._program(first))
        time.sleep(SETTLE_S)
        child = second.child()
        if child is None:
            raise RuntimeError(f"no child on {second.name}")
        os.kill(child, signal.SIGUSR1)
        task = self._bed.task(second, "ADD", pair, child_path=self._program(second))
        until_up(Running(task), cable)
        time.sleep(SETTLE_S)
        os.kill(child, signal.SIGUSR2)
        walk = self._read(second)
        self._bed.clear([(first, primary), (second, pair)])
        return walk

    def warm(self) -> None:
        """Have a child run on each node, and what it does once only be done."""
        for node in self._bed.nodes:
            pod = self._bed.pod("first", PAIR)
            self._bed.add(node, pod, child_path=self._program(node))
            self._bed.clear([(node, pod)])

    def _read(self, node: Node) -> Walk:
        path = self._counted(node)
        deadline = time.monotonic() + TIMEOUT_S
        while not os.path.exists(path):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the child of {node.name} writes nothing")
            time.sleep(0.01)
        with open(path) as file:
            found = json.load(file)
        os.unlink(path)
        return Walk(
            {
                kind: Counter({(caller, called): times for caller, called, times in counted})
                for kind, counted in found.items()
            }
        )

    @staticmethod
    def _program(node: Node) -> str:
        return os.path.join(node.folder, "traced-child")

    @staticmethod
    def _counted(node: Node) -> str:
        return os.path.join(node.folder, "counted.json")


def middle(walks: Iterable[Walk]) -> Walk:
    ordered = sorted(walks, key=lambda walk: walk.module_changes)
    return ordered[len(ordered) // 2]


def show(title: str, walk: Walk, *, verbose: bool) -> None:
    part = walk.in_workers
    print(f"{title:26}{'all':>6} {'workers':>8}")
    for name, figures in (
        ("modules entered", (len(walk.modules), len(part.modules))),
        ("rooms entered", (len(walk.rooms), len(part.rooms))),
        ("calls", (walk.total, part.total)),
        ("  into other modules", (walk.module_changes, part.module_changes)),
        ("  into other rooms", (walk.room_changes, part.room_changes)),
    ):
        print(f"  {name:24}{figures[0]:6} {figures[1]:8}")
    print(f"  modules: {', '.join(walk.modules)}")
    print(f"  rooms:   {', '.join(walk.rooms)}")
    if verbose:
        for (a, b), times in walk.calls.most_common():
            if a and a != b:
                print(f"  {times:5}  {a} -> {b}")
    print()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rooms", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help=f"default: {RUNS}")
    parser.add_argument("--verbose", action="store_true", help="each pair of modules, too")
    arguments = parser.parse_args()
    with Bed(os.path.dirname(sys.executable), nodes=2) as bed:
        measured = Measured(bed)
        measured.warm()
        here, there = bed.nodes
        for title, first, second in (("on one node", here, here), ("across nodes", here, there)):
            walks = [measured.link(first, second) for _ in range(arguments.runs)]
            show(f"one pod linked {title}", middle(walks), verbose=arguments.verbose)
    return 0


if __name__ == "__main__":
    sys.exit(main())
