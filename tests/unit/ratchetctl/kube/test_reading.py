"""The agents of a cluster, as their pods tell of them."""

from __future__ import annotations

import pytest

from ratchetctl.kube.reading import read_agent
from tests.lab import deployment

BIN_DIRS = {
    "overlays/agent-only": "/opt/ratchet",  # which has nothing on the host
    "overlays/gke": "/home/kubernetes/bin",
    "overlays/k3s": "/var/lib/rancher/k3s/data/cni",
    "overlays/microk8s": "/var/snap/microk8s/current/opt/cni/bin",
}


@pytest.mark.parametrize("folder", deployment.FOLDERS)
def test_programs_beside_an_agent_are_where_its_container_is(folder: str) -> None:
    agent = deployment.agent(folder)
    metadata = {"name": "ratchet-x", "namespace": "ratchet", "uid": "u", **agent["metadata"]}
    read = read_agent({"metadata": metadata, "spec": agent["spec"]})
    assert read.programs == BIN_DIRS.get(folder, "/opt/cni/bin")


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (["/x/ratchet-child", "--on-host=$(BIN)/ratchet-child"], "/host"),
        (["/x/ratchet-child", "--on-host"], None),
        (["$(OTHER)/ratchet-child"], "$(OTHER)"),
        ([], None),
    ],
)
def test_commands_that_others_have_written_are_read_as_a_kubelet_does(
    command: list[str], found: str | None
) -> None:
    env = [{"name": "BIN", "value": "/host"}, {"name": "NODE", "valueFrom": {}}]
    spec = {"containers": [{"name": "agent", "command": command, "env": env}]}
    read = read_agent({"metadata": {"name": "a", "uid": "u"}, "spec": spec})
    assert read.programs == found
