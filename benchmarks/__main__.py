"""`python -m benchmarks`: measure, print the tables, write JSON and pictures."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from benchmarks import crowd, growth, hosts, kernel, linkup, memory, passthrough, report, routers
from benchmarks.bed import REFERENCE_PLUGINS, Bed
from benchmarks.figures import Results
from benchmarks.passthrough import Beside

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NODES = 4
WIDTH = 150


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    passes: int = 60
    links: int = 30
    restarts: int = 10
    rounds: int = 5  # of twenty pairs, of forty pods
    pairs: int = 20
    unlabelled: int = 40
    tree: int = 750
    kernel_rounds: int = 9
    kernel_links: int = 200
    memory_pods: int = 50
    memory_links: tuple[int, int] = (2, 20)
    growth: tuple[int, ...] = (10, 30, 100, 300, 1000)
    growth_pods: int = 10
    growth_more: int = 30
    routers: int = 200
    idle_s: float = 25.0
    load: int = 10_000


SMALL = Size(
    passes=3,
    links=2,
    restarts=1,
    rounds=1,
    pairs=3,
    unlabelled=5,
    tree=24,
    kernel_rounds=1,
    kernel_links=10,
    memory_pods=3,
    memory_links=(1, 3),
    growth=(2, 4),
    growth_pods=3,
    growth_more=2,
    routers=4,
    idle_s=1.0,
    load=200,
)


def main() -> int:
    arguments = _parser().parse_args()
    size = SMALL if arguments.small else Size()
    console = Console(width=WIDTH) if not sys.stdout.isatty() else Console()
    try:
        beside = [Beside.parse(text) for text in arguments.beside]
    except (OSError, ValueError) as error:
        return _refuse(f"--beside: {error}")
    problem = _missing(arguments.plugin_dir)
    if problem is not None:
        return _refuse(problem)
    unknown = set(arguments.only or ()) - set(_PARTS)
    if unknown:
        return _refuse(f"--only {', '.join(sorted(unknown))}: the parts are {', '.join(_PARTS)}")
    # An end from outside is an end like any other: everything is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failed = False
    results = Results(about=_about(arguments.plugin_dir, small=arguments.small))
    for name in arguments.only or _PARTS:
        console.print(f"{name}: load {os.getloadavg()[0]:.1f}")
        started = time.monotonic()
        try:
            _PARTS[name](_Run(arguments.plugin_dir, results, size, beside, arguments.seed))
        except Exception as error:  # noqa: BLE001 - what the other parts measure is wanted all the same
            traceback.print_exc()
            results.problem(f"{name} was not finished: {type(error).__name__}: {error}")
            failed = True
        results.about["parts"][name] = {
            "seconds": round(time.monotonic() - started, 1),
            "load": os.getloadavg()[0],
        }
    results.about["load_after"] = os.getloadavg()
    os.makedirs(arguments.out, exist_ok=True)
    path = os.path.join(arguments.out, "results.json")
    results.write(path)
    report.show(results, console)
    console.print(f"written: {path}")
    if arguments.plots:
        _draw(results, arguments.out, console)
    return 1 if failed else 0


def _draw(results: Results, folder: str, console: Console) -> None:
    try:
        from benchmarks import plots  # noqa: PLC0415 - without pictures no matplotlib is needed
    except ModuleNotFoundError as error:
        console.print(f"no pictures: {error} (the extra `bench` installs it)")
        return
    for picture in plots.draw(results, folder):
        console.print(f"written: {picture}")


@dataclass(frozen=True, slots=True)
class _Run:
    plugin_dir: str
    results: Results
    size: Size
    beside: list[Beside]
    seed: int

    def bed(self, nodes: int = 2) -> Bed:
        return Bed(self.plugin_dir, nodes)


def _pass_through(run: _Run) -> None:
    with run.bed() as bed:
        passthrough.measure(bed, run.results, run.size.passes, run.beside)
    with run.bed() as bed:
        crowd.measure_unlabelled(bed, run.results, run.size.rounds, run.size.unlabelled, run.beside)


def _link_up(run: _Run) -> None:
    with run.bed() as bed:
        linkup.measure(bed, run.results, run.size.links)


def _pairs(run: _Run) -> None:
    with run.bed() as bed:
        crowd.measure_pairs(bed, run.results, run.size.rounds, run.size.pairs)


def _tree(run: _Run) -> None:
    with run.bed(NODES) as bed:
        crowd.measure_tree(bed, run.results, run.size.tree, run.seed)


def _hosts(run: _Run) -> None:
    hosts.measure(run.results, run.plugin_dir, run.size.tree, NODES, run.seed)


def _routers(run: _Run) -> None:
    nodes = run.size.routers
    routers.measure(run.results, run.plugin_dir, nodes, nodes // 2, run.seed)


def _restart(run: _Run) -> None:
    with run.bed() as bed:
        linkup.measure_restart(bed, run.results, run.size.restarts)


def _links(run: _Run) -> None:
    with run.bed() as bed:
        kernel.measure(bed, run.results, run.size.kernel_rounds, run.size.kernel_links)


def _memory(run: _Run) -> None:
    with run.bed() as bed:
        size = run.size
        memory.measure(bed, run.results, size.memory_pods, size.memory_links, size.idle_s)


def _growth(run: _Run) -> None:
    size = run.size
    growth.measure(run.results, size.growth, size.growth_pods, size.growth_more, size.idle_s)
    growth.load(run.results, size.load, 8)


_PARTS: dict[str, Callable[[_Run], None]] = {
    "pass-through": _pass_through,
    "link-up": _link_up,
    "pairs": _pairs,
    "tree": _tree,
    "hosts": _hosts,
    "routers": _routers,
    "restart": _restart,
    "links": _links,
    "memory": _memory,
    "growth": _growth,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a little of everything, in a minute")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        metavar="PART,...",
        help=f"of {', '.join(_PARTS)}",
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="NAME=BINARY:CONF.json",
        help="another CNI plugin and its network configuration, measured beside ratchet",
    )
    parser.add_argument(
        "--plugin-dir",
        default=os.environ.get("RATCHET_PLUGIN_DIR") or os.path.join(ROOT, "dist", "ratchet.d"),
        metavar="DIR",
        help="the programs to be measured (RATCHET_PLUGIN_DIR; default: what `make build` made)",
    )
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "bench"), metavar="DIR")
    parser.add_argument("--no-plots", dest="plots", action="store_false")
    parser.add_argument("--seed", type=int, default=1, help="of the random tree")
    return parser


def _missing(plugin_dir: str) -> str | None:
    if os.geteuid() != 0:
        return "root is needed: namespaces are made"
    for program in ("ratchet", "ratchet-child"):
        if not os.access(os.path.join(plugin_dir, program), os.X_OK):
            return f"no {program} in {plugin_dir}: make build"
    if not os.access(os.path.join(REFERENCE_PLUGINS, "loopback"), os.X_OK):
        return f"no reference plugins in {REFERENCE_PLUGINS}"
    for program in ("etcd", "ip", "openssl"):
        if shutil.which(program) is None:
            return f"the program {program} is missing"
    return None


def _refuse(reason: str) -> int:
    sys.stderr.write(f"benchmarks: {reason}\n")
    return 2


def _about(plugin_dir: str, *, small: bool) -> dict[str, object]:
    built = os.path.isdir(os.path.join(plugin_dir, "lib"))
    return {
        "date": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": _output("git", "-C", ROOT, "describe", "--always", "--dirty"),
        "programs": plugin_dir,
        "built": built,
        "small": small,
        "cores": os.cpu_count(),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "etcd": (_output("etcd", "--version").splitlines() or [""])[0],
        "load_before": os.getloadavg(),
        "parts": {},
    }


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _output(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
