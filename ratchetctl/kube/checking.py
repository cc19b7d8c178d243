"""Asks the agents to send each other frames, and collects what they have heard.

The question is an annotation on each agent's own pod, written to its status: a right that gives no
way to change what a pod runs. The answer is another one (`ratchet.annotations`).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from ratchet import annotations as told
from ratchet.annotations import Asked, Heard
from ratchetctl.api.client import Client
from ratchetctl.api.errors import ForbiddenError, MissingError
from ratchetctl.api.resources import NODES, PODS
from ratchetctl.errors import ClusterError
from ratchetctl.kube import nodes, reading
from ratchetctl.kube.cluster import Agent

MANAGER = "kubectl-ratchet"
LASTS_S = 8.0
_ANSWER_S = 25.0
_LOOK_S = 1.0
_PARALLEL = 8


def node_names(client: Client) -> list[str] | None:
    """Return the cluster's nodes but those of other systems than Linux; None without the right."""
    try:
        found = client.list(NODES).items
    except ForbiddenError:
        return None
    return [
        str(one["metadata"]["name"])
        for one in found
        if (one["metadata"].get("labels") or {}).get("kubernetes.io/os", "linux") == "linux"
    ]


def frames(
    client: Client, agents: Iterable[Agent], system: str, progress: Callable[[str], None]
) -> Mapping[str, Heard]:
    """Have frames sent, and return what was heard, by node. *Raises* ClusterError.

    *Blocks at most* half a minute. Of an agent that does not answer there is nothing.
    """
    taking = nodes.asked(agents)
    if len(taking) < 2:
        return {}
    if len(taking) > told.MOST_PEERS:
        raise ClusterError(f"frames between {len(taking)} nodes: at most {told.MOST_PEERS}")
    asked = Asked(secrets.token_hex(16), tuple(taking))
    change = {"metadata": {"annotations": {told.ASKED: asked.dumps()}}}

    def ask(agent: Agent) -> None:
        with contextlib.suppress(MissingError):  # it has just been replaced
            client.patch(PODS, agent.pod, change, MANAGER, system, subresource="status")

    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(ask, taking.values()))
    progress(f"frames between {len(taking)} nodes, for {LASTS_S:.0f} s")
    until = time.monotonic() + _ANSWER_S
    results: dict[str, Heard] = {}
    while len(results) < len(taking) and time.monotonic() < until:
        time.sleep(_LOOK_S)
        for agent in reading.agents(client, system) or ():
            if agent.heard is not None and agent.heard.number == asked.number:
                results[agent.node] = agent.heard
    return results
