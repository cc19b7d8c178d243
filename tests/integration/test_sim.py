"""The simulator by its commands: namespaces, etcd and plugins are real.

Where Ratchet itself does not matter the nodes run the reference plugins, so that what fails here is
the simulator.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchetctl.sim import processes
from tests.lab.namespaces import free_port
from tests.lab.polling import wait_for
from tests.lab.runtime import command_name
from tests.lab.simulation import PROGRAM, Simulation, host_network, ratchetctl

pytestmark = pytest.mark.root

BRIDGE = {
    "cniVersion": "1.0.0",
    "name": "plain",
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.9.0.0/16"},
}
LOOPBACK = {"cniVersion": "1.0.0", "name": "plain", "type": "loopback"}
POD = """\
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {labels}
  annotations: {annotations}
spec:
  {spec}
  containers: [{{name: c, image: busybox}}]
"""


def pod(name: str, spec: str = "", labels: str = "{}", annotations: str = "{}") -> str:
    return POD.format(name=name, spec=spec, labels=labels, annotations=annotations)


PRIMARY = (
    '{{ratchet: "true", ratchet.primary: "true", ratchet.local_ifname: in1,'
    " ratchet.local_ip: {ip}, ratchet.pair_name: b, ratchet.pair_ifname: in2,"
    " ratchet.pair_ip: 192.168.2.101}}"
)
PAIR = '{ratchet: "true", ratchet.primary: "false"}'


@pytest.fixture
def sim() -> Iterator[Simulation]:
    made = Simulation()
    yield made
    made.close()


@pytest.fixture
def bridge(tmp_path: Path) -> str:
    path = tmp_path / "bridge.conf"
    path.write_text(json.dumps(BRIDGE))
    return str(path)


@pytest.fixture
def loopback(tmp_path: Path) -> str:
    path = tmp_path / "loopback.conf"
    path.write_text(json.dumps(LOOPBACK))
    return str(path)


@pytest.fixture
def slow(tmp_path: Path) -> tuple[str, str]:
    """A configuration and a plugin folder with a plugin that takes its time for an ADD."""
    plugin = tmp_path / "slow"
    plugin.write_text('#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] && sleep 3\necho "{}"\n')
    plugin.chmod(0o755)
    path = tmp_path / "slow.conf"
    path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "slow", "type": "slow"}))
    return str(path), str(tmp_path)


def test_pods_reach_each_other_and_down_leaves_nothing(sim: Simulation, bridge: str) -> None:
    before = host_network()
    pods = "".join(pod(f"p{number}") for number in range(4))
    sim("up", "--conf", bridge, "-f", "-", stdin=pods)
    assert host_network() == before
    assert sim.nodes_of_pods() == {"p0": "node1", "p1": "node2", "p2": "node1", "p3": "node2"}
    address = sim.status()["pods"][1]["addresses"][0].partition("/")[0]
    assert sim.pings("p0", address)
    namespaces = sim.namespaces()
    assert len(namespaces) == 7  # the underlay, two nodes, four pods
    sim("down")
    assert sim.remains(namespaces) == []
    assert host_network() == before


def test_down_is_safe_twice_and_of_nothing(sim: Simulation, loopback: str) -> None:
    sim("down")
    sim("up", "--conf", loopback)
    sim("down")
    sim("down")


def test_a_second_up_is_refused_and_harms_nothing(sim: Simulation, bridge: str) -> None:
    sim("up", "--conf", bridge, "-f", "-", stdin=pod("a"))
    done = sim.try_("up", "--conf", bridge)
    assert done.returncode == 1
    assert "sim down --name" in done.stderr
    assert sim.exec("a", "echo", "alive") == "alive\n"


def test_two_simulations_run_side_by_side(sim: Simulation, bridge: str) -> None:
    other = Simulation()
    try:
        sim("up", "--conf", bridge, "-f", "-", stdin=pod("a"))
        other("up", "--conf", bridge, "-f", "-", stdin=pod("a"))
        other("down")
        assert sim.exec("a", "echo", "alive") == "alive\n"
    finally:
        other.close()


def test_exec_passes_on_status_streams_and_the_pods_view(sim: Simulation, bridge: str) -> None:
    sim("up", "--conf", bridge, "--nodes", "1", "-f", "-", stdin=pod("a"))
    assert sim.try_("exec", "a", "--", "sh", "-c", "exit 7").returncode == 7
    assert sim.try_("exec", "a", "--", "cat", stdin="through\n").stdout == "through\n"
    assert sim.exec("a", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert sim.try_("exec", "a", "--", "no-such-program").returncode == 127
    assert sim.try_("exec", "a", "--", "/etc/passwd").returncode == 126
    missing = sim.try_("exec", "b", "--", "true")
    assert missing.returncode == 1
    assert "no pod 'b'" in missing.stderr
    assert "cni0" in sim("exec", "--node", "node1", "--", "ls", "/sys/class/net").split()


def test_apply_adds_what_is_new_or_changed(sim: Simulation, bridge: str) -> None:
    sim("up", "--conf", bridge, "-f", "-", stdin=pod("a") + pod("b"))
    ids = {one["name"]: one["container_id"] for one in sim.status()["pods"]}
    changed = pod("a") + pod("b", labels="{new: label}") + pod("c", spec="nodeName: node2")
    done = sim.try_("apply", "-f", "-", stdin=changed)
    assert done.returncode == 0, done.stderr
    assert "1 unchanged" in done.stderr
    after = {one["name"]: one["container_id"] for one in sim.status()["pods"]}
    assert set(after) == {"a", "b", "c"}
    assert after["a"] == ids["a"]
    assert after["b"] != ids["b"]
    assert sim.nodes_of_pods()["c"] == "node2"


def test_restart_moves_a_pod_and_delete_ends_what_runs_in_it(sim: Simulation, bridge: str) -> None:
    sim("up", "--conf", bridge, "-f", "-", stdin=pod("a", spec="nodeName: node1"))
    sleeper = subprocess.Popen(
        (*PROGRAM, "sim", "exec", "--name", sim.name, "a", "--", "sleep", "300")
    )
    there = sim.namespaces()
    wait_for(
        "it to run in the pod",
        lambda: [command_name(pid) for pid in processes.pids(there)],
        until=lambda names: "sleep" in names,
    )
    old = sim.status()["pods"][0]
    sim("restart", "a", "--node", "2")
    assert sleeper.wait(10) == -signal.SIGTERM
    new = sim.status()["pods"][0]
    assert (old["node"], new["node"]) == ("node1", "node2")
    assert old["container_id"] != new["container_id"]
    assert not os.path.exists(old["netns"])
    sim("delete", "a")
    assert sim.status()["pods"] == []
    assert not os.path.exists(new["netns"])
    assert "no pod 'a'" in sim.try_("delete", "a").stderr


def test_node_labels_are_honoured_and_handed_out(sim: Simulation, loopback: str) -> None:
    pods = pod("a", "nodeSelector: {side: left}") + pod("b", "nodeSelector: {side: right}")
    done = sim.try_(
        *("up", "--conf", loopback, "--node-label", "node2:side=left", "-f", "-"), stdin=pods
    )
    assert done.returncode == 0, done.stderr
    assert "node1 was given the label side=right" in done.stderr
    assert sim.nodes_of_pods() == {"a": "node2", "b": "node1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (pod("a", labels="{ratchet: true}"), "metadata.labels.ratchet: true"),
        (pod("a", spec="nodeName: node7"), "spec.nodeName: 'node7': the nodes are node1, node2"),
        (pod("a") + "---\nkind: [", "not YAML"),
        (pod("a") + pod("a"), "is also in"),
    ],
)
def test_bad_yaml_makes_nothing(sim: Simulation, loopback: str, text: str, said: str) -> None:
    done = sim.try_("up", "--conf", loopback, "-f", "-", stdin=text)
    assert done.returncode == 1
    assert said in done.stderr
    assert not sim.directory.exists


def test_a_failed_add_takes_everything_down(sim: Simulation, bridge: str) -> None:
    bad = dict(BRIDGE, vlan=99999)
    Path(bridge).write_text(json.dumps(bad))
    done = sim.try_("up", "--conf", bridge, "-f", "-", stdin=pod("a") + pod("b"))
    assert done.returncode == 1
    assert "a: plugin bridge failed ADD" in done.stderr
    assert "b: plugin bridge failed ADD" in done.stderr
    assert sim.remains(set()) == []


def test_a_missing_plugin_is_named_before_anything_is_made(sim: Simulation, tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text('{"cniVersion": "1.0.0", "name": "x", "type": "no-such-plugin"}')
    done = sim.try_("up", "--conf", str(path))
    assert done.returncode == 1
    assert "'no-such-plugin' is in none of" in done.stderr
    assert not sim.directory.exists


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing(
    sim: Simulation, slow: tuple[str, str], number: signal.Signals
) -> None:
    with _slow_up(sim, slow) as (up, namespaces):
        up.send_signal(number)
        assert up.wait(30) == 128 + number
    assert sim.remains(namespaces) == []


def test_ctrl_c_while_it_is_loading_is_no_traceback() -> None:
    code = """if True:
        import os, signal, sys
        from ratchetctl.main import main

        class CtrlC:
            def find_spec(self, name, *_):
                if name == "ratchetctl.clean":
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, CtrlC())
        main()
    """
    done = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_down_finds_everything_after_a_killed_up(sim: Simulation, slow: tuple[str, str]) -> None:
    with _slow_up(sim, slow) as (up, namespaces):
        up.kill()
    sim("down")
    assert sim.remains(namespaces) == []


@contextlib.contextmanager
def _slow_up(
    sim: Simulation, slow: tuple[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], set[tuple[int, int]]]]:
    """Give an `up` that is in the middle of its ADDs, and its namespaces; it is ended at last."""
    configuration, folder = slow
    yaml = Path(folder) / "pods.yaml"
    yaml.write_text("".join(pod(f"p{number}") for number in range(12)))
    arguments = ("--conf", configuration, "--plugin-dir", folder, "-f", str(yaml))
    with subprocess.Popen(
        (*PROGRAM, "sim", "up", "--name", sim.name, *arguments), stderr=subprocess.DEVNULL
    ) as up:
        try:
            # It makes nodes and starts etcd before that, on a machine that may be busy.
            wait_for("the first ADDs", lambda: len(sim.directory.pods()) >= 8, timeout_s=60)
            yield up, sim.namespaces()
        finally:
            up.kill()


def test_labelled_pods_are_linked(sim: Simulation) -> None:
    pods = pod("a", labels=PRIMARY.format(ip="192.168.2.100")) + pod("b", labels=PAIR)
    sim("up", "-f", "-", stdin=pods)
    wait_for("the link", lambda: sim.pings("a", "192.168.2.101"))
    # The front of each node leads to that node's child.
    for node in ("node1", "node2"):
        assert stat.S_ISSOCK(os.stat(f"{sim.directory.sockets(node)}/front.sock").st_mode)
    assert "vxlan id 11 " in sim.exec("a", "ip", "-d", "link", "show", "in1")
    links = {one["name"]: one["links"] for one in sim.status()["pods"]}
    for name, ifname in (("a", "in1"), ("b", "in2")):
        (link,) = links[name]
        assert (link["ifname"], link["kind"], link["state"]) == (ifname, "vxlan", "up")
    assert "/ratchet/association/b/links/a:in1" in sim("keys")
    sim("restart", "b", "--node", "node1")
    wait_for("the link on one node", lambda: sim.pings("a", "192.168.2.101"))
    assert "veth" in sim.exec("a", "ip", "-d", "link", "show", "in1")
    sim("delete", "a", "b")
    wait_for("the keys to go", lambda: len(sim("keys").splitlines()) == 1)


def test_links_that_wait_or_are_in_error_are_told_by_the_exit_status(sim: Simulation) -> None:
    first = pod("a", labels=PRIMARY.format(ip="192.168.2.100"))
    done = sim.try_("up", "-f", "-", stdin=first)
    assert done.returncode == 3, done.stderr
    assert "waiting" in done.stdout
    assert sim.try_("status").returncode == 3
    sim("apply", "-f", "-", stdin=pod("b", labels=PAIR))
    wait_for("the link", lambda: sim.try_("status").returncode == 0)
    # The same interface of b, wanted by another pod.
    other = pod("c", labels=PRIMARY.format(ip="192.168.2.102"))
    sim("apply", "-f", "-", stdin=other)
    wait_for("the error", lambda: sim.try_("status", "-o", "json").returncode == 4)


def test_an_up_that_waits_for_links_and_is_interrupted_leaves_nothing(
    sim: Simulation, tmp_path: Path
) -> None:
    file = tmp_path / "pods.yaml"
    file.write_text(pod("a", labels=PRIMARY.format(ip="192.168.2.100")))
    arguments = ("--name", sim.name, "--wait", "--timeout", "100", "-f", str(file))
    up = subprocess.Popen((*PROGRAM, "sim", "up", *arguments), stderr=subprocess.DEVNULL)
    # The pod is attached, and then only the link is missing.
    wait_for("the link to wait", lambda: sim.try_("status").returncode == 3, timeout_s=30)
    namespaces = sim.namespaces()
    assert up.poll() is None
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 128 + signal.SIGINT
    assert sim.remains(namespaces) == []


def test_annotations_reach_ratchet(sim: Simulation) -> None:
    first = pod(
        "a",
        labels=PRIMARY.format(ip="192.168.2.100"),
        annotations='{ratchet.local_ip: "fd00::1/64", ratchet.pair_ip: "fd00::2/64"}',
    )
    sim("up", "--boot-network", "loopback", "-f", "-", stdin=first + pod("b", labels=PAIR))
    wait_for("the link", lambda: sim.pings("a", "fd00::2"))


def test_a_bad_label_fails_up_and_names_it(sim: Simulation) -> None:
    pods = pod("a", labels=PRIMARY.format(ip="not-an-address")) + pod("b", labels=PAIR)
    done = sim.try_("up", "-f", "-", stdin=pods)
    assert done.returncode == 1
    assert "ratchet.local_ip" in done.stderr
    assert "not-an-address" in done.stderr
    assert sim.remains(set()) == []


def test_a_given_etcd_is_used_and_left_clean(sim: Simulation, tmp_path: Path) -> None:
    client = free_port()
    peer = client + 1
    etcd = subprocess.Popen(
        (
            *("etcd", "--enable-v2=true", f"--data-dir={tmp_path}/data", "--log-level=error"),
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )
    )
    try:
        wait_for("etcd", lambda: _listens(client))
        pods = pod("a", labels=PRIMARY.format(ip="192.168.2.100")) + pod("b", labels=PAIR)
        given = ("--etcd", f"127.0.0.1:{client}", "--etcd-prefix", "/lab")
        sim("up", *given, "-f", "-", stdin=pods)
        wait_for("the link", lambda: sim.pings("a", "192.168.2.101"))
        assert "/lab/association/a/id" in sim("keys")
        namespaces = sim.namespaces()
        sim("down")
        assert sim.remains(namespaces) == []
        clean = ("clean", "--etcd-host", "127.0.0.1", "--etcd-port", str(client), "--yes")
        assert "removed /lab" in ratchetctl(*clean, "--prefix", "/lab").stdout
        assert "was not there" in ratchetctl(*clean, "--prefix", "/lab").stdout
    finally:
        etcd.terminate()
        etcd.wait()


def test_an_etcd_that_does_not_answer_fails_up(sim: Simulation) -> None:
    done = sim.try_("up", "--etcd", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "does not answer: Connection refused" in done.stderr
    assert sim.remains(set()) == []


def test_without_a_simulation_every_command_says_so(sim: Simulation) -> None:
    for command in (("status",), ("keys",), ("exec", "a", "--", "true"), ("delete", "a")):
        done = sim.try_(*command)
        assert done.returncode == 1
        assert "is running; start one with" in done.stderr


def test_a_wrong_configuration_is_refused_before_anything_is_made(sim: Simulation) -> None:
    done = sim.try_("up", "--etcd-prefix", "a b")
    assert done.returncode == 1
    assert "etcd_prefix is '/a b'" in done.stderr
    assert not sim.directory.exists


@pytest.mark.slow
def test_attaches_hundreds_of_pods(sim: Simulation, loopback: str) -> None:
    pods = "".join(pod(f"p{number}") for number in range(300))
    sim("up", "--conf", loopback, "--nodes", "4", "-f", "-", stdin=pods)
    attached = [one["attached"] for one in sim.status()["pods"]]
    assert attached == [True] * 300
    sim("delete", *(f"p{number}" for number in range(300)))
    assert sim.status()["pods"] == []


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
