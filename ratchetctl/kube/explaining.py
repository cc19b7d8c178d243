"""Why a pod's links are as they are, and who has to do what. Pure.

An explanation begins with what keeps the whole pod from its links, in the order in which a pod
comes to them: labels, node, agent, start. Only then are its links looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ratchet.links import Link
from ratchet.status import ERROR, UP, WAITING, LinkStatus
from ratchetctl.kube import links
from ratchetctl.kube.cluster import Cluster, Pod
from ratchetctl.kube.links import Row


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong or missing, and what somebody has to do about it; None: nobody, it comes."""

    about: str
    what: str
    todo: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of one pod. `declared` and `incoming` are what should be there."""

    pod: Pod
    declared: tuple[Row, ...]
    incoming: tuple[Row, ...]
    findings: tuple[Finding, ...]


def not_ratchets(name: str, value: str | None) -> Finding:
    """Return what there is to say of a pod that does not ask for Ratchet."""
    if value is None:
        what = 'it does not have the label ratchet: "true", so the usual plugin has attached it'
    else:
        what = f'its label ratchet is {value!r}; only "true" makes a pod Ratchet\'s'
    todo = (
        'give it the label ratchet: "true" where it is made (the template of its Deployment or'
        " StatefulSet), and have it made anew: a pod keeps the plugin that has attached it"
    )
    return Finding(name, what, todo)


def explain(cluster: Cluster, pod: Pod, others: Mapping[str, str]) -> Explanation:
    """Explain a pod. `others`: why pods that it wants, by their names, are none of Ratchet's."""
    mine = links.of_pod(links.rows(cluster), pod)
    declared = tuple(r for r in mine if r.primary is not None and r.primary.pod == pod.known_as)
    incoming = tuple(row for row in mine if row not in declared)
    whole = list(_of_pod(cluster, pod))
    each = [] if _is_hopeless(pod) else list(_of_links(cluster, pod, mine, others))
    return Explanation(pod, declared, incoming, (*whole, *each))


def _is_hopeless(pod: Pod) -> bool:
    """Say whether links are out of the question, for a reason that was told."""
    is_taken = pod.told is not None and pod.told.superseded
    return pod.is_hosts or pod.is_over or is_taken or (pod.told is None and pod.wiring is None)


# The pod ----------------------------------------------------------------------------------------


def _of_pod(cluster: Cluster, pod: Pod) -> Iterator[Finding]:
    name = pod.name
    if pod.is_over:
        yield Finding(name, f"it has ended ({pod.phase}), and its links have gone with it", None)
        return
    if pod.is_hosts:
        what = "it uses the host's network (hostNetwork), and no plugin attaches such a pod"
        yield Finding(name, what, "leave hostNetwork out")
        return
    if pod.label_error is not None:
        stays = "; its links are those of the labels before" if pod.told is not None else ""
        todo = "correct the label"
        if pod.told is None:
            todo += (
                "; a pod that is not running yet has to be made anew, with labels that are right"
            )
        yield Finding(name, f"a label is wrong: {pod.label_error}{stays}", todo)
    if pod.node is None:
        todo = f"see `kubectl describe pod {name}` for what the scheduler says"
        yield Finding(name, "no node has been chosen for it yet", todo)
        return
    yield from _of_node(cluster, pod)
    if pod.told is None and pod.label_error is None and cluster.silence(pod.node) is None:
        yield _not_told(pod)
    if pod.told is not None and pod.told.superseded:
        yield _superseded(cluster, pod)
    elif pod.told is not None and pod.told.error is not None:
        todo = "the agent goes on trying; the administrator of the node finds more in its log"
        yield Finding(name, f"its links cannot be worked on: {pod.told.error}", todo)


def _of_node(cluster: Cluster, pod: Pod) -> Iterator[Finding]:
    agents = cluster.agents
    if agents is None or pod.node is None:
        return
    agent = agents.get(pod.node)
    node = f"node {pod.node}"
    if agent is None:
        todo = (
            "the administrator: install Ratchet there, or see why its DaemonSet has no pod on that"
            " node (`kubectl -n ratchet get pods -o wide`)"
        )
        yield Finding(node, "it has no agent, so nothing is known of the links on it", todo)
        return
    if not agent.is_ready:
        said = f": {agent.why_not_ready}" if agent.why_not_ready else ""
        todo = f"the administrator: see `kubectl -n ratchet describe pod {agent.pod}` and its log"
        yield Finding(node, f"its agent is not ready{said}", todo)
    if agent.told is not None and agent.told.etcd == "away":
        what = f"its etcd does not answer: {agent.told.etcd_error}. Links that exist go on working"
        yield Finding(node, what, "the administrator: see `kubectl ratchet check`")
    for trouble in () if agent.told is None else agent.told.troubles:
        yield Finding(node, trouble, "the administrator: see `kubectl ratchet check`")


def _not_told(pod: Pod) -> Finding:
    see = f"see `kubectl describe pod {pod.name} -n {pod.namespace}`"
    if pod.phase == "Pending":
        said = f": {'; '.join(pod.containers)}" if pod.containers else ""
        return Finding(pod.name, f"it is being started{said}", f"wait, or {see}")
    what = "it runs, and its node's agent has not told of it: another plugin has attached it, or"
    what += " the agent may not write (`--report`, the right to patch pods/status)"
    return Finding(pod.name, what, f"make it anew if it got its label after its start, or {see}")


def _superseded(cluster: Cluster, pod: Pod) -> Finding:
    holder = cluster.find(pod.namespace, pod.known_as)
    by = "another pod" if holder is None or holder is pod else f"pod {holder.name}"
    what = f"{by} has the name {pod.known_as}, and with it the links"
    todo = "delete one of the two, or give one of them another ratchet.pod_name"
    if pod.known_as != pod.name and pod.phase == "Running":
        todo += "; a Deployment's new pod gets the name by itself when its containers are ready"
    return Finding(pod.name, what, todo)


# Its links --------------------------------------------------------------------------------------


def _of_links(
    cluster: Cluster, pod: Pod, rows: list[Row], others: Mapping[str, str]
) -> Iterator[Finding]:
    if not rows:
        what = "its labels declare no link, and no other pod declares one with it"
        todo = (
            "declare one in its labels (ratchet.primary, ratchet.local_ifname, ratchet.pair_name,"
            f" ratchet.pair_ifname), or in those of the pod that it is to be linked with, where the"
            f" name of this one is {pod.known_as}"
        )
        yield Finding(pod.name, what, todo)
    by_ifname = {} if pod.told is None else {link.ifname: link for link in pod.told.links}
    declared = {} if pod.wiring is None else {link.ifname: link for link in pod.wiring.links}
    for row in rows:
        here = row.primary
        if row.pair is not None and (here is None or here.pod != pod.known_as):
            here = row.pair
        if here is None or (row.state == UP and not row.why):
            continue
        link = by_ifname.get(here.ifname)
        yield _of_link(cluster, pod, row, link, declared.get(here.ifname), others)


def _of_link(
    cluster: Cluster,
    pod: Pod,
    row: Row,
    link: LinkStatus | None,
    declared: Link | None,
    others: Mapping[str, str],
) -> Finding:
    is_own = row.primary is not None and row.primary.pod == pod.known_as
    here, there = (row.primary, row.pair) if is_own else (row.pair, row.primary)
    assert here is not None, "the pod has an end of its links"  # noqa: S101 - by construction
    if there is None:
        about = here.ifname
        if row.kind is None and row.state == WAITING:
            todo = (
                f"whoever owns the pod at the other end: declare the link there, with ratchet.pair_"
                f"name {pod.known_as} and ratchet.pair_ifname {here.ifname}"
            )
            return Finding(about, "no pod declares this link yet", todo)
        return Finding(about, "; ".join(row.why) or row.state, _todo_of_error(row, link))
    about = f"{here.ifname} to {there.pod}"
    if row.state == ERROR:
        return Finding(about, "; ".join(row.why), _todo_of_error(row, link))
    if row.state == UP:
        allow = "change the label, or what the node allows" if row.fault else None
        return Finding(about, f"it is up, but {'; '.join(row.why)}", allow)
    far = cluster.find(pod.namespace, there.pod)
    if far is None:
        return _no_far_pod(cluster, pod, about, there.pod, others)
    if far.label_error is not None and far.told is None:
        what = f"a label of pod {far.name} is wrong: {far.label_error}"
        return Finding(about, what, f"whoever owns {far.name}: correct it and make the pod anew")
    if far.is_hosts:
        what = f"pod {far.name} uses the host's network, and no plugin attaches such a pod"
        return Finding(about, what, f"whoever owns {far.name}: leave hostNetwork out")
    silence = cluster.silence(far.node)
    if silence is not None:
        todo = "the administrator: see `kubectl ratchet check`"
        return Finding(about, f"nothing is known of the far end: {silence}", todo)
    if far.told is None:
        todo = f"see `kubectl ratchet explain {far.name} -n {far.namespace}`"
        return Finding(about, f"the far pod {far.name} is not attached yet", todo)
    if (
        declared is not None
        and link is None
        and not any(one.ifname == there.ifname for one in far.told.links)
    ):
        return Finding(about, "the nodes have not agreed on it yet", None)
    said = "; ".join(row.why) or "both pods are there, and the nodes have not agreed on it yet"
    todo = f"wait a moment; if it stays so, see `kubectl ratchet explain {far.name}` and `check`"
    return Finding(about, said, todo)


def _no_far_pod(
    cluster: Cluster, pod: Pod, about: str, name: str, others: Mapping[str, str]
) -> Finding:
    if name in others:
        what = f"pod {name} is there, but {others[name]}"
        return Finding(about, what, f"whoever owns {name}: see `kubectl ratchet explain {name}`")
    called = [one for one in cluster.pods if one.name == name and one.namespace == pod.namespace]
    alive = [one for one in called if not one.is_over]
    if alive:
        what = f"pod {name} is known to others as {alive[0].known_as} (ratchet.pod_name)"
        todo = f"write {alive[0].known_as} for ratchet.pair_name, or take its ratchet.pod_name away"
        return Finding(about, what, todo)
    if called:
        what = f"pod {name} has ended ({called[0].phase})"
        return Finding(about, what, f"whoever owns {name}: start it again")
    elsewhere = sorted({one.namespace for one in cluster.pods if one.known_as == name})
    if elsewhere:
        what = f"there is no pod {name} in namespace {pod.namespace}, only in {elsewhere[0]}"
        return Finding(about, what, "put both pods into one namespace: links do not cross them")
    todo = (
        f'start a pod with the label ratchet: "true" and the name {name} (its own, or'
        f" ratchet.pod_name) in namespace {pod.namespace}, or correct the name in the labels"
    )
    return Finding(about, f"there is no pod {name} in namespace {pod.namespace}", todo)


def _todo_of_error(row: Row, link: LinkStatus | None) -> str:
    if row.kind is None or (link is not None and link.kind is None):
        return (
            "whoever owns the two pods: change the labels of one of them, so that each interface is"
            " the end of one link"
        )
    return "the agent goes on trying; the administrator of the node finds more in its log"
