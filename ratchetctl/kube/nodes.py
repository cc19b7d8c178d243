"""How each node is, and which frames pass between every two of them. Pure.

The agents tell of their nodes all the time; of frames they tell when they were asked (`checking`).
A finding is the administrator's: it names the node and what to do there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ratchet.annotations import Heard
from ratchetctl.kube.cluster import Agent

_MOST_PAIRS = 20


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node. `frames` is how many of the other nodes its frames come from."""

    name: str
    agent: Agent | None
    frames: int | None = None
    others: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a node, or between two, and what to do about it."""

    where: str
    what: str
    todo: str
    is_grave: bool = True
    """Whether links or pods suffer from it now."""


def states(
    agents: Sequence[Agent], names: Iterable[str] | None, results: Mapping[str, Heard]
) -> list[NodeState]:
    """Return all nodes, by name; `names` are those that Kubernetes has, None: nobody knows."""
    by_name = {agent.node: agent for agent in agents}
    others = len(asked(agents)) - 1
    found = []
    for name in sorted({*by_name, *(names or ())}):
        heard = results.get(name)
        failed = None if heard is None else {*heard.silent, *heard.small_only}
        frames = None if failed is None or heard is None or heard.error else others - len(failed)
        found.append(NodeState(name, by_name.get(name), frames, max(others, 0)))
    return found


def asked(agents: Iterable[Agent]) -> dict[str, Agent]:
    """Return the agents that can take part in a check, by their nodes' addresses for tunnels."""
    return {
        agent.told.address: agent
        for agent in agents
        if agent.is_ready and agent.told is not None and agent.told.address
    }


def problems(nodes: Sequence[NodeState], results: Mapping[str, Heard] | None) -> list[Problem]:
    """Return what is wrong. `results` are what was heard, by node; None when nobody was asked."""
    found = [problem for node in nodes for problem in _of_node(node)]
    found += _together([node.agent for node in nodes if node.agent is not None])
    if results is not None:
        found += _between(nodes, results)
    return found


def _of_node(node: NodeState) -> Iterator[Problem]:
    where = f"node {node.name}"
    agent = node.agent
    if agent is None:
        yield Problem(
            where,
            "no agent runs on it as a pod",
            "if Ratchet is to be on it: see why the DaemonSet has no pod there (a nodeSelector, a"
            " taint); if it was installed by hand, run `ratchetctl status` there",
            is_grave=False,
        )
        return
    see = f"see `kubectl -n ratchet describe pod {agent.pod}` and its logs"
    if not agent.is_ready:
        said = f": {agent.why_not_ready}" if agent.why_not_ready else ""
        yield Problem(where, f"its agent is not ready{said}", see)
        return
    told = agent.told
    if told is None:
        what = "its agent does not tell of the node"
        todo = (
            "it is of an older version, has no POD_UID, or may not patch pods/status: apply the"
            " manifests of this version again"
        )
        yield Problem(where, what, todo)
        return
    if not told.address:
        yield Problem(where, "it has no address for tunnels", "set parent_address, or mend routes")
    if told.etcd == "away":
        what = f"etcd does not answer it: {told.etcd_error}"
        yield Problem(where, what, "see the pods of ratchet-etcd, and docs/troubleshooting.md")
    if not told.watching:
        what = "the API server does not tell it of pods"
        yield Problem(where, what, f"{see}: they name the kubeconfig, the right or the token")
    for trouble in told.troubles:
        yield Problem(where, trouble, see)
    if told.address and told.mtu_bytes is None:
        what = f"there is no interface {told.interface}"
        yield Problem(where, what, "correct parent_interface: tunnels need it")
    if told.guard is not None and told.guard not in ("on", "off, as configured"):
        what = f"the guard of its tunnels is {told.guard}"
        yield Problem(where, what, "see docs/configuration.md, guard", is_grave=False)


def _together(agents: Sequence[Agent]) -> Iterator[Problem]:
    """Give what only the nodes together show."""
    told = [(agent, agent.told) for agent in agents if agent.told is not None]
    by_address: dict[str, list[str]] = {}
    for agent, node in told:
        by_address.setdefault(node.address, []).append(agent.node)
    for address, names in by_address.items():
        if address and len(names) > 1:
            what = f"they have the same address for tunnels, {address}"
            yield Problem(f"nodes {', '.join(names)}", what, "set parent_address on each of them")
    for field, title, grave in (
        ("vxlan_port", "vxlan_port", True),
        ("mtu_bytes", "MTU of links between nodes", False),
        ("version", "version", False),
    ):
        values: dict[object, list[str]] = {}
        for agent, node in told:
            if getattr(node, field) is not None:
                values.setdefault(getattr(node, field), []).append(agent.node)
        if len(values) > 1:
            said = "; ".join(f"{value} on {_names(names)}" for value, names in values.items())
            yield Problem("the nodes", f"they differ in {title}: {said}", _TODO[field], grave)


_TODO = {
    "vxlan_port": "set vxlan_port to one value for all nodes",
    "mtu_bytes": "set mtu to the smallest of these, if large packets get lost",
    "version": "wait until the DaemonSet has rolled out, or see why it has not",
}


def _between(nodes: Sequence[NodeState], results: Mapping[str, Heard]) -> Iterator[Problem]:
    """Give which frames do not pass: from one node to another."""
    taking = asked(node.agent for node in nodes if node.agent is not None)
    names = {address: agent.node for address, agent in taking.items()}
    kinds: dict[str, list[tuple[str, str]]] = {"silent": [], "small_only": [], "fragmented": []}
    for agent in taking.values():
        heard = results.get(agent.node)
        where = f"node {agent.node}"
        if heard is None:
            what = "its agent has not answered: which frames reach it is not known"
            yield Problem(where, what, "try again, or see its logs", is_grave=False)
            continue
        if heard.error is not None:
            yield Problem(where, f"its agent cannot check: {heard.error}", "see its logs")
            continue
        for address, why in (heard.unsent or {}).items():
            what = f"it cannot send to {names.get(address, address)} ({address}): {why}"
            yield Problem(where, what, "mend its routes")
        for kind, pairs in kinds.items():
            pairs += [(names.get(one, one), agent.node) for one in getattr(heard, kind)]
    port = next((agent.told.vxlan_port for agent in taking.values() if agent.told), 0)
    for kind, pairs in kinds.items():
        for sender, receiver in pairs[:_MOST_PAIRS]:
            what, todo, grave = _said(kind, port)
            yield Problem(f"from {sender} to {receiver}", what, todo, grave)
        if len(pairs) > _MOST_PAIRS:
            what, todo, grave = _said(kind, port)
            yield Problem(f"{len(pairs) - _MOST_PAIRS} more directions", what, todo, grave)


def _said(kind: str, port: int) -> tuple[str, str, bool]:
    if kind == "silent":
        todo = f"open UDP port {port} between the nodes (firewall, security group)"
        return f"no frame passes (UDP port {port})", todo, True
    if kind == "small_only":
        todo = "set mtu to what the way between them takes, less 50 (70 with IPv6)"
        return "small frames pass, and frames as large as the links' MTU do not", todo, True
    todo = "set mtu to what the way between them takes, less 50 (70 with IPv6)"
    return "large frames are fragmented on their way, which is slow", todo, False


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
