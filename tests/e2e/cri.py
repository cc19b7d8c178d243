"""A client of the Container Runtime Interface (runtime.v1), as far as sandboxes need it.

What a kubelet asks for when it makes, looks at and removes a pod's sandbox. Field numbers are those
of the published CRI API, `runtime.v1`; they are all in this module.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.e2e.protobuf import Fields, Message, encode

# A kubelet gives a sandbox four minutes; nothing here needs more than a few seconds.
CALL_TIMEOUT_S = 60.0
# NamespaceOption: network and processes of the node, and the pod's own IPC.
_NODE = 2
NODES_NAMESPACES: Message = [(1, _NODE), (2, _NODE)]
EXITED = 2


class CriError(Exception):
    """What the runtime says when it refuses."""


@dataclass(frozen=True)
class PodConfig:
    """A pod as a kubelet describes it to the runtime; a pod that is made again has another UID."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    attempt: int = 0
    cgroup_parent: str = ""
    is_hosts: bool = False  # privileged, in the network and among the processes of the node
    log_directory: str = ""

    def message(self) -> Message:
        """Return the PodSandboxConfig."""
        linux: Message = [(1, self.cgroup_parent)]
        if self.is_hosts:
            linux.append((2, [(1, NODES_NAMESPACES), (6, 1)]))
        return [
            (1, [(1, self.name), (2, self.uid), (3, self.namespace), (4, self.attempt)]),
            (2, "" if self.is_hosts else self.name),  # the node has its own
            (3, self.log_directory),
            # Without servers the runtime copies the machine's resolv.conf.
            (4, [(1, "192.0.2.53")]),
            (6, self.labels),
            (7, self.annotations),
            (8, linux),
        ]


@dataclass(frozen=True)
class Mount:
    """A folder or file of the node in a container."""

    path: str
    host_path: str
    readonly: bool = False
    propagation: int = 0  # 1: what is mounted on the node later is seen in the container

    def message(self) -> Message:
        return [
            *((1, self.path), (2, self.host_path)),
            *((3, int(self.readonly)), (5, self.propagation)),
        ]


@dataclass(frozen=True)
class ContainerConfig:
    """A container as a kubelet describes it to the runtime."""

    name: str
    image: str
    command: list[str]
    env: dict[str, str]
    mounts: list[Mount]
    privileged: bool = False
    readonly_root: bool = False

    def message(self) -> Message:
        """Return the ContainerConfig of a container in the namespaces of the node."""
        security: Message = [
            *((2, int(self.privileged)), (3, NODES_NAMESPACES)),
            (7, int(self.readonly_root)),
        ]
        message: Message = [(1, [(1, self.name)]), (2, [(1, self.image)])]
        message += [(3, word) for word in self.command]
        message += [(6, [(1, key), (2, value)]) for key, value in self.env.items()]
        message += [(7, mount.message()) for mount in self.mounts]
        return [*message, (11, f"{self.name}.log"), (15, [(2, security)])]


@dataclass(frozen=True)
class SandboxStatus:
    """The parts of PodSandboxStatus that are looked at; `pid` is that of the pause program."""

    ready: bool
    ip: str
    additional_ips: list[str]
    annotations: dict[str, str]
    pid: int | None


@dataclass(frozen=True)
class RuntimeStatus:
    conditions: dict[str, bool]
    info: dict[str, str]


class Cri:
    """A connection to a runtime's socket."""

    def __init__(self, socket_path: str) -> None:
        # A runtime that is being started is there in milliseconds; gRPC would look once a second.
        self._channel = grpc.insecure_channel(
            f"unix:{socket_path}",
            [(f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max")],
        )

    def close(self) -> None:
        self._channel.close()

    def version(self, timeout_s: float = CALL_TIMEOUT_S) -> str:
        answer = self._call("Version", [], timeout_s)
        return f"{answer.text(2)} {answer.text(3)}"

    def runtime_status(self) -> RuntimeStatus:
        answer = self._call("Status", [(1, 1)])
        conditions = answer.message(1).messages(1)
        return RuntimeStatus(
            {condition.text(1): bool(condition.number(2)) for condition in conditions},
            answer.map(2),
        )

    def run_pod_sandbox(self, pod: PodConfig) -> str:
        """Return the ID of the sandbox. Raises `CriError`."""
        return self._call("RunPodSandbox", [(1, pod.message())]).text(1)

    def stop_pod_sandbox(self, sandbox_id: str) -> None:
        self._call("StopPodSandbox", [(1, sandbox_id)])

    def remove_pod_sandbox(self, sandbox_id: str) -> None:
        self._call("RemovePodSandbox", [(1, sandbox_id)])

    def list_pod_sandbox(self) -> dict[str, bool]:
        """Return whether it is ready, for every sandbox by ID."""
        items = self._call("ListPodSandbox", []).messages(1)
        return {item.text(1): item.number(3) == 0 for item in items}

    def pod_sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        answer = self._call("PodSandboxStatus", [(1, sandbox_id), (2, 1)])
        status = answer.message(1)
        network = status.message(5)
        info: dict[str, Any] = _json(answer.map(2).get("info", "{}"))
        return SandboxStatus(
            ready=status.number(3) == 0,
            ip=network.text(1),
            additional_ips=[ip.text(1) for ip in network.messages(2)],
            annotations=status.map(8),
            pid=info.get("pid") or None,
        )

    def create_container(self, sandbox_id: str, pod: PodConfig, container: ContainerConfig) -> str:
        """Return the ID of the container. Raises `CriError`."""
        request: Message = [(1, sandbox_id), (2, container.message()), (3, pod.message())]
        return self._call("CreateContainer", request).text(1)

    def start_container(self, container_id: str) -> None:
        self._call("StartContainer", [(1, container_id)])

    def stop_container(self, container_id: str, timeout_s: int) -> None:
        """Have it told to end, and kill it when it has not."""
        self._call("StopContainer", [(1, container_id), (2, timeout_s)])

    def execute(self, container_id: str, *command: str) -> tuple[int, str]:
        """Run a command in a container, as `kubectl exec`; its exit code and output."""
        request: Message = [(1, container_id), *((2, word) for word in command), (3, 30)]
        answer = self._call("ExecSync", request)
        return answer.number(3), answer.text(1) + answer.text(2)

    def exit_code(self, container_id: str) -> int | None:
        """Return the exit code of a container, None while it has not ended."""
        status = self._call("ContainerStatus", [(1, container_id)]).message(1)
        return status.number(7) if status.number(3) == EXITED else None

    def _call(self, method: str, request: Message, timeout_s: float = CALL_TIMEOUT_S) -> Fields:
        call = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=encode,
            response_deserializer=Fields,
        )
        try:
            answer = call(request, timeout=timeout_s, wait_for_ready=True)
        except grpc.RpcError as error:
            raise CriError(f"{method}: {error.details()}") from error
        assert isinstance(answer, Fields)
        return answer


def _json(text: str) -> dict[str, Any]:

    decoded = json.loads(text)
    assert isinstance(decoded, dict)
    return decoded
