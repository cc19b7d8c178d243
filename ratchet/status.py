"""What the child answers about links, pods and the node, to parents that wait and to `ratchetctl`.

A part of the messages, with the same rules: unknown keys are ignored, what a child of an older
version does not say is None, and reading raises ValueError, which names the key. What sits on a
socket need not be a child, so everything is checked. It is apart from `messages` because only who
asks about links loads it. Times are seconds since the epoch.
"""

from __future__ import annotations

from ratchet.cni.dataclasses import dataclass
from ratchet.errors import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

UP, WAITING, ERROR = "up", "waiting", "error"
STATES = (UP, WAITING, ERROR)
"""Of a link."""
PULLED = "its cable is pulled out (ratchetctl link up)"
"""The fault of a link whose cable somebody has pulled out."""
_LAST_TIME = 1e11  # seconds since the epoch; no clock shows a later time


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """A link as one of its pods sees it."""

    ifname: str
    peer: str
    """The far pod's name, with its namespace and a colon before it unless that is ``default``."""
    state: str
    """One of STATES."""
    primary: bool
    address: str | None = None
    peer_ifname: str | None = None
    peer_address: str | None = None
    peer_node: str | None = None
    silent_since: float | None = None
    """Since when the far node has not been heard of."""
    kind: str | None = None
    vni: int | None = None
    since: float | None = None
    error: str | None = None
    fault: str | None = None
    """What the kernel refused of a link that is up."""
    by_pod: str | None = None
    """What the pod has done to its end: ``down`` or ``moved``; None when nothing."""
    last_error: str | None = None
    last_error_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        return _written(self)

    @classmethod
    def from_json(cls, obj: object) -> LinkStatus:
        """Read a link. Raises ValueError."""
        return cls(**_status(cls, obj, "a link"))


@dataclass(frozen=True, slots=True)
class PodStatus:
    """A pod of the node. `error` is what keeps the child from working on the pod as a whole."""

    namespace: str
    name: str
    container: str
    netns: str
    superseded: bool
    links: tuple[LinkStatus, ...]
    kubernetes_name: str | None = None
    attached_at: float | None = None
    error: str | None = None
    last_error: str | None = None
    last_error_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {**_written(self), "links": [link.to_json() for link in self.links]}

    @classmethod
    def from_json(cls, obj: object) -> PodStatus:
        """Read a pod. Raises ValueError."""
        values = _status(cls, obj, "a pod")
        values["links"] = tuple(map(LinkStatus.from_json, values["links"]))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class FrontStatus:
    """How many calls the front brought to the child, by result, and why the parent served others.

    The child sees only some of the latter: a parent that does not ask it tells it nothing.
    """

    calls: dict[str, int]
    fallbacks: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return _written(self)

    @classmethod
    def from_json(cls, obj: object) -> FrontStatus:
        """Read the counts. Raises ValueError."""
        return cls(**_status(cls, obj, "front"))


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """How the child is as the node's agent. `troubles` are what is wrong with the API server."""

    node: str
    """The node's name in Kubernetes."""
    watching: bool
    """Whether the API server tells of changes at this moment."""
    known: int | None
    """How many pods of the node it has told of; None before it ever did."""
    troubles: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**_written(self), "troubles": list(self.troubles)}

    @classmethod
    def from_json(cls, obj: object) -> AgentStatus:
        """Read it. Raises ValueError."""
        values = _status(cls, obj, "agent")
        values["troubles"] = tuple(values["troubles"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The answer to `messages.Status`.

    `etcd` says why etcd does not answer, or that it has not been asked yet.
    """

    node: str
    parent_interface: str
    etcd: str | None
    etcd_away: bool
    etcd_since: float | None
    pods: tuple[PodStatus, ...]
    trouble: str | None = None
    """What is wrong with the node's address."""
    labels: str | None = None
    """Why the API server did not tell the last pod's labels; None when it did."""
    guard: str | None = None
    """`on`, or why the node does not guard its tunnels; None from a child that has no guard."""
    front: FrontStatus | None = None
    """None from a child that has no front."""
    agent: AgentStatus | None = None
    """None from a child that is no agent."""

    def to_json(self) -> dict[str, Any]:
        front = None if self.front is None else self.front.to_json()
        agent = None if self.agent is None else self.agent.to_json()
        pods = [pod.to_json() for pod in self.pods]
        return {"ok": True, **_written(self), "front": front, "agent": agent, "pods": pods}

    @classmethod
    def from_json(cls, obj: object) -> NodeStatus:
        """Read an answer. Raises ValueError."""
        values = _status(cls, obj, "an answer")
        values["pods"] = tuple(map(PodStatus.from_json, values["pods"]))
        if values["front"] is not None:
            values["front"] = FrontStatus.from_json(values["front"])
        if values["agent"] is not None:
            values["agent"] = AgentStatus.from_json(values["agent"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Links:
    """The answer to `messages.Attached` and `messages.Check`."""

    complete: bool
    links: tuple[LinkStatus, ...] = ()
    """All links of the pod, unless they are complete."""

    def to_json(self) -> dict[str, Any]:
        if self.complete:
            return {"ok": True, "complete": True}
        return {"ok": True, "complete": False, "links": [link.to_json() for link in self.links]}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Links:
        """Read an answer. What is not understood of it is left out: no pod fails for it."""
        links = obj.get("links")
        found = links if isinstance(links, list) else []
        read = (_link(one) for one in found)
        return cls(bool(obj.get("complete")), tuple(one for one in read if one is not None))


# Reading and writing ----------------------------------------------------------------------------


def _link(obj: object) -> LinkStatus | None:
    try:
        return LinkStatus.from_json(obj)
    except ValueError:
        return None


def _written(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in type(one).__match_args__}


def _status(kind: type[Any], obj: object, what: str) -> dict[str, Any]:
    """Return the values of a status object, checked: what sits on a socket need not be a child."""
    if not isinstance(obj, dict):
        raise ValueError(f"{what} is {shown(obj)}")
    fields: tuple[str, ...] = kind.__match_args__
    return {name: _READERS[name](obj, name) for name in fields}


def text_of(obj: Mapping[str, Any], key: str) -> str:
    value = obj.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} {shown(value)}")
    return value


def optional_text_of(obj: Mapping[str, Any], key: str) -> str | None:
    return None if obj.get(key) is None else text_of(obj, key)


def _state(obj: Mapping[str, Any], key: str) -> str:
    value = text_of(obj, key)
    if value not in STATES:
        raise ValueError(f"{key} {shown(value)}; allowed is one of {', '.join(STATES)}")
    return value


def _truth(obj: Mapping[str, Any], key: str) -> bool:
    value = obj.get(key)
    if not isinstance(value, bool):
        raise ValueError(f"{key} {shown(value)}")
    return value


def _list(obj: Mapping[str, Any], key: str) -> list[Any]:
    value = obj.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key} {shown(value)}")
    return value


def _texts(obj: Mapping[str, Any], key: str) -> list[str]:
    value = _list(obj, key)
    if not all(isinstance(one, str) for one in value):
        raise ValueError(f"{key} {shown(value)}")
    return value


def _counts(obj: Mapping[str, Any], key: str) -> dict[str, int]:
    value = obj.get(key)
    if not isinstance(value, dict) or not all(type(count) is int for count in value.values()):
        raise ValueError(f"{key} {shown(value)}")
    return value


def _number(obj: Mapping[str, Any], key: str) -> int | None:
    value = obj.get(key)
    if value is not None and type(value) is not int:
        raise ValueError(f"{key} {shown(value)}")
    return value


def moment_of(obj: Mapping[str, Any], key: str) -> float | None:
    value = obj.get(key)
    if value is None:
        return None
    # The bounds also refuse NaN.
    if type(value) not in (int, float) or not 0 <= value < _LAST_TIME:
        raise ValueError(f"{key} {shown(value)}")
    return float(value)


_READERS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    **dict.fromkeys(("ifname", "peer", "namespace", "name", "container", "netns"), text_of),
    **dict.fromkeys(("node", "parent_interface"), text_of),
    **dict.fromkeys(("primary", "superseded", "etcd_away"), _truth),
    **dict.fromkeys(("links", "pods"), _list),
    **dict.fromkeys(("address", "peer_ifname", "peer_address", "peer_node"), optional_text_of),
    **dict.fromkeys(("kind", "kubernetes_name", "etcd", "labels", "guard"), optional_text_of),
    **dict.fromkeys(("error", "fault", "by_pod", "last_error", "trouble"), optional_text_of),
    **dict.fromkeys(("since", "silent_since", "last_error_at"), moment_of),
    **dict.fromkeys(("attached_at", "etcd_since"), moment_of),
    "calls": _counts,
    "fallbacks": _counts,
    "front": lambda obj, key: obj.get(key),
    "agent": lambda obj, key: obj.get(key),
    "watching": _truth,
    "troubles": _texts,
    "state": _state,
    "vni": _number,
    "known": _number,
}
