"""A user's network configuration, fitted to a node: what belongs to a cluster is replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ratchetctl.errors import SimError
from ratchetctl.sim.configuration import (
    Site,
    check,
    default,
    for_node,
    gives_network,
    load,
    read,
    write,
)
from ratchetctl.sim.underlay import ROUTER_ADDRESS

SITE = Site("/sim/node1", "/sim/node1/state", "172.30.1.1", "100.64.16.0/20", "/ratchet")


def test_fits_a_single_plugin_and_its_delegate() -> None:
    template = {
        "name": "net",
        "type": "ratchet",
        "etcd_host": "10.96.0.5",
        "child_path": "/opt/cni/bin/ratchet-child",
        "kubeconfig": "/etc/k",
        "mtu": 1400,
        "delegate": {
            "type": "bridge",
            "bridge": "br7",
            "ipam": {"type": "host-local", "subnet": "10.1.0.0/16", "gateway": "10.1.0.1"},
        },
    }
    before = json.dumps(template)
    made = for_node(template, SITE)
    assert json.dumps(template) == before
    assert (made["etcd_host"], made["etcd_port"]) == (ROUTER_ADDRESS, "2379")
    assert (made["parent_interface"], made["parent_address"]) == ("eth0", "172.30.1.1")
    assert made["state_dir"] == "/sim/node1/state"
    assert "child_path" not in made
    assert "kubeconfig" not in made
    assert made["mtu"] == 1400
    assert made["delegate"]["bridge"] == "br7"
    assert made["delegate"]["ipam"] == {
        "type": "host-local",
        "subnet": "100.64.16.0/20",
        "dataDir": "/sim/node1/cni/networks",
    }


def test_fits_lists_and_lists_of_delegates() -> None:
    template = {
        "name": "net",
        "plugins": [
            {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/8"}]]}},
            {"type": "ratchet", "delegate": {"plugins": [{"type": "flannel"}]}},
        ],
    }
    first, second = for_node(template, SITE)["plugins"]
    assert first["ipam"]["subnet"] == SITE.subnet
    assert "ranges" not in first["ipam"]
    flannel = second["delegate"]["plugins"][0]
    assert flannel["subnetFile"] == "/sim/node1/flannel-subnet.env"
    assert flannel["dataDir"] == "/sim/node1/cni/flannel"


def test_leaves_other_plugins_alone() -> None:
    template = {"name": "net", "type": "macvlan", "ipam": {"type": "static", "addresses": []}}
    assert for_node(template, SITE) == template


def test_a_boot_network_can_be_given() -> None:
    assert default("loopback")["boot_network"] == {"type": "loopback"}
    assert "boot_network" not in default()
    assert default("bridge") == default()


def test_only_loopback_gives_pods_no_network() -> None:
    assert gives_network(default())
    assert gives_network(default("ptp"))
    assert not gives_network(default("loopback"))
    assert not gives_network({"name": "net", "plugins": [default("loopback"), {"type": "tuning"}]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ("{}", "needs a type"),
        ('{"type": "x"}', "needs a name"),
        ('{"name": "x", "plugins": []}', "plugins"),
        ('{"name": "x", "plugins": ["y"]}', "needs a type"),
    ],
)
def test_refuses_what_is_no_network_configuration(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.conf"
    path.write_text(text)
    with pytest.raises(SimError, match=said):
        read(str(path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"etcd_prot": "1"}, "'etcd_prot' is not a key; did you mean etcd_port?"),
        ({"etcd_prefix": "/a b"}, "etcd_prefix is '/a b'"),
    ],
)
def test_refuses_what_every_pod_would_be_refused_for(changes: dict[str, str], said: str) -> None:
    check(default())
    with pytest.raises(SimError, match=said):
        check({**default(), **changes})
    with pytest.raises(SimError, match=said):
        check({"name": "net", "plugins": [{"type": "bridge"}, {"type": "ratchet", **changes}]})


@pytest.mark.parametrize("name", ["10-ratchet.conf", "10-ratchet.conflist"])
def test_writes_what_it_loads(tmp_path: Path, name: str) -> None:
    template: dict[str, object] = {"name": "net", "type": "x"}
    if name.endswith("list"):
        template = {"name": "net", "plugins": [{"type": "x"}]}
    site = Site(str(tmp_path), "", "", "", "")
    assert write(template, site) == str(tmp_path / name)
    assert load(str(tmp_path)) == template
