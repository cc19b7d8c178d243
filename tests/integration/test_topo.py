"""`ratchetctl topo … --sim`: the examples come up, and every address answers.

The rendered manifests go through `sim up` unchanged as well, and apply touches what differs only.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchetctl.topo import read
from ratchetctl.topo.findings import Findings
from tests.lab.polling import wait_for
from tests.lab.simulation import ROOT, Simulation, ratchetctl

pytestmark = pytest.mark.root

FOLDER = os.path.join(ROOT, "examples", "topologies")
KINDS = "kinds.yml"  # no topology
# What is added to an example's command line, as its README has it.
OPTIONS = {
    "kne-2.yml": ("--addresses", "ipv4"),
    "kne-3.pb.txt": ("--addresses", "ipv6"),
    "zoo.graphml": ("--addresses", "ipv4", "--prefix-len", "30"),
    "vendors.clab.yml": ("--kinds", os.path.join(FOLDER, KINDS)),
}
# What needs more than links is brought up by test_topo_routers.py.
ROUTERS = ("bird", "fabric", "gobgp", "isis", "ospf")
FILES = sorted(
    name
    for name in os.listdir(FOLDER)
    if name.endswith((".yml", ".pb.txt", ".graphml")) and name != KINDS
)


class Topologies(Simulation):
    """`ratchetctl topo … --sim --name RANDOM`."""

    def topo_(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return ratchetctl("topo", command, *arguments, "--sim", "--name", self.name)

    def topo(self, command: str, *arguments: str) -> str:
        done = self.topo_(command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def containers(self) -> dict[str, str]:
        return {pod["name"]: pod["container_id"] for pod in self.status()["pods"]}

    def indexes(self, pod: str) -> set[str]:
        """Return the pod's interfaces with their numbers, which an interface made anew changes."""
        lines = self.exec(pod, "ip", "-o", "link").splitlines()
        return {":".join(line.split(":")[:2]) for line in lines}


@pytest.fixture
def sim() -> Iterator[Topologies]:
    made = Topologies()
    yield made
    made.close()


def unanswered(sim: Topologies, file: str, *options: str) -> list[str]:
    """Return every link whose far end does not answer the near one, by the model's addresses."""
    shown = ratchetctl("topo", "import", file, *options)
    assert shown.returncode == 0, shown.stderr
    path = os.path.join(sim.directory.path, "wanted.clab.yml")
    with open(path, "w", encoding="utf-8") as written:
        written.write(shown.stdout)
    wanted = read.read(path, Findings())
    silent = []
    assert wanted.links
    for link in wanted.links:
        assert link.second.address is not None, f"{file}: a link without addresses"
        if not sim.pings(link.first.node, str(link.second.address.ip)):
            silent.append(f"{link.first.node} -> {link.second.node} {link.second.address}")
    return silent


OUTSIDE = """\
name: outside
topology:
  nodes: {r1: {}, r2: {}}
  links:
    - endpoints: ["r1:eth1", "r2:eth1"]
      ipv4: ["10.0.0.1/30", "10.0.0.2/30"]
      labels: {ratchet.pair_rate: 5mbit}
    - type: macvlan
      endpoint: {node: r1, interface: eth2, mac: "02:00:00:00:00:01"}
      host-interface: eth0
    - {type: host, endpoint: {node: r2, interface: eth2, ipv4: 10.7.0.2/30}, host-interface: to-r2,
       labels: {ratchet.pair_ip: 10.7.0.1/30}}
"""


def test_uplinks_and_impairments_come_up_and_change_without_a_blink(
    sim: Topologies, tmp_path: Path
) -> None:
    path = tmp_path / "outside.clab.yml"
    path.write_text(OUTSIDE)
    sim.topo("create", str(path))
    assert sim.pings("r1", "10.0.0.2")
    assert sim.pings("r2", "10.7.0.1")
    link = sim.exec("r1", "ip", "-d", "link", "show", "eth2")
    assert "macvlan mode bridge" in link
    assert "02:00:00:00:00:01" in link
    assert "rate 5Mbit" in sim.exec("r2", "tc", "qdisc", "show", "dev", "eth1")
    before = sim.indexes("r2")
    path.write_text(OUTSIDE.replace("5mbit", "6mbit"))
    sim.topo("apply", str(path))
    wait_for(
        "the rate",
        lambda: "rate 6Mbit" in sim.exec("r2", "tc", "qdisc", "show", "dev", "eth1"),
    )
    assert before == sim.indexes("r2")


def test_every_example_is_tested() -> None:
    assert len(FILES) == 17
    text = Path(FOLDER, "README.md").read_text(encoding="utf-8")
    assert [name for name in (*FILES, KINDS) if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.removesuffix(".clab.yml") not in ROUTERS]
)
def test_examples_come_up_and_every_address_answers(sim: Topologies, name: str) -> None:
    file, options = os.path.join(FOLDER, name), OPTIONS.get(name, ())
    said = sim.topo("create", file, *options)
    assert "links are up" in said
    assert unanswered(sim, file, *options) == []
    if "macvlan" in name:  # the network outside carries what the pods send to each other
        assert sim.pings("r1", "10.0.9.2")
    sim.topo("destroy", file, *options)
    assert not sim.directory.exists


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "extra"), [(10, 5), (20, 8)])
def test_random_networks_come_up(sim: Topologies, tmp_path: Path, nodes: int, extra: int) -> None:
    drawn = ratchetctl("topo", "random", str(nodes), str(extra), "--seed", "20")
    assert drawn.returncode == 0, drawn.stderr
    file = tmp_path / "random.clab.yml"
    file.write_text(drawn.stdout)
    sim.topo("create", str(file))
    assert unanswered(sim, str(file)) == []


@pytest.mark.parametrize(
    "name", ["meshnet-many-links.yml", "meshnet-macvlan.yml", "kne-3.pb.txt", "clos.clab.yml"]
)
def test_rendered_manifests_attach_unchanged(sim: Topologies, name: str) -> None:
    """Several links between two pods, uplinks, IPv6 in annotations, names that were mapped."""
    file, options = os.path.join(FOLDER, name), OPTIONS.get(name, ())
    rendered = ratchetctl("topo", "render", file, *options)
    assert rendered.returncode == 0, rendered.stderr
    sim("up", "--wait", "-f", "-", stdin=rendered.stdout)
    assert unanswered(sim, file, *options) == []


LAB = """\
name: lab
topology:
  kinds: {{linux: {{image: alpine}}}}
  nodes: {{{nodes}}}
  links:
{links}
"""


def write(path: Path, nodes: str, *links: tuple[str, str, int]) -> str:
    text = "".join(
        f'    - endpoints: ["{a}", "{b}"]\n      ipv4: ["10.0.{n}.1/24", "10.0.{n}.2/24"]\n'
        for a, b, n in links
    )
    path.write_text(LAB.format(nodes=", ".join(f"{one}: {{}}" for one in nodes), links=text))
    return str(path)


def test_apply_makes_exactly_the_difference(sim: Topologies, tmp_path: Path) -> None:
    file = tmp_path / "lab.clab.yml"
    chain = [("a:eth1", "b:eth1", 1), ("b:eth2", "c:eth1", 2), ("c:eth2", "d:eth1", 3)]
    sim.topo("create", write(file, "abcd", *chain))
    before, ends = sim.containers(), sim.indexes("a")
    assert "4 unchanged" in sim.topo("apply", str(file))
    assert sim.containers() == before
    # d goes, e comes at c: a and b are none of its business.
    write(file, "abce", *chain[:2], ("c:eth2", "e:eth1", 4))
    done = sim.topo_("diff", str(file))
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        "- link c eth2 10.0.3.1/24 -- d eth1 10.0.3.2/24",
        "- node d",
        "+ node e",
        "+ link c eth2 10.0.4.1/24 -- e eth1 10.0.4.2/24",
    ]
    sim.topo("apply", str(file))
    after = sim.containers()
    assert {name for name in "abc" if before[name] == after[name]} == {"a", "b"}
    assert set(after) == set("abce")
    assert sim.indexes("a") == ends
    assert sim.topo("diff", str(file)) == ""
    assert unanswered(sim, str(file)) == []


def test_only_pods_in_which_something_runs_get_an_eth0(sim: Topologies, tmp_path: Path) -> None:
    file = write(tmp_path / "lab.clab.yml", "ab", ("a:eth1", "b:eth1", 1))
    assert "they have no eth0" in sim.topo("create", file)
    assert "eth0" not in sim.exec("a", "ip", "-o", "link")
    assert unanswered(sim, file) == []
    text = Path(file).read_text()
    Path(file).write_text(text.replace("b: {}", "b: {ports: ['30080:80']}"))
    assert "`destroy` and `create` give them one" in sim.topo("apply", file)
    sim.topo("destroy", file)
    assert "no eth0" not in sim.topo("create", file)
    assert "eth0" in sim.exec("a", "ip", "-o", "link")


def test_show_says_which_cable_is_pulled_out(sim: Topologies, tmp_path: Path) -> None:
    file = write(tmp_path / "lab.clab.yml", "ab", ("a:eth1", "b:eth1", 1))
    sim.topo("create", file)
    done = ratchetctl("link", "down", "a:eth1", "--sim", "--name", sim.name)
    assert done.returncode == 0, done.stderr
    assert "eth1: its cable is pulled out (ratchetctl link up)" in sim.topo("show", file)
    assert "fault: its cable is pulled out" in sim("status")


def test_a_boot_network_that_is_asked_for_gives_an_eth0(sim: Topologies, tmp_path: Path) -> None:
    file = write(tmp_path / "lab.clab.yml", "ab", ("a:eth1", "b:eth1", 1))
    sim.topo("create", file, "--boot-network", "bridge", "--nodes", "1")
    address = sim.exec("b", "hostname", "-I").split()[0]
    assert address.startswith("100.64.")
    assert sim.pings("a", address)


def test_destroy_leaves_other_pods_alone(sim: Topologies, tmp_path: Path) -> None:
    file = write(tmp_path / "lab.clab.yml", "ab", ("a:eth1", "b:eth1", 1))
    sim("up")
    sim("apply", "-f", os.path.join(ROOT, "examples", "unlabelled.yaml"))
    sim.topo("apply", file)
    assert set(sim.containers()) == {"a", "b", "plain-a", "plain-b"}
    sim.topo("destroy", file)
    assert set(sim.containers()) == {"plain-a", "plain-b"}
    done = sim.topo_("destroy", file)
    assert done.returncode == 1
    assert "no pod of the topology lab" in done.stderr


CLAIMANT = """\
apiVersion: v1
kind: Pod
metadata:
  name: claimant
  labels:
    ratchet: "true"
    ratchet.primary: "true"
    ratchet.local_ifname: eth1
    ratchet.pair_name: b
    ratchet.pair_ifname: eth1
spec:
  containers: [{name: c, image: alpine}]
"""


def test_a_link_that_cannot_come_up_is_told_by_the_exit_status(
    sim: Topologies, tmp_path: Path
) -> None:
    """Another pod, which is none of the topology's, wants the same interface of b."""
    file = write(tmp_path / "lab.clab.yml", "ab", ("a:eth1", "b:eth1", 1))
    assert sim.try_("up", "-f", "-", stdin=CLAIMANT).returncode == 3
    done = sim.topo_("apply", file, "--timeout", "3")
    assert done.returncode in (3, 4), done.stderr
    assert "0 of 1 links are up" in done.stderr
    assert sim.topo_("apply", file, "--no-wait").returncode == 0
    sim("delete", "claimant")
    assert "1 of 1 links are up" in sim.topo("apply", file)


def test_what_cannot_work_is_refused_before_anything_is_made(
    sim: Topologies, tmp_path: Path
) -> None:
    file = write(tmp_path / "lab.clab.yml", "abc", ("a:eth1", "b:eth1", 1), ("b:eth2", "c:eth1", 1))
    done = sim.topo_("create", file)
    assert done.returncode == 1
    assert "lab.clab.yml:8: address 10.0.1.1 of b eth2 is that of a eth1 as well" in done.stderr
    assert not sim.directory.exists
