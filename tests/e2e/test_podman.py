"""Containers that podman attaches through its CNI backend.

podman passes no labels, so what its containers are linked with is written in the networks that they
are attached to; without that they are the delegate's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.e2e.cloud import Cloud
from tests.e2e.conftest import PROGRAMS, ROOT
from tests.e2e.podman import Podman, PodmanError, major_version
from tests.e2e.spy import spying
from tests.lab.namespaces import Namespace, kind_of
from tests.lab.runtime import PAIR, Config, in1_in2

pytestmark = pytest.mark.root


@pytest.fixture
def podmans(cloud: Cloud) -> Iterator[list[Podman]]:
    """Give a podman on each of two nodes, without a container."""
    if major_version() >= 5:
        pytest.skip("this podman has no CNI backend any more")
    made = []
    for containerd in cloud.nodes:
        folder = os.path.join(cloud.cluster.directory, f"podman{containerd.node.number}")
        podman = Podman(containerd.machine, PROGRAMS, folder)
        if not os.path.exists(folder):
            podman.install()
        made.append(podman)
    yield made
    for podman in made:
        podman.remove_all()
        for name in os.listdir(podman.net_dir):
            os.unlink(os.path.join(podman.net_dir, name))


@pytest.fixture
def podman(podmans: list[Podman]) -> Podman:
    return podmans[0]


def plugin(cloud: Cloud, podman: Podman, **changes: Any) -> Config:
    """Return our plugin's part of a network of podman."""
    defaults: dict[str, Any] = {"kubeconfig": None, "cniVersion": None, "name": None}
    return cloud.config(podman.node, **{**defaults, **changes})


def labelled(cloud: Cloud, podman: Podman, name: str, labels: Mapping[str, str]) -> None:
    """Write a network whose containers have these labels."""
    # The address management's folder of leases is named by the network: one for all of ours.
    delegate = podman.node.bridge_config(name="ratchet-test")
    config = plugin(cloud, podman, args={"cni": {"labels": dict(labels)}}, delegate=delegate)
    podman.network(name, config)


def assert_linked(left: Namespace, right: Namespace, kind: str) -> None:
    for netns, ifname in ((left, "in1"), (right, "in2")):
        assert kind_of(netns.wait_link(ifname)) == kind
    left.wait_ping("192.168.2.101")
    right.wait_ping("192.168.2.100")


def test_a_container_is_the_delegate_s(cloud: Cloud, podman: Podman) -> None:
    """Also one with a label: podman tells nobody of it."""
    podman.network("ratchet-test", plugin(cloud, podman))
    podman.network("bare", podman.node.bridge_config(name="ratchet-test"))
    netns = podman.run("one", "ratchet-test", "--label", "ratchet=true")
    other = podman.run("other", "bare")
    assert netns.names() == other.names() == {"lo", "eth0"}
    ours = podman.inspect("one")["NetworkSettings"]["Networks"]["ratchet-test"]
    theirs = podman.inspect("other")["NetworkSettings"]["Networks"]["bare"]
    assert netns.addresses("eth0") == [f"{ours['IPAddress']}/{ours['IPPrefixLen']}"]
    own = {"IPAddress", "MacAddress", "Aliases", "NetworkID"}
    assert {key: value for key, value in ours.items() if key not in own} == {
        key: value for key, value in theirs.items() if key not in own
    }
    assert other.pings(ours["IPAddress"])
    assert podman.node.records() == []


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_a_network_may_have_any_version(cloud: Cloud, podman: Podman, version: str) -> None:
    labelled(cloud, podman, "right", PAIR)
    config = plugin(cloud, podman, args={"cni": {"labels": in1_in2("right")}})
    podman.network("ratchet-test", config, version=version)
    left, right = podman.run("left", "ratchet-test"), podman.run("right", "right")
    assert left.addresses("eth0")
    assert_linked(left, right, "veth")


def test_version_1_1_0_is_refused_by_podman_and_leaves_nothing(
    cloud: Cloud, podman: Podman
) -> None:
    podman.network("ratchet-test", plugin(cloud, podman), version="1.1.0")
    with pytest.raises(PodmanError, match=r"1\.1\.0"):
        podman.run("one", "ratchet-test")


@pytest.mark.parametrize("far", [0, 1], ids=["one node", "two nodes"])
def test_labels_in_the_network_link_its_containers(
    cloud: Cloud, podmans: list[Podman], far: int
) -> None:
    """A container's name is its pod's name, and podman's containers are all in `default`."""
    labelled(cloud, podmans[0], "left", in1_in2("right-c"))
    labelled(cloud, podmans[far], "right", PAIR)
    left = podmans[0].run("left-c", "left")
    right = podmans[far].run("right-c", "right")
    kind = "vxlan" if far else "veth"
    assert_linked(left, right, kind)
    index = right.wait_link("in2")["ifindex"]
    podmans[0]("restart", "--time", "0", "left-c")
    assert_linked(podmans[0].netns("left-c"), right, kind)
    assert right.wait_link("in2")["ifindex"] == index
    podmans[0].remove("left-c")
    assert right.wait_no_carrier("in2")["ifindex"] == index


def test_the_networks_of_the_documentation_work(podman: Podman) -> None:
    text = (ROOT / "docs" / "runtimes.md").read_text()
    blocks = (block.partition("```")[0] for block in text.split("```json")[1:])
    (left,) = (found for found in map(json.loads, blocks) if found.get("name") == "left")
    (config,) = left["plugins"]
    node = podman.node
    config.update(etcd_host=node.etcd.address, etcd_port=node.etcd.port, state_dir=node.state_dir)
    config["delegate"].update(bridge="cni0", ipMasq=False)
    podman.network("left", config, version=left["cniVersion"])
    podman.network("right", {**config, "args": {"cni": {"labels": PAIR}}})
    near, far = podman.run("primary-pod", "left"), podman.run("pair-pod", "right")
    assert_linked(near, far, "veth")
    assert near.pings("10.88.0.1")


def test_containers_link_with_pods_of_containerd(cloud: Cloud, podman: Podman) -> None:
    labelled(cloud, podman, "left", in1_in2("pair-pod"))
    left = podman.run("primary-pod", "left")
    right = cloud.run("pair-pod", PAIR, on=1)
    assert_linked(left, right.netns, "vxlan")


def test_a_running_container_may_be_connected(cloud: Cloud, podman: Podman) -> None:
    podman.network("bare", podman.node.bridge_config(name="ratchet-test"))
    labelled(cloud, podman, "left", in1_in2("other"))
    labelled(cloud, podman, "right", PAIR)
    left = podman.run("one", "bare")
    podman("network", "connect", "left", "one")
    right = podman.run("other", "right")
    assert_linked(left, right, "veth")
    assert left.names() == {"lo", "eth0", "eth1", "in1"}
    podman("network", "disconnect", "left", "one")
    left.wait_no_link("in1")
    assert left.names() == {"lo", "eth0"}


def test_a_bad_label_fails_the_container_and_is_named(cloud: Cloud, podman: Podman) -> None:
    labelled(cloud, podman, "left", {**in1_in2("x"), "ratchet.local_ifname": "eth0"})
    with pytest.raises(PodmanError) as caught:
        podman.run("left-c", "left")
    assert "ratchet.local_ifname" in str(caught.value)
    assert "eth0" in str(caught.value)


def test_a_boot_network_without_addresses_is_accepted(cloud: Cloud, podman: Podman) -> None:
    config = plugin(
        cloud,
        podman,
        args={"cni": {"labels": {**PAIR, "ratchet.public_ip": "198.51.100.7"}}},
        boot_network={"type": "loopback"},
    )
    podman.network("ratchet-test", config)
    podman.run("one", "ratchet-test")
    networks = podman.inspect("one")["NetworkSettings"]["Networks"]
    assert networks["ratchet-test"]["IPAddress"] == "198.51.100.7"


def test_what_podman_passes(cloud: Cloud, podman: Podman) -> None:
    """The facts of docs/runtimes.md."""
    podman.network("ratchet-test", plugin(cloud, podman))
    with spying(podman.bin_dir) as spy:
        podman.run("My_container.1", "ratchet-test", "--label", "ratchet=true")
        container_id = podman.inspect("My_container.1")["Id"]
        podman.remove("My_container.1")
        executions = spy.seen()
    commands = [execution.command for execution in executions]
    assert [command for command in commands if command != "VERSION"] == ["ADD", "DEL"]
    assert commands[0] == "VERSION"
    add = executions[commands.index("ADD")]
    delete = executions[commands.index("DEL")]
    assert add.environ["CNI_ARGS"] == "IgnoreUnknown=1;K8S_POD_NAME=My_container.1"
    assert add.environ["CNI_CONTAINERID"] == container_id
    assert add.environ["CNI_IFNAME"] == "eth0"
    assert add.environ["CNI_NETNS"].startswith("/run/netns/netns-")
    assert not {"args", "runtimeConfig", "prevResult"} & set(add.config)
    assert delete.environ["CNI_NETNS"] == add.environ["CNI_NETNS"]
    assert delete.config["prevResult"]["ips"]


def test_podman_s_socket_cannot_be_asked_for_labels(cloud: Cloud, podman: Podman) -> None:
    """podman holds the lock of a container that it starts: its answer would come after the ADD.

    An error that names the socket is right then: whether the container is ours is not known.
    """
    with podman.service() as socket_path:
        config = plugin(cloud, podman, label_source="docker", docker_socket=socket_path)
        podman.network("ratchet-test", config)
        with pytest.raises(PodmanError) as caught:
            podman.run("one", "ratchet-test", "--label", "ratchet=true")
    assert socket_path in str(caught.value)
    assert "in time" in str(caught.value)


@pytest.mark.parametrize("label_source", ["auto", "runtime"])
def test_podman_s_own_socket_is_not_asked(cloud: Cloud, podman: Podman, label_source: str) -> None:
    with podman.service() as socket_path:
        config = plugin(cloud, podman, label_source=label_source, docker_socket=socket_path)
        podman.network("ratchet-test", config)
        assert podman.run("one", "ratchet-test").addresses("eth0")
