"""A configuration that the installer has written, run as a runtime runs it, with real plugins.

Pods come before the installation and go after it, and the other way round: nobody may notice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ratchetctl.install import installation
from ratchetctl.install.installation import Site
from tests.lab.cluster import Cluster
from tests.lab.runtime import (
    PAIR,
    REFERENCE_PLUGINS,
    Config,
    Node,
    Outcome,
    Pod,
    in1_in2,
    plugin_dir,
    request_config,
)

pytestmark = pytest.mark.root

SUFFIXES = (".conf", ".conflist", ".json")
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


class Runtime:
    """A runtime with a folder of configurations: it takes the first, and keeps no other state."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder / "net.d"
        self.folder.mkdir()
        (folder / "bin").mkdir()
        settings = folder / "settings.json"
        settings.write_text(
            json.dumps(
                {
                    "state_dir": node.state_dir,
                    "log_file": node.log_file,
                    "child_path": os.path.join(plugin_dir(), "ratchet-child"),
                    "etcd_host": node.etcd.address,
                    "etcd_port": node.etcd.port,
                }
            )
        )
        self.site = Site(
            str(self.folder), str(folder / "bin"), settings_file=str(settings),
            node_address=node.address,
        )  # fmt: skip
        self.results: dict[str, dict[str, Any]] = {}

    def write(self, name: str, configuration: Config) -> None:
        (self.folder / name).write_text(json.dumps(configuration))

    def configuration(self) -> Config:
        name = min(name for name in os.listdir(self.folder) if name.endswith(SUFFIXES))
        found = json.loads((self.folder / name).read_text())
        assert isinstance(found, dict)
        return found

    def add(self, pod: Pod, labels: dict[str, str]) -> dict[str, Any]:
        """Run ADD through all plugins (CNI spec 1.1.0 §3, "Adding an attachment")."""
        result: dict[str, Any] | None = None
        for plugin in self._plugins():
            result = self._run("ADD", plugin, pod, labels, result).result
        assert result is not None
        self.results[pod.container_id] = result
        return result

    def check(self, pod: Pod, labels: dict[str, str]) -> None:
        for plugin in self._plugins():
            self._run("CHECK", plugin, pod, labels, self.results[pod.container_id]).succeeded()

    def delete(self, pod: Pod) -> None:
        for plugin in reversed(self._plugins()):
            self._run("DEL", plugin, pod, {}, self.results[pod.container_id]).succeeded()

    def _plugins(self) -> list[Config]:
        whole = self.configuration()
        common: Config = {key: whole[key] for key in ("name", "cniVersion") if key in whole}
        return [{**plugin, **common} for plugin in whole.get("plugins", [whole])]

    def _run(
        self,
        command: str,
        plugin: Config,
        pod: Pod,
        labels: dict[str, str],
        previous: dict[str, Any] | None,
    ) -> Outcome:
        request = request_config(plugin, labels, None)
        request.pop("capabilities", None)
        if previous is not None:
            request["prevResult"] = previous
        folder = plugin_dir() if plugin["type"] == "ratchet" else REFERENCE_PLUGINS
        environ = self.node.environ(command, pod)
        return self.node.execute(request, environ, os.path.join(folder, plugin["type"])).finish()


def underlying(node: Node, folder: Path, kind: str) -> tuple[str, Config]:
    """Return a usual configuration of this node, by what is real here, and where it stands."""
    books = str(folder / "books")
    ipam = {"type": "host-local", "subnet": f"10.77.{node.number}.0/24", "dataDir": books}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam}
    ptp = {"name": "unused", "type": "ptp", "ipam": ipam}
    version = {"cniVersion": "0.4.0"}
    in_list = {**version, "name": "cbr0", "plugins": [bridge, PORTMAP]}
    found: dict[str, tuple[str, Config]] = {
        "conf": ("10-bridge.conf", {**version, "name": "mynet", **bridge}),
        "conflist": ("10-bridge.conflist", in_list),
        "ptp": ("10-kindnet.conflist", {**version, "name": "kindnet", "plugins": [ptp, PORTMAP]}),
        "unversioned": ("10-old.conf", {"name": "old", **bridge}),
    }
    return found[kind]


def given(folder: Path) -> set[str]:
    """Return the addresses that host-local has given out, under whatever network's name."""
    return {path.name for path in (folder / "books").rglob("10.77.*")}


def mtu(pod: Pod) -> int:
    link = pod.netns.link("eth0")
    assert link is not None
    return int(link["mtu"])


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("conf", "delegate"),
        ("conflist", "delegate"),
        ("conflist", "chained"),
        ("ptp", "delegate"),
        ("unversioned", "chained"),
    ],
)
def test_unlabelled_and_labelled_pods_come_and_go(
    cluster: Cluster, tmp_path: Path, kind: str, form: str
) -> None:
    node = cluster.nodes[0]
    runtime = Runtime(node, tmp_path)
    name, before = underlying(node, tmp_path, kind)
    runtime.write(name, before)
    early, plain, left, right, late = (cluster.pod(name) for name in ("e", "p", "l", "r", "x"))
    runtime.add(early, {})

    site = replace(runtime.site, form=form)
    installation.configure(site)
    answer = runtime.add(plain, {})
    assert answer.get("cniVersion", "") == before.get("cniVersion", answer.get("cniVersion", ""))
    assert plain.netns.addresses("eth0") != []
    assert len(given(tmp_path)) == 2, "the network keeps its books"
    runtime.add(left, in1_in2("r"))
    runtime.add(right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    for pod in (left, right):
        assert pod.netns.addresses("eth0") != []
    if before.get("cniVersion"):
        runtime.check(left, in1_in2("r"))
        runtime.check(plain, {})
    for pod in (early, left, right):
        runtime.delete(pod)

    installation.uninstall(site)
    assert runtime.configuration() == before
    runtime.add(late, {})
    for pod in (plain, late):
        runtime.delete(pod)
    assert given(tmp_path) == set()


def test_a_change_of_the_network_is_in_force_for_the_next_pod(
    cluster: Cluster, tmp_path: Path
) -> None:
    node = cluster.nodes[0]
    runtime = Runtime(node, tmp_path)
    name, before = underlying(node, tmp_path, "conflist")
    runtime.write(name, before)
    installation.configure(runtime.site)
    first, second = cluster.pod("a"), cluster.pod("b")
    runtime.add(first, {})
    before["plugins"][0]["mtu"] = 1333
    runtime.write(name, before)
    installation.configure(runtime.site)
    runtime.add(second, {})
    assert (mtu(first), mtu(second)) == (1500, 1333)
    for pod in (first, second):
        runtime.delete(pod)


def test_a_read_only_file_system_is_named_and_nothing_changes(tmp_path: Path) -> None:
    """As a node has it whose disk has failed."""
    conf_dir, bin_dir = tmp_path / "net.d", tmp_path / "bin"
    conf_dir.mkdir()
    bin_dir.mkdir()
    (conf_dir / "10-flannel.conflist").write_text('{"name": "cbr0", "plugins": [{"type": "f"}]}')
    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", read_only, str(tmp_path)),
            *(sys.executable, "-m", "ratchetctl", "node", "install", "--form", "agent"),
            *("--conf-dir", str(conf_dir), "--bin-dir", str(bin_dir)),
        ],
        env={**os.environ, "RATCHET_ETCD_SERVICE_HOST": "10.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "cannot write the network configuration" in done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(conf_dir) == ["10-flannel.conflist"]
    assert os.listdir(bin_dir) == []
