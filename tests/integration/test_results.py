"""Results in every version of the specification, as single plugin and in a list."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.runtime import PAIR, REFERENCE_PLUGINS, Node, in1_in2, request_config

pytestmark = pytest.mark.root

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def assert_result_shape(result: dict[str, Any], version: str, address: str) -> None:
    """Assert what the specification of that version says about a result with one address."""
    assert result["cniVersion"] == version
    if version in ("0.1.0", "0.2.0"):
        assert result["ip4"]["ip"] == address
        assert not {"ips", "interfaces", "routes"} & set(result)
        return
    assert "ip4" not in result
    assert address in [ip["address"] for ip in result["ips"]]
    for ip in result["ips"]:
        # 1.0.0 removed `version`; until then it is required.
        family = "6" if ":" in ip["address"] else "4"
        assert ip.get("version") == (None if version >= "1" else family)
        if "interface" in ip:
            assert 0 <= ip["interface"] < len(result["interfaces"])
    for interface in result["interfaces"]:
        assert interface["name"]
    if version < "1.1":
        for interface in result["interfaces"]:
            assert not {"mtu", "socketPath", "pciID"} & set(interface)


def own_version(version: str) -> str:
    """Return the newest version not above `version` that the reference plugins know."""
    return "1.0.0" if version == "1.1.0" else version


@each_of("boot", ["loopback", "bridge"])
@each_of("version", VERSIONS)
def test_single_plugin_answers_in_the_configurations_version(
    cluster: Cluster, node: Node, version: str, boot: str
) -> None:
    pod, peer = cluster.pod("a"), cluster.pod("b")
    boot_network = {"type": "loopback"} if boot == "loopback" else node.bridge_config()
    changes: dict[str, Any] = {
        "cniVersion": version,
        "boot_network": {**boot_network, "cniVersion": own_version(version)},
    }
    result = node.add(pod, in1_in2("b"), **changes).result
    address = "192.168.2.100/24" if boot == "loopback" else pod.netns.addresses("eth0")[0]

    assert_result_shape(result, version, address)
    # The bridge takes the address of its lowest port: a second one would change it, and CHECK
    # of today's bridge plugin minds.
    node.add(peer, PAIR).succeeded()
    pod.netns.wait_ping("192.168.2.101")
    if version >= "0.4":
        assert node.check(pod).succeeded().stdout.strip() == b""
    node.delete(pod).succeeded()


@each_of("version", VERSIONS)
def test_boot_network_of_another_version_is_converted(
    cluster: Cluster, node: Node, version: str
) -> None:
    pod = cluster.pod("a")
    boot_network = {**node.bridge_config(), "cniVersion": "0.3.1" if version >= "1" else "1.0.0"}
    result = node.add(pod, in1_in2("b"), cniVersion=version, boot_network=boot_network).result

    assert_result_shape(result, version, pod.netns.addresses("eth0")[0])
    node.delete(pod).succeeded()
    assert "eth0" not in pod.netns.names()


@each_of("labels", [{"app": "x"}, in1_in2("b")])
@each_of("version", VERSIONS)
def test_in_a_list_the_result_of_the_plugin_before_is_passed_on(
    cluster: Cluster, node: Node, version: str, labels: dict[str, str]
) -> None:
    """The runtime's part of a list: each plugin's result is the next one's prevResult."""
    pod = cluster.pod("a")
    before = {
        **node.bridge_config(),
        "name": "ratchet-test",
        "cniVersion": own_version(version),
    }
    environ = node.environ("ADD", pod)
    first = node.execute(before, environ, f"{REFERENCE_PLUGINS}/bridge").finish().result
    # libcni hands on what it read in the list's version; 1.1.0 only added to 1.0.0.
    first["cniVersion"] = version
    config = node.config(cniVersion=version, delegate=None, boot_network=None, prevResult=first)
    outcome = node.add(pod, labels, config=config)
    assert outcome.result == first
    if version >= "0.4":
        node.check(pod, config=request_config(config, labels, None)).succeeded()

    # In reverse order.
    node.delete(pod, config=request_config(config, labels, None)).succeeded()
    assert "eth0" in pod.netns.names(), "the interface is the other plugin's"
    environ = node.environ("DEL", pod)
    node.execute(before, environ, f"{REFERENCE_PLUGINS}/bridge").finish().succeeded()


def test_pods_in_a_list_are_linked(cluster: Cluster, node: Node, far: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    before = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/x"}],
        "ips": [{"address": "10.5.5.5/24", "interface": 0}],
        "dns": {},
    }
    for at, pod, labels in ((node, left, in1_in2("b")), (far, right, PAIR)):
        config = at.config(delegate=None, boot_network=None, prevResult=before)
        assert at.add(pod, labels, config=config).result == before
    left.netns.wait_ping("192.168.2.101")
    node.delete(left).succeeded()
    left.netns.wait_no_link("in1")
    right.netns.wait_no_carrier("in2")
