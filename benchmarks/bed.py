"""The machines of the benchmark: nodes, pods and an etcd in namespaces, all with random names.

The underlay and the namespaces are the simulator's; plugins are run by `launch`, since a simulator
that is kind to its user does more for each pod than a measurement may.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.etcd import Connection, Etcd, memory_kb
from benchmarks.launch import Crowd, Done, Task, run
from benchmarks.place import Place, mounts, shared
from benchmarks.probe import Cable, End, Eyes
from ratchetctl.sim import netns, processes, underlay
from ratchetctl.sim.directory import NodeState

REFERENCE_PLUGINS = "/usr/lib/cni"
ETCD_PORT = 2379
PREFIX = "/ratchet"
NETWORK = "bench"
SETTLE_TIMEOUT_S = 60.0
KUBERNETES_NAMESPACE = "default"
KUBERNETES_UID = "11111111-2222-3333-4444-555555555555"  # of every pod

Labels = Mapping[str, str]

PAIR: Labels = {"ratchet": "true", "ratchet.primary": "false"}
UNLABELLED: Labels = {"app": "web", "pod-template-hash": "5d59d67564"}


class BedError(Exception):
    """The machines are not as they should be."""


SUPERVISOR = "ratchet-super"  # in ps(1)


@dataclass(eq=False)
class Pod:
    """A sandbox: a namespace and a container ID."""

    name: str
    path: str
    container_id: str
    labels: Labels = field(default_factory=dict)
    eyes: Eyes | None = None

    def see(self) -> Eyes:
        if self.eyes is None:
            self.eyes = Eyes(self.path)
        return self.eyes


@dataclass(eq=False)
class Node:
    """A node: its namespace, its tunnel address and its folder."""

    number: int
    name: str
    place: Place
    address: str
    folder: str

    @property
    def path(self) -> str:
        return self.place.network

    @property
    def state_dir(self) -> str:
        return os.path.join(self.folder, "state")

    def records(self) -> list[str]:
        """Return the names of the attachment records, including deleted ones."""
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(os.path.join(self.state_dir, "attachments"))
        return []

    def child(self) -> int | None:
        """Return the child's process; None when none runs."""
        found = self._serving()
        return next((pid for pid, name in found.items() if name != SUPERVISOR), None)

    def supervisor(self) -> int | None:
        """Return the process that supervises the child; None when none does."""
        found = self._serving()
        return next((pid for pid, name in found.items() if name == SUPERVISOR), None)

    def _serving(self) -> dict[int, str]:
        """Return the processes of the child's program, and their names in ps(1)."""
        found = {}
        identity = netns.identity(self.path)
        for pid in processes.pids({identity} if identity else ()):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    arguments = file.read().split(b"\0")
                if b"--state-dir" in arguments and self.state_dir.encode() in arguments:
                    with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                        found[pid] = file.read().strip()
        return found

    def kill_child(self) -> None:
        """End the child and its supervisor as a crash would. *Safe to call twice.*"""
        doomed = [pid for pid in (self.supervisor(), self.child()) if pid is not None]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        deadline = time.monotonic() + 5
        while any(memory_kb(pid, "VmRSS") for pid in doomed) and time.monotonic() < deadline:
            time.sleep(0.002)


class Bed:
    """To be used as a context: removes everything, and ends only what it has started."""

    def __init__(self, plugin_dir: str, nodes: int) -> None:
        self.plugin_dir = plugin_dir
        self._stack = contextlib.ExitStack()
        self.folder = tempfile.mkdtemp(prefix="rb-", dir=memory_folder())
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.name = os.path.basename(self.folder)
        self._stack.enter_context(shared(self.folder))
        self._paths: list[str] = []
        self._stack.callback(self._remove_namespaces)
        try:
            self._build(nodes)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Bed:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self, nodes: int) -> None:
        self.underlay = self.namespace("underlay")
        states = [
            NodeState(f"node{number}", number, underlay.node_address(number), {})
            for number in range(1, nodes + 1)
        ]
        self.nodes: list[Node] = []
        for state in states:
            folder = os.path.join(self.folder, state.name)
            os.mkdir(folder)
            place = Place(self.namespace(state.name), self._stack.enter_context(mounts()))
            self.nodes.append(Node(state.number, state.name, place, state.address, folder))
        underlay.build(
            self.underlay,
            [(state, node.path) for state, node in zip(states, self.nodes, strict=True)],
        )
        self.etcd = Etcd(
            self.underlay,
            underlay.ROUTER_ADDRESS,
            ETCD_PORT,
            os.path.join(self.folder, "etcd"),
        )
        self._stack.callback(self.etcd.stop)
        self.etcd.start()
        # From a node, as the child's: across the underlay.
        self.etcd_connection = Connection(self.nodes[0].path, underlay.ROUTER_ADDRESS, ETCD_PORT)
        self._stack.callback(self.etcd_connection.close)

    def namespace(self, name: str) -> str:
        path = os.path.join(self.folder, f"netns-{name}-{secrets.token_hex(3)}")
        self._paths.append(path)
        netns.create(path)
        return path

    def remove_namespace(self, path: str) -> None:
        netns.remove(path)
        self._paths.remove(path)

    def _remove_namespaces(self) -> None:
        ids = (netns.identity(path) for path in self._paths)
        processes.end({found for found in ids if found})
        for path in self._paths:
            netns.remove(path)

    # Pods -------------------------------------------------------------------------------------

    def pod(self, name: str, labels: Labels | None = None) -> Pod:
        container_id = secrets.token_hex(32)
        return Pod(name, self.namespace(f"pod-{name}"), container_id, labels or UNLABELLED)

    def remove_pod(self, pod: Pod) -> None:
        if pod.eyes is not None:
            pod.eyes.close()
        self.remove_namespace(pod.path)

    def cable(self, number: int, a: Pod, ifname_a: str, b: Pod, ifname_b: str) -> Cable:
        """Return the link that `labels_of_link` declares with the same number."""
        here, there = addresses(number)
        return Cable(number, End(a.see(), ifname_a, here), End(b.see(), ifname_b, there))

    # Configurations ---------------------------------------------------------------------------

    @property
    def ratchet(self) -> str:
        return os.path.join(self.plugin_dir, "ratchet")

    def config(self, node: Node, **changes: Any) -> dict[str, Any]:
        """Return a node's `10-ratchet.conf`."""
        config: dict[str, Any] = {
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": "ratchet",
            "delegate": loopback(),
            "boot_network": {"type": "loopback"},
            "etcd_host": underlay.ROUTER_ADDRESS,
            "etcd_port": ETCD_PORT,
            "child_path": os.path.join(self.plugin_dir, "ratchet-child"),
            "parent_interface": underlay.NODE_INTERFACE,
            "parent_address": node.address,
            "label_source": "runtime",
            "state_dir": node.state_dir,
            "log_file": os.path.join(node.folder, "ratchet.log"),
        }
        return {**config, **changes}

    def bridge(self, node: Node) -> dict[str, Any]:
        """Return a usual delegate: bridge with host-local."""
        return {
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": "bridge",
            "bridge": "cni0",
            "ipam": {
                "type": "host-local",
                "subnet": underlay.pod_subnet(node.number),
                "dataDir": os.path.join(node.folder, "host-local"),
            },
        }

    def environ(self, command: str, pod: Pod, path: str = "") -> dict[str, str]:
        """Return a plugin's environment as containerd sets it."""
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.container_id,
            "CNI_NETNS": pod.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": ":".join(filter(None, (path, self.plugin_dir, REFERENCE_PLUGINS))),
            "CNI_ARGS": (
                f"IgnoreUnknown=1;K8S_POD_NAMESPACE={KUBERNETES_NAMESPACE};"
                f"K8S_POD_NAME={pod.name};K8S_POD_INFRA_CONTAINER_ID={pod.container_id};"
                f"K8S_POD_UID={KUBERNETES_UID}"
            ),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }

    def task(self, node: Node, command: str, pod: Pod, **changes: Any) -> Task:
        """Return a call of ratchet with the pod's labels as the runtime gives them."""
        config = with_labels(self.config(node, **changes), pod.labels)
        return Task.of(self.ratchet, self.environ(command, pod), config, node.place, pod.name)

    def direct(self, node: Node, command: str, pod: Pod, config: Mapping[str, Any]) -> Task:
        """Return a call of a reference plugin itself."""
        program = os.path.join(REFERENCE_PLUGINS, config["type"])
        return Task.of(program, self.environ(command, pod), config, node.place, pod.name)

    def add(self, node: Node, pod: Pod, **changes: Any) -> Done:
        return run(self.task(node, "ADD", pod, **changes))

    def delete(self, node: Node, pod: Pod, **changes: Any) -> Done:
        return run(self.task(node, "DEL", pod, **changes))

    # Between measurements ---------------------------------------------------------------------

    def clear(self, placed: Iterable[tuple[Node, Pod]]) -> None:
        """Detach pods, wait until nothing is left of them, and remove them. *Raises* BedError."""
        pods = list(placed)
        for _ in Crowd([self.task(node, "DEL", pod) for node, pod in pods], 4).all():
            pass
        self.wait_for_nothing()
        for _, pod in pods:
            self.remove_pod(pod)

    def wait_for_nothing(self, pause_s: float = 0.005) -> None:
        """Wait until there are no records and no keys but the counter. *Raises* BedError."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while any(node.records() for node in self.nodes) or self.keys():
            if time.monotonic() > deadline:
                left = {node.name: node.records()[:3] for node in self.nodes}
                raise BedError(f"left behind: records {left}, keys {list(self.keys())[:5]}")
            time.sleep(pause_s)

    def keys(self) -> dict[str, str]:
        """Return what is in etcd below the prefix, without the counter of VNIs."""
        found = self.etcd_connection.tree(PREFIX)
        return {key: value for key, value in found.items() if key != f"{PREFIX}/vxlanid"}

    def etcd_write(self) -> float:
        """Time one etcd write over a warm connection, in seconds."""
        started = time.perf_counter()
        self.etcd_connection.put("/bench", secrets.token_hex(8))
        return time.perf_counter() - started

    def vnis_used_twice(self) -> int:
        """Return the declarations that share their VNI with another one."""
        vnis = [json.loads(value)["vni"] for key, value in self.keys().items() if "/links/" in key]
        return len(vnis) - len(set(vnis))


def loopback() -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": NETWORK, "type": "loopback"}


def with_labels(config: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    """Return a configuration as a runtime sends it for a pod (CNI conventions: labels)."""
    given = [{"key": key, "value": value} for key, value in labels.items()]
    return {**config, "args": {"cni": {"labels": given}}}


def addresses(number: int) -> tuple[str, str]:
    """Return the two addresses of a link."""
    high, low = divmod(number, 250)
    return f"10.{64 + high}.{low}.1", f"10.{64 + high}.{low}.2"


def labels_of_link(
    number: int, ifname: str, pair: str, pair_ifname: str, position: int = 1
) -> dict[str, str]:
    """Return the labels with which a pod declares a link, its `position`-th."""
    prefix = "ratchet." if position == 1 else f"ratchet.{position}."
    here, there = addresses(number)
    labels = {
        "ratchet": "true",
        f"{prefix}local_ifname": ifname,
        f"{prefix}local_ip": here,
        f"{prefix}pair_name": pair,
        f"{prefix}pair_ifname": pair_ifname,
        f"{prefix}pair_ip": there,
    }
    if position == 1:
        labels["ratchet.primary"] = "true"
    return labels


def memory_folder() -> str | None:
    """Return a folder in memory if there is one: etcd waits for the disk at every write."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
