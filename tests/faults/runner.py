"""A run: step after step, with the invariants between, the times to heal, and what was seen."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice

from tests.faults.injectors import INJECTORS
from tests.faults.invariants import violations
from tests.faults.lifetimes import Lifetimes
from tests.faults.observed import PREFIX, look
from tests.faults.plan import Operation, Plan, Step
from tests.faults.stranger import Stranger
from tests.faults.world import World
from tests.lab.programs import PLUGIN_DIR

DEADLINE_S = 25.0
POLL_S = 0.05
SLOW_S = 1.5  # of a step that healed later, it is said what took so long
LOG_LINES = 120
LOG_BYTES = 32 * 1024 * 1024  # which is then begun anew
# What no log may hold: programs that meet something nobody expected.
CRASHES = ("traceback=", "the child has failed")

Say = Callable[[str], None]


@dataclass
class Healing:
    """One fault and the seconds after its end until everything was right."""

    step: int
    fault: str
    heal_s: float
    last: str = ""  # what was put right at the end


@dataclass
class Report:
    seed: int
    members: int
    steps: int = 0
    seconds: float = 0.0
    machine: str = ""  # what the run had: versions and cores
    killed: dict[str, int] = field(default_factory=dict)  # whom in time, how often
    broken: list[int] = field(default_factory=list)  # steps
    healings: list[Healing] = field(default_factory=list)

    def table(self) -> str:
        """Time to heal by kind of fault, in seconds."""
        by_kind: dict[str, list[float]] = {}
        for one in self.healings:
            by_kind.setdefault(one.fault, []).append(one.heal_s)
        lines = [f"{'fault':28}{'n':>6}{'median':>9}{'worst':>9}"]
        for kind in sorted(by_kind):
            times = by_kind[kind]
            lines.append(f"{kind:28}{len(times):6}{statistics.median(times):9.2f}{max(times):9.2f}")
        lines += [f"{what} killed: {count}" for what, count in sorted(self.killed.items())]
        return "\n".join(lines)

    def go_on(self, later: Report) -> None:
        """Take up what the same seed has brought from a later step on."""
        self.steps += later.steps
        self.machine = later.machine
        self.seconds += later.seconds
        self.killed = dict(Counter(self.killed) + Counter(later.killed))
        self.broken += later.broken
        self.healings += later.healings

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


class BrokenError(AssertionError):
    """An invariant does not hold; the text says all that is known."""

    def __init__(self, words: str, report: Report, step: int) -> None:
        super().__init__(words)
        self.report = report
        self.step = step


class Runner:
    def __init__(
        self,
        world: World,
        plan: Plan,
        report: Report,
        *,
        scale: float = 1.0,
        explain_s: float = math.inf,
    ) -> None:
        """`explain_s`: of a step that took longer to heal, all that is known is printed."""
        self.world = world
        self._plan = plan
        self._report = report
        self._deadline_s = DEADLINE_S * scale
        self._explain_s = explain_s
        self._lifetimes = Lifetimes()
        self._logs = dict.fromkeys(world.nodes, 0)

    def run(self, steps: int, *, start: int = 1, say: Say) -> None:
        """Raises BrokenError at the first step after which an invariant does not hold.

        `start` leaves out the steps before it: the pods are attached where these left them.
        """
        began = time.monotonic()
        planned = self._plan.steps()
        if start > 1:
            list(islice(planned, start - 1))
            attach = tuple(Operation("attach", pod, node) for pod, node in self._plan.where.items())
            self.step(Step(start - 1, INITIAL, attach), say)
        for step in islice(planned, steps):
            self.step(step, say)
            self._report.steps += 1
            self._report.seconds += time.monotonic() - began
            self._report.killed = dict(self.world.killed)
            began = time.monotonic()

    def step(self, step: Step, say: Say) -> None:
        began = time.monotonic()
        try:
            quiet_at = self._play(step)
            if self.world.stranger is not None:
                self.world.stranger.tend(step.number)
                quiet_at = time.monotonic()
            healing = self._settle(step, quiet_at)
            if wrong := self._lifetimes.check(self.world, step):
                raise AssertionError(
                    "an end did not live as long as its pod:\n  " + "\n  ".join(wrong)
                )
        except AssertionError as error:
            raise BrokenError(self._last_words(step, error), self._report, step.number) from error
        self._report.healings.append(healing)
        if healing.heal_s > self._explain_s:
            slow = AssertionError(f"healed after {healing.heal_s:.2f} s; last: {healing.last}")
            print(self._last_words(step, slow), flush=True)
        say(
            f"{step.number:5} {step.fault.kind:26} node {step.fault.node}"
            f" {len(step.operations)} operations {len(self.world.attached):3} pods"
            f"  healed after {healing.heal_s:5.2f} s, {time.monotonic() - began:5.2f} s in all"
            + (f"; last: {healing.last}" if healing.heal_s > SLOW_S else "")
        )

    def _play(self, step: Step) -> float:
        """Let the step happen; the moment at which nothing was broken or busy any more."""
        fault = step.fault
        late, self.world.late = self.world.late, []
        errors: list[BaseException] = []

        over = threading.Event()

        def do(action: Callable[[], None], start_s: float, waits: bool) -> threading.Thread:
            def work() -> None:
                try:
                    if waits:
                        over.wait()
                    time.sleep(start_s)
                    action()
                except BaseException as error:  # noqa: BLE001 - told by the main thread
                    errors.append(error)

            return self.world.start("runtime", work)

        threads = [
            do(lambda one=one: self.world.run_operation(one), one.start_s, one.waits)  # type: ignore[misc]
            for one in step.operations
        ]
        for sandbox, operation in late:
            waits = fault.kind == "node rebooted" and sandbox.node == fault.node
            detach = lambda s=sandbox, o=operation: self.world.detach(s, o)  # noqa: E731
            threads.append(do(detach, operation.start_s, waits))
        try:
            time.sleep(fault.start_s)
            with INJECTORS[fault.kind](self.world, fault):
                time.sleep(fault.lasts_s)
            lifted = time.monotonic()
        finally:
            over.set()
            for thread in threads:
                self.world.finish(thread)
        if errors:
            raise AssertionError(f"an operation failed: {errors!r}") from errors[0]
        return lifted if not threads else time.monotonic()

    def _settle(self, step: Step, quiet_at: float) -> Healing:
        """Wait until every invariant holds, and measure how long. Then watch for a while."""
        end = quiet_at + self._deadline_s
        last = ""
        while True:
            self._supervise()
            asked = time.monotonic()
            wrong = violations(self.world)
            wrong += self._crashes()
            if not wrong:
                break
            if asked > end:
                raise AssertionError(
                    f"after {asked - quiet_at:.1f} s of quiet:\n  " + "\n  ".join(wrong)
                )
            last = wrong[-1]
            time.sleep(POLL_S)
        healing = Healing(step.number, step.fault.kind, max(0.0, asked - quiet_at), last)
        end = time.monotonic() + step.hold_s
        while time.monotonic() < end:
            time.sleep(0.2)
            if violations(self.world) and (wrong := violations(self.world)):
                raise AssertionError("was right and is wrong again:\n  " + "\n  ".join(wrong))
        return healing

    def _supervise(self) -> None:
        """Call the plugin on nodes whose child is gone although there is something to do."""
        for node in self.world.nodes.values():
            if node.running_child() is None and self._has_work(node.number):
                node.call()

    def _has_work(self, number: int) -> bool:
        node = self.world.nodes[number]
        if os.path.isdir(os.path.join(node.state_dir, "attachments")) and node.records():
            return True
        try:
            keys = self.world.etcd.keys(f"{PREFIX}/nodes")
        except (OSError, AssertionError):
            return False
        ours = (node.first_address, node.second_address)
        return any(f"/nodes/{address}/" in key for key in keys for address in ours)

    def _crashes(self) -> list[str]:
        """Lines of the logs, new since the last look, that tell of something nobody expected."""
        found = []
        for number, node in self.world.nodes.items():
            try:
                with open(node.log_file, "rb") as log:
                    log.seek(self._logs[number])
                    new = log.read()
            except FileNotFoundError:
                continue
            self._logs[number] += len(new)
            if self._logs[number] > LOG_BYTES:
                os.truncate(node.log_file, 0)
                self._logs[number] = 0
            found += [
                f"node {number} logged: {line}"
                for line in new.decode(errors="replace").splitlines()
                if any(crash in line for crash in CRASHES)
            ]
        if found:
            raise AssertionError("\n  ".join(found))
        return found

    # When something is wrong

    def _last_words(self, step: Step, error: AssertionError) -> str:
        report = self._report
        lines = [
            f"seed {report.seed}, members {report.members}, step {step.number}",
            str(error),
            f"\nthe step:\n  {step.fault}",
            *(f"  {operation}" for operation in step.operations),
            "\nattached:",
            *(f"  {one!r}" for one in self.world.attached.values()),
            *(f"  late: {one!r}" for one, _ in self.world.late),
        ]
        try:
            seen = look(self.world)
        except (OSError, AssertionError) as trouble:
            lines.append(f"the cluster cannot be looked at: {trouble!r}")
        else:
            lines.append("\nkeys:")
            lines += [f"  {key} = {entry.value}" for key, entry in sorted(seen.keys.items())]
            lines.append("\nlinks:")
            names = {one.pod.netns.path: repr(one) for one in self.world.sandboxes()}
            for path, links in seen.links.items():
                lines.append(f"  {names.get(path, path)}")
                lines += [f"    {one}" for one in (links or {}).values() if one.ifname != "lo"]
            lines.append("\nstate directories:")
            lines += [f"  {number}: {sorted(names)}" for number, names in seen.records.items()]
        for number, node in self.world.nodes.items():
            lines.append(f"\nlog of node {number}, child {node.running_child()}:")
            lines += node.log().splitlines()[-LOG_LINES:]
        return "\n".join(lines)


INITIAL = Step(0, next(Plan(0, nodes=1, pods=1, members=1).steps()).fault).fault


def run(
    *,
    seed: int,
    steps: int,
    nodes: int = 4,
    pods: int = 20,
    members: int = 1,
    start: int = 1,
    scale: float = 1.0,
    explain_s: float = math.inf,
    hostile: bool = False,
    say: Say,
    report: Report | None = None,
) -> Report:
    """Play `steps` steps of a seed. Raises BrokenError; leaves nothing behind in any case.

    `hostile`: beside the pods of another tenant, who does what harm he can. `report` is one to be
    filled: what there is of it when the run is interrupted.
    """
    plan = Plan(seed, nodes=nodes, pods=pods, members=members)
    report = Report(seed, members) if report is None else report
    report.machine = _machine()
    world = World(plan.topology, nodes=nodes, members=members)
    try:
        if hostile:
            world.stranger = Stranger(world, seed)
            world.stranger.start()
        runner = Runner(world, plan, report, scale=scale, explain_s=explain_s)
        runner.run(steps, start=start, say=say)
        if world.stranger is not None:
            say(world.stranger.summary())
    finally:
        if world.stranger is not None:
            world.stranger.close()
        world.close()
    return report


def _machine() -> str:
    """Return what a run's times depend on, in words."""
    etcd = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
    _, _, version = etcd.stdout.splitlines()[0].partition(": ")
    programs = "built programs" if PLUGIN_DIR in os.environ else "programs from source"
    linux = ".".join(os.uname().release.split(".")[:2])
    return f"{programs}, etcd {version}, Linux {linux}, {os.cpu_count()} cores"


def to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def silent(_line: str) -> None:
    pass
