"""What a simulation shows of a topology now: its pods, its links and what went over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ratchetctl.errors import SimError
from ratchetctl.sim import status
from ratchetctl.sim.directory import SimDirectory
from ratchetctl.topo.graph.seen import EndSeen, PodSeen, Seen
from ratchetctl.topo.viewer import interfaces, reasons
from ratchetctl.topo.viewer.interfaces import Interface


class Simulation:
    """A simulation as a source of what is seen. Needs root, as the simulator does."""

    def __init__(self, name: str, namespace: str) -> None:
        self._directory = SimDirectory(name)
        self._namespace = namespace

    def look(self) -> Seen:
        """Return what is there now; that there is no simulation is part of it.

        Blocks at most as long as each node's child takes to answer.
        """
        try:
            found = status.collect(self._directory)
        except SimError as error:
            return Seen(trouble=str(error))
        # A pod that is attached while this looks may be half written; the next look has it.
        pods = [pod for pod in found["pods"] if pod["namespace"] == self._namespace]
        there = interfaces.read({pod["name"]: pod["netns"] for pod in pods})
        return Seen(
            {pod["name"]: _pod(pod) for pod in pods},
            {
                (pod["name"], ifname): end
                for pod in pods
                for ifname, end in _ends(pod, there.get(pod["name"], {}))
            },
        )


def _pod(pod: Mapping[str, Any]) -> PodSeen:
    reason = None
    if pod["superseded"]:
        reason = "superseded: another container has the name"
    elif not pod["attached"]:
        reason = "the pod is not attached: its ADD has not succeeded"
    return PodSeen(pod["node"], tuple(pod["addresses"]), reason)


def _ends(pod: Mapping[str, Any], there: Mapping[str, Interface]) -> Iterator[tuple[str, EndSeen]]:
    for link in pod["links"]:
        own = there.get(link["ifname"])
        state, reason = reasons.of(link, None if own is None else own.carrier)
        end = EndSeen(state, reason, link.get("kind"), link.get("vni"))
        if own is not None:
            end = replace(
                end,
                received_bytes=own.received_bytes,
                received_packets=own.received_packets,
                sent_bytes=own.sent_bytes,
                sent_packets=own.sent_packets,
            )
        yield link["ifname"], end
