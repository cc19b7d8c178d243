"""Labelled pods, with their ConfigMaps and Services, back into a topology.

What `render` wrote comes back whole. Pods that people wrote come back as far as a topology goes;
what it has no place for is told.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ratchet import labels as grammar
from ratchet.errors import LabelError
from ratchetctl.topo import render
from ratchetctl.topo.findings import Findings, Position
from ratchetctl.topo.model import File, Interface, Link, Node, Port, Topology, Uplink
from ratchetctl.topo.names import CNI_IFNAME
from ratchetctl.topo.readers import objects
from ratchetctl.topo.tree import Fields, Table, Tree

DEFAULT_KIND = "linux"
CONTAINER_KEYS = {
    "imagePullPolicy": "the cluster decides",
    "resources": "resources are not limited",
    "ports": "a Service publishes ports",
}
POD_KEYS = {
    "restartPolicy": "Kubernetes' default is used",
    "serviceAccountName": "the namespace's default is used",
    "nodeName": "use nodeSelector",
    "tolerations": "a topology has none",
    "affinity": "a topology has none",
    "securityContext": "containers are privileged",
}
_LOOPBACK = re.compile(r"ip address (?:add|replace) (\S+) dev lo\Z")
_WAIT = re.compile(r"until \[ -e '/proc/sys/net/ipv4/conf/[^']+' \]; do sleep 1; done\Z")


def matches(trees: Sequence[Tree]) -> bool:
    return any(objects.text(item, "kind") == "Pod" for item in objects.items(trees))


def read(trees: Sequence[Tree], findings: Findings) -> Topology:
    """Read the documents of a manifest. Raises TopologyError with everything that is wrong."""
    where = trees[0].where
    maps: dict[str, Mapping[str, str]] = {}
    ports: dict[str, list[Port]] = {}
    pods = []
    for item in objects.items(trees):
        fields = Fields.of(item, objects.text(item, "kind") or "object", findings)
        kind, name = fields.text("kind"), fields.fields("metadata").text("name") or ""
        if kind == "Pod":
            pods.append(item)
        elif kind == "ConfigMap":
            maps[name] = dict(fields.pairs("data"))
        elif kind == "Service":
            _service(fields, ports)
        else:
            findings.note(item.where, f"{kind or 'object'} {name} is left out")
    readers = [_Pod(pod, maps, findings) for pod in pods]
    eligible = [pod for pod in readers if pod.wiring is not None]
    names: dict[str, _Pod] = {}
    for pod in eligible:
        name = pod.wiring.pod_name if pod.wiring else pod.name
        if name in names:
            findings.error(pod.where, f"a second pod {name}", "render one namespace at a time")
        names[name] = pod
    for pod in readers:
        if pod.wiring is None:
            findings.note(
                pod.where, f"pod {pod.name} is left out: it is not labelled ratchet: true"
            )
    nodes = tuple(pod.node(tuple(ports.get(pod.name, ()))) for pod in eligible)
    links = tuple(link for pod in eligible for link in pod.links(names))
    uplinks = tuple(uplink for pod in eligible for uplink in pod.uplinks())
    if not nodes and not findings.errors:
        findings.error(
            where,
            "no pod here is labelled ratchet: true",
            "label them (docs/labels.md), or add the Topology resources that belong to them",
        )
    findings.raise_errors()
    topologies = {pod.topology for pod in eligible if pod.topology}
    own = topologies.pop() if len(topologies) == 1 else ""
    fallback = os.path.basename(where.file).partition(".")[0]
    return Topology(own or fallback or "topology", nodes, links, uplinks, where)


def _service(fields: Fields, ports: dict[str, list[Port]]) -> None:
    spec = fields.fields("spec")
    selected = dict(spec.pairs("selector")).get(render.NODE)
    if selected is None:
        fields.findings.note(
            fields.where, "a Service that selects no node of a topology is left out"
        )
        return
    for item in spec.items("ports"):
        port = Fields.of(item, "port", fields.findings)
        number, on_nodes = port.number("port"), port.number("nodePort")
        inside = port.number("targetPort") or number
        protocol, name = port.text("protocol") or "TCP", port.text("name") or ""
        if inside is None:
            continue
        outside = on_nodes or (number if number != inside else None)
        made = Port(inside, outside, protocol)
        named = Port(inside, outside, protocol, name)
        ports.setdefault(selected, []).append(made if render.port_name(made) == name else named)


class _Pod:
    """A pod of the manifest: first what its labels say, then its node and its links."""

    def __init__(
        self, pod: Table, maps: Mapping[str, Mapping[str, str]], findings: Findings
    ) -> None:
        self._findings, self._maps, self.where = findings, maps, pod.where
        fields = Fields.of(pod, "Pod", findings)
        self._meta, self._spec = fields.fields("metadata"), fields.fields("spec")
        self.name = self._meta.text("name") or ""
        self._labels = dict(self._meta.pairs("labels"))
        self._annotations = dict(self._meta.pairs("annotations"))
        self.topology = self._labels.get(render.TOPOLOGY, "")
        self.wiring = self._read_wiring()

    def _read_wiring(self) -> grammar.Wiring | None:
        if not grammar.is_eligible(self._labels, self._annotations):
            return None
        try:
            return grammar.parse(
                self._labels, self._annotations, own_name=self.name, cni_ifname=CNI_IFNAME
            )
        except LabelError as error:
            self._findings.error(self._position(error.label), f"pod {self.name}: {error.msg}")
            return None

    def node(self, ports: tuple[Port, ...]) -> Node:
        container, commands = self._container()
        return Node(
            name=self.name,
            title=self._annotations.get(render.TITLE, self.name),
            kind=self._annotations.get(render.KIND, DEFAULT_KIND),
            image=container.text("image") or "",
            command=tuple(container.texts("command")) or None,
            args=tuple(container.texts("args")),
            env=self._env(container),
            files=tuple(self._files(container)),
            commands=commands,
            ports=ports,
            labels=tuple(
                (key, value) for key, value in self._labels.items() if render.is_label(key, value)
            ),
            node_selector=tuple(self._spec.pairs("nodeSelector")),
            loopbacks=tuple(self._loopbacks()),
            renamed=tuple(
                sorted(
                    (key.removeprefix(render.RENAMED), value)
                    for key, value in self._annotations.items()
                    if key.startswith(render.RENAMED)
                )
            ),
            routing=self._annotations.get(render.ROUTING, ""),
            where=self.where,
        )

    def links(self, names: Mapping[str, _Pod]) -> Iterator[Link]:
        for link in self.wiring.links if self.wiring else ():
            far = names.get(link.pair)
            if far is None:
                self._findings.error(
                    self._position(link.ifname),
                    f"pod {self.name} declares a link with {link.pair}, which is no pod here",
                    "add it, or remove the link",
                )
                continue
            made = Link.of(self.name, link, self.where)
            yield replace(made, second=replace(made.second, node=far.name, where=far.where))

    def uplinks(self) -> Iterator[Uplink]:
        for uplink in self.wiring.uplinks if self.wiring else ():
            yield Uplink.of(self.name, uplink, self.where)

    def _container(self) -> tuple[Fields, tuple[str, ...]]:
        items = self._spec.items("containers")
        if len(items) > 1:
            self._findings.note(items[1].where, "only the pod's first container is taken")
        first = Fields.of(
            items[0] if items else None, f"container of {self.name}", self._findings, at=self.where
        )
        script = (
            first.fields("lifecycle").fields("postStart").fields("exec").texts("command") or [""]
        )[-1]
        lines = script.split("\n") if script else []
        commands = tuple(one for one in lines if one != "set -e" and not _WAIT.match(one))
        first.text("name")
        first.read.update(
            ("securityContext", "stdin", "tty", "image", "command", "args", "env", "volumeMounts")
        )
        first.tell_unread(CONTAINER_KEYS)
        self._spec.read.update(("nodeSelector", "initContainers", "volumes"))
        self._spec.number("terminationGracePeriodSeconds")
        self._spec.tell_unread(POD_KEYS)
        return first, commands

    def _env(self, container: Fields) -> tuple[tuple[str, str], ...]:
        found = []
        for one in container.items("env"):
            variable = Fields.of(one, "env", self._findings)
            name, value = variable.text("name"), variable.text("value")
            if name and value is not None:
                found.append((name, value))
            else:
                self._findings.note(one.where, f"variable {name}: only values are taken")
        return tuple(found)

    def _files(self, container: Fields) -> Iterator[File]:
        maps = {}
        for one in self._spec.items("volumes"):
            volume = Fields.of(one, "volume", self._findings)
            source = volume.fields("configMap").text("name")
            maps[volume.text("name")] = source
            if source is None:
                self._findings.note(one.where, "a volume that is no ConfigMap is left out")
        for one in container.items("volumeMounts"):
            mount = Fields.of(one, "volumeMount", self._findings)
            path, key = mount.text("mountPath") or "", mount.text("subPath")
            data = self._maps.get(maps.get(mount.text("name")) or "")
            if data is None:
                self._findings.note(one.where, f"{path} is left out: its ConfigMap is not here")
            elif key is not None:
                if key in data:
                    yield File(path, data[key])
            else:
                for name, content in data.items():
                    yield File(f"{path.rstrip('/')}/{name}", content)

    def _loopbacks(self) -> Iterator[Interface]:
        for one in self._spec.items("initContainers"):
            container = Fields.of(one, "initContainer", self._findings)
            if container.text("name") == render.LINKS:
                continue
            commands = (container.texts("command") or [""])[-1].split(" && ")
            found = [_loopback(command) for command in commands]
            if container.text("name") == render.ADDRESSES and all(found):
                yield from (address for address in found if address)
            else:
                self._findings.note(
                    one.where, f"init container {container.text('name')} is left out"
                )

    def _position(self, word: str) -> Position:
        """Return the line of a label, by its name or value; the pod's where it is not found."""
        for key in ("labels", "annotations"):
            fields = self._meta.fields(key)
            for name, value in fields.entries():
                if word in (name.text, getattr(value, "text", None)):
                    return name.where
        return self.where


def _loopback(command: str) -> Interface | None:
    """Return the address that a command sets on lo, None for any other command."""
    match = _LOOPBACK.match(command)
    try:
        return ipaddress.ip_interface(match.group(1)) if match else None
    except ValueError:
        return None
