"""Who is this pod, and what do its labels say: the label sources, asked in their order.

Every pod on the node waits for this module, and most of them only to hear that they are not ours.
It imports nothing but our errors and names, the one source that it carries itself is the runtime's
(a look into the request configuration), and the sources that need a connection,
`ratchet.kubernetes` and `ratchet.docker`, are imported where they are asked. `Pod` is written by
hand, because dataclasses would cost this path more than the rest of it. It must not read link
labels: that is `ratchet.labels`.

"Do not know" is never "no". With ``label_source`` auto, a source that is there settles the question
or fails the operation, and no later one is asked in its place:

- ``args.cni.labels`` is the runtime saying what the labels are, even if it says that there are
  none. Pod annotations (the capability io.kubernetes.cri.pod-annotations) settle it only with the
  key ``ratchet``.
- With a kubeconfig, a pod that has a Kubernetes name and namespace in CNI_ARGS is the API server's.
  If that cannot be read, the operation fails with 11 (try again later) or, where trying again will
  not help, with 102.
- Otherwise the engine's, if its socket is there and podman (a name without a namespace) is not
  the runtime: podman's own socket does not answer for a container that is being started. An engine
  that does not answer is an error as well; one that answers that it has no such container has
  settled it, because engines know a container before they attach it, and a node's other runtimes
  must go on working beside an idle engine.
- Nothing of all that: the pod has no labels and is the delegate's. Plain runtimes (cnitool, podman)
  have none to give, so this is knowledge, not ignorance: where no source is configured nobody can
  have labelled a pod for us.

When the configuration names one source, only that one is asked, and it has to know the pod.
"""

from __future__ import annotations

import os

from ratchet.cni.errors import INVALID_ENVIRONMENT, CniError
from ratchet.errors import ChildError, ConfigError, PodUnknownError, shown
from ratchet.names import is_container_name, is_kubernetes_name, is_namespace

TYPE_CHECKING = False  # as in typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ratchet.cni.skel import Request
    from ratchet.config import Config

    Words = dict[str, str]
    AskChild = Callable[[str, str, str | None], tuple[Words, Words] | None]

DEFAULT_NAMESPACE = "default"
NO_SOURCE = (
    "nothing tells the labels of this node's pods, so all of them are the delegate's:"
    " set kubeconfig (or have the runtime pass annotations), or set use_labels to false"
)
ELIGIBLE_KEY = "ratchet"
ANNOTATIONS_CAPABILITY = "io.kubernetes.cri.pod-annotations"
API_TIMEOUT_S = 5.0
ENGINE_TIMEOUT_S = 5.0


class Pod:
    """A pod as its runtime and label source know it; `name` and `uid` are None if neither does."""

    __slots__ = ("annotations", "is_untold", "labels", "name", "namespace", "uid")

    def __init__(
        self, namespace: str, name: str | None, uid: str | None, labels: Words, annotations: Words
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.uid = uid
        self.labels = labels
        self.annotations = annotations
        self.is_untold = False
        """Whether this is a Kubernetes pod, and no source is configured that knows its labels."""

    def __repr__(self) -> str:
        return f"Pod({self.namespace}/{self.name}, uid {self.uid})"


def find_pod(config: Config, request: Request, ask_child: AskChild) -> Pod:
    """Find the pod of the request and its labels, as the module says.

    `ask_child(namespace, name, uid)` gives labels and annotations, or None when no child runs.
    Raises `CniError` 4 for a bad CNI_ARGS, `ConfigError`, `PodUnknownError` and `PodSourceError`.
    """
    namespace, name, uid = identity(cni_args(request.args))
    pod = Pod(namespace or DEFAULT_NAMESPACE, name, uid, {}, {})
    source = config.label_source

    if source in ("auto", "runtime"):
        labels, annotations = _of_runtime(request.config)
        if (
            source == "runtime"
            or labels is not None
            or (annotations is not None and ELIGIBLE_KEY in annotations)
        ):
            pod.labels = labels or {}
            pod.annotations = annotations or {}
            return pod

    if source == "kubernetes" or (source == "auto" and config.kubeconfig and namespace and name):
        _ask_kubernetes(config, namespace, name, pod, ask_child)
    elif source == "docker" or (
        source == "auto"
        # A name without a namespace is podman's, which cannot be asked while it starts the pod.
        and not (name and not namespace)
        and os.path.exists(config.docker_socket)
    ):
        pod.is_untold = not _ask_docker(config, request, namespace, pod)
    else:
        pod.is_untold = True
    # Without both names it is podman's or nobody's, who have no labels to give.
    pod.is_untold = pod.is_untold and bool(namespace and name) and not _has_annotations(request)
    return pod


def is_eligible(pod: Pod) -> bool:
    """Say whether the pod is Ratchet's."""
    return says_eligible(pod.labels, pod.annotations)


def says_eligible(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
    """Say whether `ratchet` is "true", as an annotation, which wins, or as a label."""
    return annotations.get(ELIGIBLE_KEY, labels.get(ELIGIBLE_KEY)) == "true"


def cni_args(text: str) -> Words:
    """Read CNI_ARGS: K=V pairs with semicolons between them. Raises `CniError` 4.

    Keys that are not ours are left alone, as if IgnoreUnknown were always given: runtimes add what
    they like.
    """
    args = {}
    for pair in text.split(";"):
        key, equals, value = pair.partition("=")
        if key and equals:
            args[key] = value
        elif pair:
            raise CniError(
                INVALID_ENVIRONMENT,
                "CNI_ARGS is malformed",
                f"{shown(pair)} is not a pair as in FOO=BAR;ABC=123",
            )
    return args


def logged(namespace: str | None, name: str) -> str:
    """Return a pod as every line of parent and child has it, so that one search finds all."""
    return name if namespace in (None, DEFAULT_NAMESPACE) else f"{namespace}:{name}"


def identity(args: Mapping[str, str]) -> tuple[str | None, str | None, str | None]:
    """Return the pod's namespace, name and UID from CNI_ARGS, checked. Raises `CniError` 4.

    Empty ones count as not given. A name with a namespace is a Kubernetes name, and safe in a URL's
    path. A name alone is what podman gives: the container's, which may have capitals and
    underscores as well.
    """
    namespace = args.get("K8S_POD_NAMESPACE") or None
    name = args.get("K8S_POD_NAME") or None
    uid = args.get("K8S_POD_UID") or None
    if namespace is not None and not is_namespace(namespace):
        raise _invalid("K8S_POD_NAMESPACE", namespace, "the name of a namespace (RFC 1123 label)")
    if name is not None and namespace is not None and not is_kubernetes_name(name):
        raise _invalid("K8S_POD_NAME", name, "the name of a pod (RFC 1123 subdomain)")
    if name is not None and not is_container_name(name):
        raise _invalid("K8S_POD_NAME", name, "the name of a pod or container")
    if uid is not None and not is_container_name(uid):
        raise _invalid("K8S_POD_UID", uid, "a UID")
    return namespace, name, uid


# The sources ------------------------------------------------------------------------------------


def _of_runtime(config: Mapping[str, Any]) -> tuple[Words | None, Words | None]:
    """Return the labels and annotations in the request configuration, None for those not there.

    Raises `ConfigError`.
    """
    key = "args.cni.labels"
    labels = _member(_member(_member(config, "args", "args"), "cni", "args.cni"), "labels", None)
    if isinstance(labels, list):
        # The CNI conventions' form: [{"key": …, "value": …}].
        pairs = labels
        labels = {}
        for pair in pairs:
            if not isinstance(pair, dict) or not isinstance(pair.get("key"), str):
                raise ConfigError(key, pair, 'objects with the strings "key" and "value"')
            labels[pair["key"]] = pair.get("value")
    annotations = _member(
        _member(config, "runtimeConfig", "runtimeConfig"), ANNOTATIONS_CAPABILITY, None
    )
    return _words(labels, key), _words(annotations, f"runtimeConfig.{ANNOTATIONS_CAPABILITY}")


def _member(parent: Any, name: str, path: str | None) -> Any:
    """Return an object's member, None if either is not there; with a path it must be an object."""
    member = None if parent is None else parent.get(name)
    if path is not None and member is not None and not isinstance(member, dict):
        raise ConfigError(path, member, "an object")
    return member


def _words(value: Any, key: str) -> Words | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ConfigError(key, value, "an object of strings")
    for name, word in value.items():
        if not isinstance(word, str):
            raise ConfigError(f"{key}.{name}", word, "a string")
    return value


def _ask_kubernetes(
    config: Config, namespace: str | None, name: str | None, pod: Pod, ask_child: AskChild
) -> None:
    if not config.kubeconfig:
        raise ConfigError(
            "kubeconfig", None, "the path of a kubeconfig, as label_source is kubernetes"
        )
    if namespace is None or name is None:
        raise CniError(
            INVALID_ENVIRONMENT,
            "CNI_ARGS does not say which pod this is",
            "K8S_POD_NAMESPACE and K8S_POD_NAME are needed, as label_source is kubernetes",
        )
    try:
        answer = ask_child(namespace, name, pod.uid)
    except ChildError:  # a child that is there but unwell is no reason to keep the pod waiting
        answer = None
    if answer is None:
        from ratchet.kubernetes import PodReader  # noqa: PLC0415 - 100 ms of imports, only without a child

        reader = PodReader(config.kubeconfig, API_TIMEOUT_S)
        try:
            answer = reader.read(namespace, name, pod.uid)
        finally:
            reader.close()
    pod.labels, pod.annotations = answer


def _has_annotations(request: Request) -> bool:
    """Say whether the runtime passes pods' annotations: those of a pod without any are null."""
    runtime = request.config.get("runtimeConfig")
    return isinstance(runtime, dict) and ANNOTATIONS_CAPABILITY in runtime


def _ask_docker(config: Config, request: Request, namespace: str | None, pod: Pod) -> bool:
    from ratchet.docker import read_container  # noqa: PLC0415 - only for containers of an engine

    container = read_container(config.docker_socket, request.container_id, ENGINE_TIMEOUT_S)
    if container is None:
        if config.label_source == "docker":
            raise PodUnknownError(
                f"container {request.container_id}",
                f"the engine at {config.docker_socket} has no such container",
            )
        return False
    pod.labels = container.labels
    pod.annotations = container.annotations
    # What the runtime says of the pod's identity goes before what the engine's labels say.
    if namespace is None:
        pod.namespace = container.namespace or DEFAULT_NAMESPACE
    pod.name = pod.name or container.name
    pod.uid = pod.uid or container.uid
    return True


def _invalid(key: str, value: str, allowed: str) -> CniError:
    return CniError(
        INVALID_ENVIRONMENT,
        f"CNI_ARGS has an invalid {key}",
        f"{shown(value)} is not {allowed}",
    )
