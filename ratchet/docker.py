"""Labels of a container from the engine's Unix socket, for dockershim-style runtimes.

Docker's API, as other engines speak it too: one GET of one container. Apart from the other sources
because it needs only ``ratchet.http`` over a Unix socket; nothing here keeps a connection or a
secret.

dockershim and cri-dockerd put a pod's labels on its sandbox container, its annotations beside them
with ``annotation.`` in front, and its identity into labels of their own.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import quote

from ratchet.cni.dataclasses import dataclass
from ratchet.errors import PodSourceError, PodUnknownError, shown
from ratchet.http import TooLargeError, content, exchange
from ratchet.names import is_container_name, is_namespace

MAX_ANSWER_BYTES = 4 << 20
MAX_RECEIVED_BYTES = MAX_ANSWER_BYTES + (1 << 20)  # with headers and chunks' lengths

_ANNOTATION_PREFIX = "annotation."
_NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
_NAME_LABEL = "io.kubernetes.pod.name"
_UID_LABEL = "io.kubernetes.pod.uid"


@dataclass(frozen=True, slots=True)
class Container:
    """What the engine knows of a container.

    `namespace`, `name` and `uid` are None where it says nothing usable; `name` is the pod's in
    Kubernetes, else the container's own.
    """

    namespace: str | None
    name: str | None
    uid: str | None
    labels: dict[str, str]
    annotations: dict[str, str]


def read_container(socket_path: str, container_id: str, timeout_s: float) -> Container | None:
    """Ask the engine for a container, None if it has no such one.

    Blocks at most `timeout_s`. Raises `PodUnknownError`, and `PodSourceError` if we may not ask.
    """
    engine = f"container {shown(container_id)} at {socket_path}"
    connection = _Connection(socket_path)
    try:
        answer = exchange(
            connection,
            "GET",
            f"/containers/{quote(container_id, safe='')}/json",
            timeout_s=timeout_s,
            limit_bytes=MAX_RECEIVED_BYTES,
        )
        read = content(answer, MAX_ANSWER_BYTES)
    except PermissionError as error:
        raise PodSourceError(engine, "this process may not use the engine's socket") from error
    except TooLargeError as error:
        raise PodUnknownError(engine, "the engine's answer is larger than 4 MiB") from error
    except TimeoutError as error:
        raise PodUnknownError(engine, "the engine does not answer in time") from error
    # ValueError: http.client takes a chunk's length for a number of bytes even if it is negative.
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise PodUnknownError(engine, f"the engine does not answer ({why})") from error
    finally:
        connection.close()

    if answer.status == 404:
        return None
    if answer.status in (401, 403):
        raise PodSourceError(engine, f"the engine refuses the request ({answer.status})")
    if answer.status != 200:
        raise PodUnknownError(engine, f"the engine answers with status {answer.status}")
    decoded = _decoded(read, engine)
    found = decoded.get("Id")
    if isinstance(found, str) and not found.startswith(container_id):
        return None  # the engine takes names as well: somebody else's container is called so
    return _container(decoded, engine)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, socket_path: str) -> None:
        super().__init__("localhost")
        self._socket_path = socket_path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


def _decoded(read: bytes, engine: str) -> dict[str, Any]:
    try:
        decoded = json.loads(read)
    except (ValueError, RecursionError) as error:
        raise PodUnknownError(engine, "the engine's answer is not JSON") from error
    if not isinstance(decoded, dict):
        raise PodUnknownError(engine, "the engine's answer is not an object")
    return decoded


def _container(answer: dict[str, Any], engine: str) -> Container:
    config = answer.get("Config")
    labels = config.get("Labels") if isinstance(config, dict) else config
    if labels is None and isinstance(config, dict):
        labels = {}
    if not isinstance(labels, dict) or not all(isinstance(word, str) for word in labels.values()):
        raise PodUnknownError(engine, "the engine's answer has no labels that are strings")
    namespace = labels.get(_NAMESPACE_LABEL, "")
    name = labels.get(_NAME_LABEL) or answer.get("Name")
    name = name.lstrip("/") if isinstance(name, str) else ""  # Docker puts a slash before names
    uid = labels.get(_UID_LABEL, "")
    return Container(
        namespace=namespace if is_namespace(namespace) else None,
        name=name if is_container_name(name) else None,
        uid=uid if is_container_name(uid) else None,
        labels=labels,
        annotations={
            label[len(_ANNOTATION_PREFIX) :]: word
            for label, word in labels.items()
            if label.startswith(_ANNOTATION_PREFIX)
        },
    )
