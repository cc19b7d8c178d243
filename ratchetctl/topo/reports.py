"""What a cluster's pods say of their links and of themselves. Pure.

The agent of each node writes the annotation network-status, which lists the ends that are in a pod,
and for pods that ask for it the condition `ratchet/links` (docs/agent.md). An end is up when it is
listed with its address, and the condition does not say otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchetctl.topo.model import End

Obj = Mapping[str, Any]

CONDITION = "ratchet/links"
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
_OURS = "ratchet/"
_ERRORS = ("LinkFailed", "NameTaken")  # reasons of the condition
UP, WAITING, ERROR = "up", "waiting", "error"


@dataclass(frozen=True, slots=True)
class Report:
    """One pod: how many of its ends are up, what is wrong, and whether an agent has told at all."""

    name: str
    machine: str
    phase: str
    up: int
    ends: int
    state: str
    trouble: str
    is_told: bool

    @property
    def runs(self) -> bool:
        return self.phase == "Running"


def report(pod: Obj | None, name: str, ends: Sequence[End]) -> Report:
    """Return what a pod says of the ends that its topology gives it; None: it is not there."""
    if pod is None:
        return Report(name, "", "missing", 0, len(ends), WAITING, "it is not there", False)
    status = pod.get("status") or {}
    condition = _condition(status, CONDITION)
    its = listed(pod)
    is_told = condition is not None or its is not None
    up = _up(ends, condition, its)
    trouble, is_error = _trouble(status)
    if not trouble and condition is not None and condition.get("status") != "True":
        trouble = str(condition.get("message", ""))
        is_error = condition.get("reason") in _ERRORS
    runs = status.get("phase") == "Running"
    state = ERROR if is_error else UP if up == len(ends) and runs else WAITING
    machine = str((pod.get("spec") or {}).get("nodeName") or "")
    phase = str(status.get("phase") or "Pending")
    if pod["metadata"].get("deletionTimestamp"):
        phase, state = "Terminating", WAITING
    return Report(name, machine, phase, up, len(ends), state, trouble, is_told)


def _up(ends: Sequence[End], condition: Obj | None, its: Mapping[str, Obj] | None) -> int:
    if its is None:
        return len(ends) if condition is not None and condition.get("status") == "True" else 0
    present = sum(_is_listed(end, its) for end in ends)
    if condition is not None and condition.get("status") != "True":
        return min(present, max(len(ends) - 1, 0))  # it is not known which one is meant
    return present


def _is_listed(end: End, its: Mapping[str, Obj]) -> bool:
    entry = its.get(end.ifname)
    if entry is None:
        return False
    return end.address is None or entry.get("ips") == [str(end.address.ip)]


def listed(pod: Obj) -> dict[str, Obj] | None:
    """Return Ratchet's entries of network-status by interface; None where there is none."""
    text = (pod["metadata"].get("annotations") or {}).get(NETWORK_STATUS)
    try:
        entries = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return None
    found: dict[str, Obj] = {
        str(entry.get("interface")): entry
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and str(entry.get("name", "")).startswith(_OURS)
    }
    return found or None


def _condition(status: Obj, kind: str) -> Obj | None:
    for one in status.get("conditions") or ():
        if one.get("type") == kind:
            return dict(one)
    return None


def _trouble(status: Obj) -> tuple[str, bool]:
    """Return what keeps a pod from running, and whether it is an error."""
    scheduled = _condition(status, "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        return f"{scheduled.get('reason')}: {scheduled.get('message')}", False
    for reason, message in _waiting(status):
        # These two are the usual beginning.
        if reason not in ("ContainerCreating", "PodInitializing"):
            return f"{reason}: {message}" if message else reason, True
    if status.get("phase") == "Failed":
        return f"it has ended ({status.get('reason') or 'Failed'})", True
    return "", False


def _waiting(status: Obj) -> Iterator[tuple[str, str]]:
    for key in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(key) or ():
            waiting = (one.get("state") or {}).get("waiting")
            if waiting:
                yield str(waiting.get("reason", "")), str(waiting.get("message", ""))
