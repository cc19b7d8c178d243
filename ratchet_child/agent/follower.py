"""Running pods' links follow their labels and annotations.

What a pod's labels say now is read as an ADD reads it, and compared with what its record declares.
Where they differ, the record is rewritten (`pods.rewriting` says how, so that a DEL is never
undone), and the child works on it as on any other. Ends whose link says the same as before are
equal specifications, which nothing touches. Labels that are wrong change nothing.

A pod is followed while it is what it was attached as: the same UID, the same name to other pods,
and still eligible. What cannot be followed is said once, until the labels change again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ratchet import labels, log, pods
from ratchet.attachments import Attachment
from ratchet.cni.dataclasses import dataclass
from ratchet.errors import LabelError, StateError
from ratchet.labels import Wiring
from ratchet.links import Link, Uplink
from ratchet_child.agent import notes
from ratchet_child.agent.notes import Note
from ratchet_child.agent.seen import SeenPod, SeenPods, Words
from ratchet_child.agent.views import PodView

# A list may be a moment older than what an ADD was told, and people change several labels in turn.
SETTLE_S = 0.5

Rewrite = Callable[[Attachment, Wiring], bool]


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a pod's labels, to be said of it."""

    view: PodView
    note: Note


@dataclass(slots=True)
class _Known:
    """How far a container has followed the labels of its pod."""

    container: str
    fields: tuple[Words, Words]
    since: float  # monotonic seconds
    is_done: bool = False


class Follower:
    """Decides for one thread; `rewrite` has a record declare links, and says if it could."""

    def __init__(self, seen: SeenPods, rewrite: Rewrite) -> None:
        self._seen = seen
        self._rewrite = rewrite
        self._known: dict[str, _Known] = {}

    def follow(self, views: list[PodView], now: float, max_links: int) -> Iterator[Done]:
        """Bring records to the labels that pods have now; `now` is monotonic seconds.

        `max_links` is how many links one pod may have, as at an ADD.
        """
        there = {view.uid: view for view in views if not view.superseded}
        self._known = {uid: known for uid, known in self._known.items() if uid in there}
        for uid, view in there.items():
            pod = self._seen.get(uid)
            if (
                pod is None
                or not pod.is_told
                or (pod.namespace, pod.name) != (view.namespace, view.name)
            ):
                continue
            if not view.is_settled:
                continue  # another container may have the name, and this one must not take it back
            note = self._follow(view, pod, now, max_links)
            if note is not None:
                yield Done(view, note)

    def next_due(self) -> float | None:
        """Return the moment (monotonic) at which to `follow` at the latest."""
        return min(
            (known.since + SETTLE_S for known in self._known.values() if not known.is_done),
            default=None,
        )

    def _follow(self, view: PodView, pod: SeenPod, now: float, max_links: int) -> Note | None:
        known, container = self._known.get(view.uid), view.attachment.container_id
        if known is None or known.container != container or known.fields != pod.fields:
            is_first = known is None or known.container != container
            known = self._known[view.uid] = _Known(container, pod.fields, now)
            known.is_done = is_first and _is_as_attached(view.attachment, pod)
        if known.is_done or now < known.since + SETTLE_S:
            return None
        known.is_done = True
        try:
            wanted = _wanted(view.attachment, pod)
            labels.require_at_most(max_links, wanted)
        except LabelError as error:
            return self._refuse(view, str(error))
        before, after = _declared(view.attachment), _declared(wanted)
        if after == before:
            return None
        try:
            if not self._rewrite(view.attachment, wanted):
                # Its DEL has come, or another ADD: whatever is there then is looked at anew.
                del self._known[view.uid]
                return None
        except StateError as error:
            known.is_done, known.since = False, now
            log.warning("links cannot follow the labels", pod=view.key, error=str(error))
            return None
        note = notes.followed(before, after)
        log.info("links follow the labels", pod=view.key, container=container, how=note.text)
        return note

    def _refuse(self, view: PodView, error: str) -> Note:
        log.warning("labels cannot be followed", pod=view.key, error=error)
        return notes.refused_labels(error)


def _is_as_attached(attachment: Attachment, pod: SeenPod) -> bool:
    """Say whether the record is what the pod's annotations alone say, as a runtime passes them."""
    if pods.ELIGIBLE_KEY not in pod.annotations:
        return False
    try:
        return _declared(_parse(attachment, pod, {})) == _declared(attachment)
    except LabelError:
        return False


def _wanted(attachment: Attachment, pod: SeenPod) -> Wiring:
    """Return what the labels of a running pod say. *Raises* LabelError."""
    if not pods.says_eligible(pod.labels, pod.annotations):
        key = pods.ELIGIBLE_KEY
        value = pod.annotations.get(key, pod.labels.get(key))
        raise LabelError(key, value, "true for as long as the pod runs")
    return _parse(attachment, pod, pod.labels)


def _parse(attachment: Attachment, pod: SeenPod, own: Words) -> Wiring:
    wiring = labels.parse(own, pod.annotations, own_name=pod.name, cni_ifname=attachment.ifname)
    if wiring.pod_name != attachment.pod:
        label = f"{labels.PREFIX}pod_name"
        value = pod.annotations.get(label, own.get(label))
        raise LabelError(label, value, f"{attachment.pod} for as long as the pod runs")
    return wiring


def _declared(by: Attachment | Wiring) -> dict[str, Link | Uplink | None]:
    """Return what is declared at each interface; None where that is left to other pods."""
    ends: tuple[Link | Uplink, ...] = (*by.links, *by.uplinks)
    return {**dict.fromkeys(by.expected), **{one.ifname: one for one in ends}}
