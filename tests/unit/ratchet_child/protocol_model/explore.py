"""Trying all orders in which the steps of a scenario can happen.

A scenario says what happens to the nodes (`scripts`, each in its own order) and how often a child
may be killed. `explore` runs it again and again, in another order each time:

- without a bound, in every order that can make a difference: two steps on different nodes that
  touch different keys are not tried both ways (sleep sets, Godefroid 1996);
- with a bound, in every order that departs from the plain one at most so many times. In the plain
  order who could go on goes on; a kill is a departure, too. Most faults need one or two of them
  (delay bounding, Emmi, Qadeer and Rakamaric 2011).

Each run ends with everything at rest and looked over; then every pod is detached, and nothing must
be left.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.unit.ratchet_child.protocol_model.world import Choice, Footprint, World

_READS = ("get", "tree", "tree recursively", "watch", "begin")

Action = Callable[[World], None]


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that is done to a node: an attachment, a detachment, a reboot."""

    node: str
    action: Action


@dataclass(frozen=True, slots=True)
class Scenario:
    nodes: int
    scripts: Sequence[Sequence[Happening]]
    before: Sequence[Happening] = ()  # at rest before the scripts begin
    crashes: int = 0
    crashing: str = "ABC"  # the nodes whose child may be killed
    kernel_steps: bool = False
    is_empty_at_end: bool = True
    stay: Sequence[tuple[str, str]] = ()  # ends, by container and name, that are never made anew


class Run:
    """One world on its way through a scenario."""

    def __init__(self, scenario: Scenario, world: World) -> None:
        self.world = world
        self._scenario = scenario
        self._position = [0] * len(scenario.scripts)
        self._crashes = scenario.crashes
        for happening in scenario.before:
            happening.action(world)
            world.settle()
        self._indexes = {one: world.index_of(*one) for one in scenario.stay}
        world.trace.clear()

    def choices(self) -> list[Choice]:
        found = self.world.choices()
        for number, script in enumerate(self._scenario.scripts):
            if self._position[number] < len(script):
                node = script[self._position[number]].node
                found.append(("script", node, f"{number}.{self._position[number]}"))
        if self._crashes and found:
            found += [
                ("crash", node.name)
                for node in self.world.nodes
                if node.name in self._scenario.crashing and node.engine is not None
            ]
        return found

    def footprint(self, choice: Choice) -> Footprint:
        if choice[0] in ("script", "crash"):
            return choice[1], "", ""
        return self.world.footprint(choice)

    def take(self, choice: Choice) -> None:
        if choice[0] == "script":
            self.world.trace.append(choice)
            number = int(choice[2].partition(".")[0])
            happening = self._scenario.scripts[number][self._position[number]]
            self._position[number] += 1
            happening.action(self.world)
        elif choice[0] == "crash":
            self.world.trace.append(choice)
            self._crashes -= 1
            self.world.crash(self.world.node(choice[1]))
            self.world.start(self.world.node(choice[1]))
        else:
            self.world.take(choice)

    def finish(self) -> None:
        """All is done: look it over, take everything away, look it over again."""
        self.world.check()
        for one, index in self._indexes.items():
            assert self.world.index_of(*one) == index, f"{' '.join(one)} was made anew"
        if self._scenario.is_empty_at_end:
            for node in self.world.nodes:
                for name in list(node.disk.live):
                    self.world.detach(node, name.partition(".")[0])
            self.world.check_empty()


@dataclass(slots=True)
class Result:
    runs: int
    is_complete: bool


class BrokenError(AssertionError):
    """A run that ended wrongly, with the steps that led there."""


@dataclass(slots=True)
class _Frame:
    choices: list[tuple[Choice, Footprint]]
    sleeping: dict[Choice, Footprint]
    departures: int
    position: int = -1
    tried: dict[Choice, Footprint] = field(default_factory=dict)


def explore(scenario: Scenario, *, limit_s: float, departures: int | None = None) -> Result:
    """Run a scenario in all orders, or as many as there is time for. *Raises* BrokenError."""
    frames: list[_Frame] = []
    deadline = time.monotonic() + limit_s
    runs = 0
    while True:
        _run(scenario, frames, departures)
        runs += 1
        while frames and not _next(frames[-1], departures):
            frames.pop()
        if not frames:
            return Result(runs, is_complete=True)
        if time.monotonic() > deadline:
            return Result(runs, is_complete=False)


def walk(scenario: Scenario, seed: int) -> None:
    """Run a scenario once, in an order drawn from a seed. *Raises* BrokenError."""
    chance = random.Random(seed)
    with World(scenario.nodes, kernel_steps=scenario.kernel_steps) as world:
        run = Run(scenario, world)
        last: Choice | None = None
        stay = chance.choice((0.0, 0.5, 0.8, 0.95))
        try:
            while choices := run.choices():
                if chance.random() < 0.97 and len(choices) > 1:
                    choices = [one for one in choices if one[0] != "crash"] or choices
                if last not in choices or chance.random() > stay:
                    last = chance.choice(choices)
                assert last is not None
                run.take(last)
            run.finish()
        except AssertionError as error:
            raise BrokenError(_story(world, f"seed {seed}: {error}")) from error


def follow(scenario: Scenario, choices: Sequence[Choice]) -> None:
    """Run a scenario by a trace; choices that cannot be taken are passed over."""
    with World(scenario.nodes, kernel_steps=scenario.kernel_steps) as world:
        run = Run(scenario, world)
        for choice in choices:
            if choice in run.choices():
                run.take(choice)
        while more := run.choices():
            run.take(next((one for one in more if one[0] != "crash"), more[0]))
        run.finish()


def _run(scenario: Scenario, frames: list[_Frame], departures: int | None) -> None:
    """Go the way of `frames` and then on to the end, noting what else could have been done."""
    with World(scenario.nodes, kernel_steps=scenario.kernel_steps) as world:
        run = Run(scenario, world)
        try:
            depth = 0
            while choices := run.choices():
                if depth == len(frames):
                    found = [(choice, run.footprint(choice)) for choice in choices]
                    frame = _frame(frames[-1] if frames else None, found, departures)
                    if not _next(frame, departures):
                        return  # every order from here on has been tried already
                    frames.append(frame)
                frame = frames[depth]
                run.take(frame.choices[frame.position][0])
                depth += 1
            run.finish()
        except AssertionError as error:
            raise BrokenError(_story(world, str(error))) from error


def _frame(
    before: _Frame | None, found: list[tuple[Choice, Footprint]], departures: int | None
) -> _Frame:
    if before is None:
        return _Frame(found, {}, 0)
    taken, footprint = before.choices[before.position]
    sleeping = {}
    if departures is None:
        sleeping = {
            choice: other
            for choice, other in {**before.sleeping, **before.tried}.items()
            if choice != taken and _are_independent(footprint, other)
        }
    # Who could go on goes on first.
    found.sort(key=lambda one: _actor(one[0]) != _actor(taken))
    return _Frame(found, sleeping, before.departures + (before.position > 0))


def _next(frame: _Frame, departures: int | None) -> bool:
    """Turn to the next choice of a frame; False when there is none."""
    if frame.position >= 0:
        choice, footprint = frame.choices[frame.position]
        frame.tried[choice] = footprint
    while frame.position + 1 < len(frame.choices):
        frame.position += 1
        choice = frame.choices[frame.position][0]
        if choice in frame.sleeping:
            continue
        return departures is None or frame.position == 0 or frame.departures < departures
    return False


def _actor(choice: Choice) -> Choice:
    return choice[1:3] if choice[0] == "step" else choice


def _are_independent(one: Footprint, other: Footprint) -> bool:
    """Whether two steps lead to the same in either order."""
    if one[0] == other[0]:
        return False  # they share a process
    if one[1] in _READS and other[1] in _READS:
        return True
    a, b = f"{one[2]}/", f"{other[2]}/"
    return not (one[2] and other[2]) or not (a.startswith(b) or b.startswith(a))


def _story(world: World, problem: str) -> str:
    steps = "\n".join(repr(choice) for choice in world.trace)
    keys = "\n".join(f"{key} = {value}" for key, value in world.etcd.contents().items())
    return f"{problem}\nkeys:\n{keys}\nafter {len(world.trace)} steps:\n{steps}"
