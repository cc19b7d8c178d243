"""The configuration that users of Ratchet CNI v0.1.0 have works unchanged."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster, end_pids
from tests.lab.namespaces import Namespace
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Config, Node, has_open, in1_in2, plugin_dir

pytestmark = pytest.mark.root


@pytest.fixture
def old_config(cluster: Cluster, node: Node) -> Iterator[Config]:
    """Give a `10-ratchet.conf` of v0.1.0; only the name is made random, as state goes to /run."""
    name = f"rt-{secrets.token_hex(4)}"
    yield {
        "name": name,
        "type": "ratchet",
        "cniDir": "/var/lib/cni/ratchet",
        "etcd_host": cluster.etcd.address,
        "etcd_port": str(cluster.etcd.port),
        "child_path": os.path.join(plugin_dir(), "ratchet-child"),
        "parent_interface": "eth0",
        "parent_address": node.address,
        "use_labels": True,
        "delegate": node.bridge_config(),
        "boot_network": {"type": "loopback"},
    }
    state_dir, lasting = f"/run/ratchet/{name}", f"/var/lib/ratchet/{name}"
    try:
        for attachment in list(node.attachments.values()):
            node.delete(attachment.pod).succeeded()
        wait_for(
            "the keys to go",
            cluster.etcd.tree,
            until=lambda tree: set(tree) <= {"/ratchet/", "/ratchet/vxlanid"},
        )
    finally:
        end_child(node.namespace, state_dir)
        for folder in (state_dir, lasting):
            shutil.rmtree(folder, ignore_errors=True)


def end_child(namespace: Namespace, state_dir: str) -> None:
    """End the child of a state directory outside the harness's own."""
    lock = os.path.join(state_dir, "child.lock")
    end_pids(namespace, {pid for pid in namespace.processes() if has_open(pid, lock)})


def test_eligible_pods_are_linked_and_report_an_address(
    cluster: Cluster, node: Node, old_config: Config
) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    # No cniVersion means 0.1.0 (CNI spec 0.2.0); such a result has one address and no interfaces.
    result = node.add(left, in1_in2("pair-pod"), config=old_config).result
    assert result["ip4"]["ip"] == "192.168.2.100/24"
    assert result.get("cniVersion", "0.1.0") == "0.1.0"
    assert "ips" not in result
    # The pair has no link address of its own; a runtime refuses it without any.
    result = node.add(right, PAIR, config=old_config).result
    assert "/" in result["ip4"]["ip"]

    left.netns.wait_ping("192.168.2.101")
    lo = left.netns.link("lo")
    assert lo is not None
    assert "UP" in lo["flags"]
    for pod in (left, right):
        node.delete(pod).succeeded()
        pod.netns.wait_no_link("in1")
        pod.netns.wait_no_link("in2")
    attachments = f"/run/ratchet/{old_config['name']}/attachments"
    wait_for(
        "the records to go",
        lambda: node.namespace.command_output("ls", attachments).split(),
        until=lambda left: not left,
    )


def test_unlabelled_pod_gets_the_delegates_result(
    cluster: Cluster, node: Node, old_config: Config
) -> None:
    pod = cluster.pod("plain")
    result = node.add(pod, {}, config=old_config).result
    assert [result["ip4"]["ip"]] == pod.netns.addresses("eth0")
    node.delete(pod).succeeded()
    assert pod.netns.names() == {"lo"}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_result_names_an_address_on_the_runtimes_interface(
    cluster: Cluster, node: Node, old_config: Config, version: str
) -> None:
    """containerd and CRI-O refuse a pod without an address on CNI_IFNAME."""
    pods = [cluster.pod("p1"), cluster.pod("p2"), cluster.pod("p3")]
    config = {**old_config, "cniVersion": version}
    labels = [
        {**in1_in2("px"), "ratchet.public_ip": "203.0.113.7"},
        in1_in2("py"),
        PAIR,
    ]
    results = [
        node.add(pod, wanted, config=config).result
        for pod, wanted in zip(pods, labels, strict=True)
    ]
    found = []
    for pod, result in zip(pods, results, strict=True):
        names = {i for i, each in enumerate(result["interfaces"]) if each["name"] == "eth0"}
        for index in names:
            assert result["interfaces"][index]["sandbox"] == pod.netns.path
        found.append([ip["address"] for ip in result["ips"] if ip.get("interface") in names])

    assert found[0][0].startswith("203.0.113.7/")
    assert found[1] == ["192.168.2.100/24"]
    assert found[2][0].startswith("169.254.")
    assert json.dumps(results[2]) != json.dumps(results[1])


def test_ports_are_taken_as_strings_or_numbers(
    cluster: Cluster, node: Node, old_config: Config
) -> None:
    left, right = cluster.pod("primary-pod"), cluster.pod("pair-pod")
    node.add(left, in1_in2("pair-pod"), config=old_config).succeeded()
    other = {**old_config, "etcd_port": cluster.etcd.port}
    node.add(right, PAIR, config=other).succeeded()

    left.netns.wait_ping("192.168.2.101")
