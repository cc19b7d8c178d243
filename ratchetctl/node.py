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

from ratchet import client, log, messages, repeated, statedir
from ratchet.attachments import Attachment, Directory
from ratchet.cni.dataclasses import replace
from ratchet.config import Config
from ratchet.errors import ChildError, ConfigError
from ratchet.plugin import SOURCE
from ratchet.status import (
    ERROR,
    UP,
    WAITING,
    AgentStatus,
    FrontStatus,
    LinkStatus,
    NodeStatus,
    PodStatus,
)
from ratchetctl.errors import StatusError

CONFIGURATIONS = "/etc/cni/net.d"
FOLDER_VARIABLE = "RATCHET_CONF_DIR"
INSTALLED = "ratchet.node/ratchet.conf"  # what the installer writes for the child, in that folder
STATE_DIRS = "/run/ratchet"
ANSWER_TIMEOUT_S = 5.0

UNKNOWN, SUPERSEDED = "unknown", "superseded"
_SUFFIXES = (".conf", ".conflist", ".json")  # as libcni has them
_MARKS = (
    f"{SOURCE}.failed.json",
    statedir.SETTINGS,
    statedir.SOCKET,
    statedir.LOCK,
    statedir.RECORDS,
)


@dataclass(frozen=True, slots=True)
class Pod:
    """A labelled pod of this node. Its links name their peers without the pod's namespace."""

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
    links: tuple[LinkStatus, ...]

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Node:
    """What is known of this node. `child_error` says why there is no more than the records."""

    state_dir: str
    child: str  # running, absent, silent
    child_error: str | None
    address: str | None
    interface: str | None
    trouble: str | None  # what is wrong with its address
    etcd: str  # reachable, away, unknown
    etcd_since: float | None
    etcd_error: str | None
    front: FrontStatus | None
    guard: str | None
    labels_error: str | None
    pods: tuple[Pod, ...]
    unfinished: int = 0  # records of pods that are gone, for which nobody cleans up
    agent: AgentStatus | None = None


# Where -------------------------------------------------------------------------------------------


def state_dir_of(config_file: str | None, state_dir: str | None) -> str:
    """Return the state directory that is meant. *Raises* StatusError, and PermissionError."""
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
    # Agents' containers name the runtime's folder so.
    folder = os.environ.get(FOLDER_VARIABLE) or CONFIGURATIONS
    for name in (INSTALLED, *sorted(_names(folder))):
        path = os.path.join(folder, name)
        if not name.endswith(_SUFFIXES) or not os.path.isfile(path):
            continue
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
    why = f"no network configuration in {folder} has a plugin of type ratchet"
    if known:
        why += f", and {STATE_DIRS} has several networks: {', '.join(map(os.path.basename, known))}"
    raise StatusError("; ".join([f"{why}: give --config or --state-dir", *unreadable]))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _plugin(path: str) -> dict[str, Any] | None:
    """Return our plugin configuration in a network configuration; None when it has none."""
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
    except ValueError as error:
        why = f"the child's answer is not understood; is it of another version? ({error})"
        return _from_records(state_dir, "silent", why)


def _from_answer(state_dir: str, answer: dict[str, Any]) -> Node:
    failure = messages.Failure.from_json(answer)
    if failure is not None:
        raise ValueError(f"{failure.msg} {failure.details}".strip())
    found = NodeStatus.from_json(answer)
    return Node(
        state_dir=state_dir,
        child="running",
        child_error=None,
        address=found.node or None,
        interface=found.parent_interface or None,
        trouble=found.trouble,
        etcd="reachable" if found.etcd is None else "away" if found.etcd_away else "unknown",
        etcd_since=found.etcd_since,
        etcd_error=found.etcd if found.etcd_away else None,
        front=found.front,
        guard=found.guard,
        labels_error=found.labels or _no_source(state_dir),
        agent=found.agent,
        pods=_sorted(map(_pod, found.pods)),
    )


def _from_records(state_dir: str, child: str, why: str) -> Node:
    directory = Directory(state_dir)
    pods = _sorted(map(_recorded, directory.live()))
    unfinished = len(directory.deleted())
    source = _no_source(state_dir)
    return Node(
        state_dir,
        child,
        why,
        None,
        None,
        None,
        "unknown",
        None,
        None,
        None,
        None,
        source,
        pods,
        unfinished,
    )


def _no_source(state_dir: str) -> str | None:
    """Return what a parent has noted that was given no source of labels."""
    return repeated.last(state_dir, SOURCE)


def _sorted(pods: Iterator[Pod]) -> tuple[Pod, ...]:
    return tuple(sorted(pods, key=lambda pod: (pod.namespace, pod.name, pod.state == SUPERSEDED)))


def _pod(found: PodStatus) -> Pod:
    namespace = f"{found.namespace}:"
    return Pod(
        namespace=found.namespace,
        name=found.name,
        kubernetes_name=found.kubernetes_name,
        container_id=found.container,
        netns=found.netns,
        attached_at=found.attached_at,
        state=SUPERSEDED if found.superseded else _worst(found.error, found.links),
        error=found.error,
        last_error=found.last_error,
        last_error_at=found.last_error_at,
        links=tuple(replace(link, peer=link.peer.removeprefix(namespace)) for link in found.links),
    )


def _worst(error: str | None, links: tuple[LinkStatus, ...]) -> str:
    """Return the state of a pod: the worst of its own and its links'."""
    states = {link.state for link in links}
    if error is not None or ERROR in states:
        return ERROR
    return WAITING if WAITING in states else UP


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
            LinkStatus(
                ifname=link.ifname,
                address=_text(link.address),
                peer=link.pair,
                peer_ifname=link.pair_ifname,
                peer_address=_text(link.pair_address),
                primary=True,
                state=UNKNOWN,
            )
            for link in attachment.links
        )
        + tuple(
            LinkStatus(
                ifname=uplink.ifname,
                address=_text(uplink.address),
                peer="the node",
                peer_ifname=uplink.device,
                peer_address=_text(uplink.device_address),
                primary=True,
                kind=uplink.kind,
                state=UNKNOWN,
            )
            for uplink in attachment.uplinks
        ),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
