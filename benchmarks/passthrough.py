"""What an unlabelled pod pays: ADD and DEL through ratchet beside the delegate alone.

The pod's namespace is used again and again, as the delegates allow that; ADD and DEL alternate, and
so do the ways to them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import api_server
from benchmarks.bed import PAIR, REFERENCE_PLUGINS, Bed, Node, Pod, loopback, with_labels
from benchmarks.etcd import threads_cpu_s
from benchmarks.figures import Results, in_ms, in_turns
from benchmarks.launch import Done, Task, run
from ratchet.errors import RatchetError
from ratchetctl import node as status
from ratchetctl.sim import netns

API_TIMEOUT_S = 20

POD, ANCHOR = "web", "anchor"


@dataclass(frozen=True, slots=True)
class Beside:
    """Another CNI plugin to be measured: --beside NAME=BINARY:CONF.json."""

    name: str
    program: str
    config: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> Beside:
        """Read NAME=BINARY:CONF.json. *Raises* ValueError and OSError."""
        name, equals, rest = text.partition("=")
        program, colon, path = rest.rpartition(":")
        if not (name and equals and program and colon and path):
            raise ValueError(f"{text!r}: write NAME=BINARY:CONF.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        if not isinstance(config, dict) or "type" not in config:
            raise ValueError(f"{path}: not a plugin's network configuration")
        return cls(name, os.path.abspath(program), config)

    def task(self, bed: Bed, node: Node, command: str, pod: Pod) -> Task:
        environ = bed.environ(command, pod, os.path.dirname(self.program))
        config = with_labels(self.config, pod.labels)
        return Task.of(self.program, environ, config, node.place, pod.name)


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to attach a pod: through ratchet with a label source, or without it."""

    name: str
    text: str
    task: Callable[[str], Task]
    child: int = 0  # the process that is asked, whose CPU is the pod's as well


@dataclass(frozen=True, slots=True)
class _Pass:
    """One ADD and the DEL after it."""

    done: tuple[Done, Done]
    child_cpu_s: float  # of the ADD


def measure(bed: Bed, results: Results, count: int, beside: list[Beside]) -> None:
    """Time unlabelled pods. *Needs* the API server's port on the first node, which has its own."""
    _measure_overhead(bed, results, count)
    node = bed.nodes[0]
    pod = bed.pod(POD)
    with _api_server(bed, node) as kubeconfig:
        by_child = bed.config(node, label_source="kubernetes", kubeconfig=kubeconfig)
        anchor = bed.pod(ANCHOR, PAIR)  # keeps the child
        run(Task.of(bed.ratchet, bed.environ("ADD", anchor), by_child, node.place))
        for delegate, text in (
            (loopback(), "loopback"),
            (bed.bridge(node), "bridge and host-local"),
        ):
            ways = _ways(bed, node, pod, delegate, kubeconfig)
            if delegate["type"] == "loopback":
                ways += [
                    _Way(one.name, one.name, lambda c, one=one: one.task(bed, node, c, pod))  # type: ignore[misc]
                    for one in beside
                ]
            _measure(results, delegate["type"], text, ways, count)
        run(Task.of(bed.ratchet, bed.environ("DEL", anchor), by_child, node.place))
        bed.wait_for_nothing()
        node.kill_child()  # it has the API server's configuration
        with _agent(bed, node, by_child):
            ways = _ways(bed, node, pod, loopback(), kubeconfig)
            direct, known = ways[0], replace(ways[2], name="agent", text="labels from the agent")
            _measure(results, "agent", "loopback", [direct, known], count)
    bed.remove_pod(anchor)
    bed.remove_pod(pod)


def _ways(bed: Bed, node: Node, pod: Pod, delegate: dict[str, Any], kubeconfig: str) -> list[_Way]:
    def way(name: str, text: str, child: int = 0, **changes: Any) -> _Way:
        config = bed.config(node, delegate=delegate, **changes)
        if name == "runtime":
            config = with_labels(config, pod.labels)
        return _Way(
            name,
            text,
            lambda command: Task.of(bed.ratchet, bed.environ(command, pod), config, node.place),
            child,
        )

    program = os.path.join(REFERENCE_PLUGINS, delegate["type"])
    served = node.child() or 0
    asking: dict[str, Any] = {"label_source": "kubernetes", "kubeconfig": kubeconfig}
    nobody = os.path.join(node.folder, "no-child")
    return [
        _Way(
            "direct",
            "the delegate alone",
            lambda command: Task.of(program, bed.environ(command, pod), delegate, node.place),
        ),
        way("runtime", "labels from the runtime", served),
        way("child", "labels from the warm child", served, **asking),
        way("api", "no child: labels from the API server over TLS", **asking, state_dir=nobody),
    ]


def _measure(results: Results, kind: str, text: str, ways: list[_Way], count: int) -> None:
    def both(way: _Way) -> Callable[[], _Pass]:
        add, delete = way.task("ADD"), way.task("DEL")

        def call() -> _Pass:
            before = threads_cpu_s(way.child) if way.child else 0.0
            added = run(add)
            spent = threads_cpu_s(way.child) - before if way.child else 0.0
            return _Pass((added, run(delete)), spent)

        return call

    found = in_turns(count, {way.name: both(way) for way in ways})
    for position, operation in enumerate(("ADD", "DEL")):
        for way in ways:
            done = [one.done[position] for one in found[way.name]]
            for measure, values in (
                ("wall", [one.wall_s for one in done]),
                ("cpu", [one.cpu_s for one in done]),
            ):
                base = f"pass-through/{kind}/{operation.lower()}"
                results.add(
                    f"{base}/{way.name}/{measure}",
                    f"pass-through {operation}, {text}, {way.text}, {measure}",
                    "ms",
                    in_ms(values),
                    None if way.name == "direct" else f"{base}/direct/{measure}",
                )

    for way in ways:
        if way.child:
            base = f"pass-through/{kind}/add"
            results.add(
                f"{base}/{way.name}/cpu-with-child",
                f"pass-through ADD, {text}, {way.text}, cpu with the child's",
                "ms",
                in_ms(one.done[0].cpu_s + one.child_cpu_s for one in found[way.name]),
                f"{base}/direct/cpu",
            )


def _measure_overhead(bed: Bed, results: Results, count: int) -> None:
    """Time what the harness itself takes: a program that does nothing."""
    task = Task("/bin/true", {}, b"", bed.nodes[0].place)
    done = [run(task) for _ in range(max(count, 10))]
    results.add("harness/true/wall", "/bin/true, wall", "ms", in_ms(one.wall_s for one in done))
    results.add("harness/true/cpu", "/bin/true, cpu", "ms", in_ms(one.cpu_s for one in done))


@contextlib.contextmanager
def _agent(bed: Bed, node: Node, config: dict[str, Any]) -> Iterator[None]:
    """Have the node's agent run, which knows the labels of the pods that are to start."""
    path = os.path.join(node.folder, "10-ratchet.conf")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    argv = [os.path.join(bed.plugin_dir, "ratchet-child"), "--stay", "--config", path]
    with node.place.inside():
        process = subprocess.Popen(
            [*argv, "--node-name", api_server.NODE],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        deadline = time.monotonic() + API_TIMEOUT_S
        while not _is_watching(node):
            if time.monotonic() > deadline:
                raise RuntimeError("the agent does not watch the node's pods")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(API_TIMEOUT_S)


def _is_watching(node: Node) -> bool:
    try:
        agent = status.read(node.state_dir).agent
    except RatchetError:
        return False
    return agent is not None and agent.watching


@contextlib.contextmanager
def _api_server(bed: Bed, node: Node) -> Iterator[str]:
    """Serve the pods' labels on a node; the path of a kubeconfig."""
    folder = os.path.join(bed.folder, "api")
    os.mkdir(folder)
    labels = json.dumps({"ratchet": "true", "ratchet.primary": "false"})
    with netns.inside(node.path):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.api_server", folder, POD, f"{ANCHOR}={labels}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the stand-in of the API server does not start")
        yield os.path.join(folder, "kubeconfig.yaml")
    finally:
        process.terminate()
        process.communicate(timeout=API_TIMEOUT_S)
