"""The address that a pod without an eth0 of its own tells the runtime, as the kernel judges it."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.lab.cluster import Cluster
from tests.lab.runtime import PAIR, Node, in1_in2

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]


def reported(result: dict[str, Any]) -> list[str]:
    names = [interface["name"] for interface in result["interfaces"]]
    return [ip["address"] for ip in result["ips"] if names[ip["interface"]] == "eth0"]


def test_the_published_example_works_unchanged(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    outcome = node.add(pod, {**in1_in2("b"), "ratchet.public_ip": "1.1.1.1"}).succeeded()
    assert reported(outcome.result) == ["1.1.1.1/24"]


def test_what_the_node_has_cannot_be_reported(cluster: Cluster, node: Node) -> None:
    """Addresses of interfaces, a prefix that the node takes as a whole, a broadcast address."""
    route = ("local", "198.51.100.0/24", "dev", "lo", "table", "local")
    node.namespace.ip("route", "add", *route)
    try:
        for address in (
            node.address,
            node.address6,
            str(ipaddress.ip_address(f"64:ff9b::{node.address}")),
            node.address.rpartition(".")[0] + ".255",
            "198.51.100.77",
            "169.254.169.254",
        ):
            pod = cluster.pod("a")
            outcome = node.add(pod, PAIR, {"ratchet.public_ip": address})
            assert outcome.error["code"] == 100, address
            assert f"ratchet.public_ip is '{address}'" in outcome.error_text
            assert [name for name in node.records() if not name.endswith(".deleted")] == []
            assert pod.netns.names() == {"lo"}
            node.attachments.clear()
            # A link may have it, and is not told of.
            if ":" not in address and not address.endswith(".255"):
                other = cluster.pod("b")
                labels = {**in1_in2("c"), "ratchet.local_ip": address}
                (told,) = reported(node.add(other, labels).succeeded().result)
                assert told.startswith("169.254.")
                assert not told.startswith("169.254.169.")
                node.delete(other).succeeded()
    finally:
        node.namespace.ip("route", "delete", *route)
    pod = cluster.pod("a")
    outcome = node.add(pod, {**PAIR, "ratchet.public_ip": "198.51.100.77"}).succeeded()
    assert reported(outcome.result) == ["198.51.100.77/24"]


def test_an_administrator_keeps_tenants_to_networks(cluster: Cluster, node: Node) -> None:
    networks: dict[str, Any] = {"public_ip_networks": ["192.0.2.0/24", "192.168.2.0/24"]}
    victim = "10.96.0.1"
    attacker, witness, other = (cluster.pod(name) for name in "abc")
    outcome = node.add(attacker, {**PAIR, "ratchet.public_ip": victim}, **networks)
    assert outcome.error["code"] == 100
    assert "192.0.2.0/24, 192.168.2.0/24" in outcome.error_text
    node.attachments.clear()
    labels = {**PAIR, "ratchet.public_ip": "192.0.2.9"}
    assert reported(node.add(witness, labels, **networks).succeeded().result) == ["192.0.2.9/24"]
    told = reported(node.add(other, in1_in2("d"), **networks).succeeded().result)
    assert told == ["192.168.2.100/24"]
