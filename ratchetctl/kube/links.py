"""Every link of a cluster, joined from what the nodes of its two pods say. Pure.

A link is known by its primary and the interface there. Each of the two nodes sees one end; a link
is up when both say so. What one of them does not say is not taken for anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ratchet.links import UPLINK_KINDS
from ratchet.status import ERROR, UP, WAITING, LinkStatus
from ratchetctl.kube.cluster import Cluster, Pod

UNKNOWN = "unknown"
_ORDER = (ERROR, UNKNOWN, WAITING, UP)  # the worst first


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link. `pod` is the name to other pods."""

    pod: str
    ifname: str
    kubernetes_name: str | None = None
    """None where there is no such pod."""
    node: str | None = None
    address: str | None = None
    state: str | None = None
    """What its node says; None when that is not known."""


@dataclass(frozen=True, slots=True)
class Row:
    """One link. `pair` is None for an uplink, and `primary` where no pod declares the link yet."""

    namespace: str
    primary: End | None
    pair: End | None
    state: str
    kind: str | None = None
    device: str | None = None
    """The node's interface, of an uplink."""
    vni: int | None = None
    since: float | None = None
    why: tuple[str, ...] = ()
    fault: bool = False


def rows(cluster: Cluster) -> list[Row]:
    """Return all links, sorted by namespace, primary and interface."""
    found: dict[tuple[str, str, str], _Halves] = {}
    alone: list[Row] = []
    for same in cluster.by_key.values():
        for pod in same:
            _take(cluster, pod, found, alone)
    joined = [_row(cluster, key, halves) for key, halves in found.items()]
    return sorted([*joined, *alone], key=_sorting)


def of_pod(every: Iterable[Row], pod: Pod) -> list[Row]:
    """Return the links that a pod has an end of."""
    return [
        row
        for row in every
        if row.namespace == pod.namespace
        and any(end is not None and end.pod == pod.known_as for end in (row.primary, row.pair))
    ]


@dataclass(slots=True)
class _Halves:
    """A link as its two pods' nodes see it, and as the primary's labels have it."""

    primary: tuple[Pod, LinkStatus | None] | None = None
    pair: tuple[Pod, LinkStatus] | None = None
    pair_name: str = ""
    ifname: str = ""
    pair_ifname: str = ""


def _take(
    cluster: Cluster, pod: Pod, found: dict[tuple[str, str, str], _Halves], alone: list[Row]
) -> None:
    """Take up what is known of one pod's links."""
    told = pod.told
    for link in () if told is None else told.links:
        if link.kind in UPLINK_KINDS or link.peer == "the node":
            alone.append(_uplink(cluster, pod, link))
        elif not link.peer:
            alone.append(_expected(cluster, pod, link))
        elif link.primary:
            halves = found.setdefault((pod.namespace, pod.known_as, link.ifname), _Halves())
            halves.primary = pod, link
            halves.pair_name, halves.ifname = _plain_name(link.peer), link.ifname
            halves.pair_ifname = link.peer_ifname or halves.pair_ifname
        else:
            primary = _plain_name(link.peer)
            key = pod.namespace, primary, link.peer_ifname or f"({link.ifname})"
            halves = found.setdefault(key, _Halves())
            halves.pair = pod, link
            halves.pair_name, halves.pair_ifname = pod.known_as, link.ifname
            halves.ifname = link.peer_ifname or halves.ifname
    # What is declared and of which no node has said anything.
    is_told = told is not None and not told.omitted
    if pod.wiring is None or is_told or pod.is_hosts:
        return
    known = set() if told is None else {link.ifname for link in told.links}
    for declared in pod.wiring.links:
        if declared.ifname in known:
            continue
        halves = found.setdefault((pod.namespace, pod.known_as, declared.ifname), _Halves())
        if halves.primary is None:
            halves.primary = pod, None
        halves.pair_name, halves.ifname = declared.pair, declared.ifname
        halves.pair_ifname = declared.pair_ifname
    for uplink in pod.wiring.uplinks:
        if uplink.ifname not in known:
            end = End(pod.known_as, uplink.ifname, pod.name, pod.node)
            why = (_untold(cluster, pod),)
            alone.append(
                Row(pod.namespace, end, None, UNKNOWN, uplink.kind, uplink.device, why=why)
            )


def _row(cluster: Cluster, key: tuple[str, str, str], halves: _Halves) -> Row:
    namespace, primary_name, _ = key
    own = halves.primary
    far = halves.pair
    primary_pod = own[0] if own is not None else cluster.find(namespace, primary_name)
    pair_pod = far[0] if far is not None else cluster.find(namespace, halves.pair_name)
    seen = [half for half in (own, far) if half is not None]
    links = [link for _, link in seen if link is not None]
    why = list(dict.fromkeys(_reasons(cluster, seen)))
    states = [_state(cluster, pod, link) for pod, link in seen]
    state = next((one for one in _ORDER if one in states), UNKNOWN)
    if state == UP and len(links) < 2:
        # The other node has not said so yet, or there is none that could.
        missing = pair_pod if far is None else primary_pod
        name = halves.pair_name if far is None else primary_name
        state, why = UNKNOWN, [*why, _missing(cluster, namespace, name, missing)]
    elif state == WAITING and len(links) < 2:
        missing = pair_pod if far is None else primary_pod
        name = halves.pair_name if far is None else primary_name
        if missing is None or missing.told is None:
            why = [*why, _missing(cluster, namespace, name, missing)]
    elif own is not None and own[1] is None:
        why = [*why, _untold(cluster, own[0])]
    best = next((link for link in links if link.kind is not None), links[0] if links else None)
    since = [link.since for link in links if link.since is not None and link.state == state]
    return Row(
        namespace,
        _end(cluster, primary_name, halves.ifname, primary_pod, None if own is None else own[1]),
        _end(
            cluster, halves.pair_name, halves.pair_ifname, pair_pod, None if far is None else far[1]
        ),
        state,
        kind=None if best is None else best.kind,
        vni=next((link.vni for link in links if link.vni is not None), None),
        since=max(since, default=None),
        why=tuple(dict.fromkeys(why)),
        fault=any(link.fault is not None for link in links),
    )


def _uplink(cluster: Cluster, pod: Pod, link: LinkStatus) -> Row:
    state = _state(cluster, pod, link)
    return Row(
        pod.namespace,
        _end(cluster, pod.known_as, link.ifname, pod, link),
        None,
        state,
        link.kind,
        link.peer_ifname,
        since=link.since if state == link.state else None,
        why=tuple(_reasons(cluster, [(pod, link)])),
        fault=link.fault is not None,
    )


def _expected(cluster: Cluster, pod: Pod, link: LinkStatus) -> Row:
    """Return a link that a pod waits for and that nobody declares."""
    end = _end(cluster, pod.known_as, link.ifname, pod, link)
    why = f"no pod declares a link to {link.ifname} of {pod.known_as}"
    return Row(pod.namespace, None, end, link.state, since=link.since, why=(why,))


def _end(cluster: Cluster, name: str, ifname: str, pod: Pod | None, link: LinkStatus | None) -> End:
    return End(
        name,
        ifname,
        None if pod is None else pod.name,
        None if pod is None else pod.node,
        None if link is None else link.address,
        None if link is None or pod is None else _state(cluster, pod, link),
    )


def _state(cluster: Cluster, pod: Pod, link: LinkStatus | None) -> str:
    if link is None or cluster.silence(pod.node) is not None:
        return UNKNOWN
    return link.state


def _reasons(cluster: Cluster, seen: Iterable[tuple[Pod, LinkStatus | None]]) -> Iterator[str]:
    for pod, link in seen:
        silence = cluster.silence(pod.node)
        if silence is not None:
            yield silence
        if link is None:
            continue
        if link.error is not None:
            yield link.error
        if link.fault is not None:
            yield link.fault
        if link.by_pod is not None:
            how = "set down" if link.by_pod == "down" else link.by_pod
            yield f"{pod.known_as} has {how} its end"
        if link.silent_since is not None:
            yield f"node {link.peer_node} has not been heard of"


def _missing(cluster: Cluster, namespace: str, name: str, pod: Pod | None) -> str:
    """Say why nothing is told of a pod that has the other end."""
    if pod is not None:
        return _untold(cluster, pod)
    if cluster.namespace not in (None, namespace):
        return f"namespace {namespace} was not looked at"
    return f"there is no pod {name} in namespace {namespace}"


def _untold(cluster: Cluster, pod: Pod) -> str:
    """Say why nothing is told of a pod."""
    silence = cluster.silence(pod.node)
    if pod.told_error is not None:
        return f"what is told of {pod.name} is not understood: {pod.told_error}"
    if pod.label_error is not None:
        return f"a label of {pod.name} is wrong: {pod.label_error}"
    if pod.node is None:
        return f"{pod.name} has no node yet"
    if silence is not None:
        return silence
    if pod.phase == "Pending":
        return f"{pod.name} is being started"
    return f"nothing is told of {pod.name}"


def _plain_name(peer: str) -> str:
    """Return a pod's name without its namespace, which both pods of a link share."""
    return peer.rpartition(":")[2]


def _sorting(row: Row) -> tuple[str, str, str]:
    end = row.primary or row.pair
    assert end is not None, "a link has an end"  # noqa: S101 - by construction
    return row.namespace, end.pod, end.ifname
