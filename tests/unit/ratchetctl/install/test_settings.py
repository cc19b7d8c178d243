"""What the configuration says: the settings, and for the rest what the node tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ratchet.config import Config
from ratchetctl.errors import InstallError
from ratchetctl.install import installation
from tests.unit.ratchetctl.install.folders import (
    CALICO_LIST,
)
from tests.unit.ratchetctl.install.nodes import FLANNEL, Node, with_all


def test_the_node_tells_the_rest(node: Node) -> None:
    node.write(FLANNEL)
    node.install(1, replace(with_all(node), node_address="192.168.7.1"))
    ours = node.ours()
    folder = str(node.conf_dir / "ratchet.node")
    config = Config.parse(ours)
    assert config.etcd_host == "10.96.7.7:2379"
    assert config.parent_address == "192.168.7.1"
    assert config.child_path == str(node.bin_dir / "ratchet-child")
    assert config.state_dir == "/run/ratchet/cbr0"
    assert config.kubeconfig == f"{folder}/ratchet.kubeconfig"
    assert config.etcd_cert == f"{folder}/etcd/tls.crt"
    kubeconfig = json.loads(Path(config.kubeconfig).read_text())
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://10.96.0.1:443"
    for path in Path(folder).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert Path(folder).stat().st_mode & 0o077 == 0


def test_settings_win(node: Node) -> None:
    node.write(FLANNEL)
    settings = node.root / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "etcd_host": "etcd.example",
                "etcd_ca_cert": "/etc/ssl/ca.pem",
                "parent_interface": "eth1",
                "kubeconfig": "/etc/kubernetes/kubelet.conf",
                "wait": "none",
                "boot_network": {"type": "loopback"},
            }
        )
    )
    site = replace(with_all(node), settings_file=str(settings), node_address="192.168.7.1")
    node.install(1, site)
    config = Config.parse(node.ours())
    assert config.etcd_host == "etcd.example:2379"
    assert (config.etcd_ca_cert, config.etcd_cert) == ("/etc/ssl/ca.pem", None)
    assert (config.parent_interface, config.parent_address) == ("eth1", None)
    assert (config.kubeconfig, config.wait) == ("/etc/kubernetes/kubelet.conf", "none")
    assert not (node.conf_dir / "ratchet.node" / "token").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "settings.json is not JSON"),
        ("[]", "settings.json is not a JSON object"),
        ('{"delegate": {"type": "bridge"}}', "delegate: the installer writes this key itself"),
        ('{"name": "x"}', "name: the installer writes this key itself"),
        ('{"etcd_hosts": "x"}', "etcd_host"),
        ('{"wait": "sometimes"}', "sometimes"),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_written(
    node: Node, settings: str, message: str
) -> None:
    node.write(FLANNEL)
    (node.root / "settings.json").write_text(settings)
    before = node.both()
    with pytest.raises(InstallError, match=message):
        installation.configure(replace(node.site, settings_file=str(node.root / "settings.json")))
    assert node.both() == before


def test_without_an_etcd_it_says_what_to_set(node: Node) -> None:
    node.write(FLANNEL)
    before = node.both()
    with pytest.raises(InstallError, match="set etcd_host, or install the Service ratchet-etcd"):
        installation.configure(replace(with_all(node), etcd=None))
    assert node.both() == before


def test_records_stay_where_they_are_when_the_network_gets_another_name(node: Node) -> None:
    """A DEL of a pod that is attached looks for its record there."""
    node.write(FLANNEL)
    node.install()
    (node.conf_dir / "10-flannel.conflist").write_text(json.dumps(CALICO_LIST))
    node.install()
    assert node.first()[1]["name"] == "k8s-pod-network"
    assert Config.parse(node.ours()).state_dir == "/run/ratchet/cbr0"


def test_the_agent_alone_leaves_the_network_configurations_alone(node: Node) -> None:
    site = replace(node.site, form="agent")
    before = node.both()
    installation.configure(site)
    assert [path.name for path in node.conf_dir.iterdir()] == ["ratchet.node"]
    child = json.loads((node.conf_dir / "ratchet.node" / "ratchet.conf").read_text())
    assert Config.parse(child).state_dir == "/run/ratchet/ratchet"
    assert child["attach"] == "agent"
    node.uninstall()
    assert node.both() == before
