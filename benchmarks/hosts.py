"""The tree of `crowd`, brought up in the simulator by one command, until every link answers.

The same pods with the same links on as many nodes: what this takes longer than the tree is what the
user's command costs (reading the file, nodes, etcd, a namespace for each pod, waiting), and is to
be seconds. The links are looked at from one process, as there, when the command has returned.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.bed import addresses
from benchmarks.command import Lab, lab
from benchmarks.crowd import parents
from benchmarks.etcd import cpu_s
from benchmarks.figures import Results
from benchmarks.probe import Cable, End, Eyes
from ratchetctl.sim import netns, processes
from ratchetctl.sim.directory import SimDirectory
from ratchetctl.sim.simulator import UNDERLAY

TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.01
NAMESPACE = "default"
_PREFIX_LEN = 24


def measure(results: Results, plugin_dir: str, hosts: int, nodes: int, seed: int) -> None:
    """Bring a random tree of plain hosts up, and time it until every link has answered."""
    with lab(plugin_dir) as made:
        _time(results, made, hosts, nodes, seed)
        destroyed_s = made.destroy()
    results.add("hosts/destroy", f"{hosts} hosts, until nothing is left", "s", [destroyed_s])


def _time(results: Results, made: Lab, hosts: int, nodes: int, seed: int) -> None:
    tree = parents(random.Random(seed), hosts)
    with ThreadPoolExecutor(1) as pool, Look(made.directory, tree) as look:
        future = pool.submit(made.create, _topology(tree), "--nodes", str(nodes))
        while look.missing:
            look.take()
            if future.done() and time.perf_counter() > future.result().started + TIMEOUT_S:
                break
        created, answered = future.result(), look.ended
        missing, strangers = look.missing, look.strangers
    if missing:
        results.problem(f"hosts: {missing} of {len(tree)} links do not answer")
    text = f"{hosts} hosts on {nodes} nodes"
    of_nodes = [node.name for node in made.directory.read_state().nodes]
    for key, what, unit, value in (
        ("links", "until every link answers", "s", answered - created.started),
        ("create", "until `topo create` has returned", "s", created.wall_s),
        ("missing", "links missing", "", float(missing)),
        ("strangers", "frames from strangers", "", float(strangers)),
        ("cpu/create", "cpu of `topo create` and the plugins", "s", created.cpu_s),
        ("cpu/children", "cpu of the children", "s", _cpu(made, *of_nodes)),
        ("cpu/etcd", "cpu of etcd", "s", _cpu(made, UNDERLAY)),
    ):
        results.add(f"hosts/{key}", f"{text}, {what}", unit, [value])


class Look:
    """Looks at links between pods that are being made, from one thread, until all have answered."""

    def __init__(self, directory: SimDirectory, tree: Sequence[int]) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._eyes: dict[str, Eyes] = {}
        self._unseen = {f"t{number}" for number in range(len(tree) + 1)}
        self._unmade = set(enumerate(tree, start=1))
        self._cables: list[Cable] = []
        self._silent: list[Cable] = []
        self.ended = 0.0  # perf_counter seconds

    def __enter__(self) -> Look:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def missing(self) -> int:
        """How many links have not answered yet."""
        return len(self._unmade) + len(self._silent)

    @property
    def strangers(self) -> int:
        return sum(one.strangers() for one in self._cables)

    def take(self) -> None:
        """Look once, and pause: looking at hundreds of links must not take what is measured."""
        started = time.perf_counter()
        for name in tuple(self._unseen):
            pod = self._directory.read_pod(NAMESPACE, name)
            if pod is not None and pod.result is not None:
                self._eyes[name] = Eyes(pod.netns)
                self._stack.callback(self._eyes[name].close)
                self._unseen.remove(name)
        for number, parent in tuple(self._unmade):
            child, of = self._eyes.get(f"t{number}"), self._eyes.get(f"t{parent}")
            if child is not None and of is not None:
                here, there = addresses(number)
                ends = End(child, "up", here), End(of, f"down{number}", there)
                self._cables.append(Cable(number, *ends))
                self._silent.append(self._cables[-1])
                self._unmade.remove((number, parent))
        self._silent = [one for one in self._silent if not one.answers()]
        self.ended = time.perf_counter()
        time.sleep(max(LOOK_EVERY_S, 10 * (self.ended - started)))


def _topology(tree: Sequence[int]) -> str:
    """Return the tree as a containerlab definition, with the addresses that `crowd` gives it."""
    nodes = "".join(f"    t{number}: {{kind: linux}}\n" for number in range(len(tree) + 1))
    links = ""
    for number, parent in enumerate(tree, start=1):
        here, there = (f"{one}/{_PREFIX_LEN}" for one in addresses(number))
        links += (
            "    - type: veth\n"
            "      endpoints:\n"
            f"        - {{node: t{number}, interface: up, ipv4: {here}}}\n"
            f"        - {{node: t{parent}, interface: down{number}, ipv4: {there}}}\n"
        )
    return f"name: hosts\ntopology:\n  nodes:\n{nodes}  links:\n{links}"


def _cpu(made: Lab, *names: str) -> float:
    """Return the CPU seconds of what runs in these nodes, or in the underlay."""
    found = (netns.identity(made.directory.netns(name)) for name in names)
    return sum(map(cpu_s, processes.pids({one for one in found if one})))
