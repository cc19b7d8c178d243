"""What this node's child says of its pods and links, or their records where no child answers.

The state directory is found as the node itself finds it: by the network configuration. Whatever
comes over the socket is checked before it is shown: the child may be of another version, and what
sits on a socket need not be a child. Nothing in here starts a child or changes what it does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet import client, log, messages, statedir
from ratchet.attachments import Attachment, Directory
from ratchet.config import Config
from ratchet.errors import ChildError, ConfigError
from ratchetctl.errors import StatusError

CONFIGURATIONS = "/etc/cni/net.d"
STATE_DIRS = "/run/ratchet"
ANSWER_TIMEOUT_S = 5.0

UP, WAITING, ERROR, UNKNOWN = "up", "waiting", "error", "unknown"
SUPERSEDED = "superseded"
_SUFFIXES = (".conf", ".conflist", ".json")  # as libcni has them
_MARKS = (statedir.SETTINGS, statedir.SOCKET, statedir.LOCK, statedir.RECORDS)
_LAST_TIME = 1e11  # nothing that a clock says comes after it
_NO_TEXT: tuple[type, ...] = (str, type(None))
_NO_NUMBER: tuple[type, ...] = (int, float, type(None))


@dataclass(frozen=True, slots=True)
class Link:
    """One link as one of its pods sees it. Times are seconds since the epoch."""

    ifname: str
    address: str | None
    peer: str
    peer_ifname: str | None
    peer_address: str | None
    peer_node: str | None
    primary: bool
    kind: str | None
    vni: int | None
    state: str
    since: float | None
    error: str | None
    last_error: str | None
    last_error_at: float | None


@dataclass(frozen=True, slots=True)
class Pod:
    """A labelled pod of this node."""

    namespace: str
    name: str
    kubernetes_name: str | None
    container_id: str
    netns: str
    attached_at: float | None
    state: str
    error: str | None
    last_error: str | None
    last_error_at: float | None
    links: tuple[Link, ...]

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Front:
    """How many calls the front brought to the child, by result, and why the parent served others.

    The child sees only a part of the latter: a parent that does not ask it tells it nothing.
    """

    calls: dict[str, int]
    fallbacks: dict[str, int]


@dataclass(frozen=True, slots=True)
class Node:
    """What is known of this node. `child_error` says why there is no more than the records."""

    state_dir: str
    child: str  # running, absent, silent
    child_error: str | None
    address: str | None
    interface: str | None
    etcd: str  # reachable, away, unknown
    etcd_since: float | None
    etcd_error: str | None
    front: Front | None
    pods: tuple[Pod, ...]


# Where -------------------------------------------------------------------------------------------


def state_dir_of(config_file: str | None, state_dir: str | None) -> str:
    """The state directory that is meant. *Raises* StatusError, and PermissionError."""
    if state_dir is not None:
        path = os.path.abspath(state_dir)
        try:
            names = os.listdir(path)
        except (FileNotFoundError, NotADirectoryError):
            raise StatusError(f"{path} is not a directory") from None
        if not any(mark in _MARKS for mark in names):
            raise StatusError(f"{path} is not a state directory of Ratchet's")
        return path
    if config_file is not None:
        found = _plugin(config_file)
        if found is None:
            raise StatusError(f"{config_file} has no plugin of type ratchet")
        return _configured(config_file, found)
    return _of_this_node()


def _of_this_node() -> str:
    unreadable = []
    for name in sorted(_names(CONFIGURATIONS)):
        if not name.endswith(_SUFFIXES):
            continue
        path = os.path.join(CONFIGURATIONS, name)
        try:
            found = _plugin(path)
        except StatusError as error:
            unreadable.append(str(error))
            continue
        if found is not None:
            return _configured(path, found)
    known = [path for name in _names(STATE_DIRS) if os.path.isdir(path := f"{STATE_DIRS}/{name}")]
    if len(known) == 1:
        return known[0]
    why = f"no network configuration in {CONFIGURATIONS} has a plugin of type ratchet"
    if known:
        why += f", and {STATE_DIRS} has several networks: {', '.join(map(os.path.basename, known))}"
    raise StatusError("; ".join([f"{why}: give --config or --state-dir", *unreadable]))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _plugin(path: str) -> dict[str, Any] | None:
    """Our plugin configuration in a network configuration; None when it has none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise StatusError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise StatusError(f"{path} is not a JSON object")
    plugins = found["plugins"] if isinstance(found.get("plugins"), list) else [found]
    for plugin in plugins:
        if isinstance(plugin, dict) and plugin.get("type") == "ratchet":
            return {"name": found.get("name"), **plugin}
    return None


def _configured(path: str, plugin: Mapping[str, Any]) -> str:
    try:
        return Config.parse(plugin).state_dir
    except ConfigError as error:
        raise StatusError(f"{path}: {error.msg}: {error.details}".rstrip(": ")) from error


# What --------------------------------------------------------------------------------------------


def read(state_dir: str) -> Node:
    """Ask the child; where none answers, read the records. *Raises* StatusError.

    *Blocks at most* ANSWER_TIMEOUT_S.
    """
    log.configure(None, "error", "ratchetctl", to_stderr=True)
    if os.path.lexists(state_dir):
        os.listdir(state_dir)  # says who may not look, before a missing child is claimed
    config = Config.parse({"name": "status", "state_dir": state_dir})
    try:
        answer = client.ask(config, messages.Status(), ANSWER_TIMEOUT_S)
        if answer is None:
            return _from_records(state_dir, "absent", "no child runs")
        return _from_answer(state_dir, answer)
    except ChildError as error:
        why = ": ".join(part for part in (error.msg, error.details) if part)
        return _from_records(state_dir, "silent", why)
    except (KeyError, TypeError, ValueError) as error:
        why = f"the child's answer is not understood, is it of another version? ({error!r})"
        return _from_records(state_dir, "silent", why)


def _from_answer(state_dir: str, answer: dict[str, Any]) -> Node:
    if answer["ok"] is not True:
        raise ValueError(f"{answer.get('msg')} {answer.get('details')}")
    error = _taken(answer, "etcd", *_NO_TEXT)
    away = _taken(answer, "etcd_away", bool)
    return Node(
        state_dir=state_dir,
        child="running",
        child_error=None,
        address=_taken(answer, "node", str),
        interface=_taken(answer, "parent_interface", str) or None,
        etcd="reachable" if error is None else "away" if away else "unknown",
        etcd_since=_time(answer, "etcd_since"),
        etcd_error=error if away else None,
        front=_front(answer),
        pods=_sorted(_pod(one) for one in _taken(answer, "pods", list)),
    )


def _from_records(state_dir: str, child: str, why: str) -> Node:
    pods = _sorted(map(_recorded, Directory(state_dir).live()))
    return Node(state_dir, child, why, None, None, "unknown", None, None, None, pods)


def _front(answer: dict[str, Any]) -> Front | None:
    """None for a child of a version that has no front."""
    if "front" not in answer:
        return None
    found = _taken(answer, "front", dict)
    return Front(_counts(found, "calls"), _counts(found, "fallbacks"))


def _counts(found: dict[str, Any], key: str) -> dict[str, int]:
    counts: dict[str, int] = _taken(found, key, dict)
    if not all(isinstance(count, int) for count in counts.values()):
        raise TypeError(f"{key} is {counts}")
    return counts


def _sorted(pods: Iterator[Pod]) -> tuple[Pod, ...]:
    return tuple(sorted(pods, key=lambda pod: (pod.namespace, pod.name, pod.state == SUPERSEDED)))


def _pod(found: dict[str, Any]) -> Pod:
    namespace = _taken(found, "namespace", str)
    links = tuple(_link(one, namespace) for one in _taken(found, "links", list))
    error = _taken(found, "error", *_NO_TEXT)
    return Pod(
        namespace=namespace,
        name=_taken(found, "name", str),
        kubernetes_name=_taken(found, "kubernetes_name", *_NO_TEXT),
        container_id=_taken(found, "container", str),
        netns=_taken(found, "netns", str),
        attached_at=_time(found, "attached_at"),
        state=SUPERSEDED if _taken(found, "superseded", bool) else _worst(error, links),
        error=error,
        last_error=_taken(found, "last_error", *_NO_TEXT),
        last_error_at=_time(found, "last_error_at"),
        links=links,
    )


def _worst(error: str | None, links: tuple[Link, ...]) -> str:
    """The state of a pod: the worst of its own and its links'."""
    states = {link.state for link in links}
    if error is not None or ERROR in states:
        return ERROR
    return WAITING if WAITING in states else UP


def _link(found: dict[str, Any], namespace: str) -> Link:
    state = _taken(found, "state", str)
    if state not in (UP, WAITING, ERROR):
        raise ValueError(f"state {state!r}")
    return Link(
        ifname=_taken(found, "ifname", str),
        address=_taken(found, "address", *_NO_TEXT),
        peer=_taken(found, "peer", str).removeprefix(f"{namespace}:"),
        peer_ifname=_taken(found, "peer_ifname", *_NO_TEXT),
        peer_address=_taken(found, "peer_address", *_NO_TEXT),
        peer_node=_taken(found, "peer_node", *_NO_TEXT),
        primary=_taken(found, "primary", bool),
        kind=_taken(found, "kind", *_NO_TEXT),
        vni=_taken(found, "vni", int, type(None)),
        state=state,
        since=_time(found, "since"),
        error=_taken(found, "error", *_NO_TEXT),
        last_error=_taken(found, "last_error", *_NO_TEXT),
        last_error_at=_time(found, "last_error_at"),
    )


def _recorded(attachment: Attachment) -> Pod:
    return Pod(
        namespace=attachment.namespace,
        name=attachment.pod,
        kubernetes_name=attachment.kubernetes_name,
        container_id=attachment.container_id,
        netns=attachment.netns,
        attached_at=attachment.attached_at,
        state=UNKNOWN,
        error=None,
        last_error=None,
        last_error_at=None,
        links=tuple(
            Link(
                ifname=link.ifname,
                address=_text(link.address),
                peer=link.pair,
                peer_ifname=link.pair_ifname,
                peer_address=_text(link.pair_address),
                peer_node=None,
                primary=True,
                kind=None,
                vni=None,
                state=UNKNOWN,
                since=None,
                error=None,
                last_error=None,
                last_error_at=None,
            )
            for link in attachment.links
        ),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _taken(found: dict[str, Any], key: str, *kinds: type) -> Any:
    value = found[key]
    if not isinstance(value, kinds):
        raise TypeError(f"{key} {value!r}")
    return value


def _time(found: dict[str, Any], key: str) -> float | None:
    value: float | None = _taken(found, key, *_NO_NUMBER)
    if value is not None and not 0 <= value < _LAST_TIME:
        raise ValueError(f"{key} {value!r}")
    return value
