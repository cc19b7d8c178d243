"""What the installer writes is what containerd takes, from one moment to the next."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ratchetctl.install import installation
from ratchetctl.install.installation import Site
from tests.e2e.cloud import Cloud
from tests.e2e.containerd import Containerd
from tests.e2e.test_containerd import assert_linked
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, in1_in2

pytestmark = pytest.mark.root

WRITTEN_BY_THE_INSTALLER = ("cniVersion", "name", "type", "delegate")


def taken(containerd: Containerd) -> dict[str, Any]:
    """Return the first plugin of the network that containerd uses."""
    networks = json.loads(containerd.cri.runtime_status().info["cniconfig"])["Networks"]
    (source,) = [
        json.loads(network["Config"]["Source"])
        for network in networks
        if network["IFName"] == "eth0"
    ]
    first = source["plugins"][0]
    assert isinstance(first, dict)
    return first


def mentions_ratchet(containerd: Containerd) -> bool:
    return "ratchet" in containerd.cri.runtime_status().info["cniconfig"]


@pytest.mark.parametrize("form", ["delegate", "chained"])
def test_containerd_takes_it_at_once_and_pods_stay(cloud: Cloud, tmp_path: Path, form: str) -> None:
    sites = []
    for number, containerd in enumerate(cloud.nodes):
        usual = {"cniVersion": "1.0.0", "name": "mynet", **containerd.node.bridge_config()}
        containerd.configure(usual, conflist=True)
        keys = cloud.config(containerd.node)
        settings = tmp_path / f"settings{number}.json"
        settings.write_text(
            json.dumps({k: v for k, v in keys.items() if k not in WRITTEN_BY_THE_INSTALLER})
        )
        sites.append(
            Site(containerd.conf_dir, containerd.bin_dir, form, settings_file=str(settings))
        )
    early = cloud.run("early")
    for site in sites:
        installation.configure(site)
    kind = {"delegate": "ratchet", "chained": "bridge"}[form]
    for containerd in cloud.nodes:
        conf_dir = Path(containerd.conf_dir)
        assert len([path for path in conf_dir.iterdir() if path.is_file()]) == 2
        wait_for(
            "containerd to take it",
            partial(mentions_ratchet, containerd),
        )
        assert taken(containerd)["type"] == kind
    plain = cloud.run("plain")
    left = cloud.run("primary-pod", in1_in2("pair-pod"))
    right = cloud.run("pair-pod", PAIR, on=1)
    for sandbox in (early, plain, left, right):
        assert sandbox.netns.addresses("eth0") == [f"{sandbox.status.ip}/24"]
    assert_linked(left, right)
    for sandbox in (early, left, right):
        sandbox.stop()
        sandbox.remove()
    for site in sites:
        installation.uninstall(site)
    for containerd in cloud.nodes:
        wait_for(
            "containerd to take the one of before",
            partial(mentions_ratchet, containerd),
            until=lambda mentioned: not mentioned,
        )
    late = cloud.run("late")
    assert late.netns.addresses("eth0") == [f"{late.status.ip}/24"]
