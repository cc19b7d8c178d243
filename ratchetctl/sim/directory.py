"""Where a simulation keeps what it knows: one directory, found again by its name.

    <base>/<name>/
      sim.json              nodes, their labels, etcd, the network configuration
      netns/                bind mounts: underlay, node1.., and one for each container ID
      etcd/                 data and log of the private etcd
      nodes/<node>/         10-ratchet.conf (or .conflist), state/, cni/, ratchet.log
      pods/<ns>_<pod>.json  a pod and its attachment, written before its ADD
      pods/<ns>_<pod>.work  what `sim run` started in it, for `sim restart`
      run/<ns>_<pod>/       a pod's /run: sockets, pid files and logs of what runs in it

Nothing of a simulation's files lies anywhere else. A call that changes something holds a lock on
the directory itself, so that no lock file has to be left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ratchetctl.errors import SimError

DEFAULT_BASE = "/run/ratchet-sim"
BASE_VARIABLE = "RATCHET_SIM_DIR"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?\Z")
LOCK_TIMEOUT_S = 300.0
LOCK_PAUSE_S = 0.1
_LONGEST_FILE_NAME = 160  # the kernel takes 255 bytes, ours with a hash and an ending


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node: its number from 1 up, its underlay address and its labels."""

    name: str
    number: int
    address: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class SimState:
    """What `sim up` decided and the later commands need."""

    nodes: tuple[NodeState, ...]
    plugin_dirs: tuple[str, ...]
    etcd_prefix: str
    foreign_etcd: str | None


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod and its attachment; result is None while its ADD has not succeeded."""

    namespace: str
    name: str
    uid: str
    container_id: str
    node: str
    labels: dict[str, str]
    annotations: dict[str, str]
    netns: str
    result: dict[str, Any] | None = None

    @property
    def full_name(self) -> str:
        """The name as commands take it: the namespace only where it is not default."""
        return self.name if self.namespace == "default" else f"{self.namespace}/{self.name}"


class SimDirectory:
    """The paths below one simulation's directory, and the records in them."""

    def __init__(self, name: str, base: str | None = None) -> None:
        if not NAME.match(name):
            raise SimError(f"--name {name!r}: use at most 32 lower case letters, digits and '-'")
        self.name = name
        self.base = base or os.environ.get(BASE_VARIABLE) or DEFAULT_BASE
        # A thread that enters a mount namespace leaves its working directory.
        self.path = os.path.abspath(os.path.join(self.base, name))

    @property
    def exists(self) -> bool:
        return os.path.isdir(self.path)

    def create(self) -> None:
        """Make the directory. Raises SimError when there is one of this name."""
        os.makedirs(self.base, mode=0o755, exist_ok=True)
        try:
            # Others may pass but not look: routers give up root and reach their sockets by path.
            os.mkdir(self.path, 0o711)
        except FileExistsError as error:
            raise SimError(
                f"the simulation {self.name!r} exists ({self.path});"
                f" end it with `ratchetctl sim down{self._option()}`, or use another --name"
            ) from error
        for inner in ("netns", "places", "pods", "nodes"):
            os.mkdir(os.path.join(self.path, inner), 0o700)
        os.mkdir(os.path.join(self.path, "run"), 0o711)

    def remove(self) -> None:
        """Remove the directory, and the base if that leaves it empty. Safe to call twice."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path)
        with contextlib.suppress(OSError):
            os.rmdir(self.base)

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the simulation against other calls that change it.

        Blocks at most LOCK_TIMEOUT_S, after calling waiting once. Raises SimError when there is no
        such simulation or the lock is not to be had.
        """
        if not self.exists:
            raise SimError(
                f"no simulation {self.name!r} is running; start one with `ratchetctl sim up`"
            )
        with held(self.path, waiting):
            yield

    def netns(self, name: str) -> str:
        """Return the namespace of the underlay, of a node or of a container."""
        return os.path.join(self.path, "netns", name)

    def place(self, node: str) -> str:
        """Return the mount namespace of a node's plugins."""
        return os.path.join(self.path, "places", node)

    def sockets(self, node: str) -> str:
        """Return what is /run/ratchet on a node."""
        return os.path.join(self.node(node), "sockets")

    def all_netns(self) -> list[str]:
        """Return every namespace, even one that a crash left half made."""
        try:
            return [self.netns(name) for name in os.listdir(os.path.join(self.path, "netns"))]
        except FileNotFoundError:
            return []

    def etcd(self) -> str:
        return os.path.join(self.path, "etcd")

    def node(self, name: str) -> str:
        return os.path.join(self.path, "nodes", name)

    def state_dir(self, node: str) -> str:
        """Return Ratchet's own state directory on a node."""
        return os.path.join(self.node(node), "state")

    def run(self, pod: PodState) -> str:
        return os.path.join(self.path, "run", _file_name(pod.namespace, pod.name))

    def write_state(self, state: SimState) -> None:
        _write_json(os.path.join(self.path, "sim.json"), asdict(state))

    def read_state(self) -> SimState:
        """Read the simulation's state. Raises SimError when it is not there or was cut short."""
        try:
            found = _read_json(os.path.join(self.path, "sim.json"))
        except FileNotFoundError as error:
            if self.exists:
                raise SimError(
                    f"the simulation {self.name!r} was not made completely;"
                    f" remove it with `ratchetctl sim down{self._option()}`"
                ) from error
            raise SimError(
                f"no simulation {self.name!r} is running; start one with `ratchetctl sim up`"
            ) from error
        return SimState(
            nodes=tuple(NodeState(**node) for node in found["nodes"]),
            plugin_dirs=tuple(found["plugin_dirs"]),
            etcd_prefix=found["etcd_prefix"],
            foreign_etcd=found["foreign_etcd"],
        )

    def write_pod(self, pod: PodState) -> None:
        _write_json(self._pod(pod.namespace, pod.name), asdict(pod))

    def read_pod(self, namespace: str, name: str) -> PodState | None:
        try:
            return PodState(**_read_json(self._pod(namespace, name)))
        except FileNotFoundError:
            return None

    def pods(self) -> list[PodState]:
        """Return every pod, by namespace and name."""
        folder = os.path.join(self.path, "pods")
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
        except FileNotFoundError:
            return []
        return [PodState(**_read_json(os.path.join(folder, name))) for name in names]

    def forget_pod(self, pod: PodState) -> None:
        """Remove a pod's record and its run directory. Safe to call twice."""
        self.forget_run(pod)
        for path in (self._pod(pod.namespace, pod.name), self._work(pod)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def forget_run(self, pod: PodState) -> None:
        """Empty a pod's run directory. Safe to call twice."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.run(pod))

    def write_work(self, pod: PodState, work: Mapping[str, Any]) -> None:
        """Keep what was started in a pod."""
        _write_json(self._work(pod), work)

    def read_work(self, pod: PodState) -> dict[str, Any] | None:
        """Return what was started in a pod; None when nothing was."""
        try:
            return _read_json(self._work(pod))
        except FileNotFoundError:
            return None

    def _work(self, pod: PodState) -> str:
        return os.path.join(self.path, "pods", f"{_file_name(pod.namespace, pod.name)}.work")

    def _pod(self, namespace: str, name: str) -> str:
        return os.path.join(self.path, "pods", _file_name(namespace, name) + ".json")

    def _option(self) -> str:
        return "" if self.name == "default" else f" --name {self.name}"


@contextlib.contextmanager
def held(path: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a folder against other calls that hold it; `locked` says how long. Raises SimError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SimError(f"{path} was removed meanwhile") from error
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if waiting:
                    waiting()
                    waiting = None
                if time.monotonic() > deadline:
                    raise SimError(f"{path} is held by another ratchetctl") from error
                time.sleep(LOCK_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _file_name(namespace: str, name: str) -> str:
    # Neither part can hold "_", so no two pods share a file: Kubernetes' names are DNS names.
    whole = f"{namespace}_{name}"
    if len(whole) <= _LONGEST_FILE_NAME:
        return whole
    return f"{whole[:_LONGEST_FILE_NAME]}_{hashlib.sha256(whole.encode()).hexdigest()}"


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(temporary, path)


def _read_json(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found
