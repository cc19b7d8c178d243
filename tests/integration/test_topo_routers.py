"""The routers of examples/topologies/: one command brings each up, and every address answers.

Configurations are those that Ratchet makes, or the example's own; the programs are this machine's.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_topo import FOLDER, ROUTERS, Topologies
from tests.lab.polling import wait_for
from tests.lab.simulation import PROGRAM, ratchetctl

pytestmark = [pytest.mark.root, pytest.mark.slow]

CONVERGED_S = 60.0
# A node, and the addresses that it reaches only when routes have been learnt.
REACHED = {
    "bird": ("frr1", ("10.128.0.2", "10.128.0.3", "10.0.0.3")),
    "fabric": ("host1", (*(f"10.128.0.{number}" for number in range(1, 5)), "10.1.2.2")),
    "gobgp": ("frr1", ("10.128.0.2", "10.0.0.4")),
    "isis": ("r1", ("10.128.0.2", "10.128.0.3", "10.0.0.2")),
    "zoo": ("graz", (*(f"10.128.0.{number}" for number in range(2, 6)), "10.0.0.7")),
    "ospf": ("r1", (*(f"10.255.0.{number}" for number in (2, 3, 4)), "10.1.3.2")),
}


@pytest.fixture
def sim() -> Iterator[Topologies]:
    made = Topologies()
    yield made
    made.close()


def test_every_example_with_routers_is_here() -> None:
    assert set(REACHED) == {*ROUTERS, "zoo"}


@pytest.mark.parametrize("name", [*ROUTERS, "zoo"])
def test_every_address_answers_across_the_network(sim: Topologies, name: str) -> None:
    # The drawing of a network has no routers before it is asked for them.
    drawing = (os.path.join(FOLDER, "zoo.graphml"), "--routing", "ospf")
    file = drawing if name == "zoo" else (os.path.join(FOLDER, f"{name}.clab.yml"),)
    said = sim.topo("create", *file, "--run")
    assert "links are up" in said
    node, addresses = REACHED[name]
    wait_for(
        "every address to answer",
        lambda: [one for one in addresses if not sim.pings(node, one)],
        until=lambda silent: not silent,
        timeout_s=CONVERGED_S,
    )
    if name == "gobgp":
        wait_for(
            "the collector to have both routes",
            lambda: sim.exec("collector", "gobgp", "global", "rib"),
            until=lambda rib: "10.128.0.1/32" in rib and "10.128.0.2/32" in rib,
        )
    if name == "isis":
        _a_restarted_router_comes_back(sim)


def _a_restarted_router_comes_back(sim: Topologies) -> None:
    sim("restart", "r2")
    assert "r2" in sim.exec("r2", "vtysh", "-c", "show running-config")
    wait_for("r2 to answer", lambda: sim.pings("r1", "10.128.0.2"), timeout_s=CONVERGED_S)


def test_a_rendered_network_runs_and_runs_again(sim: Topologies) -> None:
    rendered = ratchetctl("topo", "render", os.path.join(FOLDER, "bird.clab.yml"))
    assert rendered.returncode == 0, rendered.stderr
    sim("up", "--wait", "-f", "-", stdin=rendered.stdout)
    for _ in range(2):
        # FRR's list of daemons is among the files, and the script of its package starts staticd.
        said = sim("run", "-f", "-", stdin=rendered.stdout)
        assert "frr1: FRR (zebra, ospfd, staticd)" in said
        assert "bird1: BIRD (bird)" in said
    wait_for("the far router", lambda: sim.pings("frr1", "10.128.0.3"), timeout_s=CONVERGED_S)


def test_a_kind_that_only_an_image_has_is_told(sim: Topologies, tmp_path: Path) -> None:
    file = tmp_path / "lab.clab.yml"
    file.write_text(
        "name: lab\ntopology:\n"
        "  nodes: {a: {kind: nokia_srlinux}, b: {image: x, exec: [hostname, no-such-program]}}\n"
        '  links: [{endpoints: ["a:ethernet-1/1", "b:eth1"]}]\n'
    )
    done = sim.topo_("create", str(file), "--run")
    assert done.returncode == 1
    assert "a: nokia_srlinux: it is a program of its image" in done.stderr
    assert "b: commands: ended with 127: b\n" in done.stderr
    assert "no-such-program" in done.stderr
    # The links came up nevertheless.
    assert ratchetctl("sim", "status", "--name", sim.name).returncode == 0


def test_apply_starts_a_router_anew_whose_configuration_changed_and_no_other(
    sim: Topologies, tmp_path: Path
) -> None:
    file = tmp_path / "lab.clab.yml"
    text = (
        "name: lab\ntopology:\n  defaults: {kind: frr}\n"
        '  nodes: {a: {startup-config: "ip forwarding\\n"}, b: {}}\n'
        '  links: [{endpoints: ["a:eth1", "b:eth1"]}]\n'
    )
    file.write_text(text)
    sim.topo("create", str(file), "--run")
    containers, b = sim.containers(), sim.exec("b", "cat", "/run/frr/zebra.pid")
    file.write_text(text.replace("forwarding", "route 10.99.0.0/16 Null0"))
    said = sim.topo("apply", str(file), "--run")
    assert "a: FRR (zebra, staticd)" in said
    assert "b: FRR" not in said
    # Its tables are as long as the limit of open files, which a machine may have at a million.
    assert "1024" in sim.exec("a", "sh", "-c", "grep files /proc/$(cat /run/frr/zebra.pid)/limits")
    assert sim.containers() == containers
    assert "ip route 10.99.0.0/16 Null0" in sim.exec("a", "vtysh", "-c", "show running-config")
    assert sim.exec("b", "cat", "/run/frr/zebra.pid") == b


def test_a_create_that_is_interrupted_as_commands_run_leaves_nothing(
    sim: Topologies, tmp_path: Path
) -> None:
    file = tmp_path / "lab.clab.yml"
    file.write_text("name: lab\ntopology:\n  nodes: {a: {image: x, exec: [sleep 300]}}\n")
    command = ("topo", "create", str(file), "--sim", "--run", "--name", sim.name)
    create = subprocess.Popen((*PROGRAM, *command), stderr=subprocess.DEVNULL)
    log = Path(sim.directory.path, "run", "default_a", "commands.log")
    wait_for("the command", log.exists, timeout_s=30)
    namespaces = sim.namespaces()
    create.send_signal(signal.SIGINT)
    assert create.wait(30) == 128 + signal.SIGINT
    assert sim.remains(namespaces) == []
