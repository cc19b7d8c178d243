"""What is worth an Event on a pod, and in which words. Pure.

Each note says what is so and what to do about it, as it is read in `kubectl describe pod` by
somebody who cannot look at the node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone

from ratchet.cni.dataclasses import dataclass
from ratchet.links import UPLINK_KINDS
from ratchet.status import ERROR, PULLED, UP, WAITING, LinkStatus
from ratchet_child.agent.standing import READY_S
from ratchet_child.agent.views import PodView

GRACE_S = 5.0  # pods that start together wait for each other, which is not worth a word
LONGEST = 1024  # characters of an Event's note, kubernetes: pkg/apis/core/validation/events.go


@dataclass(frozen=True, slots=True)
class Note:
    """An Event's reason (for machines), note (for people) and type."""

    reason: str
    action: str
    text: str
    is_warning: bool = True


@dataclass(frozen=True, slots=True)
class Noted:
    """What is to be said of one thing in a pod, when it stays so until a moment.

    `what` tells one thing from another, and `state` one state of it from the next.
    """

    what: tuple[str, ...]
    state: tuple[object, ...]
    note: Note
    due: float  # seconds since the epoch


def of_pod(view: PodView, now: float) -> Iterator[Noted]:
    """Give what there is to say of a pod at a moment, in seconds since the epoch."""
    if view.stands_by:
        text = (
            f"{holder(view)} has the name {view.key.name} and keeps the links. This pod takes them "
            f"over when all of its containers have been ready for {READY_S:.0f} seconds, or "
            f"when the other pod goes."
        )
        state = ("stands by", view.holder)
        yield Noted(("name",), state, Note("StandsBy", "Link", text, False), now)
        return
    if view.superseded:
        text = (
            f"{holder(view)} has the name {view.key.name}, and came later; the links "
            f"of this pod are taken away. Delete one of the two pods, or give one of them another "
            f"ratchet.pod_name."
        )
        yield Noted(("name",), ("taken", view.holder), Note("NameTaken", "Link", text), now)
        return
    if view.trouble is not None and view.is_settled:
        text = f"The links of this pod cannot be worked on: {view.trouble}. Ratchet goes on trying."
        note = Note("PodTrouble", "Link", text)
        since = now if view.trouble_since is None else view.trouble_since
        yield Noted(("pod",), (view.trouble,), note, since + GRACE_S)
    for link in view.links:
        if view.is_settled or link.state == UP:
            yield _of_link(view, link, now)


def holder(view: PodView) -> str:
    """Return who has the name of a superseded pod, as the beginning of a sentence."""
    return "A pod on another node" if view.holder is None else f"Pod {view.holder}"


def _faulty(where: str, fault: str) -> Note:
    """Return what to say of a link that is made, and not as its labels have it."""
    if fault.startswith(PULLED):
        text = (
            f"The cable of link {where} is pulled out, by `ratchetctl link down`. Plug it in again"
            " with `ratchetctl link up`."
        )
        return Note("LinkPulled", "Link", text, False)
    text = (
        f"Link {where} is up, but not as it was asked for: {fault}. Change the label, or what the"
        " node allows."
    )
    return Note("LinkFault", "Link", text)


def _of_link(view: PodView, link: LinkStatus, now: float) -> Noted:
    what = ("link", link.ifname, link.peer, link.peer_ifname or "")
    since = now if link.since is None else link.since
    where = f"{link.ifname} to {link.peer}"
    if link.state == UP and link.fault is None:
        is_local = link.kind == "veth" or link.kind in UPLINK_KINDS
        how = "on this node" if is_local else f"with node {link.peer_node}"
        note = Note("LinkUp", "Link", f"Link {where} is up ({link.kind}, {how}).", False)
        return Noted(what, (UP, link.kind, link.peer_node), note, since)
    if link.state == UP:
        return Noted(what, (UP, link.fault), _faulty(where, str(link.fault)), since)
    if link.state == WAITING:
        return Noted(what, (WAITING, since), _waiting(view, link, since), since + GRACE_S)
    if link.kind is None:
        text = (
            f"Link {where} is refused: {link.error}. Change the labels of one of the two pods, so "
            f"that each interface is the end of one link."
        )
        return Noted(what, (ERROR, link.error), Note("LinkRefused", "Link", text), now)
    text = (
        f"Link {where} cannot be made: {link.error}. Ratchet goes on trying; the log of "
        f"ratchet-child on this node has the details."
    )
    return Noted(what, (ERROR, link.error), Note("LinkFailed", "Link", text), since + GRACE_S)


def _waiting(view: PodView, link: LinkStatus, since: float) -> Note:
    if not link.peer:
        text = (
            f"Interface {link.ifname} waits for a link since {shown_time(since)}. It comes up when "
            f"a pod in namespace {view.namespace} starts whose labels declare a link with it."
        )
        return Note("LinkWaiting", "Link", text, False)
    name = link.peer.rpartition(":")[2]
    text = f"Link {link.ifname} waits for {link.peer} since {shown_time(since)}. "
    if link.peer_node is not None:
        text += (
            f"That pod is on node {link.peer_node}; the link follows when the nodes agree on it."
        )
    elif link.primary:
        text += (
            f'It comes up when a pod with the label ratchet: "true" and the name {name} (its own, '
            f"or ratchet.pod_name) starts in namespace {view.namespace}."
        )
    else:
        text += f"It comes up when {name}, whose labels declare it, is there again."
    return Note("LinkWaiting", "Link", text, False)


def refused_labels(error: str) -> Note:
    """Return the note for labels that a running pod's links cannot follow."""
    text = (
        f"The labels of this running pod have changed, and cannot be followed: {error}. Its links "
        f"stay as they were. Correct the label, or delete the pod to have it made anew."
    )
    return Note("LabelRefused", "Follow", text)


def refused_at_attach(error: str) -> Note:
    """Return the note for a pod that runs without links for its labels' sake."""
    text = f"This pod gets no links, because a label is wrong: {error}. Correct the label."
    return Note("LabelRefused", "Attach", text)


def not_found() -> Note:
    """Return the note for a pod whose processes the agent does not see."""
    text = (
        "This pod gets no links yet: Ratchet's agent does not find its network namespace. The "
        "agent has to see the host's processes (hostPID, or --proc) and the host's /run/netns."
    )
    return Note("NamespaceNotFound", "Attach", text)


def followed(old: Mapping[str, object], new: Mapping[str, object]) -> Note:
    """Return the note for links that have followed the labels: what each interface was and is."""
    parts = (
        ("added", [name for name in new if name not in old]),
        ("changed", [name for name in new if name in old and new[name] != old[name]]),
        ("removed", [name for name in old if name not in new]),
    )
    told = "; ".join(f"{how} {', '.join(names)}" for how, names in parts if names)
    return Note("LinksChanged", "Follow", f"The links follow the pod's labels: {told}.", False)


def shown_time(moment: float) -> str:
    """Return a moment as Kubernetes shows it."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
