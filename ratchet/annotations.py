"""The annotations by which the nodes' agents tell of pods and of themselves, and are asked.

    ratchet/status    on a labelled pod: its links, as its node sees them
    ratchet/node      on an agent's own pod: the node, as its agent sees it
    ratchet/check     on an agent's own pod: which nodes' frames it is to wait for
    ratchet/checked   on an agent's own pod: which of them have come

Only this module knows how their values are spelt: the agents write what `kubectl ratchet` reads,
and they may be of different versions, so keys that are not known are ignored and what is not said
has a default. Whoever may change a pod may write them, so everything is checked: reading raises
ValueError, which names the key. The parent does not load this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ratchet.cni.dataclasses import dataclass
from ratchet.errors import shown
from ratchet.status import LinkStatus, moment_of, optional_text_of, text_of

POD = "ratchet/status"
NODE = "ratchet/node"
ASKED = "ratchet/check"
HEARD = "ratchet/checked"
EVERY = (POD, NODE, ASKED, HEARD)

# All annotations of a pod together may have 256 KiB.
LONGEST_BYTES = 96 << 10
MOST_PEERS = 5000
_LONGEST_REASON = 300
_UNTOLD = ("last_error", "last_error_at", "peer_address")  # of no use to somebody far away
_REASONS = ("error", "fault")


@dataclass(frozen=True, slots=True)
class PodTold:
    """A labelled pod. `name` is the one by which other pods know it, `address` its node's."""

    name: str
    node: str
    address: str
    links: tuple[LinkStatus, ...] = ()
    superseded: bool = False
    error: str | None = None
    omitted: int = 0
    """How many links more there are than an annotation can hold."""

    def dumps(self) -> str:
        """Return the value, without the last links if there are too many."""
        links = [_link(link) for link in self.links]
        head: dict[str, Any] = {"name": self.name, "node": self.node, "address": self.address}
        if self.superseded:
            head["superseded"] = True
        if self.error is not None:
            head["error"] = self.error[:_LONGEST_REASON]
        sizes = [len(_dumps(link).encode()) + 1 for link in links]
        room = LONGEST_BYTES - len(_dumps(head).encode()) - 100
        kept = len(links)
        while kept and sum(sizes[:kept]) > room:
            kept -= 1
        if kept < len(links):
            head["omitted"] = len(links) - kept
        return _dumps({**head, "links": links[:kept]})

    @classmethod
    def loads(cls, text: str) -> PodTold:
        """Read a value. *Raises* ValueError."""
        obj = _object(text)
        links = obj.get("links", [])
        if not isinstance(links, list):
            raise ValueError(f"links {shown(links)}")
        return cls(
            name=text_of(obj, "name"),
            node=text_of(obj, "node"),
            address=text_of(obj, "address"),
            links=tuple(map(LinkStatus.from_json, links)),
            superseded=obj.get("superseded") is True,
            error=optional_text_of(obj, "error"),
            omitted=_count(obj, "omitted"),
        )


@dataclass(frozen=True, slots=True)
class NodeTold:
    """A node as its agent sees it. Times are seconds since the epoch."""

    version: str
    network: str
    address: str
    interface: str
    vxlan_port: int
    mtu_bytes: int | None = None
    """Of links between nodes; None where the lower device is not there."""
    etcd: str = "unknown"  # reachable, away, unknown
    etcd_since: float | None = None
    etcd_error: str | None = None
    guard: str | None = None
    watching: bool = False
    troubles: tuple[str, ...] = ()
    """What is wrong: with the address, the API server, the labels."""

    def dumps(self) -> str:
        obj = {name: getattr(self, name) for name in NodeTold.__match_args__}
        obj["troubles"] = [one[:_LONGEST_REASON] for one in self.troubles]
        if self.etcd_error is not None:
            obj["etcd_error"] = self.etcd_error[:_LONGEST_REASON]
        return _dumps({name: value for name, value in obj.items() if value is not None})

    @classmethod
    def loads(cls, text: str) -> NodeTold:
        """Read a value. *Raises* ValueError."""
        obj = _object(text)
        port, mtu = _count(obj, "vxlan_port"), _count(obj, "mtu_bytes")
        return cls(
            version=text_of(obj, "version"),
            network=text_of(obj, "network"),
            address=text_of(obj, "address"),
            interface=text_of(obj, "interface"),
            vxlan_port=port,
            mtu_bytes=mtu or None,
            etcd=optional_text_of(obj, "etcd") or "unknown",
            etcd_since=moment_of(obj, "etcd_since"),
            etcd_error=optional_text_of(obj, "etcd_error"),
            guard=optional_text_of(obj, "guard"),
            watching=obj.get("watching") is True,
            troubles=_texts(obj, "troubles"),
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What an agent is asked: to send frames to these addresses, and to listen for theirs.

    `secret` is new each time. Who knows it can say that frames have come which have not.
    """

    secret: str
    peers: tuple[str, ...]

    @property
    def number(self) -> str:
        """What it is called by whoever is not to learn the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:16]

    def dumps(self) -> str:
        return _dumps({"secret": self.secret, "peers": list(self.peers)})

    @classmethod
    def loads(cls, text: str) -> Asked:
        """Read a value. *Raises* ValueError."""
        obj = _object(text)
        peers = _texts(obj, "peers")
        if len(peers) > MOST_PEERS:
            raise ValueError(f"peers has {len(peers)} addresses; allowed are {MOST_PEERS}")
        secret = text_of(obj, "secret")
        if not 16 <= len(secret) <= 128:
            raise ValueError("secret has not 16 to 128 characters")
        return cls(secret, peers)


@dataclass(frozen=True, slots=True)
class Heard:
    """What has come of it: of which peers no frame came, no large one, no whole one.

    `number` names the request without its secret. A *large* frame is one of the links' MTU, and a
    *whole* one the same, but not to be fragmented on its way.
    """

    number: str
    silent: tuple[str, ...] = ()
    small_only: tuple[str, ...] = ()
    fragmented: tuple[str, ...] = ()
    unsent: Mapping[str, str] | None = None
    """Why frames could not be sent, by peer."""
    error: str | None = None
    """Why nothing was tried at all."""

    def dumps(self) -> str:
        obj: dict[str, Any] = {"number": self.number}
        for name in ("silent", "small_only", "fragmented"):
            obj[name] = list(getattr(self, name))
        if self.unsent:
            obj["unsent"] = dict(self.unsent)
        if self.error is not None:
            obj["error"] = self.error[:_LONGEST_REASON]
        return _dumps(obj)

    @classmethod
    def loads(cls, text: str) -> Heard:
        """Read a value. *Raises* ValueError."""
        obj = _object(text)
        unsent = obj.get("unsent", {})
        if not isinstance(unsent, dict) or not all(isinstance(v, str) for v in unsent.values()):
            raise ValueError(f"unsent {shown(unsent)}")
        return cls(
            number=text_of(obj, "number"),
            silent=_texts(obj, "silent"),
            small_only=_texts(obj, "small_only"),
            fragmented=_texts(obj, "fragmented"),
            unsent=unsent,
            error=optional_text_of(obj, "error"),
        )


# Values -----------------------------------------------------------------------------------------


def _link(link: LinkStatus) -> dict[str, Any]:
    """Return a link without what need not be said."""
    obj = {
        name: value
        for name, value in link.to_json().items()
        if value is not None and name not in _UNTOLD
    }
    for name in ("since", "silent_since"):
        if name in obj:
            obj[name] = int(obj[name])
    for name in _REASONS:
        if name in obj:
            obj[name] = obj[name][:_LONGEST_REASON]
    return obj


def _dumps(obj: object) -> str:
    return json.dumps(obj, separators=(",", ":"))


def _object(text: str) -> dict[str, Any]:
    try:
        obj = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(obj, dict):
        raise ValueError(f"{shown(text)} is not a JSON object")
    return obj


def _texts(obj: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = obj.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{key} {shown(value)}")
    return tuple(value)


def _count(obj: Mapping[str, Any], key: str) -> int:
    value = obj.get(key, 0)
    if type(value) is not int or value < 0:
        raise ValueError(f"{key} {shown(value)}")
    return value
