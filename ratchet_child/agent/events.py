"""Events (events.k8s.io/v1): what was said already is counted, and nobody is flooded. Pure.

An Event that says the same of the same object again becomes a series with a count, as the API has
it, instead of another Event. Each object has a bucket of tokens, so that a link that flaps, or a
user who writes a hundred wrong labels, costs the API server a few Events and then one a minute.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timezone
from typing import Any

from ratchet.cni.dataclasses import dataclass, field
from ratchet_child.agent.notes import LONGEST, Note

CONTROLLER = "ratchet/agent"
CREATE, PATCH = "create events.k8s.io/events", "patch events.k8s.io/events"
_BURST = 20
_REFILL_S = 60.0
# The API server forgets Events an hour after they were changed last (--event-ttl).
_SERIES_S = 50 * 60.0
_MOST_KNOWN = 2000
_LONGEST_NAME = 253
_LONGEST_INSTANCE = 128


@dataclass(frozen=True, slots=True)
class About:
    """What an Event is about: a pod, or the node."""

    kind: str
    namespace: str
    name: str
    uid: str

    def to_json(self) -> dict[str, str]:
        reference = {"apiVersion": "v1", "kind": self.kind, "name": self.name, "uid": self.uid}
        return {**reference, "namespace": self.namespace} if self.namespace else reference

    @property
    def events(self) -> str:
        """The path of its Events. Those about the node are in `default`, as the kubelet's are."""
        return f"/apis/events.k8s.io/v1/namespaces/{self.namespace or 'default'}/events"


@dataclass(frozen=True, slots=True)
class Sending:
    """One request that tells of an Event: POST (a new one), or PATCH (once more)."""

    method: str
    path: str
    body: dict[str, Any]
    about: About
    note: Note

    @property
    def needs(self) -> str:
        return CREATE if self.method == "POST" else PATCH


@dataclass(slots=True)
class _Told:
    name: str
    count: int
    at: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(slots=True)
class EventLog:
    """Which Events there are, for one thread. `instance` names this agent."""

    instance: str
    _told: dict[tuple[About, Note], _Told] = field(default_factory=dict)
    _buckets: dict[About, _Bucket] = field(default_factory=dict)
    dropped: int = 0

    def tell(self, about: About, note: Note, now: float) -> Sending | None:
        """Return the request that tells of it at a moment (epoch); None when it is too much."""
        if not self._take_token(about, now):
            self.dropped += 1
            return None
        told = self._told.get((about, note))
        if told is not None and now - told.at < _SERIES_S:
            told.count, told.at = told.count + 1, now
            series = {"count": told.count, "lastObservedTime": micro_time(now)}
            path = f"{about.events}/{told.name}"
            return Sending("PATCH", path, {"series": series}, about, note)
        return self._new(about, note, now)

    def renew(self, sending: Sending, now: float) -> Sending | None:
        """Return another request for one whose Event is no longer there; None for a new one."""
        self._told.pop((sending.about, sending.note), None)
        return None if sending.method == "POST" else self._new(sending.about, sending.note, now)

    def forget(self, abouts: set[About]) -> None:
        """Let go of everything that is about other objects than these."""
        self._told = {key: told for key, told in self._told.items() if key[0] in abouts}
        self._buckets = {key: one for key, one in self._buckets.items() if key in abouts}

    def _new(self, about: About, note: Note, now: float) -> Sending:
        suffix = f".{secrets.token_hex(8)}"
        name = about.name[: _LONGEST_NAME - len(suffix)].rstrip(".-") + suffix
        if len(self._told) >= _MOST_KNOWN:
            self._told.clear()
        self._told[about, note] = _Told(name, 1, now)
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about.namespace or "default"},
            "eventTime": micro_time(now),
            "type": "Warning" if note.is_warning else "Normal",
            "reason": note.reason,
            "action": note.action,
            "note": _cut(note.text),
            "regarding": about.to_json(),
            "reportingController": CONTROLLER,
            "reportingInstance": self.instance[:_LONGEST_INSTANCE],
        }
        return Sending("POST", about.events, body, about, note)

    def _take_token(self, about: About, now: float) -> bool:
        bucket = self._buckets.setdefault(about, _Bucket(_BURST, now))
        # A clock that was set back gives nothing and takes nothing.
        bucket.tokens = min(bucket.tokens + max(now - bucket.at, 0) / _REFILL_S, _BURST)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def micro_time(moment: float) -> str:
    """Return a moment as the API's MicroTime."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(text: str) -> str:
    # The API server counts bytes.
    raw = text.encode()
    return text if len(raw) <= LONGEST else raw[: LONGEST - 3].decode(errors="ignore") + "..."
