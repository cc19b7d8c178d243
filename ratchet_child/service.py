"""What parents and `ratchetctl` ask the child, over its Unix socket: one JSON line each way.

A request that waits for links is kept until they are there or its time is over; nothing in here
blocks. The API server is asked in threads of their own, and etcd is not asked at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from ratchet import messages, status
from ratchet.cni.dataclasses import dataclass
from ratchet.errors import CniError, PodUnknownError, RatchetError, shown
from ratchet.links import UPLINK_KINDS, Override
from ratchet_child.engine import Engine
from ratchet_child.lookups import Labels, Lookups
from ratchet_child.metrics.figures import front
from ratchet_child.model.keys import PodKey

_LONGEST_WAIT_S = 120.0
_AWAY_S = 1.0

Answer = dict[str, Any]


class Agent(Protocol):
    """What is asked of the node's agent, where the child is one."""

    def recall(
        self, namespace: str, name: str, uid: str | None, *, at_any_price: bool
    ) -> Labels | None:
        """Return what is known of a pod; `at_any_price`: also if that was long ago."""

    def status(self) -> status.AgentStatus:
        """Return how the agent is."""


Reply = Callable[[Answer], None]


class BadRequestError(RatchetError):
    """A request that no parent sends."""

    code = 108
    sentence = "the request is not understood: {}"


@dataclass(frozen=True, slots=True)
class _Waiter:
    key: PodKey
    number: int
    mode: str
    since: float  # monotonic seconds
    deadline: float
    reply: Reply


class Service:
    """Answers requests with the engine in use."""

    def __init__(self, engine: Engine, kubeconfig: str | None, agent: Agent | None = None) -> None:
        self._engine = engine
        self._agent = agent
        self._clock = engine.clock
        self._waiters: list[_Waiter] = []
        self._lookups = None if kubeconfig is None else Lookups(kubeconfig, engine.clock)

    def close(self) -> None:
        """Answer everybody who still waits."""
        for waiter in self._waiters:
            waiter.reply(self._links(waiter, complete=False))
        self._waiters.clear()
        if self._lookups is not None:
            self._lookups.close()

    @property
    def labels_error(self) -> str | None:
        """Why the API server did not tell the last pod's labels; None when it did."""
        error = None if self._lookups is None else self._lookups.error
        return None if error is None else str(error)

    def known(self, request: Answer) -> Answer | None:
        """Return the answer to a request that can be given at once, or None. From any thread."""
        if self._agent is None or request.get("op") != "labels":
            return None
        try:
            asked = messages.request_from_json(request)
        except ValueError:
            return None  # who serves it says so
        return self._recalled(asked) if isinstance(asked, messages.Labels) else None

    def handle(self, request: Answer, reply: Reply) -> None:
        """Answer a request, now or later. `reply` may be called from another thread."""
        try:
            asked = messages.request_from_json(request)
        except ValueError as error:
            reply(failure(BadRequestError(str(error))))
            return
        try:
            match asked:
                case messages.Attached():
                    self._attached(asked, reply)
                case messages.Deleted():
                    self._deleted(asked)
                    reply(messages.done())
                case messages.Check():
                    self._check(asked, reply)
                case messages.Labels():
                    self._labels(asked, reply)
                case messages.Set():
                    self._set(asked, reply)
                case messages.Health():
                    reply(self._health())
                case messages.Status():
                    reply(self._status())
        except CniError as error:
            reply(failure(error))

    def settle(self) -> None:
        """Answer those whose links are there, or whose time is over."""
        now = self._clock.monotonic()
        left = []
        for waiter in self._waiters:
            complete = self._engine.status.is_served(waiter.key, waiter.number, waiter.mode)
            helpless = (
                waiter.mode == "present" and self._is_cut_off and now >= waiter.since + _AWAY_S
            )
            if complete or helpless or now >= waiter.deadline:
                waiter.reply(self._links(waiter, complete=complete))
            else:
                left.append(waiter)
        self._waiters = left
        if self._lookups is not None:
            self._lookups.settle()

    def next_deadline(self) -> float | None:
        """Return the moment (monotonic) at which `settle` must be called at the latest."""
        deadlines = [waiter.deadline for waiter in self._waiters]
        if deadlines and self._is_cut_off:
            deadlines.append(self._clock.monotonic() + _AWAY_S / 4)
        lookup = None if self._lookups is None else self._lookups.next_deadline()
        if lookup is not None:
            deadlines.append(lookup)
        return min(deadlines, default=None)

    @property
    def _is_cut_off(self) -> bool:
        """Whether nobody can say which far pods are there: a pod need not wait for that."""
        return self._engine.etcd.is_away or self._engine.is_cut_off

    def _attached(self, asked: messages.Attached, reply: Reply) -> None:
        taken = self._taken(asked.attachment)
        timeout_s = 0.0 if asked.wait == "none" else asked.timeout_s
        self._wait(taken, asked.wait, timeout_s, reply)

    def _deleted(self, asked: messages.Deleted) -> None:
        if asked.attachment is None:
            self._engine.registry.scan()
        else:
            self._engine.registry.deleted(asked.attachment)

    def _check(self, asked: messages.Check, reply: Reply) -> None:
        taken = self._taken(asked.attachment)
        number = self._engine.registry.check(taken[0])
        self._wait((taken[0], number or taken[1]), "present", asked.timeout_s, reply)

    def _set(self, asked: messages.Set, reply: Reply) -> None:
        key, number = self._taken(asked.attachment)
        links = {link.ifname: link for link in self._engine.status.links(key)}
        if asked.link not in links:
            there = ", ".join(sorted(links)) or "no links"
            raise BadRequestError(f"{key} has no link at {shown(asked.link)}: there are {there}")
        if links[asked.link].kind in UPLINK_KINDS:
            raise BadRequestError(f"{asked.link} of {key} is an uplink, which only labels change")
        if not links[asked.link].peer:
            raise BadRequestError(f"nobody has declared a link at {asked.link} of {key} yet")
        try:
            change = None if asked.override is None else Override.from_json(asked.override)
        except ValueError as error:
            raise BadRequestError(str(error)) from error
        found = links[asked.link]
        peer = PodKey.parse(found.peer)
        if not found.primary and found.peer_ifname and self._engine.registry.is_present(peer):
            # Both pods are here: only the primary's turn changes what is known of its own link.
            key, change = peer, None if change is None else change.seen_from_pair()
            number = self._engine.registry.order(key, found.peer_ifname, change) or number
        else:
            number = self._engine.registry.order(key, asked.link, change) or number
        self._wait((key, number), "present", asked.timeout_s, reply)

    def _taken(self, name: str) -> tuple[PodKey, int]:
        taken = self._engine.registry.attached(name)
        if taken is None:
            raise BadRequestError(f"attachment {shown(name)} has no finished record")
        return taken

    def _wait(self, taken: tuple[PodKey, int], mode: str, timeout_s: float, reply: Reply) -> None:
        key, number = taken
        now = self._clock.monotonic()
        deadline = now + min(max(timeout_s, 0), _LONGEST_WAIT_S)
        self._waiters.append(_Waiter(key, number, mode, now, deadline, reply))
        self.settle()

    def _links(self, waiter: _Waiter, *, complete: bool) -> Answer:
        links = () if complete else self._engine.status.links(waiter.key)
        return status.Links(complete, links).to_json()

    def _health(self) -> Answer:
        """Answer what is known: STATUS comes often, and must not wait for what is away."""
        etcd = self._engine.etcd
        refused = None if self._lookups is None else self._lookups.refused()
        if self._agent is not None and self._agent.status().watching:
            refused = None  # pods start all the same: the agent is told of them
        return messages.NodeHealth(
            etcd.error if etcd.is_away else None,
            None
            if refused is None
            else messages.Failure(refused.code, refused.msg, refused.details),
        ).to_json()

    def _labels(self, asked: messages.Labels, reply: Reply) -> None:
        if self._lookups is None:
            raise BadRequestError("labels without a kubeconfig")

        known = self._recalled(asked)
        if known is not None:
            reply(known)
            return
        agent, pod = self._agent, (asked.namespace, asked.name, asked.uid)

        def answer(found: Labels | CniError) -> None:
            if isinstance(found, CniError) and agent is not None and not _is_no_such_pod(found):
                found = agent.recall(*pod, at_any_price=True) or found
            if isinstance(found, CniError):
                reply(failure(found))
            else:
                reply(messages.PodLabels(*found).to_json())

        self._lookups.ask(asked.namespace, asked.name, asked.uid, answer)

    def _recalled(self, asked: messages.Labels) -> Answer | None:
        """Return the labels that the agent knows of a pod. From any thread."""
        if self._agent is None:
            return None
        known = self._agent.recall(asked.namespace, asked.name, asked.uid, at_any_price=False)
        return None if known is None else messages.PodLabels(*known).to_json()

    def _status(self) -> Answer:
        etcd, node = self._engine.etcd, self._engine.node
        return status.NodeStatus(
            node=node.address,
            parent_interface=node.interface,
            trouble=self._engine.trouble,
            etcd=etcd.error,
            etcd_away=etcd.is_away,
            etcd_since=etcd.since,
            labels=self.labels_error,
            guard=None if self._engine.guard is None else self._engine.guard.state,
            front=status.FrontStatus(**front()),
            agent=None if self._agent is None else self._agent.status(),
            pods=self._engine.status.pods(),
        ).to_json()


def _is_no_such_pod(error: CniError) -> bool:
    """Say whether the API server itself has said that the pod is not, or no longer, there."""
    return isinstance(error, PodUnknownError) and error.source_answers


def failure(error: CniError) -> Answer:
    """Return an error as the parent passes it on."""
    return messages.Failure(error.code, error.msg, error.details).to_json()


def decode(line: bytes) -> Answer:
    """Read a request from its line. *Raises* BadRequestError."""
    try:
        request = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("not JSON", str(error)) from error
    if not isinstance(request, dict):
        raise BadRequestError("not a JSON object")
    return request


def _refuse(text: str) -> None:
    """Refuse NaN: it compares with nothing, so a deadline made of it would never come."""
    raise ValueError(f"{text} is no number")
