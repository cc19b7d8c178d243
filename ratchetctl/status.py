"""`ratchetctl status`: this node's labelled pods and their links, for a person or a script.

Everything that is shown is text by strangers (labels, etcd, the kernel): it is stripped of what a
terminal would obey, and nothing in it is taken for markup. How well the node is, is also the exit
status, so that a script need not read.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ratchet.status import ERROR, UP, WAITING, AgentStatus, FrontStatus, LinkStatus
from ratchetctl import node, tables, wording
from ratchetctl.errors import StatusError
from ratchetctl.node import SUPERSEDED, UNKNOWN, Node, Pod

WELL, WAITS, WRONG = 0, 3, 4  # exit statuses; 1 is the command's own failure, 2 wrong arguments
CONTAINER_CHARS = 12
SHOWN_NAMES = 5
GAP_CHARS = 2  # between columns
IPV4_CHARS = len("255.255.255.255/32")
LEAST_CHARS = 8


@click.command()
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="the node's 10-ratchet.conf or .conflist",
)
@click.option("--state-dir", metavar="DIR", help="the network's state directory, instead of FILE")
@click.option(
    "-o", "--output", type=click.Choice(("table", "json")), default="table", show_default=True
)
@click.argument("pod", required=False)
def status(config_file: str | None, state_dir: str | None, output: str, pod: str | None) -> None:
    """Show this node's labelled pods and their links.

    POD is a name, or namespace/name: only that pod is shown. Without an option, ratchetctl looks
    for the network configuration in /etc/cni/net.d.

    The exit status is 0 if everything is up, 3 if something waits, 4 if something is wrong (an
    error, a fault, a superseded pod, etcd away, labels that cannot be read, records but no child),
    and 1 if the command failed.
    """
    if config_file is not None and state_dir is not None:
        raise click.UsageError("--config and --state-dir say the same: give one")
    found = node.read(node.state_dir_of(config_file, state_dir))
    if pod is not None:
        found = replace(found, pods=tuple(named(found, pod)))
    if found.child_error is not None:
        shown = "what follows is what the records say" if found.pods else "no pod is recorded"
        if found.unfinished:
            shown += f", and {found.unfinished} that are gone have not been cleaned up after"
        click.echo(f"ratchetctl: {wording.plain(found.child_error)}: {shown}", err=True)
    if output == "json":
        click.echo(json.dumps(as_json(found), indent=2))
    else:
        show(found, tables.console())
    click.get_current_context().exit(exit_status(found))


def exit_status(found: Node) -> int:
    """Return how well the node is: WELL, WAITS or WRONG."""
    states = {pod.state for pod in found.pods}
    if found.labels_error is not None:
        return WRONG
    if found.child != "running":
        return WRONG if found.pods or found.unfinished else WELL
    has_fault = any(link.fault is not None for pod in found.pods for link in pod.links)
    has_agents_trouble = found.agent is not None and bool(found.agent.troubles)
    is_ill = found.etcd == "away" or found.trouble is not None or has_agents_trouble
    if is_ill or states & {ERROR, SUPERSEDED} or has_fault:
        return WRONG
    is_silent = any(link.silent_since is not None for pod in found.pods for link in pod.links)
    return WAITS if WAITING in states or is_silent or found.etcd != "reachable" else WELL


def as_json(found: Node) -> dict[str, Any]:
    """Return all that is known; docs/operations.md describes the keys."""
    return {
        "state_dir": found.state_dir,
        "child": {"state": found.child, "error": found.child_error},
        "node": found.address,
        "parent_interface": found.interface,
        "trouble": found.trouble,
        "etcd": {
            "state": found.etcd,
            "since": wording.iso(found.etcd_since),
            "error": found.etcd_error,
        },
        "front": None if found.front is None else found.front.to_json(),
        "guard": found.guard,
        "labels": {"error": found.labels_error},
        "agent": None if found.agent is None else found.agent.to_json(),
        "pods": [
            {
                **asdict(pod),
                "attached_at": wording.iso(pod.attached_at),
                "last_error_at": wording.iso(pod.last_error_at),
                "links": [
                    {
                        **link.to_json(),
                        "since": wording.iso(link.since),
                        "silent_since": wording.iso(link.silent_since),
                        "last_error_at": wording.iso(link.last_error_at),
                    }
                    for link in pod.links
                ],
            }
            for pod in found.pods
        ],
    }


def show(found: Node, console: Console) -> None:
    """Print it as tables."""
    now = time.time()
    if found.address is not None:
        interface = f" ({found.interface})" if found.interface else ""
        console.print(
            wording.plain(f"node {found.address}{interface}, {_etcd(found, now)}"), soft_wrap=True
        )
        if found.front is not None:
            console.print(wording.plain(_front(found.front)), soft_wrap=True)
        if found.guard is not None:
            console.print(wording.plain(f"guard {found.guard}"), soft_wrap=True)
        if found.agent is not None:
            console.print(wording.plain(_agent(found.agent)), soft_wrap=True)
        console.print()
    if found.trouble is not None:
        console.print(wording.plain(f"this node's address: {found.trouble}"), soft_wrap=True)
    if found.labels_error is not None:
        console.print(wording.plain(f"pods' labels: {found.labels_error}"), soft_wrap=True)
    troubles = () if found.agent is None else found.agent.troubles
    for trouble in troubles:
        console.print(wording.plain(f"the API server: {trouble}"), soft_wrap=True)
    if found.trouble is not None or found.labels_error is not None or troubles:
        console.print()
    if not found.pods:
        console.print("no labelled pods")
        return
    pods = tables.table("pod", "container", "since", "state", "links")
    links = tables.table("pod", "link", "far end", "node", "by", "state")
    for pod in found.pods:
        pods.add_row(
            wording.plain(pod.full_name),
            wording.plain(pod.container_id[:CONTAINER_CHARS]),
            _for(pod.attached_at, now),
            pod.state,
            _counted(pod.links),
        )
        for link in pod.links:
            links.add_row(
                wording.plain(pod.full_name),
                wording.plain(" ".join(filter(None, (link.ifname, link.address)))),
                wording.plain(" ".join(filter(None, (link.peer, link.peer_ifname)))),
                wording.plain(link.peer_node or "-"),
                wording.plain(" ".join(str(one) for one in _by(link)) or "-"),
                _since(link, now),
            )
    console.print(pods)
    if links.row_count:
        _fit(links, console.width)
        console.print()
        console.print(links)
    errors = [line for pod in found.pods for line in _errors(pod, now)]
    if errors:
        console.print()
    for line in errors:
        console.print(wording.plain(line), soft_wrap=True)


def named(found: Node, wanted: str) -> list[Pod]:
    """Return the pods of a name. *Raises* StatusError when there is none."""
    # The logs write namespace:name.
    namespace, _, name = wanted.replace(":", "/").rpartition("/")
    named = [
        pod
        for pod in found.pods
        if name in (pod.name, pod.kubernetes_name) and namespace in ("", pod.namespace)
    ]
    if named:
        return named
    names = [pod.full_name for pod in found.pods]
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    there = f"there are {', '.join(names[:SHOWN_NAMES])}{more}" if names else "there are none"
    raise StatusError(f"no labelled pod {wanted!r} on this node: {wording.plain(there)}")


def _fit(links: Table, width: int) -> None:
    """Have names folded before addresses are, which rich would fold wherever it must."""
    widths = [max(len(str(cell)) for cell in column.cells) for column in links.columns]
    if sum(widths) + GAP_CHARS * (len(widths) - 1) <= width:
        return
    pod, link, far_end = links.columns[:3]
    words = [len(word) for cell in link.cells for word in str(cell).split()]
    link.max_width = min(max(words), IPV4_CHARS)
    rest = width - GAP_CHARS * (len(widths) - 1) - link.max_width - sum(widths[3:])
    pod.max_width = far_end.max_width = max(rest // 2, LEAST_CHARS)


def _etcd(found: Node, now: float) -> str:
    if found.etcd == "away":
        return f"etcd is away for {_for(found.etcd_since, now)}: {found.etcd_error}"
    if found.etcd == "reachable":
        return f"etcd reachable for {_for(found.etcd_since, now)}"
    return "etcd has not been asked yet"


_BY_POD = {"down": "down in the pod", "moved": "moved by the pod"}


def _state(link: LinkStatus) -> str:
    shown = link.state if link.fault is None else f"{link.state} (fault)"
    return shown if link.by_pod is None else f"{shown}, {_BY_POD.get(link.by_pod, link.by_pod)}"


def _front(front: FrontStatus) -> str:
    """Tell how calls have reached the child since it was started."""
    served = front.calls.get("answered", 0) + front.calls.get("delegated", 0)
    reasons = ", ".join(f"{count} {why}" for why, count in front.fallbacks.items() if count)
    line = f"calls through the front: {served}"
    return f"{line}; through the parent, as far as is known: {reasons}" if reasons else line


def _agent(agent: AgentStatus) -> str:
    """Tell which pods the agent knows."""
    known = "no pod is known yet" if agent.known is None else f"{agent.known} pods are known"
    how = "watched" if agent.watching else "not watched now"
    return f"agent of node {agent.node}: pods are {how}, {known}"


def _by(link: LinkStatus) -> Iterable[object]:
    """Tell how a link is made: veth, or vxlan with its VNI."""
    if link.kind is not None:
        yield link.kind
        if link.kind == "vxlan" and link.vni is not None:
            yield link.vni


def _counted(links: Iterable[LinkStatus]) -> str:
    counts = Counter(link.state for link in links)
    return ", ".join(f"{counts[one]} {one}" for one in (UP, WAITING, ERROR, UNKNOWN) if counts[one])


def _since(link: LinkStatus, now: float) -> str:
    """Return a link's state, since when, and since when its far node is silent."""
    shown = f"{_state(link)} {_for(link.since, now)}".strip()
    if link.silent_since is None:
        return shown
    return f"{shown}, silent {_for(link.silent_since, now)}"


def _errors(pod: Pod, now: float) -> Iterable[str]:
    if pod.state == SUPERSEDED:
        yield f"{pod.full_name}: superseded: another container has the name"
    yield from _error(pod.full_name, pod.error, pod.last_error, pod.last_error_at, now)
    for link in pod.links:
        where = f"{pod.full_name} {link.ifname}"
        if link.silent_since is not None:
            yield (
                f"{where}: the far node {link.peer_node} has not been heard of for"
                f" {_for(link.silent_since, now)}: the link may lead nowhere"
            )
        if link.fault is not None:
            yield f"{where}: fault: {link.fault}"
        yield from _error(where, link.error, link.last_error, link.last_error_at, now)


def _error(
    where: str, error: str | None, last: str | None, at: float | None, now: float
) -> Iterable[str]:
    if error is not None:
        yield f"{where}: {error}"
    elif last is not None and at is not None:
        yield f"{where}: {_for(at, now)} ago, over since: {last}"


def _for(then: float | None, now: float) -> str:
    return "" if then is None else "{} {}".format(*wording.age(then, now))
