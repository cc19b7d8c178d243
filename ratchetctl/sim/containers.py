"""Runs what a pod's containers would run, as far as a machine without images can.

On request (`sim run`, `topo create --run`) this machine's programs are started in the namespaces of
the pod:

- the commands of initContainers, one after the other, to their end;
- FRR, BIRD or GoBGP where the containers' files are a configuration of it;
- the commands of all other containers that name one.

What cannot run is told by pod, program and reason.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ratchetctl.errors import SimError
from ratchetctl.sim import sandbox
from ratchetctl.sim.directory import PodState, SimDirectory
from ratchetctl.sim.routers import known
from ratchetctl.sim.sandbox import Sandbox
from ratchetctl.sim.work import Command, Work

INIT_TIMEOUT_S = 60.0
AT_ONCE_S = 0.3  # a command that cannot work has ended by then
AFTER_S = 10.0  # commands that are to end may wait for links first
POLL_S = 0.05
SAID_CHARS = 500


@dataclass(slots=True)
class Outcome:
    """A sentence for each thing that runs, and one for each that does not."""

    said: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    running: list[_Running] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Running:
    """A container's command, and where it writes."""

    pod: PodState
    container: str
    process: subprocess.Popen[bytes]
    log: str
    timeout_s: float


def run(directory: SimDirectory, work: Sequence[tuple[PodState, Work]], parallel: int) -> list[str]:
    """Start what each pod is to run, anew where something of it runs already; the sentences.

    Raises SimError that lists what does not run, after everything else was started. An interruption
    ends all that was started.
    """
    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(_run, directory, *one) for one in work]
        try:
            outcomes = [future.result() for future in futures]
            ended = list(_ended([one for outcome in outcomes for one in outcome.running]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A pod that is being made has nothing to end yet.
            while not all(future.done() for future in futures):
                _kill(directory, work)
                time.sleep(POLL_S)
            _kill(directory, work)
            raise
    said = [sentence for outcome in outcomes for sentence in outcome.said]
    failed = [sentence for outcome in outcomes for sentence in outcome.failed]
    failed += ended
    if failed:
        raise SimError("\n".join(failed))
    return said


def _kill(directory: SimDirectory, work: Sequence[tuple[PodState, Work]]) -> None:
    for pod, _ in work:
        sandbox.kill(directory, pod)


def _run(directory: SimDirectory, state: PodState, work: Work) -> Outcome:
    outcome = Outcome()
    name = state.full_name
    try:
        if directory.read_work(state) is not None:
            sandbox.end(directory, state)
        inside = sandbox.of(directory, state)
        directory.write_work(state, work.to_json())
        files = dict(work.files)
        if work.router is None:
            outcome.failed += [f"{name}: {refused}" for refused in inside.place(files)]
        for command in work.first:
            _first(inside, command)
        if work.router is not None:
            started = known.start(work.router, inside, files)
            if started.runs:
                outcome.said.append(f"{name}: {started.what} ({', '.join(started.runs)})")
            outcome.failed += [f"{name}: {program}: {why}" for program, why in started.failed]
        outcome.failed += [f"{name}: {program}: {why}" for program, why in work.unable]
        for container in work.silent:
            outcome.said.append(f"{name}: {container} names no command, nothing to run")
        commands = [(command, AT_ONCE_S) for command in work.commands]
        for command, timeout_s in (*commands, *((command, AFTER_S) for command in work.after)):
            outcome.running.append(_start(inside, command, timeout_s))
            outcome.said.append(f"{name}: {command[0]}, output in {outcome.running[-1].log}")
    except SimError as error:
        outcome.failed.append(f"{name}: {error}")
    return outcome


def _first(inside: Sandbox, command: Command) -> None:
    container, words = command
    try:
        done = inside.run(words, INIT_TIMEOUT_S)
    except SimError as error:
        raise SimError(f"initContainer {container}: {error}") from error
    with open(_log(inside, container), "a", encoding="utf-8") as log:
        log.write(done.stdout)
    if done.returncode != 0:
        raise SimError(
            f"initContainer {container} ended with {done.returncode}:"
            f" {done.stdout.strip()[-SAID_CHARS:]}"
        )


def _start(inside: Sandbox, command: Command, timeout_s: float) -> _Running:
    container, words = command
    log = _log(inside, container)
    with open(log, "ab") as output:
        try:
            process = inside.start(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except SimError as error:
            raise SimError(f"{container}: {error}") from error
    return _Running(inside.pod, container, process, log, timeout_s)


def _log(inside: Sandbox, container: str) -> str:
    return os.path.join(inside.folder, f"{container}.log")


def _ended(running: Sequence[_Running]) -> Iterator[str]:
    """Yield a sentence for each command that fails within its time."""
    waiting = list(running)
    began = time.monotonic()
    while waiting:
        took_s = time.monotonic() - began
        for one in list(waiting):
            status = one.process.poll()
            if status is None and took_s < one.timeout_s:
                continue
            waiting.remove(one)
            if status is None:
                # It outlives us; Python would otherwise warn of a child that was not waited for.
                one.process.returncode = 0
            elif status != 0:
                with open(one.log, encoding="utf-8", errors="replace") as file:
                    said = file.read().strip()[-SAID_CHARS:]
                ended = f"ended with {status}" if status > 0 else f"was killed by signal {-status}"
                yield f"{one.pod.full_name}: {one.container}: {ended}{': ' if said else ''}{said}"
        if waiting:
            time.sleep(POLL_S)
