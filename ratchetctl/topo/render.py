"""A topology as Kubernetes objects: labelled pods, ConfigMaps, Services. Pure.

Ratchet needs the numbered labels and annotations only, which every version of it knows. What else a
topology knows and a pod does not stands in annotations `topo.ratchet/...`, so that `import` gets
back what was rendered.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ratchet.impairment import ENDS, QUANTITIES, Impairment
from ratchetctl.sim.routers import frr_daemons
from ratchetctl.topo.dump import Value
from ratchetctl.topo.kinds import ALPINE, kind
from ratchetctl.topo.model import End, File, Link, Node, Port, Topology, Uplink

OWN = "topo.ratchet/"
TOPOLOGY = f"{OWN}topology"  # a label: every object of a topology has it
NODE = f"{OWN}node"  # a label: what a Service selects
KIND = f"{OWN}kind"
TITLE = f"{OWN}title"
# In a definition: a label that chooses the pod's machine by a label of that.
SELECTOR = f"{OWN}node-selector."
ROUTING = f"{OWN}routing"  # in a definition a label: the protocol to write configurations for
PORT = f"{OWN}port."  # likewise: what a port is called
RENAMED = f"{OWN}interface."  # topo.ratchet/interface.eth1_1: Ethernet1/1

CONTAINER = "node"
ADDRESSES = "addresses"  # the init container that sets loopback addresses
LINKS = "links"  # the init container that waits for the node's interfaces
NODE_PORTS = range(30000, 32768)
PORT_NAME_CHARS = 15

_LABEL = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?\Z")

Object = dict[str, Value]


def objects(topology: Topology, namespace: str | None = None) -> Iterator[Object]:
    """Yield every object, each node's together: ConfigMap, Service, Pod."""
    declared, ends = by_node(topology)
    for node in topology.nodes:
        yield from node_objects(
            topology, node, declared.get(node.name, ()), ends.get(node.name, ()), namespace
        )


def node_objects(
    topology: Topology,
    node: Node,
    declared: Sequence[Link | Uplink],
    ends: Sequence[End],
    namespace: str | None = None,
) -> Iterator[Object]:
    """Yield one node's objects: `declared` are the links that it is primary of."""
    mine = identity(topology, node)
    node = replace(node, files=files(node))
    if node.files:
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _head(f"{node.name}-files", namespace, labels=mine),
            "data": config_map(node),
        }
    if node.ports:
        yield _service(node, namespace, mine)
    yield _pod(topology, node, declared, ends, namespace)


def wiring(declared: Sequence[Link | Uplink]) -> tuple[dict[str, str], dict[str, str]]:
    """Return Ratchet's own labels and annotations of a pod."""
    labels = {"ratchet": "true", "ratchet.primary": "true" if declared else "false"}
    annotations = {}
    for number, link in enumerate(declared, start=1):
        prefix = "ratchet." if number == 1 else f"ratchet.{number}."
        labels[f"{prefix}local_ifname"] = link.ends[0].ifname
        addresses = [end.address for end in link.ends]
        if isinstance(link, Link):
            labels[f"{prefix}pair_name"] = link.second.node
            labels[f"{prefix}pair_ifname"] = link.second.ifname
        else:
            labels[f"{prefix}kind"], labels[f"{prefix}device"] = link.kind, link.device
            addresses.append(link.address)
        for field, address in zip(("local_ip", "pair_ip"), addresses, strict=True):
            if address is not None:
                annotations[f"{prefix}{field}"] = str(address)
        if link.mtu is not None:
            labels[f"{prefix}mtu"] = str(link.mtu)
        for field, end in zip(("local_mac", "pair_mac"), link.ends, strict=False):
            if end.mac is not None:
                labels[f"{prefix}{field}"] = end.mac.replace(":", "-")
        labels |= {f"{prefix}{name}": value for name, value in impairments(link).items()}
    # What a label's value cannot hold goes where it can.
    for name in [name for name, value in labels.items() if not _LABEL.match(value)]:
        annotations[name] = labels.pop(name)
    return labels, annotations


def impairments(link: Link | Uplink) -> dict[str, str]:
    """Return the fields that say what the ends do to frames: of both ends where they are alike."""
    found = {}
    ends = [end.impairment or Impairment() for end in link.ends]
    for quantity in QUANTITIES:
        values = [quantity.shown(getattr(end, quantity.name)) for end in ends]
        are_alike = len(set(values)) == 1
        for prefix, value in zip(("",) if are_alike else ENDS, values, strict=False):
            if value is not None:
                # A label's value cannot hold a percent sign.
                found[f"{prefix}{quantity.label}"] = value.rstrip("%")
    return found


def files(node: Node) -> tuple[File, ...]:
    """Return a node's files, with FRR's list of daemons beside a configuration that Ratchet wrote.

    FRR's image starts none of the daemons that its own list does not name.
    """
    known = kind(node.kind)
    paths = {file.path for file in node.files}
    if not node.routing or known.router != "frr" or known.config_path not in paths:
        return node.files
    path = f"{posixpath.dirname(known.config_path or '')}/{frr_daemons.DAEMONS}"
    if path in paths:
        return node.files
    plan = frr_daemons.plan({file.path: file.content for file in node.files}, node.name)
    return (*node.files, File(path, frr_daemons.written(plan.daemons)))


def config_map(node: Node) -> dict[str, str]:
    """Return the data of a node's ConfigMap."""
    return {key: file.content for key, file in _keyed(node.files)}


def metadata(
    topology: Topology, node: Node, declared: Sequence[Link | Uplink]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return all labels and annotations of a node's pod."""
    labels, annotations = wiring(declared)
    labels = {**identity(topology, node), **dict(node.labels), **labels}
    annotations[KIND] = node.kind
    if node.title != node.name:
        annotations[TITLE] = node.title
    if node.routing:
        annotations[ROUTING] = node.routing
    for ifname, title in node.renamed:
        annotations[f"{RENAMED}{ifname}"] = title
    return labels, annotations


def identity(topology: Topology, node: Node) -> dict[str, str]:
    """Return the labels that every object of a node has."""
    return {TOPOLOGY: label_value(topology.name), NODE: node.name}


def label_value(text: str) -> str:
    """Return a text as near as a label's value can come to it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.") or "topology"


def is_label(name: str, value: str) -> bool:
    """Say whether Kubernetes takes a user's label, and Ratchet has no use for it of its own."""
    if name == "ratchet" or name.startswith(("ratchet.", OWN)):
        return False
    prefix, slash, rest = name.rpartition("/")
    return (
        bool(_LABEL.match(rest))
        and (not slash or bool(_PREFIX.match(prefix)))
        and (not value or bool(_LABEL.match(value)))
    )


def by_node(topology: Topology) -> tuple[dict[str, list[Link | Uplink]], dict[str, list[End]]]:
    """Return each node's declared links, and all ends at it."""
    declared: dict[str, list[Link | Uplink]] = {}
    ends: dict[str, list[End]] = {}
    for link in topology.all_links:
        declared.setdefault(link.ends[0].node, []).append(link)
        for end in link.ends:
            ends.setdefault(end.node, []).append(end)
    return declared, ends


def _head(
    name: str,
    namespace: str | None,
    labels: Mapping[str, Value],
    annotations: Mapping[str, Value] | None = None,
) -> Object:
    found: Object = {"name": name}
    if namespace:
        found["namespace"] = namespace
    found["labels"] = labels
    if annotations:
        found["annotations"] = annotations
    return found


def _pod(
    topology: Topology,
    node: Node,
    declared: Sequence[Link | Uplink],
    ends: Sequence[End],
    namespace: str | None,
) -> Object:
    labels, annotations = metadata(topology, node, declared)
    spec: Object = {"terminationGracePeriodSeconds": 0}
    if node.node_selector:
        spec["nodeSelector"] = dict(node.node_selector)
    first = [_addresses(node)] if node.loopbacks else []
    if ends and kind(node.kind).waits:
        first.append(_links(ends))
    if first:
        spec["initContainers"] = first
    spec["containers"] = [_container(node, ends)]
    if node.files:
        spec["volumes"] = [{"name": "files", "configMap": {"name": f"{node.name}-files"}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _head(node.name, namespace, labels, annotations),
        "spec": spec,
    }


def _container(node: Node, ends: Sequence[End]) -> Object:
    container: Object = {"name": CONTAINER, "image": node.image}
    if node.command is not None:
        container["command"] = node.command
    if node.args:
        container["args"] = node.args
    if kind(node.kind).interactive and node.command is None and not node.args:
        container["stdin"] = container["tty"] = True
    if node.env:
        container["env"] = [{"name": name, "value": value} for name, value in node.env]
    if node.commands:
        script = "\n".join(after_links([end.ifname for end in ends], node.commands))
        container["lifecycle"] = {"postStart": {"exec": {"command": ["/bin/sh", "-c", script]}}}
    container["securityContext"] = {"privileged": True}
    if node.files:
        container["volumeMounts"] = [
            {"name": "files", "mountPath": file.path, "subPath": key}
            for key, file in _keyed(node.files)
        ]
    return container


def after_links(ifnames: Sequence[str], commands: Sequence[str]) -> list[str]:
    """Return the lines of a script that waits for the node's interfaces first.

    /proc/sys/net is that of whoever looks; /sys/class/net is that of who mounted it, which in the
    simulator is the machine.
    """
    waits = [
        f"until [ -e '/proc/sys/net/ipv4/conf/{one}' ]; do sleep 1; done" for one in sorted(ifnames)
    ]
    return ["set -e", *waits, *commands]


def _addresses(node: Node) -> Object:
    return {
        "name": ADDRESSES,
        "image": ALPINE,
        "command": ["/bin/sh", "-c", " && ".join(loopback_commands(node))],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
    }


def _links(ends: Sequence[End]) -> Object:
    """Return what ends when all interfaces are there: a kind that looks for them only once."""
    script = "\n".join(after_links([end.ifname for end in ends], ()))
    return {"name": LINKS, "image": ALPINE, "command": ["/bin/sh", "-c", script]}


def loopback_commands(node: Node) -> list[str]:
    """Return what sets a node's loopback addresses, and may do so twice."""
    return [f"ip address replace {address} dev lo" for address in node.loopbacks]


def _service(node: Node, namespace: str | None, mine: Mapping[str, Value]) -> Object:
    # A Service's name begins with a letter (RFC 1035), a pod's need not.
    name = node.name if node.name[0].isalpha() else f"n-{node.name}"[:63].rstrip("-")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _head(name, namespace, labels=mine),
        "spec": {
            "type": "NodePort",
            "selector": dict(mine),
            "ports": [_port(port) for port in node.ports],
        },
    }


def _port(port: Port) -> Object:
    made: Object = {"name": port_name(port), "protocol": port.protocol}
    on_nodes = port.outside is not None and port.outside in NODE_PORTS
    made["port"] = port.inside if on_nodes or port.outside is None else port.outside
    made["targetPort"] = port.inside
    if on_nodes and port.outside is not None:
        made["nodePort"] = port.outside
    return made


def port_label(port: Port) -> str:
    """Return the label that says in a definition what a port is called."""
    numbers = [str(one) for one in (port.outside, port.inside) if one is not None]
    return f"{PORT}{'-'.join(numbers)}-{port.protocol.lower()}"


def port_name(port: Port) -> str:
    """Return the port's own name if Kubernetes takes it, one of protocol and number otherwise."""
    name = re.sub(r"[^a-z0-9]+", "-", port.name.lower())[:PORT_NAME_CHARS].strip("-")
    if any(character.isalpha() for character in name):
        return name
    return f"{port.protocol.lower()}-{port.inside}"


def _keyed(files: Sequence[File]) -> Iterator[tuple[str, File]]:
    """Yield each file with its key in the ConfigMap: its own name, numbered where that is taken."""
    taken: set[str] = set()
    for file in files:
        base = re.sub(r"[^-._a-zA-Z0-9]+", "-", file.path.rsplit("/", 1)[-1]) or "file"
        key, number = base, 1
        while key in taken:
            number += 1
            key = f"{number}-{base}"
        taken.add(key)
        yield key, file
