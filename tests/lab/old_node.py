"""A node that still runs Ratchet CNI v0.1.0.

`OldNode` does to etcd and to the kernel what the published v0.1.0 does, and nothing else: plain
PUTs, polling once a second, one link a pair, no bells, no clean-up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.lab.cluster import Cluster
from tests.lab.etcd_server import Etcd
from tests.lab.polling import wait_for
from tests.lab.runtime import Node, Pod

ROOT = "/ratchet"
TRIES = 60


class OldNode:
    """What a node with v0.1.0 does when a container of Ratchet is added."""

    def __init__(self, node: Node, etcd: Etcd) -> None:
        self.node = node
        self.etcd = etcd
        # Between the id and the rest: v0.1.0 writes it first, so others see a pod half published.
        self.pause_s = 0.0
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self.errors: list[str] = []

    def add_primary(
        self, pod: Pod, ifname: str, address: str, pair: str, pair_ifname: str, pair_address: str
    ) -> None:
        self._associate(pod)
        vxlanid = self.etcd.get(f"{ROOT}/vxlanid")
        vni = 11 if vxlanid is None else int(vxlanid)
        self.etcd.put(f"{ROOT}/vxlanid", str(vni + 1))
        mine = f"{ROOT}/association/{pair}"
        self.etcd.put(f"{mine}/vxlanid", str(vni))
        self.etcd.put(f"{mine}/pairip", pair_address)
        self.etcd.put(f"{mine}/pairifname", pair_ifname)
        self.etcd.put(f"{mine}/primaryname", pod.name)
        self._start(lambda: self._primary_child(pod, ifname, address, pair, vni))

    def add_pair(self, pod: Pod) -> None:
        self._associate(pod)
        self._start(lambda: self._pair_child(pod))

    def close(self) -> None:
        """Stop the children. Safe to call twice."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _associate(self, pod: Pod) -> None:
        mine = f"{ROOT}/association/{pod.name}"
        self.etcd.put(f"{mine}/id", pod.container_id)
        time.sleep(self.pause_s)
        self.etcd.put(f"{mine}/parentiface", "eth0")
        self.etcd.put(f"{mine}/parentaddr", self.node.address)

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - shown by the test
                self.errors.append(repr(error))
                print(f"the old node {self.node.number}: {error!r}")

        thread = threading.Thread(target=guarded)
        self._threads.append(thread)
        thread.start()

    def _poll(self, key: str) -> str | None:
        for _ in range(TRIES):
            value = self.etcd.get(key)
            if value is not None:
                return value
            if self._stopped.wait(1):
                break
        return None

    def _primary_child(self, pod: Pod, ifname: str, address: str, pair: str, vni: int) -> None:
        theirs = f"{ROOT}/association/{pair}"
        if self._poll(f"{theirs}/id") is None:
            return
        self._stopped.wait(1)
        assert self.etcd.get(f"{theirs}/parentiface") is not None
        remote = self.etcd.get(f"{theirs}/parentaddr")
        assert remote is not None
        assert remote != self.node.address, "the emulation has no veth"
        self._make_vxlan(pod, ifname, vni, remote, address)

    def _pair_child(self, pod: Pod) -> None:
        mine = f"{ROOT}/association/{pod.name}"
        primary_name = self._poll(f"{mine}/primaryname")
        if primary_name is None:
            return
        vni = self.etcd.get(f"{mine}/vxlanid")
        address = self.etcd.get(f"{mine}/pairip")
        ifname = self.etcd.get(f"{mine}/pairifname")
        assert self.etcd.get(f"{ROOT}/association/{primary_name}/parentiface") is not None
        remote = self.etcd.get(f"{ROOT}/association/{primary_name}/parentaddr")
        assert vni is not None
        assert address is not None
        assert ifname is not None
        assert remote is not None
        self._make_vxlan(pod, ifname, int(vni), remote, address)

    def _make_vxlan(self, pod: Pod, ifname: str, vni: int, remote: str, address: str) -> None:
        """Make the device on the node and move it, as v0.1.0 does."""
        host = self.node.namespace
        made = f"old{vni}"
        host.ip(
            *("link", "add", made, "type", "vxlan", "id", str(vni), "remote", remote),
            *("dev", "eth0", "dstport", "4789"),
        )
        host.ip("link", "set", made, "netns", pod.netns.name, "name", ifname)
        pod.netns.ip("addr", "add", f"{address}/24", "dev", ifname)
        pod.netns.ip("link", "set", ifname, "up")


def forget(cluster: Cluster, old_pods: list[Pod], *ifnames: str) -> None:
    """Do for the old node's pods what v0.1.0 never did, so that the test leaves nothing.

    Ours has removed every key that is its own before: no value names one of our containers, and no
    VNI is claimed. A bell that was rung for the old node expires by itself.
    """
    ours = [pod.container_id for pod in cluster.pods if pod not in old_pods]
    wait_for(
        "our keys to go",
        lambda: cluster.etcd.keys(ROOT),
        until=lambda keys: not any(container in str(keys) for container in ours),
    )
    cluster.etcd.delete(f"{ROOT}/association")
    cluster.etcd.delete(f"{ROOT}/nodes/{cluster.nodes[1].address}")
    if not cluster.etcd.keys(f"{ROOT}/nodes"):
        cluster.etcd.delete(f"{ROOT}/nodes")
    for pod in old_pods:
        for ifname in ifnames:
            pod.netns.ip("link", "delete", ifname, check=False)
