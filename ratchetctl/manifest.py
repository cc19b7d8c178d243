"""Kubernetes YAML files, read for the pods in them.

The users' own files are the simulator's input, unchanged: Pods and Lists are read, Services and
other things without pods are skipped with a note, and what Kubernetes would refuse is refused here
with the file, the document, the field and the value. Nothing is made before every file was read,
so this module only reads.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from ratchetctl import loading
from ratchetctl.errors import ManifestError, OperatorError
from ratchetctl.scalars import Scalar

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
SUFFIXES = (".yaml", ".yml", ".json")

# Kinds that make pods in a cluster, where a controller runs. The simulator has none.
CONTROLLERS = frozenset(
    (
        "CronJob",
        "DaemonSet",
        "Deployment",
        "Job",
        "PodTemplate",
        "ReplicaSet",
        "ReplicationController",
        "StatefulSet",
    )
)

DEEPEST = 10_000

Document = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Mount:
    """A ConfigMap at a path of a container: its keys as files of a folder, or one key as a file."""

    config_map: str
    path: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """What of a container the simulator can make use of; command is None for the image's own."""

    name: str
    command: tuple[str, ...] | None
    mounts: tuple[Mount, ...]
    post_start: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as its file declares it; where says which document, for errors."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    node_name: str | None
    node_selector: Mapping[str, str]
    host_network: bool
    init_containers: tuple[Container, ...]
    containers: tuple[Container, ...]
    where: str

    @property
    def full_name(self) -> str:
        """The name as commands take it: the namespace only where it is not default."""
        return self.name if self.namespace == "default" else f"{self.namespace}/{self.name}"


@dataclass(slots=True)
class Manifest:
    """What the files hold: pods in the order of the files, ConfigMaps, and notes for the user."""

    pods: list[Pod] = field(default_factory=list)
    config_maps: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(paths: Iterable[str]) -> Manifest:
    """Read files, folders of them, or standard input ("-").

    Raises ManifestError for what Kubernetes would refuse, OperatorError for unreadable files.
    """
    manifest = Manifest()
    ignored: dict[str, int] = {}
    seen: dict[tuple[str, str], str] = {}
    for path in _files(paths):
        for where, document in _documents(path):
            for place, item in _items(where, document):
                _take(manifest, ignored, seen, place, item)
    for kind, count in ignored.items():
        manifest.notes.append(f"{count} {kind} ignored: the simulator has no use for this kind")
    return manifest


def _files(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        inside = sorted(name for name in os.listdir(path) if name.endswith(SUFFIXES))
        if not inside:
            raise OperatorError(f"{path}: no {', '.join(SUFFIXES)} file in this folder")
        yield from (os.path.join(path, name) for name in inside)


def _documents(path: str) -> Iterator[tuple[str, object]]:
    shown = "standard input" if path == "-" else path
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise OperatorError(f"{shown}: {reason}") from error
    loader = loading.CarefulLoader if _may_be_deep(text) else loading.Loader
    documents = enumerate(yaml.load_all(text, Loader=loader), start=1)
    while True:
        try:
            number, document = next(documents)
        except StopIteration:
            return
        # PyYAML lets all errors of the types that it constructs through: dates, numbers, keys.
        except Exception as error:
            why = str(error) if isinstance(error, yaml.YAMLError | ValueError) else repr(error)
            raise ManifestError(shown, "", None, f"not YAML: {why[:1000]}") from error
        if document is not None:
            yield f"{shown}: document {number}", document


def _may_be_deep(text: str) -> bool:
    """Say whether something may be nested too deeply for libyaml's recursion."""
    brackets = text.count("[") + text.count("{")
    return brackets > DEEPEST or max(map(len, text.splitlines()), default=0) > DEEPEST


def _items(where: str, document: object) -> Iterator[tuple[str, Document]]:
    """Return the objects of a document: itself, or what is in it when it is a List."""
    if not isinstance(document, dict):
        raise ManifestError(where, "document", document, "must be a Kubernetes object (a mapping)")
    kind = document.get("kind")
    if not isinstance(kind, str) or not kind:
        raise ManifestError(where, "kind", kind, "must name a kind, for instance Pod")
    if not isinstance(document.get("apiVersion"), str):
        raise ManifestError(where, "apiVersion", document.get("apiVersion"), "must be a string")
    if kind not in ("List", "PodList"):
        yield where, document
        return
    items = document.get("items")
    if not isinstance(items, list):
        raise ManifestError(where, "items", items, "must be a list of objects")
    for number, item in enumerate(items):
        if kind == "PodList" and isinstance(item, dict):
            # The API server leaves the kind out inside a typed list.
            item = {"kind": "Pod", "apiVersion": "v1", **item}  # noqa: PLW2901 - same item, completed
        yield from _items(f"{where}: items[{number}]", item)


def _take(
    manifest: Manifest,
    ignored: dict[str, int],
    seen: dict[tuple[str, str], str],
    where: str,
    item: Document,
) -> None:
    kind = str(item["kind"])
    if kind == "Pod":
        pod = _pod(where, item)
        key = (pod.namespace, pod.name)
        if key in seen:
            raise ManifestError(where, "metadata.name", pod.name, f"is also in {seen[key]}")
        seen[key] = where
        manifest.pods.append(pod)
        return
    if kind == "ConfigMap":
        fields = _Fields(where, item)
        meta = fields.mapping("metadata")
        namespace = meta.text("namespace") or "default"
        name = meta.text("name") or ""
        manifest.config_maps[namespace, name] = fields.strings("data")
        return
    if kind in CONTROLLERS:
        name = _Fields(where, item).mapping("metadata").text("name") or "(unnamed)"
        manifest.notes.append(
            f"{where}: {kind} {name} ignored: the simulator runs no controllers;"
            " write its pods out as Pods"
        )
        return
    ignored[kind] = ignored.get(kind, 0) + 1


def _pod(where: str, item: Document) -> Pod:
    fields = _Fields(where, item)
    if item["apiVersion"] != "v1":
        raise ManifestError(where, "apiVersion", item["apiVersion"], "must be v1 for a Pod")
    meta, spec = fields.mapping("metadata"), fields.mapping("spec")
    name = meta.text("name")
    if name is None or len(name) > 253 or not DNS_SUBDOMAIN.match(name):
        raise ManifestError(
            where,
            "metadata.name",
            name,
            "must be at most 253 lower case letters, digits, '-' and '.'"
            + (" (generateName is not supported)" if "generateName" in meta.values else ""),
        )
    namespace = meta.text("namespace") or "default"
    if len(namespace) > 63 or not DNS_LABEL.match(namespace):
        raise ManifestError(
            where,
            "metadata.namespace",
            namespace,
            "must be at most 63 lower case letters, digits and '-'",
        )
    config_maps = _volumes(spec)
    containers = _containers(spec, "containers", config_maps)
    if not containers:
        raise ManifestError(where, "spec.containers", None, "a pod needs at least one container")
    return Pod(
        namespace=namespace,
        name=name,
        labels=_labels(meta, "labels"),
        annotations=meta.strings("annotations"),
        node_name=spec.text("nodeName") or None,
        node_selector=_labels(spec, "nodeSelector"),
        host_network=spec.flag("hostNetwork"),
        init_containers=_containers(spec, "initContainers", config_maps),
        containers=containers,
        where=where,
    )


def _labels(fields: _Fields, key: str) -> Mapping[str, str]:
    """Read labels within Kubernetes' limits: a name of 63 characters after a DNS prefix."""
    labels = fields.strings(key)
    for name, value in labels.items():
        prefix, slash, rest = name.rpartition("/")
        if (
            not LABEL_NAME.match(rest)
            or len(rest) > 63
            or (slash and (len(prefix) > 253 or not DNS_SUBDOMAIN.match(prefix)))
        ):
            raise ManifestError(fields.where, fields.path(key), name, "is not a label name")
        if value and (len(value) > 63 or not LABEL_NAME.match(value)):
            raise ManifestError(
                fields.where,
                fields.path(key, name),
                value,
                "a label value is at most 63 letters, digits, '-', '_' and '.';"
                " addresses with '/' or ':' go into an annotation of the same name",
            )
    return labels


def _volumes(spec: _Fields) -> dict[str, str]:
    """Return the ConfigMap behind each volume that has one."""
    found = {}
    for volume in spec.objects("volumes"):
        if "configMap" in volume.values:
            name = volume.mapping("configMap").text("name")
            found[volume.text("name") or ""] = name or ""
    return found


def _containers(spec: _Fields, key: str, config_maps: Mapping[str, str]) -> tuple[Container, ...]:
    containers = []
    for item in spec.objects(key):
        name = item.text("name")
        if not name:
            raise ManifestError(item.where, item.path("name"), name, "a container needs a name")
        if not item.text("image"):
            raise ManifestError(item.where, item.path("image"), None, "a container needs an image")
        command = (*item.texts("command"), *item.texts("args"))
        after = item.mapping("lifecycle").mapping("postStart").mapping("exec")
        containers.append(
            Container(
                name=name,
                command=command if item.texts("command") else None,
                mounts=tuple(_mounts(item, config_maps)),
                post_start=tuple(after.texts("command")),
            )
        )
    return tuple(containers)


def _mounts(container: _Fields, config_maps: Mapping[str, str]) -> Iterator[Mount]:
    for mount in container.objects("volumeMounts"):
        config_map = config_maps.get(mount.text("name") or "")
        if config_map is None:
            continue
        path = mount.text("mountPath")
        if path is None or not path.startswith("/"):
            raise ManifestError(mount.where, mount.path("mountPath"), path, "must be a path from /")
        yield Mount(config_map, path.rstrip("/") or "/", mount.text("subPath"))


@dataclass(frozen=True, slots=True)
class _Fields:
    """A mapping of a document that knows where it stands, so that errors can say so."""

    where: str
    values: Document
    prefix: Sequence[str] = ()

    def path(self, *keys: str) -> str:
        return ".".join((*self.prefix, *keys))

    def mapping(self, key: str) -> _Fields:
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise ManifestError(self.where, self.path(key), value, "must be a mapping")
        return _Fields(self.where, value or {}, (*self.prefix, key))

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise ManifestError(self.where, self.path(key), value, _quote(value))
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if value is None:
            return False
        if not isinstance(value, Scalar) or value.flag is None:
            raise ManifestError(self.where, self.path(key), value, "must be true or false")
        return value.flag

    def texts(self, key: str) -> list[str]:
        value = self.values.get(key) or []
        if not isinstance(value, list):
            raise ManifestError(self.where, self.path(key), value, "must be a list of strings")
        for number, item in enumerate(value):
            if not isinstance(item, str):
                raise ManifestError(self.where, f"{self.path(key)}[{number}]", item, _quote(item))
        return value

    def objects(self, key: str) -> list[_Fields]:
        value = self.values.get(key) or []
        if not isinstance(value, list):
            raise ManifestError(self.where, self.path(key), value, "must be a list of objects")
        found = []
        for number, item in enumerate(value):
            if not isinstance(item, dict):
                raise ManifestError(
                    self.where, f"{self.path(key)}[{number}]", item, "must be a mapping"
                )
            found.append(_Fields(self.where, item, (*self.prefix, f"{key}[{number}]")))
        return found

    def strings(self, key: str) -> dict[str, str]:
        """Read a mapping of strings to strings, as labels and annotations are."""
        inner = self.mapping(key)
        for name, value in inner.values.items():
            if not isinstance(name, str):
                raise ManifestError(self.where, self.path(key), name, f"the key {_quote(name)}")
            if not isinstance(value, str):
                raise ManifestError(self.where, inner.path(name), value, _quote(value))
        return {name: str(value) for name, value in inner.values.items()}


def _quote(value: object) -> str:
    """Say why a value that is no string is wrong: nearly always quotes were forgotten."""
    if isinstance(value, Scalar):
        return f'must be a string: write "{value}" with the quotes'
    return "must be a string"
