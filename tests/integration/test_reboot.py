"""A reboot empties /run and takes the namespaces; what plugins keep on the disk survives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from ratchet import statedir
from tests.lab.cluster import Cluster
from tests.lab.namespaces import random_name
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Config, Node, Pod

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def run_folder() -> Iterator[str]:
    """Yield a name for a folder in /run, and remove it when the cluster has been cleaned up."""
    name = random_name("run")
    yield name
    for folder in ("/run", "/var/lib"):
        shutil.rmtree(f"{folder}/{name}", ignore_errors=True)


@pytest.fixture
def state_dir(run_folder: str, node: Node) -> Iterator[str]:
    """Yield a state directory below /run."""
    path = f"/run/{run_folder}/net"
    yield path
    shutil.rmtree(path, ignore_errors=True)
    wait_for("the child to end", node.namespace.processes, until=lambda found: not found)


def taken(config: Config) -> list[str]:
    """Return the addresses that host-local has given out."""
    ipam = config["boot_network"]["ipam"]
    folder = os.path.join(ipam["dataDir"], config["name"])
    return [name for name in os.listdir(folder) if name.startswith("10.")]


def reboot(node: Node, state_dir: str, *pods: Pod) -> None:
    for pod in pods:
        pod.netns.remove()
    shutil.rmtree(state_dir)
    wait_for("the child to end", node.namespace.processes, until=lambda found: not found)


def test_a_del_after_a_reboot_gives_the_boot_networks_address_back(
    cluster: Cluster, node: Node, state_dir: str
) -> None:
    pod, other = cluster.pod("a"), cluster.pod("b")
    config = node.config(state_dir=state_dir, boot_network=node.bridge_config())
    node.add(pod, PAIR, config=config).succeeded()
    node.add(other, PAIR, config=config).succeeded()
    assert len(taken(config)) == 2
    node.delete(other, config=config).succeeded()
    assert len(taken(config)) == 1

    reboot(node, state_dir, pod)
    assert len(taken(config)) == 1
    # Whatever the administrator has written since.
    later = {**config, "boot_network": {"type": "loopback"}}
    for _ in range(2):
        node.delete(pod, config=later, environ={"CNI_NETNS": ""}).succeeded()
        assert taken(config) == []
    kept = [
        name for _, _, names in os.walk(statedir.lasting_dir(state_dir) or "") for name in names
    ]
    assert kept == []
    # The node's keys are taken back by the next child.
    node.status(config={**config, "cniVersion": "1.1.0"}).succeeded()
    wait_for("the keys to go", lambda: cluster.etcd.keys("/ratchet/nodes"), until=lambda k: not k)


def test_a_pod_without_a_boot_network_of_its_own_leaves_nothing_on_the_disk(
    cluster: Cluster, node: Node, state_dir: str
) -> None:
    pod = cluster.pod("a")
    config = node.config(state_dir=state_dir, boot_network=None)
    node.add(pod, PAIR, config=config).succeeded()
    assert not os.path.exists(statedir.lasting_dir(state_dir) or "")
    node.delete(pod, config=config).succeeded()
    wait_for("the keys to go", lambda: cluster.etcd.keys("/ratchet/nodes"), until=lambda k: not k)


def test_an_add_that_fails_leaves_nothing_on_the_disk(
    cluster: Cluster, node: Node, state_dir: str
) -> None:
    config = node.config(state_dir=state_dir, wait="all", wait_seconds=0.2)
    labels = {"ratchet": "true", "ratchet.primary": "true", "ratchet.local_ifname": "in1"}
    labels |= {"ratchet.pair_name": "nobody", "ratchet.pair_ifname": "in2"}
    pod = cluster.pod("a")
    outcome = node.add(pod, labels, config=config)
    assert outcome.error["code"] == 103
    node.attachments.clear()  # a DEL at the end of the test would start a child
    lasting = statedir.lasting_dir(state_dir) or ""
    assert [names for _, _, names in os.walk(lasting) if names] == []
    wait_for("the keys to go", lambda: cluster.etcd.keys("/ratchet/nodes"), until=lambda k: not k)
