"""How the links of a simulation's pods are: counted, waited for, and told as an exit status."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ratchet import labels
from ratchet.status import ERROR, UP, WAITING
from ratchetctl.sim import status
from ratchetctl.sim.directory import PodState, SimDirectory
from ratchetctl.sim.runtime import IFNAME
from ratchetctl.status import WAITS, WELL, WRONG

POLL_S = 0.25
SETTLE_S = 5.0

End = tuple[str, str, str]
"""Namespace, the name that other pods use, interface."""


def ends(pods: Iterable[PodState], *, all_pods: bool) -> set[End]:
    """Return the ends that links of these pods have.

    Without all_pods, links whose far pod is not among them are left out: nothing will come of them.
    """
    wirings = {}
    for pod in pods:
        wiring = labels.parse(pod.labels, pod.annotations, own_name=pod.name, cni_ifname=IFNAME)
        wirings[pod.namespace, wiring.pod_name] = wiring
    found = set()
    for (namespace, name), wiring in wirings.items():
        for link in wiring.links:
            is_there = (namespace, link.pair) in wirings
            if is_there or all_pods:
                found.add((namespace, name, link.ifname))
            if is_there:
                found.add((namespace, link.pair, link.pair_ifname))
        found.update((namespace, name, uplink.ifname) for uplink in wiring.uplinks)
    return found


def counts(directory: SimDirectory, pods: Iterable[PodState], wanted: int) -> Counter[str]:
    """Return how many ends of these pods are in which state; what is missing waits."""
    chosen = {pod.container_id for pod in pods}
    found = Counter(
        link["state"]
        for container, pod in status.seen(directory).items()
        if container in chosen
        for link in pod["links"]
    )
    found[WAITING] += max(wanted - sum(found.values()), 0)
    return found


def wait(
    directory: SimDirectory,
    timeout_s: float,
    *,
    all_pods: bool = True,
    chosen: Callable[[PodState], bool] = lambda _: True,
    wanted: int | None = None,
) -> Counter[str]:
    """Wait until the ends of the chosen pods' links are up; how many are in which state.

    Blocks at most `timeout_s`, and a moment only where nothing is left that could come up.
    """
    linked = status.seen(directory)
    pods = [pod for pod in directory.pods() if pod.container_id in linked and chosen(pod)]
    enough = len(ends(pods, all_pods=all_pods)) if wanted is None else wanted
    deadline = time.monotonic() + timeout_s
    while True:
        found = counts(directory, pods, enough)
        if found[UP] >= enough or time.monotonic() >= deadline:
            return found
        time.sleep(POLL_S)


def exit_status(pods: Iterable[Mapping[str, Any]]) -> int:
    """Return how well the pods of `status.collect` are: WELL, WAITS or WRONG."""
    found = list(pods)
    states = {link["state"] for pod in found for link in pod["links"]}
    if ERROR in states or any(pod["superseded"] for pod in found):
        return WRONG
    return WAITS if states - {UP} else WELL
