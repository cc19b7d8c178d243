"""The network between the nodes: a bridge in a namespace of its own, and one cable to each node.

The underlay's namespace is also the cluster's router: it knows which node has which pod addresses,
as a cloud's route table would, so that pods of the delegate reach each other across nodes. No host
interface is connected to anything here.

`ip -batch` makes it, one call for each namespace: there are few of them, and what it does can be
read and typed.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Sequence

from ratchetctl.errors import SimError
from ratchetctl.sim import netns
from ratchetctl.sim.directory import NodeState

# Addresses that examples and laboratories seldom use, so that links in pods do not meet them.
UNDERLAY = ipaddress.IPv4Network("172.30.0.0/16")
POD_NETWORK = ipaddress.IPv4Network("100.64.0.0/10")  # RFC 6598 §7
POD_PREFIX_LEN = 20
BRIDGE = "underlay0"
NODE_INTERFACE = "eth0"
MAX_NODES = 1000

ROUTER_ADDRESS = str(UNDERLAY[1])


def node_address(number: int) -> str:
    """Return a node's address on the underlay, its tunnel endpoint."""
    return str(UNDERLAY[256 + number])


def pod_subnet(number: int) -> str:
    """Return the addresses that a node's delegate gives to its pods."""
    size = 1 << (32 - POD_PREFIX_LEN)
    return f"{POD_NETWORK[number * size]}/{POD_PREFIX_LEN}"


def build(underlay: str, nodes: Sequence[tuple[NodeState, str]]) -> None:
    """Connect the namespaces at these paths, which exist and are empty. Raises SimError."""
    lines = [
        f"link add {BRIDGE} type bridge",
        f"address add {ROUTER_ADDRESS}/{UNDERLAY.prefixlen} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]
    for node, path in nodes:
        # Both ends straight into their namespaces: nothing passes through the host's.
        lines += [
            f"link add {node.name} type veth peer name {NODE_INTERFACE} netns {path}",
            f"link set {node.name} master {BRIDGE} up",
            f"route add {pod_subnet(node.number)} via {node.address}",
        ]
    with netns.inside(underlay):
        _batch(lines)
    for node, path in nodes:
        with netns.inside(path):
            _batch(
                [
                    f"address add {node.address}/{UNDERLAY.prefixlen} dev {NODE_INTERFACE}",
                    f"link set {NODE_INTERFACE} up",
                    f"route add default via {ROUTER_ADDRESS}",
                ]
            )


def _batch(lines: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            ("ip", "-batch", "-"),
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise SimError("the program ip is missing: install iproute2") from error
    if done.returncode != 0:
        raise SimError(f"the underlay cannot be made: {done.stderr.strip()}")
