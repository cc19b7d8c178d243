"""`python -m tests.faults`: a long run. See `make faults`."""

from __future__ import annotations

import argparse
import math
import os
import secrets
import signal
import sys
from types import FrameType

from tests.faults.runner import BrokenError, Report, run, to_stderr

_INTERRUPTS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--members", type=int, default=1, help="of the etcd cluster")
    parser.add_argument("--start", type=int, default=1, help="leave out the steps before this one")
    parser.add_argument("--scale", type=float, default=1.0, help="of deadlines, on slow machines")
    parser.add_argument(
        "--explain",
        type=float,
        metavar="SECONDS",
        default=math.inf,
        help="print all that is known when a step takes longer to heal",
    )
    parser.add_argument("--go-on", action="store_true", help="with the step after a broken one")
    parser.add_argument(
        "--hostile",
        action="store_true",
        help="beside the pods of another tenant, who does what harm he can",
    )
    parser.add_argument("--json", metavar="FILE", help="where the times to heal are written")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root and network namespaces")
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    to_stderr(f"seed {seed}, members {arguments.members}")
    if arguments.json:  # rather now than after an hour
        os.makedirs(os.path.dirname(os.path.abspath(arguments.json)), exist_ok=True)
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    report = Report(seed, arguments.members)
    start, last = arguments.start, arguments.start + arguments.steps - 1
    while start <= last:
        try:
            later = run(
                seed=seed,
                steps=last + 1 - start,
                nodes=arguments.nodes,
                pods=arguments.pods,
                members=arguments.members,
                start=start,
                scale=arguments.scale,
                explain_s=arguments.explain,
                hostile=arguments.hostile,
                say=to_stderr,
            )
        except BrokenError as error:
            print(error, flush=True)
            later, start = error.report, max(error.step, start) + 1
            later.broken.append(error.step)
        else:
            start = last + 1
        report.go_on(later)
        if report.broken and not arguments.go_on:
            break
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            file.write(report.to_json())
    print(
        f"seed {seed}, members {arguments.members}: {report.steps} steps in {report.seconds:.0f} s"
    )
    print(report.table())
    if report.broken:
        print(f"broken: {', '.join(map(str, report.broken))}")
    return 1 if report.broken else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End so that all that was made is removed; who is impatient must not interrupt that."""
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
