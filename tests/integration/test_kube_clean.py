"""`clean --stale` on a real etcd: what a node that is gone has left goes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ratchet_child.model.keys import PodKey
from ratchetctl.kube import removing
from ratchetctl.kube.stale import Living
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2

pytestmark = pytest.mark.root


def test_what_a_dead_node_has_left_goes_and_nothing_else(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right, other = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    node.add(left, in1_in2("b")).succeeded()
    node.add(other, in1_in2("gone")).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    far.kill_all()
    forget(cluster, far)
    write_v010(cluster)
    store = removing.store_of({"etcd_host": cluster.etcd.address, "etcd_port": cluster.etcd.port})
    before = lasting(cluster)

    def clean(pods: set[str], during: Callable[[], object] = bool, *, old: bool = False) -> int:
        living = frozenset(PodKey("default", name) for name in pods)

        def run() -> int:
            found = removing.look_twice(
                store, lambda: Living(living), 0.0, lambda _: (during(), None)[1]
            )
            return removing.remove(store, found, with_old=old) if found else 0

        return cluster.underlay.do(run)

    # The pod is still there for Kubernetes: its node may come back.
    assert clean({"a", "b", "c", "old"}) == 0
    # It comes back between the two looks.
    key = f"/ratchet/machines/{far.address}@x"
    assert clean({"a", "c", "old"}, lambda: cluster.etcd.put(key, "{}")) == 0
    cluster.etcd.delete(key)
    assert lasting(cluster) == before
    # It is gone for good, and so is the pod. Nodes that live notice.
    assert clean({"a", "c"}) == 1
    after = lasting(cluster)
    assert not [key for key in after if far.address in key or key.endswith("/b/id")]
    assert {key for key in before if key not in after} == {
        key
        for key in before
        if key.startswith(f"/ratchet/nodes/{far.address}")
        or key in [f"/ratchet/association/b/{one}" for one in ("id", "parentaddr", "parentiface")]
    }
    wait_for("the end to be unplugged", lambda: "waiting" in status(node), timeout_s=20)
    # v0.1.0's stays unless it is asked for.
    assert clean({"a", "c"}) == 0
    assert clean({"a", "c"}, old=True) == 3
    assert not [key for key in lasting(cluster) if "/old" in key]
    assert clean({"a", "c"}) == 0


def lasting(cluster: Cluster) -> dict[str, str]:
    """Return the keys that do not come and go by themselves."""
    found = cluster.etcd.keys()
    return {key: value for key, value in found.items() if "/bell/" not in key}


def forget(cluster: Cluster, node: Node) -> None:
    """Have a node not be heard of, as after a minute."""
    for key in lasting(cluster):
        if key.startswith(f"/ratchet/machines/{node.address}@"):
            cluster.etcd.delete(key)


def write_v010(cluster: Cluster) -> None:
    """Leave what a node of v0.1.0 leaves of a pod."""
    for name, value in (("parentaddr", "10.99.0.99"), ("parentiface", "eth0"), ("id", "f" * 64)):
        cluster.etcd.put(f"/ratchet/association/old/{name}", value)


def status(node: Node) -> str:
    from ratchetctl import node as reading

    found = reading.read(node.state_dir)
    return " ".join(link.state for pod in found.pods if pod.name == "a" for link in pod.links)
