"""Every file in examples/ and jobs/, parsed by the real parsers and applied.

What runs is what the files say. Two things are stand-ins, because a simulator has neither images
nor flanneld: containers' programs come from this machine (FRR from its package), and the flannel
plugin is a script that does what the real one does with its subnet.env.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet import labels
from ratchet.config import Config
from ratchetctl import manifest
from tests.lab.namespaces import free_port
from tests.lab.polling import wait_for
from tests.lab.simulation import ROOT, Simulation, ratchetctl

EXAMPLES = os.path.join(ROOT, "examples")
PRIMARY_PAIR = os.path.join(EXAMPLES, "primary-pair.yaml")
UNLABELLED = os.path.join(EXAMPLES, "unlabelled.yaml")
CLOUD_ROUTER = os.path.join(EXAMPLES, "cloud-router", "cloud-router.yaml")
CONFIGURATIONS = ("10-ratchet.conf", "10-ratchet-flannel.conf", "10-ratchet.conflist")
JOB = os.path.join(ROOT, "jobs", "etcd-delete.yaml")

OSPF_TIMEOUT_S = 60.0

# What the flannel plugin does: read subnet.env, make a bridge configuration of it, run bridge.
FLANNEL = f"""#!{sys.executable}
import ipaddress, json, os, sys
request = json.load(sys.stdin)
if os.environ["CNI_COMMAND"] == "VERSION":
    print(json.dumps({{"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}}))
    sys.exit()
with open(request["subnetFile"]) as file:
    env = dict(line.strip().split("=", 1) for line in file)
delegate = dict(request.get("delegate") or {{}})
delegate.setdefault("type", "bridge")
delegate.update(
    name=request["name"], cniVersion=request["cniVersion"],
    mtu=int(env["FLANNEL_MTU"]), ipMasq=env["FLANNEL_IPMASQ"] != "true",
)
delegate["ipam"] = dict(
    request.get("ipam") or {{}}, type="host-local",
    subnet=str(ipaddress.ip_network(env["FLANNEL_SUBNET"], strict=False)),
    routes=[{{"dst": env["FLANNEL_NETWORK"]}}],
)
if "prevResult" in request:
    delegate["prevResult"] = request["prevResult"]
delegate["ipMasq"] = False  # the test machine may have no iptables
read, write = os.pipe()
os.write(write, json.dumps(delegate).encode())
os.close(write)
os.dup2(read, 0)
for folder in os.environ["CNI_PATH"].split(":"):
    program = os.path.join(folder, delegate["type"])
    if os.access(program, os.X_OK):
        os.execv(program, [program])
sys.exit("no bridge")
"""


@pytest.fixture
def sim() -> Iterator[Simulation]:
    made = Simulation()
    yield made
    made.close()


@pytest.fixture
def flannel(tmp_path: Path) -> str:
    """A plugin folder with the stand-in."""
    program = tmp_path / "flannel"
    program.write_text(FLANNEL)
    program.chmod(0o755)
    return str(tmp_path)


def test_no_example_is_forgotten() -> None:
    found = {
        os.path.relpath(os.path.join(folder, name), EXAMPLES)
        for folder, _, names in os.walk(EXAMPLES)
        for name in names
        if not name.endswith(".md")
    }
    known = {"primary-pair.yaml", "statefulsets.yaml", "unlabelled.yaml"}
    known.add("cloud-router/cloud-router.yaml")
    topologies = {name for name in found if name.startswith("topologies/")}
    assert found - topologies == known | set(CONFIGURATIONS)
    assert os.listdir(os.path.join(ROOT, "jobs")) == ["etcd-delete.yaml"]


@pytest.mark.parametrize("path", [PRIMARY_PAIR, UNLABELLED, CLOUD_ROUTER])
def test_pods_are_as_ratchet_and_kubernetes_want_them(path: str) -> None:
    for pod in manifest.read([path]).pods:
        if labels.is_eligible(pod.labels, pod.annotations):
            wiring = labels.parse(pod.labels, pod.annotations, own_name=pod.name, cni_ifname="eth0")
            assert wiring.pod_name == pod.name


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_network_configurations_are_as_ratchet_wants_them(name: str) -> None:
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
        found = json.load(file)
    plugins = found.get("plugins", [found])
    ours = [{**one, "name": found["name"]} for one in plugins if one["type"] == "ratchet"]
    (config,) = [Config.parse(one) for one in ours]
    assert config.etcd_endpoints == (("10.96.232.136", 2379),)
    assert config.child_path == "/opt/cni/bin/ratchet-child"


@pytest.mark.root
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_primary_and_pair_are_linked_and_others_are_the_delegates(
    sim: Simulation, flannel: str, tmp_path: Path, name: str
) -> None:
    configuration = os.path.join(EXAMPLES, name)
    if shutil.which("iptables") is None:
        configuration = _without_masquerading(configuration, tmp_path)
    arguments = ["--conf", configuration, "-f", PRIMARY_PAIR, "-f", UNLABELLED]
    if "flannel" in name:
        arguments += ["--plugin-dir", flannel]
    sim("up", *arguments)
    wait_for("the link", lambda: sim.pings("primary-pod", "192.168.2.101"))
    shown = sim.exec("primary-pod", "ip", "-d", "link", "show", "in1")
    assert "vxlan id 11 remote 172.30.1.2" in shown
    assert "192.168.2.101/24" in sim.exec("pair-pod", "ip", "address", "show", "in2")
    pods = {one["name"]: one for one in sim.status()["pods"]}
    assert sim.nodes_of_pods() == {
        "primary-pod": "node1",
        "pair-pod": "node2",
        "plain-a": "node1",
        "plain-b": "node2",
    }
    address = pods["plain-b"]["addresses"][0].partition("/")[0]
    assert sim.pings("plain-a", address)
    assert pods["plain-a"]["links"] == []


def test_only_the_routers_of_the_cloud_router_run_with_net_admin() -> None:
    with open(CLOUD_ROUTER, encoding="utf-8") as file:
        pods = [one for one in yaml.safe_load_all(file) if one["kind"] == "Pod"]
    able = {
        pod["metadata"]["name"]
        for pod in pods
        for container in pod["spec"]["containers"]
        if "NET_ADMIN" in str(container.get("securityContext"))
    }
    assert able == {"quagga-a", "quagga-b"}


@pytest.mark.root
@pytest.mark.slow
def test_the_cloud_router_routes(sim: Simulation) -> None:
    sim("up", "-f", CLOUD_ROUTER)
    sim("run", "-f", CLOUD_ROUTER)
    nodes = sim.nodes_of_pods()
    assert nodes["centosa"] == nodes["quagga-a"] != nodes["quagga-b"] == nodes["centosb"]
    wait_for(
        "OSPF",
        lambda: sim.pings("centosa", "192.168.4.101"),
        timeout_s=OSPF_TIMEOUT_S,
    )
    shown = sim.exec("centosa", "ping", "-c", "1", "-W", "1", "192.168.4.101")
    assert "ttl=62" in shown
    assert "veth" in sim.exec("centosa", "ip", "-d", "link", "show", "in1")
    assert "vxlan" in sim.exec("quagga-a", "ip", "-d", "link", "show", "mid1")
    assert "veth" in sim.exec("centosb", "ip", "-d", "link", "show", "out2")


@pytest.mark.root
@pytest.mark.slow
def test_hosts_keep_their_routes_when_a_router_of_the_cloud_router_restarts(
    sim: Simulation,
) -> None:
    sim("up", "-f", CLOUD_ROUTER)
    sim("run", "-f", CLOUD_ROUTER)
    nodes = sim.nodes_of_pods()

    def reaches() -> bool:
        return sim.pings("centosa", "192.168.4.101")

    def ends(*pods: str) -> list[str]:
        """Return the routes of pods, with a carrier or without, and their interfaces' indices."""
        links = [sim.exec(pod, "ip", "-o", "link") for pod in pods]
        routes = [sim.exec(pod, "ip", "route").replace("linkdown", "").split() for pod in pods]
        indices = [[line.split(": ")[:2] for line in one.splitlines()] for one in links]
        return [f"{one}" for one in (*routes, *indices)]

    wait_for("OSPF", reaches, timeout_s=OSPF_TIMEOUT_S)
    hosts = ends("centosa", "centosb")
    for router in ("quagga-a", "quagga-b"):
        sim("restart", router)
        wait_for(f"OSPF again after {router}", reaches, timeout_s=OSPF_TIMEOUT_S)
        assert ends("centosa", "centosb") == hosts
    host = ends("centosa")
    sim("restart", "quagga-b", "--node", nodes["quagga-a"])
    assert ends("centosa") == host
    # The link to its own host is no veth pair any more: that host's end was made anew.
    sim.exec("centosb", "ip", "route", "replace", "192.168.2.0/24", "via", "192.168.4.100")
    wait_for("OSPF again elsewhere", reaches, timeout_s=OSPF_TIMEOUT_S)
    assert ends("centosa") == host


@pytest.mark.root
@pytest.mark.slow
def test_the_demo_holds_what_it_claims() -> None:
    done = ratchetctl("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything is as claimed." in done.stdout


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[int]:
    """A real etcd with the v2 API; its port."""
    client = free_port()
    peer = client + 1
    urls = {name: f"http://127.0.0.1:{port}" for name, port in (("c", client), ("p", peer))}
    command = [
        *("etcd", "--enable-v2=true", "--log-level=error", f"--data-dir={tmp_path / 'data'}"),
        *(f"--listen-client-urls={urls['c']}", f"--advertise-client-urls={urls['c']}"),
        *(f"--listen-peer-urls={urls['p']}", f"--initial-advertise-peer-urls={urls['p']}"),
        f"--initial-cluster=default={urls['p']}",
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_for("etcd", lambda: _curl(client, "/health"), timeout_s=20.0)
        yield client
    finally:
        process.terminate()
        process.wait()


@pytest.mark.root
def test_the_job_deletes_every_key_and_nothing_else(etcd: int) -> None:
    for key in ("ratchet/vxlanid", "ratchet/association/a/id", "calico/x"):
        _curl(etcd, f"/v2/keys/{key}", "--request", "PUT", "--data", "value=1")
    assert _run_job(etcd) == 0
    assert "errorCode" in _curl(etcd, "/v2/keys/ratchet")
    assert '"value":"1"' in _curl(etcd, "/v2/keys/calico/x")
    # Nothing to delete is what the job wants.
    assert _run_job(etcd) == 0


@pytest.mark.root
def test_the_job_fails_when_etcd_is_away() -> None:
    assert _run_job(free_port()) == 1


def test_the_job_is_tried_again_by_kubernetes_and_not_by_the_kubelet() -> None:
    job = _job()
    assert job["kind"] == "Job"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["backoffLimit"] > 0


def _job() -> dict[str, Any]:
    with open(JOB, encoding="utf-8") as file:
        found: dict[str, Any] = yaml.safe_load(file)
    return found


def _run_job(port: int) -> int:
    """Run the job's own command with its own environment, for an etcd on this machine."""
    (container,) = _job()["spec"]["template"]["spec"]["containers"]
    environ = {one["name"]: one["value"] for one in container["env"]}
    environ |= {"ETCD_HOST": "127.0.0.1", "ETCD_PORT": str(port), "PATH": os.environ["PATH"]}
    return subprocess.run(container["command"], env=environ, timeout=60, check=False).returncode


def _without_masquerading(path: str, folder: Path) -> str:
    """The configuration without ipMasq, which needs iptables: the simulator has nowhere to go."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    made = folder / os.path.basename(path)
    made.write_text(text.replace('"ipMasq": true', '"ipMasq": false'))
    return str(made)


def _curl(port: int, path: str, *options: str) -> str:
    command = ("curl", "--silent", "--noproxy", "*", *options, f"http://127.0.0.1:{port}{path}")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
