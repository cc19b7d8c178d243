"""The examples as a user applies them, with containerd in the part of the nodes' runtime.

Only what differs from machine to machine is put in: addresses, and folders that are the test's own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cloud import Cloud
from tests.e2e.containerd import Containerd
from tests.e2e.test_containerd import assert_linked
from tests.lab.runtime import Config

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# A node's nodeSelector in the examples, and which of ours it is.
SIDES = {"left": 0, "right": 1}

pytestmark = pytest.mark.root


def fitted(cloud: Cloud, containerd: Containerd, plugin: Config) -> Config:
    """Return an example's plugin configuration with the values of this node."""
    node = containerd.node
    ours = {
        "etcd_host": node.etcd.address,
        "etcd_port": str(node.etcd.port),
        "child_path": f"{containerd.bin_dir}/ratchet-child",
        "kubeconfig": cloud.kubeconfig,
        "log_file": node.log_file,
        "state_dir": node.state_dir,
    }
    if plugin["type"] == "ratchet":
        plugin = {**plugin, **ours}
    if "delegate" in plugin:
        plugin["delegate"] = fitted(cloud, containerd, plugin["delegate"])
    if plugin["type"] == "bridge":
        subnet = f"10.244.{node.number}.0/24"
        plugin = {**plugin, "ipam": {**plugin["ipam"], "subnet": subnet}}
        if shutil.which("iptables") is None:
            plugin["ipMasq"] = False  # the bridge plugin's own need
    return plugin


def apply_configuration(cloud: Cloud, name: str) -> None:
    whole = json.loads((EXAMPLES / name).read_text())
    for containerd in cloud.nodes:
        plugins = [fitted(cloud, containerd, plugin) for plugin in whole.get("plugins", [whole])]
        if "plugins" in whole:
            plugins[0] = {"name": whole["name"], "cniVersion": whole["cniVersion"], **plugins[0]}
        containerd.configure(*plugins, conflist="plugins" in whole)


def pods(name: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((EXAMPLES / name).read_text())
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == "Pod"}


@pytest.mark.parametrize("configuration", ["10-ratchet.conf", "10-ratchet.conflist"])
def test_the_examples_work_under_containerd(cloud: Cloud, configuration: str) -> None:
    apply_configuration(cloud, configuration)
    ran = {}
    for name, pod in {**pods("primary-pair.yaml"), **pods("unlabelled.yaml")}.items():
        metadata, selector = pod["metadata"], pod["spec"].get("nodeSelector", {})
        ran[name] = cloud.run(
            name,
            metadata.get("labels"),
            metadata.get("annotations"),
            on=SIDES[selector.get("ratchetside", "left")],
        )
    assert_linked(ran.pop("primary-pod"), ran.pop("pair-pod"))
    for sandbox in ran.values():
        assert sandbox.netns.names() == {"lo", "eth0"}
        assert sandbox.status.ip.startswith("10.244.")
