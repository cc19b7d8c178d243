"""Clusters as the tests of `kubectl ratchet` make them, from objects as the API server has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet import annotations as told
from ratchet.annotations import NodeTold, PodTold
from ratchet.cni.dataclasses import replace
from ratchet.status import LinkStatus
from ratchetctl.kube.cluster import Cluster
from ratchetctl.kube.reading import read_agent, read_pod

Obj = dict[str, Any]
R1 = {
    "ratchet": "true",
    "ratchet.primary": "true",
    "ratchet.local_ifname": "eth1",
    "ratchet.local_ip": "10.0.0.1",
    "ratchet.pair_name": "r2",
    "ratchet.pair_ifname": "eth2",
    "ratchet.pair_ip": "10.0.0.2",
}
R2 = {"ratchet": "true", "ratchet.primary": "false"}
OWN = LinkStatus(
    ifname="eth1",
    peer="r2",
    state="up",
    primary=True,
    address="10.0.0.1/24",
    peer_ifname="eth2",
    peer_node="192.168.1.2",
    kind="vxlan",
    vni=11,
    since=1000.0,
)
FAR = replace(
    OWN, ifname="eth2", peer="r1", primary=False, address="10.0.0.2/24", peer_ifname="eth1",
    peer_node="192.168.1.1", since=1005.0,
)  # fmt: skip


def pod(
    name: str,
    labels: Mapping[str, str],
    *links: LinkStatus,
    node: str | None = "node-1",
    phase: str = "Running",
    namespace: str = "default",
    **values: Any,
) -> Obj:
    """Return a pod; with links, as its node's agent tells of them."""
    annotations = dict(values.pop("annotations", {}))
    is_told = values.pop("is_told", bool(links))
    if is_told:
        known = labels.get("ratchet.pod_name", name)
        more = {key: values.pop(key) for key in ("superseded", "error") if key in values}
        annotations[told.POD] = PodTold(known, node or "", "192.168.1.1", links, **more).dumps()
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"{namespace}-{name}",
            "labels": dict(labels),
            "annotations": annotations,
            "creationTimestamp": "1970-01-01T00:10:00Z",
        },
        "spec": {"nodeName": node, **values.pop("spec", {})},
        "status": {"phase": phase, **values.pop("status", {})},
    }


def agent(node: str, *, ready: bool = True, **values: Any) -> Obj:
    node_told = NodeTold("0.2.0", "net", "192.168.1.1", "eth0", 4789, 1450, "reachable")
    for key, value in values.items():
        object.__setattr__(node_told, key, value)
    return {
        "metadata": {
            "name": f"ratchet-{node}",
            "namespace": "ratchet",
            "uid": node,
            "annotations": {told.NODE: node_told.dumps()},
        },
        "spec": {"nodeName": node, "containers": [{"name": "agent", "image": "ratchet:0.2.0"}]},
        "status": {"containerStatuses": [{"name": "agent", "ready": ready}], "hostIP": "192.0.2.1"},
    }


def cluster(
    *pods: Obj, agents: list[Obj] | None = None, namespace: str | None = "default"
) -> Cluster:
    """Return a cluster of two nodes with agents, unless other ones are given."""
    read = [read_pod(obj, every_label=True) for obj in pods]
    there = [agent("node-1"), agent("node-2")] if agents is None else agents
    return Cluster.of([one for one in read if one is not None], map(read_agent, there), namespace)
