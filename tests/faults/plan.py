"""What happens in a run, one step after the other. Pure.

Everything here is a function of the seed alone. Nothing that a run measures may flow back into it,
or a failure could not be reproduced; so an operation says where a pod is to be in the end, and the
world repeats what a runtime repeats until that is so.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tests.faults.topology import PodId, topology

# What may happen in a step, with how often it does in relation to the others.
FAULTS = {
    "nothing": 12,
    "child killed": 8,
    "child killed at a step": 16,
    "parent killed": 10,
    "child paused": 3,
    "etcd stopped": 3,
    "etcd restarted": 4,
    "etcd paused": 4,
    "history lost": 3,
    "node cut off": 3,
    "node rebooted": 5,
    "interface deleted": 8,
    "interface down": 4,
    "interface flaps": 3,
    "interface renamed": 3,
    "interface moved": 3,
    "parent_address shared": 2,
    "parent_address changed": 4,
    "state directory full": 3,
    "state directory read-only": 3,
    "clock jumped": 4,
    "keys wiped": 2,
    "cable pulled out": 6,
    "cables plugged in": 3,
}
# What an operator does to a link, which is what happens in that step.
QUIET = ("cable pulled out", "cables plugged in")
FAULTS_OF_THREE_MEMBERS = {**FAULTS, "leader killed": 8, "member paused": 4}


@dataclass(frozen=True)
class Operation:
    """What the runtimes do with one pod.

    `attach` and `detach` say it; `restart` makes a new container on `node`, with the old one's DEL
    before, after, or only in the next step; `overlap` runs two ADDs at once, on `node` and
    `other`, and then detaches what came second; what was there before is detached at the same time
    as the ADDs run, or after them.
    """

    kind: str
    pod: PodId
    node: int | None = None
    other: int | None = None
    start_s: float = 0.0
    waits: bool = False  # for the end of the fault
    kill_add_s: float | None = None  # kill -9 the first ADD after that
    kill_del_s: float | None = None
    del_when: str = "before"  # the old container's: before, after, late
    netns_gone: bool = False  # before the DEL
    netns_empty: bool = False  # CNI_NETNS is "" in the DEL
    del_again: bool = False


@dataclass(frozen=True)
class Fault:
    kind: str
    node: int = 0  # where; 0 for none
    start_s: float = 0.0  # after the operations were started
    lasts_s: float = 0.0
    number: int = 0  # of the step at which the child is to die, and the like
    choice: float = 0.0  # picks an interface and the like


@dataclass(frozen=True)
class Step:
    number: int
    fault: Fault
    operations: tuple[Operation, ...] = ()
    hold_s: float = 0.0  # afterwards the invariants are watched for so long


@dataclass
class _Model:
    """Where pods are, in so far as a plan must know it."""

    where: dict[PodId, int] = field(default_factory=dict)
    lingering: set[PodId] = field(default_factory=set)  # with an old container not yet detached


class Plan:
    """The steps of one seed."""

    def __init__(self, seed: int, *, nodes: int, pods: int, members: int) -> None:
        self.topology = topology(seed, pods)
        self._rng = random.Random(f"{seed}/steps/{members}")
        self._nodes = range(1, nodes + 1)
        faults = FAULTS if members == 1 else FAULTS_OF_THREE_MEMBERS
        self._kinds, self._weights = list(faults), list(faults.values())
        self._model = _Model()

    @property
    def where(self) -> dict[PodId, int]:
        """Where every attached pod is after the steps so far."""
        return dict(self._model.where)

    def steps(self) -> Iterator[Step]:
        yield Step(
            1,
            Fault("nothing"),
            tuple(self._attach(pod) for pod in self.topology.pods if self._rng.random() < 0.8),
        )
        number = 1
        while True:
            number += 1
            yield self._step(number)

    def _step(self, number: int) -> Step:
        rng = self._rng
        fault = self._fault()
        lingering, self._model.lingering = self._model.lingering, set()
        if fault.kind == "keys wiped" and lingering:
            # Nobody could say any more which of two containers came last.
            fault = Fault("nothing")
        lost = []
        if fault.kind == "node rebooted":
            lost = [pod for pod, node in self._model.where.items() if node == fault.node]
            for pod in lost:
                del self._model.where[pod]
        least = 1 if fault.kind in ("parent killed", "nothing") else 0
        count = rng.choice((0, 1, 1, 2, 2, 3, 5)) or least
        if fault.kind in QUIET:
            count = 0
        operations = []
        for pod in rng.sample(self.topology.pods, count):
            if pod not in lost:
                operations.append(self._operation(pod, fault))
        # What a reboot has taken comes back when the node is there again, or elsewhere, or never.
        for pod in lost:
            if rng.random() < 0.8:
                operations.append(replace(self._attach(pod), waits=True))
        hold_s = rng.choice((1.0, 3.5)) if rng.random() < 0.05 else 0.0
        return Step(number, fault, tuple(operations), hold_s)

    def _fault(self) -> Fault:
        rng = self._rng
        kind = rng.choices(self._kinds, self._weights)[0]
        lasts_s = 0.0
        if kind in ("etcd stopped", "etcd paused", "child paused", "node cut off", "member paused"):
            lasts_s = rng.choice((0.5, 1.0, 2.0, 4.0))
        elif kind in ("state directory full", "state directory read-only"):
            lasts_s = rng.choice((0.5, 1.0, 1.5))
        elif kind == "node rebooted":
            lasts_s = rng.choice((0.0, 0.5, 1.0))
        return Fault(
            kind,
            node=rng.choice(self._nodes),
            start_s=rng.choice((0.0, 0.0, 0.1, 0.3, 0.6)),
            lasts_s=lasts_s,
            number=round(10 ** rng.uniform(0, 2.5)),
            choice=rng.random(),
        )

    def _attach(self, pod: PodId) -> Operation:
        rng = self._rng
        node = rng.choice(self._nodes)
        self._model.where[pod] = node
        start_s = rng.random() * 0.3
        return Operation("attach", pod, node, start_s=start_s, kill_add_s=self._kill(0.03))

    def _operation(self, pod: PodId, fault: Fault) -> Operation:
        rng = self._rng
        # A node that is being rebooted has no runtime.
        nodes = [n for n in self._nodes if fault.kind != "node rebooted" or n != fault.node]
        often = 0.9 if fault.kind == "parent killed" else 0.03
        here = self._model.where.get(pod)
        common = {
            "pod": pod,
            "start_s": rng.choice((0.0, 0.1, 0.4)),
            "kill_add_s": self._kill(often),
            "kill_del_s": self._kill(often / 3),
            "netns_gone": rng.random() < 0.3,
            "netns_empty": rng.random() < 0.3,
            "del_again": rng.random() < 0.3,
        }
        if here is None:
            kind = rng.choices(("attach", "overlap"), (8, 2))[0]
        else:
            kind = rng.choices(("detach", "restart", "overlap"), (3, 6, 2))[0]
        if kind == "detach":
            del self._model.where[pod]
            return Operation(kind, node=here, **common)  # type: ignore[arg-type]
        node = here if here in nodes and rng.random() < 0.4 else rng.choice(nodes)
        self._model.where[pod] = node
        when = rng.choice(("before", "after", "late"))
        if kind == "attach" or here not in nodes:
            when = "before"
        if fault.kind == "keys wiped" and when == "late":
            when = "after"  # nobody could say which container came last, if both were to stay
        if when == "late" and kind == "restart":
            self._model.lingering.add(pod)
        return Operation(kind, node=node, other=rng.choice(nodes), del_when=when, **common)  # type: ignore[arg-type]

    def _kill(self, probability: float) -> float | None:
        """The moment of a kill: a parent works for some 20 ms, and may wait for 0.5 s."""
        return 10 ** self._rng.uniform(-2.5, -0.3) if self._rng.random() < probability else None
