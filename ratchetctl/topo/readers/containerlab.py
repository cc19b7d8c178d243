"""containerlab's topology definition: the format that Ratchet writes, too.

`name`, `topology.nodes` with what they inherit (defaults, then kinds, then groups, then the node
itself), links in the brief and in the extended form.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from ratchetctl.topo import startup
from ratchetctl.topo.builder import Builder
from ratchetctl.topo.findings import Findings, Position
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import File, Interface, Node, Port, Topology
from ratchetctl.topo.readers import clab_links, clab_startup
from ratchetctl.topo.render import PORT, ROUTING, SELECTOR, port_label
from ratchetctl.topo.routing.router import PROTOCOLS
from ratchetctl.topo.tree import Fields, Scalar, Table, Tree, is_null, shown

DEFAULT_KIND = "linux"
# Kinds that are no container: what they stand for lies on the one machine of containerlab.
NOT_PODS = {
    "bridge": "a Linux bridge of the machine",
    "ovs-bridge": "an Open vSwitch bridge of the machine",
    "host": "the machine itself",
    "ext-container": "a container that runs already",
    "k8s-kind": "a Kubernetes cluster",
}
TOP_KEYS = {
    "mgmt": "pods have the cluster's network for management",
    "prefix": "pods are named like the nodes",
    "settings": "certificates are not made",
    "debug": "it is containerlab's own",
}
NODE_KEYS = {
    "type": "the kind's hardware variants are the image's matter",
    "license": "put the licence into the image or bind it",
    "mgmt-ipv4": "the cluster gives the management address",
    "mgmt-ipv6": "the cluster gives the management address",
    "mgmt_ipv4": "the cluster gives the management address",
    "mgmt_ipv6": "the cluster gives the management address",
    "startup-delay": "links come when both pods are there",
    "stages": "links come when both pods are there",
    "wait-for": "links come when both pods are there",
    "restart-policy": "Kubernetes restarts pods by its own rules",
    "auto-remove": "Kubernetes keeps pods until they are deleted",
    "enforce-startup-config": "pods always start with the startup configuration",
    "suppress-startup-config": "pods always start with the startup configuration",
    "runtime": "the cluster decides",
    "image-pull-policy": "the cluster decides",
    "cpu": "resources are not limited",
    "cpu-set": "resources are not limited",
    "memory": "resources are not limited",
    "shm-size": "resources are not limited",
    "cap-add": "containers are privileged",
    "devices": "containers are privileged",
    "sysctls": "set them in the container",
    "user": "the image decides",
    "dns": "the cluster's DNS is used",
    "aliases": "the cluster's DNS is used",
    "certificate": "certificates are not made",
    "healthcheck": "Kubernetes has probes for this",
    "config": "templates are not filled in",
    "extras": "they are for single kinds",
    "publish": "use ports",
    "position": "it is the drawing's",
    "components": "they are for single kinds",
    "env-files": "write the variables into env",
    "credentials": "they are the image's",
    "SANs": "certificates are not made",
}
NODE_FOLDER = "__clabNodeDir__"  # where containerlab keeps what a node writes
SHARED = "container:"
_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-=])([^}]*))?\}")
_LOOPBACK = re.compile(r"ip (?:-[46] )?a(?:ddr(?:ess)?)? (?:add|replace) (\S+/(?:32|128)) dev lo\Z")
_PORT = re.compile(
    r"(?:(?P<ip>\d+(?:\.\d+){3}|\[[0-9a-fA-F:]+\]):)?(?:(?P<outside>\d{1,5}):)?(?P<inside>\d{1,5})"
    r"(?:/(?P<protocol>tcp|udp|sctp))?\Z"
)


def matches(tree: Tree) -> bool:
    return isinstance(tree, Table) and "topology" in tree.entries


def read(tree: Tree, findings: Findings) -> Topology:
    """Read a definition. Raises TopologyError with everything that is wrong."""

    def expand(scalar: Scalar) -> str:
        return _expand(scalar, findings)

    top = Fields.of(tree, "the file", findings, expand)
    name = top.text("name")
    if not name:
        findings.error(top.where, "name is missing", "give the topology a name")
    builder = Builder(name or "topology", top.where, findings)
    body = top.fields("topology")
    defaults = _Layer(body.fields("defaults"), "defaults")
    kinds = _layers(body.fields("kinds"))
    groups = _layers(body.fields("groups"))
    outside: set[str] = set()
    for title, value in body.fields("nodes").entries():
        own = _Layer(Fields.of(value, f"node {title.text}", findings, expand, title.where), "node")
        node = _node(title, own, defaults, kinds, groups, builder)
        if node is not None:
            builder.node(node)
        else:
            outside.add(title.text)
    for layer in (defaults, *kinds.values(), *groups.values()):
        layer.fields.tell_unread(NODE_KEYS)
    for link in body.items("links"):
        clab_links.take(link, builder, outside, expand)
    body.tell_unread({})
    top.tell_unread(TOP_KEYS)
    return builder.build()


class _Layer:
    """What one place says of a node: the node itself, its group, its kind or the defaults."""

    def __init__(self, fields: Fields, what: str) -> None:
        self.fields, self.what = fields, what


def _layers(table: Fields) -> dict[str, _Layer]:
    return {
        key.text: _Layer(
            Fields.of(value, f"{table.what} {key.text}", table.findings, table.expand, key.where),
            key.text,
        )
        for key, value in table.entries()
    }


def _node(
    title: Scalar,
    own: _Layer,
    defaults: _Layer,
    kinds: dict[str, _Layer],
    groups: dict[str, _Layer],
    builder: Builder,
) -> Node | None:
    findings = builder.findings
    group = own.fields.text("group") or defaults.fields.text("group")
    from_group = groups.get(group or "")
    upper = [own, *([from_group] if from_group else []), defaults]
    kind = _first(upper, "kind") or DEFAULT_KIND
    if kind in NOT_PODS:
        findings.cannot(
            title.where,
            f"node {title.text} is {NOT_PODS[kind]}",
            "make it a pod, for instance of kind linux",
        )
        return None
    from_kind = kinds.get(kind)
    layers = [*upper[:-1], *([from_kind] if from_kind else []), defaults]
    known = kind_of(kind)
    name = builder.pod_name(title.text, title.where)
    image = _first(layers, "image") or known.image
    if image is None:
        findings.error(
            title.where,
            f"node {title.text} has no image, and there is none for the kind {kind}",
            "write image: under the node or under kinds",
        )
    _network_mode(layers, title, findings)
    files = _files(layers, title, kind, findings)
    ports = next((one for layer in layers if (one := _ports(layer))), ())
    entry, cmd = _first(layers, "entrypoint"), _first(layers, "cmd")
    command = _split(entry, title, findings) if entry else None
    args = _split(cmd, title, findings) if cmd else ()
    if command is None and not args:
        command = known.command
    labels = _merged(layers, "labels")
    titles = dict(labels)
    commands = [
        one.replace("__clabNodeName__", title.text)
        for layer in reversed(layers)
        for one in layer.fields.texts("exec")
    ]
    loopbacks, commands = _loopbacks(commands)
    node = Node(
        name=name or "",
        title=title.text,
        kind=kind,
        image=image or "",
        command=command,
        args=args,
        env=_merged(layers, "env", known.env),
        files=files,
        commands=tuple(commands),
        loopbacks=tuple(loopbacks),
        ports=tuple(replace(one, name=titles.get(port_label(one), "")) for one in ports),
        labels=tuple(
            one for one in labels if one[0] != ROUTING and not one[0].startswith((SELECTOR, PORT))
        ),
        node_selector=tuple(
            (key.removeprefix(SELECTOR), value) for key, value in labels if key.startswith(SELECTOR)
        ),
        routing=_routing(dict(labels).get(ROUTING, ""), title, findings),
        where=title.where,
    )
    own.fields.tell_unread(NODE_KEYS)
    return node if name else None


def _routing(protocol: str, title: Scalar, findings: Findings) -> str:
    if protocol and protocol not in PROTOCOLS:
        findings.error(
            title.where,
            f"node {title.text}: {ROUTING} {shown(protocol)}",
            f"write one of {', '.join(PROTOCOLS)}",
        )
    return protocol


def _network_mode(layers: Sequence[_Layer], title: Scalar, findings: Findings) -> None:
    mode = _first(layers, "network-mode")
    if mode is None:
        return
    where = next(one for layer in layers if (one := layer.fields.at("network-mode")))
    if mode.startswith(SHARED):
        findings.cannot(
            where,
            f"node {title.text} shares the network of {shown(mode.removeprefix(SHARED))}: a node is"
            " a pod with a network of its own",
            "put both into one image",
        )
    else:
        findings.note(
            where,
            f"node {title.text}: network-mode is left out: every pod has a network of its own",
        )


def _loopbacks(commands: list[str]) -> tuple[list[Interface], list[str]]:
    """Take the commands that set loopback addresses for what they are."""
    found, rest = [], []
    for command in commands:
        match = _LOOPBACK.match(command)
        try:
            found.append(ipaddress.ip_interface(match.group(1) if match else ""))
        except ValueError:
            rest.append(command)
    return found, rest


def _first(layers: Sequence[_Layer], key: str) -> str | None:
    """Return the nearest layer's value; all are asked, so that each counts as read."""
    found = [layer.fields.text(key) for layer in layers]
    return next((one for one in found if one is not None), None)


def _merged(
    layers: Sequence[_Layer], key: str, given: Sequence[tuple[str, str]] = ()
) -> tuple[tuple[str, str], ...]:
    found = dict(given)
    for layer in reversed(layers):
        found.update(layer.fields.pairs(key))
    return tuple(found.items())


def _files(
    layers: Sequence[_Layer], title: Scalar, kind: str, findings: Findings
) -> tuple[File, ...]:
    found: dict[str, File] = {}
    for layer in reversed(layers):
        for one in layer.fields.scalars("binds"):
            text = one.text.replace("__clabNodeName__", title.text)
            if text.startswith(NODE_FOLDER):
                findings.note(
                    one.where,
                    f"bind {shown(text)} is left out: a pod keeps what it writes in its own files",
                )
                continue
            if "__clab" in text:
                findings.cannot(one.where, f"bind {shown(text)}: containerlab's own folder")
                continue
            for file in startup.bind(text, one.where.file, one.where, findings):
                found[file.path] = file
    startup_file = _startup_file(layers, title, kind, findings)
    if startup_file is not None:
        found[startup_file.path] = startup_file
    return tuple(found.values())


def _startup_file(
    layers: Sequence[_Layer], title: Scalar, kind: str, findings: Findings
) -> File | None:
    texts = [(layer.fields.text("startup-config"), layer) for layer in layers]
    text, nearest = next((one for one in texts if one[0]), (None, layers[0]))
    if text is None:
        return None
    where = nearest.fields.at("startup-config")
    path = kind_of(kind).config_path or clab_startup.path(kind)
    if path is None:
        findings.cannot(
            where,
            f"node {title.text}: where the kind {kind} reads its startup configuration is not"
            " known",
            "use binds, which names the path",
        )
        return None
    content = _startup(text.replace("__clabNodeName__", title.text), where, findings)
    return None if content is None else File(path, content)


def _startup(text: str, where: Position, findings: Findings) -> str | None:
    if "\n" in text:
        return text  # the configuration itself
    if "://" in text:
        findings.cannot(where, f"{shown(text)} is not fetched", "fetch it and name the file")
        return None
    return startup.read(startup.beside(where.file, text), where, findings)


def _ports(layer: _Layer) -> tuple[Port, ...]:
    found = []
    for one in layer.fields.scalars("ports"):
        match = _PORT.match(one.text)
        if not match or not 1 <= int(match["inside"]) <= 65535:
            layer.fields.findings.error(
                one.where, f"port {shown(one.text)}", "write OUTSIDE:INSIDE, as in 8080:80/tcp"
            )
            continue
        if match["ip"]:
            layer.fields.findings.note(
                one.where, f"port {one.text}: published by a Service, not on {match['ip']}"
            )
        outside = int(match["outside"]) if match["outside"] else None
        found.append(Port(int(match["inside"]), outside, (match["protocol"] or "tcp").upper()))
    return tuple(found)


def _split(text: str, title: Scalar, findings: Findings) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        findings.error(title.where, f"node {title.text}: command {shown(text)}: {error}")
        return ()


def _expand(scalar: Scalar, findings: Findings) -> str:
    """Fill in ${VARIABLE}, ${VARIABLE:-default} and ${VARIABLE:=default}, as containerlab does."""
    if is_null(scalar) or "${" not in scalar.text:
        return scalar.text

    def value(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        found = os.environ.get(name)
        if found:
            return found
        if operator is None and found is None:
            findings.error(
                scalar.where,
                f"the environment has no variable {name}",
                f"set it, or write ${{{name}:-a default}}",
            )
        return default or ""

    return _VARIABLE.sub(value, scalar.text)
