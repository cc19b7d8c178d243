"""Network configurations in every form in which containerd takes them."""

from __future__ import annotations

import pytest

from tests.e2e.cloud import ANNOTATIONS, Cloud
from tests.e2e.cri import CriError
from tests.e2e.test_containerd import assert_linked
from tests.lab.runtime import PAIR, in1_in2

pytestmark = pytest.mark.root

VERSIONS = pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])


@VERSIONS
@pytest.mark.parametrize("conflist", [False, True], ids=["conf", "conflist"])
def test_the_configuration_may_have_any_version_and_form(
    cloud: Cloud, version: str, conflist: bool
) -> None:
    cloud.configure(cniVersion=version, conflist=conflist)
    plain = cloud.run("plain")
    left = cloud.run("primary-pod", in1_in2("pair-pod"))
    right = cloud.run("pair-pod", PAIR, on=1)
    for sandbox in (plain, left, right):
        assert sandbox.netns.addresses("eth0") == [f"{sandbox.status.ip}/24"]
    assert_linked(left, right)


@VERSIONS
def test_ratchet_may_be_chained_between_other_plugins(cloud: Cloud, version: str) -> None:
    for containerd in cloud.nodes:
        config = cloud.config(containerd.node, cniVersion=version)
        bridge = {"cniVersion": version, "name": config["name"], **config.pop("delegate")}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        containerd.configure(bridge, config, portmap, conflist=True)
    plain = cloud.run("plain")
    left = cloud.run("primary-pod", in1_in2("pair-pod"))
    right = cloud.run("pair-pod", PAIR, on=1)
    assert plain.netns.names() == {"lo", "eth0"}
    for sandbox in (plain, left, right):
        assert sandbox.netns.addresses("eth0") == [f"{sandbox.status.ip}/24"]
    assert_linked(left, right)


def test_annotations_come_to_a_plugin_of_a_list(cloud: Cloud) -> None:
    cloud.configure(conflist=True, capabilities={ANNOTATIONS: True}, kubeconfig=None)
    left = cloud.run("primary-pod", annotations=in1_in2("pair-pod"))
    assert_linked(left, cloud.run("pair-pod", annotations=PAIR, on=1))


def test_a_configuration_without_a_version_is_taken_by_containerd(cloud: Cloud) -> None:
    cloud.configure(cniVersion=None, boot_network={"type": "loopback"})
    left = cloud.run("primary-pod", in1_in2("pair-pod"))
    assert_linked(left, cloud.run("pair-pod", PAIR, on=1))


def test_version_1_1_0_is_refused_by_containerd_1_and_leaves_nothing(cloud: Cloud) -> None:
    version = cloud.nodes[0].cri.version()
    if not version.startswith("containerd 1."):
        pytest.skip(f"{version} is newer than version 1.1.0 of the specification")
    cloud.configure(cniVersion="1.1.0")
    with pytest.raises(CriError, match=r"1\.1\.0"):
        cloud.run("primary-pod", in1_in2("pair-pod"))
    assert cloud.problems_after_test() == []
