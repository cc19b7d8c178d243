"""Pods that are not Ratchet's never notice it: the delegate's answer, its view, and no trace."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.runtime import (
    FRONT,
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

INELIGIBLE: list[Any] = [
    pytest.param({}, {}, id="no labels"),
    pytest.param({"app": "web"}, {}, id="other labels"),
    pytest.param({**in1_in2("b"), "ratchet": "false"}, {}, id="ratchet is false"),
    pytest.param({**in1_in2("b"), "ratchet": "TRUE"}, {}, id="ratchet is TRUE"),
    pytest.param({**in1_in2("b"), "ratchet": ""}, {}, id="ratchet is empty"),
    pytest.param(in1_in2("b"), {"use_labels": False}, id="use_labels is false"),
]

RECORDER = """#!/bin/sh
# History what it was given, runs the real plugin, and notes what that answered.
seen={folder}/$CNI_COMMAND
cat /proc/$$/environ > $seen.environ
ls /proc/$$/fd > $seen.descriptors
readlink /proc/$$/cwd > $seen.cwd
cat > $seen.stdin
{plugin} < $seen.stdin > $seen.stdout
code=$?
cat $seen.stdout
exit $code
"""


@dataclass
class Recorder:
    """A plugin that notes its environment and standard input and hands them to a real one."""

    folder: Path
    name: str

    def environ(self) -> Mapping[str, str]:
        """Return the changes to the environment with which it is found."""
        return {"CNI_PATH": f"{plugin_dir()}:{self.folder}:{REFERENCE_PLUGINS}"}

    def seen(self, command: str) -> tuple[dict[str, str], Any, str]:
        """Return the environment, the decoded standard input and the descriptors, and forget."""
        pairs = (self.folder / f"{command}.environ").read_text().split("\0")
        environ = dict(pair.split("=", 1) for pair in pairs if pair)
        stdin = json.loads((self.folder / f"{command}.stdin").read_text())
        rest = (self.folder / f"{command}.descriptors").read_text()
        rest += (self.folder / f"{command}.cwd").read_text()
        for left in self.folder.glob(f"{command}.*"):
            if left.suffix != ".stdout":
                left.unlink()
        return environ, stdin, rest

    def answered(self, command: str) -> bytes:
        return (self.folder / f"{command}.stdout").read_bytes()


def make_recorder(folder: Path, plugin: str) -> Recorder:
    script = folder / f"recording-{plugin}"
    script.write_text(RECORDER.format(folder=folder, plugin=f"{REFERENCE_PLUGINS}/{plugin}"))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return Recorder(folder, script.name)


def assert_no_trace(cluster: Cluster, node: Node) -> None:
    assert node.records() == []
    assert cluster.etcd.tree() == {}
    if node.way == FRONT:  # its child is the test's, and is there whatever pods there are
        assert node.namespace.processes() == {*node.children(), *node.supervisors()}
        return
    # What the delegate's program knows is kept; nothing is kept of the pod.
    assert set(os.listdir(node.state_dir)) <= {"at-rest", "versions"}
    assert not os.path.exists(f"/run/ratchet/{node.config()['name']}")
    assert node.children() == []
    assert node.namespace.processes() == set()


@each_of(("labels", "changes"), INELIGIBLE)
def test_result_is_the_delegates_own_byte_for_byte(
    cluster: Cluster, node: Node, tmp_path: Path, labels: dict[str, str], changes: dict[str, Any]
) -> None:
    recorder = make_recorder(tmp_path, "bridge")
    pod = cluster.pod("plain")
    outcome = node.add(
        pod,
        labels,
        environ=recorder.environ(),
        delegate=node.bridge_config(type=recorder.name),
        **changes,
    )

    assert outcome.exit == 0
    assert outcome.stdout == recorder.answered("ADD")
    assert outcome.stderr == b""
    assert [ip["address"] for ip in outcome.result["ips"]] == pod.netns.addresses("eth0")
    assert pod.netns.names() == {"lo", "eth0"}
    assert node.delete(pod, environ=recorder.environ()).stdout == recorder.answered("DEL")
    assert pod.netns.names() == {"lo"}


@each_of(("labels", "changes"), INELIGIBLE)
def test_no_trace_of_ratchet_is_left(
    cluster: Cluster, node: Node, labels: dict[str, str], changes: dict[str, Any]
) -> None:
    pod = cluster.pod("plain")
    node.add(pod, labels, **changes).succeeded()
    assert_no_trace(cluster, node)
    node.check(pod).succeeded()
    assert_no_trace(cluster, node)
    node.delete(pod).succeeded()
    node.delete(pod).succeeded()
    assert_no_trace(cluster, node)


@each_of("plugin", ["bridge", "ptp"])
@each_of("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_delegate_sees_what_it_would_see_if_it_were_called_directly(
    cluster: Cluster, node: Node, tmp_path: Path, plugin: str, version: str
) -> None:
    recorder = make_recorder(tmp_path, plugin)
    delegate = node.bridge_config(type=recorder.name)
    if plugin == "ptp":
        del delegate["bridge"]
    config = node.config(cniVersion=version, delegate=delegate, runtimeConfig={"portMappings": []})
    commands = ["ADD", "DEL"] if version == "0.3.1" else ["ADD", "CHECK", "DEL"]
    ours, direct = cluster.pod("plain"), cluster.pod("plain")
    direct.uid, direct.container_id = ours.uid, ours.container_id
    found = {"CNI_PATH": recorder.environ()["CNI_PATH"]}
    result = node.add(ours, {"app": "web"}, config=config, environ=found).result
    if "CHECK" in commands:
        node.check(ours, environ=found).succeeded()
    node.delete(ours, environ=found).succeeded()
    seen = {command: recorder.seen(command) for command in commands}

    # The same calls by a runtime whose configuration file is the delegate's.
    alone = {
        **delegate,
        "name": config["name"],
        "cniVersion": version,
        "runtimeConfig": config["runtimeConfig"],
        "args": request_config({}, {"app": "web"}, None)["args"],
    }
    program = os.path.join(recorder.folder, recorder.name)
    for command in commands:
        environ = node.environ(command, direct, changes=found)
        outcome = node.execute(alone, environ, program).finish().succeeded()
        environ_seen, stdin_seen, rest_seen = recorder.seen(command)
        environ_ours, stdin_ours, rest_ours = seen[command]
        if command == "ADD":
            alone["prevResult"] = outcome.result
        else:
            assert stdin_ours.pop("prevResult") == result
            del stdin_seen["prevResult"]
        assert environ_ours == {**environ_seen, "CNI_NETNS": ours.netns.path}
        assert stdin_ours == stdin_seen
        assert rest_ours == rest_seen


def test_delegates_own_name_and_version_are_kept(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    recorder = make_recorder(tmp_path, "bridge")
    delegate = node.bridge_config(type=recorder.name, name="my-bridge", cniVersion="0.3.1")
    pod = cluster.pod("plain")
    node.add(pod, {}, environ=recorder.environ(), delegate=delegate).succeeded()
    _, stdin, _ = recorder.seen("ADD")

    assert (stdin["name"], stdin["cniVersion"]) == ("my-bridge", "0.3.1")
    node.delete(pod, environ=recorder.environ()).succeeded()


def test_delegates_failure_goes_up_unchanged(cluster: Cluster, node: Node, tmp_path: Path) -> None:
    recorder = make_recorder(tmp_path, "bridge")
    delegate = node.bridge_config(type=recorder.name)
    delegate["ipam"]["subnet"] = "not a subnet"
    pod = cluster.pod("plain")
    outcome = node.add(pod, {}, environ=recorder.environ(), delegate=delegate)

    assert outcome.exit == 1
    assert outcome.stdout == recorder.answered("ADD")
    assert outcome.error
    assert_no_trace(cluster, node)
    # bridge leaves its veth until DEL, which it refuses with such a configuration.
    node.attachments.clear()
    pod.netns.ip("link", "delete", "eth0")


def test_delegate_that_is_a_list_runs_in_order_and_in_reverse(cluster: Cluster, node: Node) -> None:
    delegate = {
        "name": "usual",
        "cniVersion": "0.4.0",
        "plugins": [
            node.bridge_config(),
            {"type": "tuning", "mac": "02:11:22:33:44:55"},
        ],
    }
    pod = cluster.pod("plain")
    result = node.add(pod, {}, cniVersion="0.4.0", delegate=delegate).result

    eth0 = pod.netns.link("eth0")
    assert eth0 is not None
    assert eth0["address"] == "02:11:22:33:44:55"
    assert result["cniVersion"] == "0.4.0"
    assert [ip["address"] for ip in result["ips"]] == pod.netns.addresses("eth0")
    assert_no_trace(cluster, node)
    node.check(pod).succeeded()
    node.delete(pod).succeeded()
    assert pod.netns.names() == {"lo"}
    assert_no_trace(cluster, node)


@each_of("version", ["0.4.0", "1.0.0"])
def test_delegate_with_a_version_of_its_own_is_checked_and_detached(
    cluster: Cluster, node: Node, version: str
) -> None:
    """The runtime sees our version only, and plugins refuse a prevResult of any but their own."""
    delegate: dict[str, Any] = {
        "cniVersion": "1.0.0" if version == "0.4.0" else "0.4.0",
        "plugins": [node.bridge_config(), {"type": "portmap"}],
    }
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    pod = cluster.pod("plain")
    result = node.add(
        pod, {}, cniVersion=version, delegate=delegate, runtimeConfig={"portMappings": ports}
    ).result
    assert result["cniVersion"] == version
    assert [ip.get("version") for ip in result["ips"]] == ["4" if version == "0.4.0" else None]
    known = node.attachments[pod.container_id, "eth0"].config
    # Today's portmap plugin cannot check a pod without an IPv6 address.
    checked = {**known, "delegate": {**delegate, "plugins": delegate["plugins"][:1]}}
    node.check(pod, config=checked).succeeded()
    node.delete(pod).succeeded()
    assert pod.netns.names() == {"lo"}


def test_chained_after_another_plugin_passes_its_result_on(cluster: Cluster, node: Node) -> None:
    before = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/x"}],
        "ips": [{"address": "10.5.5.5/24", "gateway": "10.5.5.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.5.5.1"}],
        "dns": {"nameservers": ["10.5.5.1"]},
    }
    config = node.config(delegate=None, boot_network=None, prevResult=before)
    pod = cluster.pod("plain")
    assert node.add(pod, {"app": "web"}, config=config).result == before
    assert pod.netns.names() == {"lo"}
    node.check(pod, config=config).succeeded()
    assert node.delete(pod, config=config).succeeded().stdout.strip() == b""
    assert_no_trace(cluster, node)


def test_ineligible_pod_needs_neither_etcd_nor_child(cluster: Cluster, node: Node) -> None:
    cluster.etcd.stop()
    pod = cluster.pod("plain")
    outcome = node.add(pod, {}, child_path="/nonexistent").succeeded()
    assert node.delete(pod).succeeded().elapsed_s < 2
    assert outcome.elapsed_s < 2


def test_ineligible_pods_beside_eligible_ones_are_left_alone(cluster: Cluster, node: Node) -> None:
    left, right, plain = cluster.pod("primary-pod"), cluster.pod("pair-pod"), cluster.pod("plain")
    node.add(left, in1_in2("pair-pod")).succeeded()
    node.add(plain, {}).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    assert plain.netns.names() == {"lo", "eth0"}
    assert len(node.records()) == 2
    assert not any("plain" in key for key in cluster.etcd.tree())
    node.delete(plain).succeeded()
    assert left.netns.pings("192.168.2.101")


def direct_result(node: Node, pod: Pod, config: Config) -> Outcome:
    return node.execute(config, node.environ("ADD", pod), f"{REFERENCE_PLUGINS}/bridge").finish()


def test_pod_that_was_attached_before_ratchet_came_is_detached_by_the_delegate(
    cluster: Cluster, node: Node
) -> None:
    """DEL uses today's configuration, also for pods that another plugin attached."""
    pod = cluster.pod("old")
    alone = {**node.bridge_config(), "name": "ratchet-test", "cniVersion": "1.0.0"}
    direct_result(node, pod, alone).succeeded()
    assert pod.netns.names() == {"lo", "eth0"}

    node.delete(pod).succeeded()
    assert pod.netns.names() == {"lo"}
    assert_no_trace(cluster, node)
