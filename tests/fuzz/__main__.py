"""`python -m tests.fuzz`: a long run. See `make fuzz` and docs/fuzzing.md."""

from __future__ import annotations

import argparse
import contextlib
import resource
import secrets
import sys
import time

from tests.fuzz.runner import BrokenError, Report, bounded_memory, run
from tests.fuzz.targets import INPUTS, TARGETS, shares

MEMORY_BYTES = 2 << 30


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, help="for the parsers in all; for each of --only")
    parser.add_argument("--seconds", type=float, help="for each target, at most")
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--only", metavar="NAME", help="targets, with commas between them")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--go-on", action="store_true", help="to the next target when one fails")
    parser.add_argument("--list", action="store_true", help="the targets' names")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(one.name for one in TARGETS))
        return 0
    wanted = arguments.only.split(",") if arguments.only else [one.name for one in TARGETS]
    unknown = set(wanted) - {one.name for one in TARGETS}
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}, see --list")
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)

    parts = shares((arguments.inputs or INPUTS["parser"]) / INPUTS["parser"])
    if arguments.only and arguments.inputs:
        parts = dict.fromkeys(parts, arguments.inputs)
    began = time.monotonic()
    reports: list[Report] = []
    broken = 0
    for one in TARGETS:
        if one.name not in wanted:
            continue
        # A child and its etcd are processes of their own, which would inherit the limit.
        limit = contextlib.nullcontext() if one.kind == "child" else bounded_memory(MEMORY_BYTES)
        try:
            with limit:
                report = run(
                    one,
                    seed=seed,
                    inputs=parts[one.name],
                    start=arguments.start,
                    seconds=arguments.seconds,
                )
        except BrokenError as error:
            print(error, flush=True)
            broken += 1
            if not arguments.go_on:
                return 1
            continue
        reports.append(report)
        print(_line(report), flush=True)
    most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"seed {seed}: {sum(report.inputs for report in reports):,} inputs"
        f" in {time.monotonic() - began:.0f} s, {most_mb:.0f} MB, {broken} targets broken"
    )
    return 1 if broken else 0


def _line(report: Report) -> str:
    return (
        f"{report.name:<24} {report.inputs:>9,} inputs {report.seconds:8.1f} s,"
        f" slowest {report.slowest_s * 1000:.0f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
