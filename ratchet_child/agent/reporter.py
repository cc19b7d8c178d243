"""What the agent writes to the API server: Events, and the status of pods.

Level-triggered: each round compares how pods are with what was written of them last, so a round may
end at any point and the next one finishes the work. Everything is for one thread. Nothing in here
is waited for by a pod.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ratchet import annotations as told
from ratchet import log
from ratchet.annotations import PodTold
from ratchet.cni.dataclasses import dataclass, field, replace
from ratchet.status import UP, LinkStatus
from ratchet_child.agent import notes
from ratchet_child.agent.conditions import condition
from ratchet_child.agent.errors import (
    ApiError,
    AwayError,
    ConflictError,
    ForbiddenError,
    MissingError,
    RefusedError,
)
from ratchet_child.agent.events import About, EventLog, Sending
from ratchet_child.agent.network_status import merged
from ratchet_child.agent.notes import Note, Noted
from ratchet_child.agent.seen import CONDITION, NETWORK_STATUS, Condition, SeenPod, SeenPods
from ratchet_child.agent.views import PodView
from ratchet_child.model.clock import Clock

EVENTS, CONDITIONS, NETWORK, LINKS = "events", "conditions", "network-status", "links"
REPORTS = (EVENTS, CONDITIONS, NETWORK, LINKS)
PATCH_STATUS = "patch pods/status"
_FORBIDDEN_S = 60.0
_UNSEEN_S = 60.0
_BUSY_S = 5.0
_UNTOLD_S = 30.0
_AGAIN_S = 45 * 60.0  # before the API server forgets an Event of what is still so
_MOST_SENDINGS, _REST_S = 20, 1.0  # in one round, and until the next one goes on
# Of how links are, what was so for a while is written; of a link that flaps, not every change.
_SETTLES_S, _MOST_CHANGES, _CHANGE_S = 1.0, 5.0, 10.0
_FIRST_LOOK_S = 60.0  # a child that starts knows by then how each link is


class Writing(Protocol):
    """What is used of a `Connection`."""

    def post(self, path: str, body: Mapping[str, Any], needs: str) -> dict[str, Any]: ...
    def patch(self, path: str, body: Mapping[str, Any], needs: str) -> dict[str, Any]: ...


@dataclass(slots=True)
class _PodNotes:
    """What was said of one pod: by thing, its state and when (epoch)."""

    container: str
    told: dict[tuple[str, ...], tuple[tuple[object, ...], float]] = field(default_factory=dict)


@dataclass(slots=True)
class _Changes:
    """What is to be told of one pod's links, since when, and how much more may be (epoch)."""

    text: str
    since: float
    left: float = _MOST_CHANGES
    filled_at: float = 0.0


class Reporter:
    """Writes of the node's pods what `reports` names."""

    def __init__(
        self,
        connection: Writing,
        seen: SeenPods,
        events: EventLog,
        reports: frozenset[str],
        clock: Clock,
        on_refused: Callable[[], None],
    ) -> None:
        """`on_refused` is called when a right is missing."""
        self._connection = connection
        self._seen = seen
        self._events = events
        self._reports = reports
        self._clock = clock
        self._on_refused = on_refused
        self._started_at = self._now = clock.time()
        self._pods: dict[str, _PodNotes] = {}
        self._waiting: list[tuple[About, Note]] = []
        self._due: list[float] = []  # epoch
        self._paused: dict[str, float] = {}  # until when, epoch
        self._written: dict[str, tuple[str, float]] = {}  # by UID: on top of which version
        self._changes: dict[str, _Changes] = {}  # by UID

    def report(self, views: list[PodView]) -> float | None:
        """Write what is to be written; the moment (epoch) at which more is, None without one.

        *Raises* AwayError and RefusedError when nothing can be written now.
        """
        now = self._clock.time()
        if now < self._now:  # the clock was set back: what was to wait until then has waited
            self._paused.clear()
            self._written.clear()
            self._changes.clear()
        self._now, self._due = now, []
        # One that has lost its name by being deleted is not worth a word.
        views = [one for one in views if not one.superseded or self._seen.get(one.uid) is not None]
        there = {view.uid for view in views}
        self._pods = {uid: known for uid, known in self._pods.items() if uid in there}
        self._written = {uid: one for uid, one in self._written.items() if uid in there}
        self._changes = {uid: one for uid, one in self._changes.items() if uid in there}
        sent = 0
        # Somebody may wait for a condition; Events are for people.
        for view in views:
            if sent >= _MOST_SENDINGS:
                self._due.append(now + _REST_S)
                break
            sent += self._status(view, now)
        if EVENTS in self._reports:
            sent += self._send_waiting(now, _MOST_SENDINGS - sent)
            for view in views:
                sent += self._tell(view, now, _MOST_SENDINGS - sent)
        return min(self._due, default=None)

    def note(self, about: About, note: Note) -> None:
        """Have something said that has happened once."""
        if EVENTS in self._reports and len(self._waiting) < 100:
            self._waiting.append((about, note))

    def resume(self) -> None:
        """Write again what was refused: somebody has given a right back."""
        self._paused.clear()

    # Events ---------------------------------------------------------------------------------------

    def _send_waiting(self, now: float, most: int) -> int:
        sent = 0
        while self._waiting and sent < most and self._may(now, EVENTS):
            sent += 1
            if not self._send(*self._waiting[0], now):
                break
            del self._waiting[0]
        if self._waiting:
            self._due.append(max(now + _REST_S, self._paused.get(EVENTS, 0.0)))
        return sent

    def _tell(self, view: PodView, now: float, most: int) -> int:
        """Say what is new of a pod; how many requests that took."""
        if not self._may(now, EVENTS):
            self._due.append(self._paused[EVENTS])
            return 0
        known = self._pods.get(view.uid)
        container = view.attachment.container_id
        if known is None or known.container != container:
            known = self._pods[view.uid] = _PodNotes(container)
        about = about_pod(view, self._seen)
        sent = 0
        current = list(notes.of_pod(view, now))
        for noted in current:
            due = self._due_of(noted, known, view, now)
            if due is None:
                continue
            if due > now or sent >= most:
                self._due.append(max(due, now + _REST_S) if sent >= most else due)
                continue
            if self._send(about, noted.note, now):
                known.told[noted.what] = noted.state, now
            else:
                self._due.append(max(now + _UNTOLD_S, self._paused.get(EVENTS, 0.0)))
            sent += 1
        present = {noted.what for noted in current}
        known.told = {what: told for what, told in known.told.items() if what in present}
        return sent

    def _due_of(self, noted: Noted, known: _PodNotes, view: PodView, now: float) -> float | None:
        """Return when something is to be said; None when it was."""
        told = known.told.get(noted.what)
        is_well = noted.state[0] == UP and not noted.note.is_warning
        if told is None:
            # What was up before this process knew of it was said by the one before.
            if is_well and view.attachment.attached_at < self._started_at:
                known.told[noted.what] = noted.state, now
                return None
            return noted.due
        if told[0] != noted.state:
            return noted.due
        return None if is_well else told[1] + _AGAIN_S

    def _send(self, about: About, note: Note, now: float) -> bool:
        """Tell of an Event; False when that has to be tried again. *Raises* as `report` does."""
        sending = self._events.tell(about, note, now)
        if sending is None:
            return False
        try:
            self._request(sending)
        except (MissingError, ForbiddenError) as error:
            again = self._events.renew(sending, now)
            if again is None:
                return self._is_settled(error, now)
            # It was forgotten, or may not be changed: another one says the same.
            try:
                self._request(again)
            except ApiError as error:
                self._events.renew(again, now)
                return self._is_settled(error, now)
        except ApiError as error:
            self._events.renew(sending, now)
            return self._is_settled(error, now)
        return True

    def _request(self, sending: Sending) -> None:
        if sending.method == "PATCH":
            self._connection.patch(sending.path, sending.body, sending.needs)
            return
        try:
            self._connection.post(sending.path, sending.body, sending.needs)
        except ConflictError:
            return  # it was made, and the answer lost

    def _is_settled(self, error: ApiError, now: float) -> bool:
        """Say whether an Event that was not taken is given up. *Raises* as `report` does."""
        if isinstance(error, ForbiddenError):
            self._refused(EVENTS, error, now)
            return False
        self._failed(EVENTS, error, now)
        return not isinstance(error, AwayError)

    # The status of pods ---------------------------------------------------------------------------

    def _status(self, view: PodView, now: float) -> int:
        """Write a pod's condition and annotation where they are not right; the requests it took."""
        pod = self._seen.get(view.uid)
        if pod is None or not pod.is_told or pod.is_over:
            return 0
        body = self._patch(view, pod, now)
        if body is None:
            return 0
        # What was written is seen once the watch has brought it.
        version, until = self._written.get(view.uid, ("", 0.0))
        if version != pod.version:
            until = 0.0
        until = max(until, self._paused.get(PATCH_STATUS, 0.0))
        if now < until:
            self._due.append(until)
            return 0
        self._written[view.uid] = pod.version, now + _UNSEEN_S
        if told.POD in body["metadata"].get("annotations", {}):
            self._changes[view.uid].left -= 1
        self._due.append(now + _UNSEEN_S)
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/status"
        try:
            self._connection.patch(path, body, PATCH_STATUS)
        except (ConflictError, MissingError):
            pass  # somebody has written meanwhile, or it is gone: the watch tells
        except ForbiddenError as error:
            del self._written[view.uid]
            self._refused(PATCH_STATUS, error, now)
        except ApiError as error:
            if isinstance(error, AwayError | RefusedError):
                del self._written[view.uid]
            self._failed(PATCH_STATUS, error, now)
        return 1

    def _patch(self, view: PodView, pod: SeenPod, now: float) -> dict[str, Any] | None:
        metadata: dict[str, Any] = {}
        status: dict[str, Any] = {}
        asks = pod.has_gate or view.is_agents  # which starts before its links are there
        wanted = condition(view) if CONDITIONS in self._reports and asks else None
        if wanted is not None and wanted != pod.condition:
            status["conditions"] = [_condition(wanted, pod.condition, now)]
        # Once the pod has an address, its runtime has finished, and Multus has written.
        if NETWORK in self._reports and pod.has_address and not view.superseded:
            annotation = merged(pod.network_status, view.ends)
            if annotation is not None:
                metadata["annotations"] = {NETWORK_STATUS: annotation}
                # A list with several owners: what another has written meanwhile must not be lost.
                metadata["resourceVersion"] = pod.version
        if LINKS in self._reports:
            text = self._links_told(view, pod, now)
            if text is not None:
                metadata.setdefault("annotations", {})[told.POD] = text
        if not metadata and not status:
            return None
        metadata["uid"] = pod.uid
        return {"metadata": metadata, "status": status} if status else {"metadata": metadata}

    def _links_told(self, view: PodView, pod: SeenPod, now: float) -> str | None:
        """Return how a pod's links are, for `kubectl ratchet`; None when that is not to be written.

        Nobody waits for it, so what passes within a second is left out.
        """
        if not (view.is_settled or view.superseded):
            return None
        text = PodTold(
            name=view.key.name,
            node=self._events.instance,
            address=view.address,
            links=self._dated(view, pod),
            superseded=view.superseded,
            error=view.trouble,
        ).dumps()
        changes = self._changes.setdefault(view.uid, _Changes(text, now, filled_at=now))
        if changes.text != text:
            changes.text, changes.since = text, now
        if text == pod.told.get(told.POD):
            return None
        filled = changes.left + (now - changes.filled_at) / _CHANGE_S
        changes.left, changes.filled_at = min(filled, _MOST_CHANGES), now
        due = max(changes.since + _SETTLES_S, now + (1 - changes.left) * _CHANGE_S)
        if due > now:
            self._due.append(due)
            return None
        return text

    def _dated(self, view: PodView, pod: SeenPod) -> tuple[LinkStatus, ...]:
        """Return a pod's links, each since when it was as it is before this agent came."""
        text = pod.told.get(told.POD)
        if text is None or view.attachment.attached_at >= self._started_at:
            return view.links
        try:
            before = {link.ifname: link for link in PodTold.loads(text).links}
        except ValueError:
            return view.links
        return tuple(
            replace(link, since=before[link.ifname].since)
            if link.ifname in before and self._is_older(before[link.ifname], link)
            else link
            for link in view.links
        )

    def _is_older(self, before: LinkStatus, link: LinkStatus) -> bool:
        """Say whether a link is as it was told, and was only looked at anew by this process."""
        if before.since is None or link.since is None or before.since >= link.since:
            return False
        is_same = (before.state, before.peer, before.kind, before.vni, before.peer_node) == (
            link.state,
            link.peer,
            link.kind,
            link.vni,
            link.peer_node,
        )
        return is_same and link.since < self._started_at + _FIRST_LOOK_S

    # What goes wrong ------------------------------------------------------------------------------

    def _may(self, now: float, what: str) -> bool:
        return now >= self._paused.get(what, 0.0)

    def _refused(self, what: str, error: ApiError, now: float) -> None:
        log.warning("the agent may not write of pods", what=what, error=str(error))
        self._paused[what] = now + _FORBIDDEN_S
        self._due.append(now + _FORBIDDEN_S)
        self._on_refused()

    def _failed(self, what: str, error: ApiError, now: float) -> None:
        """Raise what concerns every request; note what concerned this one."""
        if isinstance(error, RefusedError) or (
            isinstance(error, AwayError) and error.status is None
        ):
            raise error
        log.warning("the API server does not take what is written", what=what, error=str(error))
        if isinstance(error, AwayError):
            self._paused[what] = now + max(error.retry_after_s or 0.0, _BUSY_S)
            self._due.append(self._paused[what])


def about_pod(view: PodView, seen: SeenPods) -> About:
    """Return what a pod's Events are about: of a static pod, the mirror that the server has."""
    pod = seen.get(view.uid)
    return About("Pod", view.namespace, view.name, view.uid if pod is None else pod.uid)


def _condition(wanted: Condition, before: Condition | None, now: float) -> dict[str, Any]:
    written: dict[str, Any] = {
        "type": CONDITION,
        "status": wanted.status,
        "reason": wanted.reason,
        "message": wanted.message,
    }
    if before is None or before.status != wanted.status:
        written["lastTransitionTime"] = notes.shown_time(now)
    return written
