"""What parents and `ratchetctl` ask the child, and what it answers: one JSON object each way.

Only this module and `status` know how a message is spelt. What is answered about links is in
`status`, which a parent whose pod has none need not load. Parent and child may be of different
versions while a node is updated, so unknown keys are ignored, and what an older one does not say
has a default. Reading raises ValueError, which names the key: the child's socket is root's, but
either end may be another version's.
"""

from __future__ import annotations

from ratchet.cni.dataclasses import dataclass
from ratchet.errors import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Words = dict[str, str]

WAITS = ("present", "all", "none")
HAND_OVER = "hand_over"  # what who wants to serve asks, in a request that says nothing else

# Requests ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attached:
    """A record is there: make its links, and answer when they are up or the time is over."""

    attachment: str
    wait: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Deleted:
    """A record has been marked deleted: remove what was made for it."""

    attachment: str | None = None
    """None from a parent that does not say which: look at all records."""


@dataclass(frozen=True, slots=True)
class Check:
    """Answer whether an attachment's links are up, looking again until the time is over."""

    attachment: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Labels:
    """Answer a pod's labels and annotations, as the API server has them now."""

    namespace: str
    name: str
    uid: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """Answer whether etcd and the source of labels answer, by what is known already."""


@dataclass(frozen=True, slots=True)
class Status:
    """Answer all that is known of this node's pods, as a `status.NodeStatus`."""


@dataclass(frozen=True, slots=True)
class Set:
    """Set something of the link at an attachment's interface, as an `links.Override` in JSON."""

    attachment: str
    link: str
    override: dict[str, Any] | None
    """None: nothing any more."""
    timeout_s: float


if TYPE_CHECKING:
    Request: TypeAlias = Attached | Deleted | Check | Labels | Health | Status | Set

OPERATIONS: dict[str, type[Any]] = {
    "attached": Attached,
    "deleted": Deleted,
    "check": Check,
    "labels": Labels,
    "health": Health,
    "status": Status,
    "set": Set,
}
_NAMES = {kind: name for name, kind in OPERATIONS.items()}


def request_to_json(request: Request) -> dict[str, Any]:
    """Return a request as `request_from_json` reads it."""
    fields = type(request).__match_args__
    return {"op": _NAMES[type(request)], **{name: getattr(request, name) for name in fields}}


def request_from_json(obj: Mapping[str, Any]) -> Request:
    """Read a request. Raises ValueError, which names the key and its value."""
    operation = obj.get("op")
    kind = OPERATIONS.get(operation) if isinstance(operation, str) else None
    if kind is None:
        raise ValueError(f"op {shown(operation)}")
    fields: tuple[str, ...] = kind.__match_args__
    values = {name: _READERS[name](obj, name) for name in fields}
    request: Request = kind(**values)
    return request


# Answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request was not carried out: an error, as CNI has it."""

    code: int
    msg: str
    details: str

    def to_json(self) -> dict[str, Any]:
        return {"ok": False, "code": self.code, "msg": self.msg, "details": self.details}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Failure | None:
        """Read an answer's failure; None when it is none."""
        if obj.get("ok"):
            return None
        code = obj.get("code")
        is_code = isinstance(code, int) and not isinstance(code, bool)
        return cls(
            code if is_code and code is not None else 0,
            str(obj.get("msg", "it gives no reason")),
            str(obj.get("details", "")),
        )


def done() -> dict[str, Any]:
    """Return the answer to what needs no other."""
    return {"ok": True}


@dataclass(frozen=True, slots=True)
class PodLabels:
    """To `Labels`."""

    labels: Words
    annotations: Words

    def to_json(self) -> dict[str, Any]:
        return {"ok": True, "labels": self.labels, "annotations": self.annotations}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> PodLabels:
        """Read an answer. Raises ValueError."""
        labels, annotations = obj.get("labels"), obj.get("annotations")
        if not isinstance(labels, dict) or not isinstance(annotations, dict):
            raise ValueError("its answer has no labels")
        if not all(isinstance(word, str) for word in (*labels.values(), *annotations.values())):
            raise ValueError("its answer has labels that are not strings")
        return cls(labels, annotations)


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """To `Health`."""

    etcd: str | None
    """Why etcd does not answer; None when it does."""
    labels: Failure | None = None
    """Why the source of labels refuses this node; None when it does not, as far as is known."""

    def to_json(self) -> dict[str, Any]:
        labels = None if self.labels is None else self.labels.to_json()
        return {"ok": True, "etcd": self.etcd, "labels": labels}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> NodeHealth:
        etcd, labels = obj.get("etcd"), obj.get("labels")
        return cls(
            None if etcd is None else str(etcd),
            Failure.from_json(labels) if isinstance(labels, dict) else None,
        )


# Values -----------------------------------------------------------------------------------------


def _text(obj: Mapping[str, Any], key: str) -> str:
    value = obj.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} {shown(value)}")
    return value


def _attachment(obj: Mapping[str, Any], key: str) -> str | None:
    return None if obj.get("op") == "deleted" and obj.get(key) is None else _text(obj, key)


def _wait(obj: Mapping[str, Any], key: str) -> str:
    value = _text(obj, key)
    if value not in WAITS:
        raise ValueError(f"{key} {shown(value)}; allowed is one of {', '.join(WAITS)}")
    return value


def _seconds(obj: Mapping[str, Any], key: str) -> float:
    value = obj.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} {shown(value)}")
    return value


def _override(obj: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    value = obj.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{key} {shown(value)}")
    return value


def _uid(obj: Mapping[str, Any], key: str) -> str | None:
    return None if obj.get(key) is None else _text(obj, key)


_READERS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "attachment": _attachment,
    "wait": _wait,
    "timeout_s": _seconds,
    "namespace": _text,
    "name": _text,
    "link": _text,
    "override": _override,
    "uid": _uid,
}
