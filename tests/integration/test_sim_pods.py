"""What runs in a simulated pod: in namespaces of its own, told where it cannot, ended with it.

The nodes run the loopback plugin: nothing here depends on links.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchetctl.sim import netns, processes
from tests.lab.polling import wait_for
from tests.lab.simulation import PROGRAM, Simulation

pytestmark = pytest.mark.root

LOOPBACK = {"cniVersion": "1.0.0", "name": "plain", "type": "loopback"}
ROUTERS_TIMEOUT_S = 60.0

CONFIG_MAP = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data: {data}
"""
POD = """\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers:
    - {{name: c, image: i, command: {command}, volumeMounts: [{{name: v, mountPath: {path}}}]}}
  volumes: [{{name: v, configMap: {{name: {name}}}}}]
"""


def pod(name: str, files: dict[str, str], path: str = "/etc/frr", *command: str) -> str:
    """Return a pod that mounts these files as a folder."""
    return CONFIG_MAP.format(name=name, data=json.dumps(files)) + POD.format(
        name=name, path=path, command=json.dumps(command)
    )


ALL_OF_FRR = """\
hostname r1
interface lo
 ip ospf area 0
 ipv6 ospf6 area 0
 ip pim
router ospf
router ospf6
router isis 1
 net 49.0001.0000.0000.0001.00
router rip
router bgp 65001
 neighbor 10.0.0.2 remote-as 65002
 neighbor 10.0.0.2 bfd
ip route 10.99.0.0/16 Null0
"""
BIRD = "router id 10.0.0.3;\nprotocol device {}\nprotocol static here { ipv4; }\n"
GOBGP = '[global.config]\nas = 65003\nrouter-id = "10.0.0.4"\n'
MANIFEST = "".join(
    (
        pod("r1", {"frr.conf": ALL_OF_FRR}),
        pod("bird", {"bird.conf": BIRD}, "/etc/bird"),
        pod("gobgp", {"gobgpd.conf": GOBGP}, "/etc/gobgp"),
        pod("host", {"said": "from the file\n"}, "/srv/deep/folder", "sleep", "300"),
    )
)


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulation]:
    made = Simulation()
    (tmp_path / "loopback.conf").write_text(json.dumps(LOOPBACK))
    yield made
    made.close()


def up(sim: Simulation, folder: Path, text: str) -> str:
    """Make a simulation of the pods; the file with them."""
    file = folder / "pods.yaml"
    file.write_text(text)
    sim("up", "--nodes", "1", "--conf", str(folder / "loopback.conf"), "-f", str(file))
    return str(file)


def programs(sim: Simulation, name: str) -> list[str]:
    said = sim.exec(name, "ps", "-eo", "comm=")
    return sorted(one for one in said.split() if one not in ("sleep", "ps"))


def test_each_pod_is_a_machine_of_its_own(sim: Simulation, tmp_path: Path) -> None:
    file = up(sim, tmp_path, MANIFEST)
    started = sim("run", "-f", file)
    daemons = ["bfdd", "bgpd", "isisd", "ospf6d", "ospfd", "pimd", "ripd", "staticd", "zebra"]
    assert programs(sim, "r1") == daemons
    assert "bird: BIRD (bird)" in started
    assert "gobgp: GoBGP (gobgpd)" in started

    # Control programs reach the pod's own router, by the paths that they were built with.
    configuration = sim.exec("r1", "vtysh", "-c", "show running-config")
    for line in ("hostname r1", "router isis 1", " neighbor 10.0.0.2 bfd", "router rip", " ip pim"):
        assert line in configuration.splitlines()
    assert "here" in sim.exec("bird", "birdc", "show", "protocols")
    wait_for("gobgp to answer", lambda: "65003" in sim.exec("gobgp", "gobgp", "global"))

    assert sim.exec("host", "hostname") == "host\n"
    assert sim.exec("host", "cat", "/etc/hostname") == "host\n"
    # Whatever this machine does: BIRD, for one, leaves it to the pod.
    assert sim.exec("host", "cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"
    assert "host" in sim.exec("host", "getent", "hosts", "host")
    assert sim.exec("host", "cat", "/srv/deep/folder/said") == "from the file\n"
    assert sim.exec("host", "ls", "/sys/class/net").split() == ["lo"]
    assert not os.path.exists("/srv/deep")
    assert socket.gethostname() != "host"

    # Anew, with none of the old left, and again after a restart.
    sim("run", "-f", file, "host")
    assert sim.exec("host", "ps", "-eo", "args=").count("sleep 300") == 1
    sim("restart", "bird")
    assert "here" in sim.exec("bird", "birdc", "show", "protocols")


def test_what_cannot_run_is_told_by_pod_program_and_reason(sim: Simulation, tmp_path: Path) -> None:
    daemons = "ospfd=yes\nospfd_options='--no-such-option'\npim6d=yes\n"
    file = up(
        sim,
        tmp_path,
        pod("r1", {"frr.conf": "router ospf\nno such line\nrouter bgp 1\n", "daemons": daemons})
        + pod("r2", {"zebra.conf": "no such line\n"})
        + pod("bird", {"bird.conf": "nonsense;\n"}, "/etc/bird")
        + pod("gobgp", {"gobgpd.conf": "nonsense"}, "/etc/gobgp")
        + pod("host", {"x": "y"}, "/no-such-folder", "sh", "-c", "echo why; exit 7")
        + pod("missing", {"x": "y"}, "/srv", "no-such-program")
        + pod("well", {"x": "y"}, "/srv", "sleep", "300"),
    )
    done = sim.try_("run", "-f", file)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    for beginning in (
        "r1: bgpd: the file daemons does not start it",
        "r1: ospfd: ended with 1:",
        "r1: vtysh: line 2: % Unknown command",
        "r2: zebra: No such command on config line 1: no such line",
        "bird: bird: /etc/bird/bird.conf:1",
        "gobgp: gobgpd: refuses /etc/gobgp/gobgpd.conf:",
        "host: /no-such-folder",
        "host: c: ended with 7: why",
        "missing: c: no-such-program: No such file or directory",
    ):
        line = next(
            (line for line in said if line.removeprefix("ratchetctl: ").startswith(beginning)), ""
        )
        assert line, f"{beginning} is not in {said}"
    # The others run nevertheless.
    assert "sleep 300" in sim.exec("well", "ps", "-eo", "args=")
    assert "zebra" in programs(sim, "r1")


def test_nothing_outlives_a_pod_not_even_what_left_its_network(
    sim: Simulation, tmp_path: Path
) -> None:
    up(sim, tmp_path, pod("a", {"x": "y"}, "/srv"))
    outside = ("setsid", "unshare", "--net", "sh", "-c", "trap '' TERM; echo in; sleep 300 & wait")
    shell = subprocess.Popen(
        (*PROGRAM, "sim", "exec", "--name", sim.name, "a", "--", *outside),
        stdout=subprocess.PIPE,
        text=True,
    )
    with shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "in\n"
        first = int(Path(sim.directory.path, "run", "default_a", ".init").read_text())
        inside = processes.namespace(str(first), "pid")
        assert inside is not None
        assert len(processes.pids({inside}, "pid")) >= 2
        sim("delete", "a")
        assert shell.wait(10) == -signal.SIGKILL
    wait_for("the last one to be reaped", lambda: processes.pids({inside}, "pid") == [])


def test_an_interrupted_run_leaves_what_down_removes(sim: Simulation, tmp_path: Path) -> None:
    text = CONFIG_MAP.format(name="a", data="{}") + POD.format(name="a", path="/srv", command="[]")
    slow = '  initContainers: [{name: first, image: i, command: [sleep, "300"]}]\n'
    file = up(sim, tmp_path, text + slow)
    run = subprocess.Popen(
        (*PROGRAM, "sim", "run", "--name", sim.name, "-f", file), stderr=subprocess.DEVNULL
    )
    path = sim.directory.pods()[0].netns
    identity = netns.identity(path)
    assert identity is not None
    wait_for("the first command", lambda: len(processes.pids({identity})) >= 2, timeout_s=30)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 128 + signal.SIGINT
    namespaces = sim.namespaces()
    sim("down")
    assert sim.remains(namespaces) == []
