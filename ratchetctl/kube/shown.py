"""Links, pods and nodes as rows of tables, and as objects for programs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ratchet.status import ERROR, UP, WAITING
from ratchetctl.kube.cluster import Cluster, Pod
from ratchetctl.kube.explaining import Explanation
from ratchetctl.kube.links import UNKNOWN, End, Row
from ratchetctl.kube.nodes import NodeState, Problem
from ratchetctl.kube.output import Table, ago
from ratchetctl.wording import iso

LINK_KEYS = 3  # the cells by which a link is known: namespace, primary, pair
POD_KEYS = 2
_LONGEST_WHY = 60


def links(rows: Iterable[Row], now: float, *, wide: bool) -> Table:
    """Return links as a table."""
    found = list(rows)
    head = ["namespace", "primary", "pair", "kind", "state", "since"]
    head += ["vni", "nodes", "addresses", "why"] if wide else ["nodes", "why"]
    return Table(
        head,
        [_link_cells(row, now, wide=wide) for row in found],
        [_link_object(row) for row in found],
        "LinkList",
        "no links found",
    )


def pods(cluster: Cluster, now: float, *, wide: bool) -> Table:
    """Return pods as a table."""
    head = ["namespace", "pod", "state", "links", "node", "age"]
    head += ["name to others", "why"] if wide else ["why"]
    cells, objects = [], []
    for pod in cluster.pods:
        state, why = pod_state(cluster, pod)
        told = () if pod.told is None else pod.told.links
        up = sum(link.state == UP for link in told)
        known = str(up) if pod.told is None else f"{up}/{len(told) + pod.told.omitted}"
        age = ago(pod.started, now)
        row = [pod.namespace, pod.name, state, known if pod.told else "-", pod.node or "-", age]
        cells.append([*row, pod.known_as, why] if wide else [*row, _cut(why)])
        objects.append(
            {
                "namespace": pod.namespace,
                "name": pod.name,
                "knownAs": pod.known_as,
                "node": pod.node,
                "phase": pod.phase,
                "state": state,
                "why": why or None,
                "links": dict(Counter(link.state for link in told)),
                "since": iso(pod.started),
            }
        )
    return Table(head, cells, objects, "PodList", "no pods of Ratchet's found")


def pod_state(cluster: Cluster, pod: Pod) -> tuple[str, str]:
    """Return how a pod is, and why: the worst of its own and its links'."""
    if pod.is_over:
        return "over", pod.phase
    silence = cluster.silence(pod.node)
    if pod.told is None:
        if pod.label_error is not None:
            return ERROR, pod.label_error
        if pod.is_hosts:
            return ERROR, "it uses the host's network"
        return UNKNOWN, silence or pod.told_error or "; ".join(pod.containers) or pod.phase
    if silence is not None:
        return UNKNOWN, silence
    if pod.told.superseded:
        return "superseded", f"another pod has the name {pod.told.name}"
    wrong = [link for link in pod.told.links if link.state == ERROR]
    if pod.told.error is not None or wrong:
        return ERROR, pod.told.error or f"{wrong[0].ifname}: {wrong[0].error}"
    waits = [link for link in pod.told.links if link.state == WAITING]
    if waits:
        names = ", ".join(f"{link.ifname} for {_far(link.peer)}" for link in waits[:3])
        more = f" and {len(waits) - 3} more" if len(waits) > 3 else ""
        return WAITING, f"{names}{more}"
    if pod.label_error is not None:
        return UP, f"the links do not follow the labels: {pod.label_error}"
    return UP, ""


def explanation(one: Explanation, now: float) -> str:
    """Return an explanation as text."""
    pod = one.pod
    known = "" if pod.known_as == pod.name else f", known to other pods as {pod.known_as}"
    where = f"on node {pod.node}" if pod.node else "on no node yet"
    lines = [f"Pod {pod.full_name}{known}, {where}, {pod.phase} for {ago(pod.started, now)}", ""]
    for title, rows, is_own in (
        ("Its labels declare:", one.declared, True),
        ("Other pods declare on it:", one.incoming, False),
    ):
        if rows:
            lines += [title, *(f"  {_link_line(row, now, is_own=is_own)}" for row in rows), ""]
    if not one.findings:
        lines.append("Everything is there.")
    for finding in one.findings:
        lines.append(f"{finding.about}: {finding.what}.")
        lines.append(f"  -> {finding.todo}." if finding.todo else "  -> nothing to do.")
    return "\n".join(lines)


def explanation_object(one: Explanation) -> dict[str, Any]:
    """Return an explanation for programs."""
    pod = one.pod
    return {
        "kind": "Explanation",
        "namespace": pod.namespace,
        "name": pod.name,
        "knownAs": pod.known_as,
        "node": pod.node,
        "phase": pod.phase,
        "links": [_link_object(row) for row in (*one.declared, *one.incoming)],
        "findings": [
            {"about": each.about, "what": each.what, "todo": each.todo} for each in one.findings
        ],
    }


def nodes(found: Sequence[NodeState], now: float, *, wide: bool) -> Table:
    """Return nodes as a table."""
    head = ["node", "agent", "version", "address", "interface", "mtu", "etcd", "watch", "frames"]
    cells = [_node_cells(node, now) for node in found]
    if wide:
        head += ["port", "guard", "image", "pod"]
        cells = [[*row, *_more_cells(node)] for row, node in zip(cells, found, strict=True)]
    return Table(head, cells, [_node_object(node) for node in found], "NodeList", "no nodes")


def problems(found: Sequence[Problem]) -> list[str]:
    """Return what is wrong as text, after an empty line."""
    if not found:
        return ["", "Everything is well."]
    lines = [""]
    for one in found:
        lines += [f"{one.where}: {one.what}.", f"  -> {one.todo}."]
    return lines


def check_object(found: Sequence[NodeState], wrong: Sequence[Problem]) -> dict[str, Any]:
    """Return a check for programs."""
    return {
        "kind": "Check",
        "nodes": [_node_object(node) for node in found],
        "problems": [
            {"where": one.where, "what": one.what, "todo": one.todo, "grave": one.is_grave}
            for one in wrong
        ],
    }


# Parts ------------------------------------------------------------------------------------------


def _node_cells(node: NodeState, now: float) -> list[str]:
    agent = node.agent
    frames = "-" if node.frames is None else f"{node.frames}/{node.others}"
    if agent is None:
        return [node.name, "none", *["-"] * 6, frames]
    ready = "ready" if agent.is_ready else "not ready"
    told = agent.told
    if told is None:
        return [node.name, ready, *["-"] * 6, frames]
    mtu = "-" if told.mtu_bytes is None else str(told.mtu_bytes)
    etcd = f"{told.etcd} {ago(told.etcd_since, now)}" if told.etcd == "away" else told.etcd
    watch = "live" if told.watching else "away"
    where = [told.address or "-", told.interface or "-"]
    return [node.name, ready, told.version, *where, mtu, etcd, watch, frames]


def _more_cells(node: NodeState) -> list[str]:
    agent = node.agent
    if agent is None:
        return ["-"] * 4
    told = agent.told
    about = ["-", "-"] if told is None else [str(told.vxlan_port), told.guard or "-"]
    return [*about, agent.image, agent.pod]


def _node_object(node: NodeState) -> dict[str, Any]:
    agent = node.agent
    told = None if agent is None else agent.told
    return {
        "name": node.name,
        "agent": None
        if agent is None
        else {"pod": agent.pod, "ready": agent.is_ready, "image": agent.image},
        "version": None if told is None else told.version,
        "address": None if told is None else told.address,
        "interface": None if told is None else told.interface,
        "mtu": None if told is None else told.mtu_bytes,
        "vxlanPort": None if told is None else told.vxlan_port,
        "guard": None if told is None else told.guard,
        "etcd": None
        if told is None
        else {"state": told.etcd, "since": iso(told.etcd_since), "error": told.etcd_error},
        "watching": None if told is None else told.watching,
        "troubles": [] if told is None else list(told.troubles),
        "framesFrom": node.frames,
        "others": node.others,
    }


def _link_cells(row: Row, now: float, *, wide: bool) -> list[str]:
    nodes = f"{_node(row.primary)} {_node(row.pair)}" if row.pair else _node(row.primary)
    why = "; ".join(row.why)
    state = f"{row.state} (fault)" if row.fault and row.state == UP else row.state
    cells = [
        row.namespace,
        _named(row.primary),
        _named(row.pair) if row.device is None else f"({row.device})",
        row.kind or "-",
        state,
        ago(row.since, now),
    ]
    if not wide:
        return [*cells, nodes, _cut(why)]
    addresses = " ".join(end.address or "-" for end in (row.primary, row.pair) if end is not None)
    return [*cells, "-" if row.vni is None else str(row.vni), nodes, addresses, why]


def _link_object(row: Row) -> dict[str, Any]:
    return {
        "namespace": row.namespace,
        "primary": _end_object(row.primary),
        "pair": _end_object(row.pair),
        "kind": row.kind,
        "device": row.device,
        "vni": row.vni,
        "state": row.state,
        "fault": row.fault,
        "since": iso(row.since),
        "why": list(row.why),
    }


def _end_object(end: End | None) -> dict[str, Any] | None:
    if end is None:
        return None
    return {
        "knownAs": end.pod,
        "pod": end.kubernetes_name,
        "interface": end.ifname or None,
        "address": end.address,
        "node": end.node,
        "state": end.state,
    }


def _link_line(row: Row, now: float, *, is_own: bool) -> str:
    here, there = (row.primary, row.pair) if is_own else (row.pair, row.primary)
    by = " ".join(str(part) for part in (row.kind, row.vni) if part is not None)
    far = f"to {_named(there)}" if there is not None else f"({row.device or 'nobody yet'})"
    since = "" if row.since is None else f" for {ago(row.since, now)}"
    state = f"{row.state}{' (fault)' if row.fault else ''}{since}"
    address = "" if here is None or here.address is None else f" {here.address}"
    ifname = "" if here is None else here.ifname
    return f"{ifname}{address} {far}: {state}{f' ({by})' if by else ''}"


def _named(end: End | None) -> str:
    return "-" if end is None else f"{end.pod}:{end.ifname or '?'}"


def _node(end: End | None) -> str:
    return "-" if end is None or end.node is None else end.node


def _far(peer: str) -> str:
    return peer.rpartition(":")[2] or "anybody"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_WHY else f"{text[: _LONGEST_WHY - 1]}…"
