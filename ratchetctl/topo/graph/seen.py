"""What is known of a topology that runs: where its pods are, and how its links do. Pure.

The viewer fills it in; without it a drawing shows what the file says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

UP, FAULT, DOWN = "up", "fault", "down"
WAITING, ERROR, UNKNOWN = "waiting", "error", "unknown"
STATES = (ERROR, DOWN, WAITING, FAULT, UNKNOWN, UP)
"""Of a link or an end, the worst first."""


@dataclass(frozen=True, slots=True)
class EndSeen:
    """One end of a link. `reason` says why it is not up; counters are None where unknown."""

    state: str
    reason: str | None = None
    kind: str | None = None
    vni: int | None = None
    received_bytes: int | None = None
    received_packets: int | None = None
    sent_bytes: int | None = None
    sent_packets: int | None = None


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod that is there, and the machine that it is on. `reason` says what is wrong with it."""

    machine: str | None
    addresses: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Pods by name, ends by (pod, interface). `trouble` says why nothing is known."""

    pods: Mapping[str, PodSeen] = field(default_factory=dict)
    ends: Mapping[tuple[str, str], EndSeen] = field(default_factory=dict)
    trouble: str | None = None


def worst(states: list[str]) -> str:
    """Return the worst of some states; of none, that it is not known."""
    return min(states, key=STATES.index, default=UNKNOWN)
