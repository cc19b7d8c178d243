"""Each node's network configuration: the simulator's own, or the user's, fitted to the node.

A configuration file written for a cluster names that cluster's etcd, interfaces and folders. Those,
and only those, are replaced by the node's own; everything else stays as the user wrote it. Pure but
for reading the user's file.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.config import Config
from ratchet.errors import ConfigError
from ratchetctl.errors import SimError
from ratchetctl.sim import etcd
from ratchetctl.sim.underlay import NODE_INTERFACE, ROUTER_ADDRESS

ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
CNI_VERSION = "1.0.0"
BRIDGE = "bridge"
LOOPBACK = "loopback"
# Where the user's cluster keeps things that the simulated nodes have not got.
ELSEWHERE = (
    "child_path",
    "kubeconfig",
    "etcd_ca_cert",
    "etcd_cert",
    "etcd_key",
    "etcd_username",
    "etcd_password_file",
)
# host-local's ways to say which addresses to give.
RANGES = ("subnet", "ranges", "rangeStart", "rangeEnd", "gateway")


@dataclass(frozen=True, slots=True)
class Site:
    """What of a configuration differs from node to node."""

    folder: str
    state_dir: str
    address: str
    subnet: str
    etcd_prefix: str


def default(boot_network: str | None = None) -> dict[str, Any]:
    """Return the simulator's own 10-ratchet.conf: bridge and host-local as the delegate.

    The boot network is the delegate unless it is of another type.
    """
    configuration: dict[str, Any] = {
        "cniVersion": CNI_VERSION,
        "name": "ratchet",
        "type": "ratchet",
        "capabilities": {ANNOTATIONS: True},
        "delegate": {
            "type": BRIDGE,
            "bridge": "cni0",
            "isDefaultGateway": True,
            "ipam": {"type": "host-local"},
        },
    }
    if boot_network and boot_network != BRIDGE:
        configuration["boot_network"] = {"type": boot_network}
    return configuration


def read(path: str) -> dict[str, Any]:
    """Read a .conf or .conflist. Raises SimError."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise SimError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SimError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SimError(f"{path}: must be a network configuration (a JSON object)")
    plugins = found.get("plugins", [found])
    if not isinstance(plugins, list) or not plugins:
        raise SimError(f"{path}: plugins: must be a list of plugin configurations")
    for plugin in plugins:
        if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str):
            raise SimError(f"{path}: every plugin needs a type")
    if not isinstance(found.get("name"), str) or not found["name"]:
        raise SimError(f"{path}: name: a network configuration needs a name")
    return found


def for_node(template: Mapping[str, Any], site: Site) -> dict[str, Any]:
    """Return the template as this node has it."""
    configuration = copy.deepcopy(dict(template))
    for plugin in configuration.get("plugins", [configuration]):
        _fit(plugin, site)
    return configuration


def check(configuration: Mapping[str, Any]) -> None:
    """Refuse what Ratchet would refuse at every pod. Raises SimError."""
    for plugin in configuration.get("plugins", [configuration]):
        if plugin["type"] == "ratchet":
            try:
                Config.parse({"name": configuration["name"], **plugin})
            except ConfigError as error:
                raise SimError(": ".join(filter(None, (error.msg, error.details)))) from error


def gives_network(configuration: Mapping[str, Any]) -> bool:
    """Say whether eligible pods get more than their links: not with loopback as boot network."""
    plugins = configuration.get("plugins", [configuration])
    return all(one.get("boot_network") != {"type": LOOPBACK} for one in plugins)


def write(configuration: Mapping[str, Any], site: Site) -> str:
    """Write a node's configuration where a runtime looks for it; the path."""
    suffix = "conflist" if "plugins" in configuration else "conf"
    path = os.path.join(site.folder, f"10-ratchet.{suffix}")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(configuration, file, indent=2)
        file.write("\n")
    return path


def load(folder: str) -> dict[str, Any]:
    """Return the configuration of the node with this folder. Raises SimError."""
    for suffix in ("conflist", "conf"):
        path = os.path.join(folder, f"10-ratchet.{suffix}")
        if os.path.exists(path):
            return read(path)
    raise SimError(f"{folder}: no 10-ratchet.conf")


def write_flannel_subnet(site: Site) -> None:
    """Return what flanneld would have written for the flannel plugin on this node."""
    with open(_flannel_subnet(site), "w", encoding="ascii") as file:
        file.write(
            f"FLANNEL_NETWORK=100.64.0.0/10\nFLANNEL_SUBNET={_first_address(site.subnet)}\n"
            "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
        )


def _fit(plugin: dict[str, Any], site: Site) -> None:
    kind = plugin.get("type")
    if kind == "ratchet":
        for key in ELSEWHERE:
            plugin.pop(key, None)
        plugin.update(
            etcd_host=ROUTER_ADDRESS,
            etcd_port=str(etcd.PORT),
            etcd_prefix=site.etcd_prefix,
            parent_interface=NODE_INTERFACE,
            parent_address=site.address,
            state_dir=site.state_dir,
            log_file=os.path.join(site.folder, "ratchet.log"),
        )
        for key in ("delegate", "boot_network"):
            inner = plugin.get(key)
            if isinstance(inner, dict):
                for one in inner.get("plugins", [inner]):
                    _fit(one, site)
    if kind == "flannel":
        plugin["subnetFile"] = _flannel_subnet(site)
        plugin["dataDir"] = os.path.join(site.folder, "cni", "flannel")
        plugin.setdefault("ipam", {})["dataDir"] = os.path.join(site.folder, "cni", "networks")
    ipam = plugin.get("ipam")
    if isinstance(ipam, dict) and ipam.get("type") == "host-local":
        for key in RANGES:
            ipam.pop(key, None)
        ipam["subnet"] = site.subnet
        ipam["dataDir"] = os.path.join(site.folder, "cni", "networks")


def _flannel_subnet(site: Site) -> str:
    return os.path.join(site.folder, "flannel-subnet.env")


def _first_address(subnet: str) -> str:
    network, _, prefix_len = subnet.partition("/")
    return f"{network[: network.rindex('.')]}.1/{prefix_len}"
