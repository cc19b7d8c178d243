"""What a simulation looks like now: nodes, pods, and the links as each node's child sees them."""

from __future__ import annotations

import json
import os
from typing import Any

from rich.console import Console

from ratchet import client, messages
from ratchet.attachments import Directory
from ratchet.cni.errors import CniError
from ratchet.config import Config
from ratchet.status import NodeStatus, PodStatus
from ratchetctl import tables
from ratchetctl.sim import netns, processes
from ratchetctl.sim.directory import PodState, SimDirectory
from ratchetctl.sim.runtime import IFNAME

ANSWER_TIMEOUT_S = 5.0


def collect(directory: SimDirectory) -> dict[str, Any]:
    """Return the simulation as JSON. Raises SimError when there is none."""
    state = directory.read_state()
    pods = directory.pods()
    known = seen(directory)
    return {
        "name": directory.name,
        "directory": directory.path,
        "etcd": state.foreign_etcd or "private",
        "etcd_prefix": state.etcd_prefix,
        "nodes": [
            {
                "name": node.name,
                "address": node.address,
                "labels": node.labels,
                "netns": directory.netns(node.name),
                "state_dir": directory.state_dir(node.name),
                "pods": sum(pod.node == node.name for pod in pods),
                "processes": _processes(directory.netns(node.name)),
            }
            for node in state.nodes
        ],
        "pods": [
            {
                "namespace": pod.namespace,
                "name": pod.name,
                "node": pod.node,
                "container_id": pod.container_id,
                "netns": pod.netns,
                "attached": pod.result is not None,
                "addresses": addresses(pod),
                **known.get(pod.container_id, {"superseded": False, "links": []}),
            }
            for pod in pods
        ],
    }


def seen(directory: SimDirectory) -> dict[str, dict[str, Any]]:
    """Return every pod's links by container ID, as the nodes' children see them."""
    found: dict[str, dict[str, Any]] = {}
    for node in directory.read_state().nodes:
        found.update(_seen(directory.state_dir(node.name)))
    return found


def show(found: dict[str, Any], console: Console) -> None:
    """Print what `collect` has found as tables."""
    nodes = tables.table("node", "address", "pods", "processes", "labels")
    for node in found["nodes"]:
        nodes.add_row(
            node["name"],
            node["address"],
            str(node["pods"]),
            " ".join(map(str, node["processes"])),
            " ".join(f"{k}={v}" for k, v in node["labels"].items() if "kubernetes.io/" not in k),
        )
    pods = tables.table("pod", "node", "address", "links")
    for pod in found["pods"]:
        namespace = pod["namespace"]
        pods.add_row(
            pod["name"] if namespace == "default" else f"{namespace}/{pod['name']}",
            pod["node"],
            " ".join(pod["addresses"]) if pod["attached"] else "not attached",
            "superseded: another container has the name"
            if pod["superseded"]
            else "\n".join(_sentence(link) for link in pod["links"]),
        )
    console.print(nodes)
    if found["pods"]:
        console.print()
        console.print(pods)


def addresses(pod: PodState) -> list[str]:
    """Return the addresses that the pod reported, as a runtime takes them: none of a loopback."""
    result = pod.result or {}
    found = (str(one.get("address")) for one in result.get("ips", ()) if isinstance(one, dict))
    return [one for one in found if not one.startswith("127.") and not one.startswith("::1/")]


def _sentence(link: dict[str, Any]) -> str:
    kind, vni = link.get("kind"), link.get("vni")
    how = f"{kind} {vni}, " if kind == "vxlan" else f"{kind}, " if kind else ""
    why = f": {link['error']}" if link.get("error") else ""
    if link.get("fault"):
        why = f", fault: {link['fault']}"
    far = f"{link['peer_ifname']} of {link['peer']}" if link.get("peer_ifname") else link["peer"]
    return f"{link['ifname']} to {far} ({how}{link['state']}{why})"


def _processes(path: str) -> list[int]:
    found = netns.identity(path)
    return processes.pids({found}) if found else []


def _seen(state_dir: str) -> dict[str, dict[str, Any]]:
    """Return a node's pods with their links by container ID, as declared if no child answers."""
    seen: dict[str, dict[str, Any]] = {}
    for record in Directory(state_dir).live():
        if record.ifname == IFNAME:
            links = [
                {
                    "ifname": link.ifname,
                    "peer": link.pair,
                    "peer_ifname": link.pair_ifname,
                    "state": "declared",
                }
                for link in record.links
            ]
            seen[record.container_id] = {"superseded": False, "links": links}
    for pod in _ask(state_dir):
        if pod.container in seen:
            links = [link.to_json() for link in pod.links]
            seen[pod.container] = {"superseded": pod.superseded, "links": links}
    return seen


def _ask(state_dir: str) -> tuple[PodStatus, ...]:
    """Ask the child for the node's pods; none where it does not answer. Starts no child."""
    try:
        with open(os.path.join(state_dir, "settings.json"), encoding="utf-8") as file:
            config = Config.from_settings(json.load(file))
        answer = client.ask(config, messages.Status(), ANSWER_TIMEOUT_S)
        pods = () if answer is None else NodeStatus.from_json(answer).pods
    except (OSError, ValueError, CniError):
        return ()
    return pods
