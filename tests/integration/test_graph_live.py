"""`ratchetctl topo graph --sim`: what a simulation's pods and kernel really do is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.polling import wait_for
from tests.lab.simulation import Simulation, graph_state, ratchetctl, served_graph

pytestmark = pytest.mark.root

LAB = """\
name: live
topology:
  nodes: {r1: {}, r2: {}, r3: {}}
  links:
    - {endpoints: ["r1:eth1", "r2:eth1"], ipv4: ["10.0.0.1/30", "10.0.0.2/30"]}
    - {endpoints: ["r1:eth2", "r3:eth1"], ipv4: ["10.0.1.1/30", "10.0.1.2/30"]}
"""


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulation]:
    made = Simulation()
    try:
        file = tmp_path / "live.clab.yml"
        file.write_text(LAB)
        done = ratchetctl("topo", "create", str(file), "--sim", "--name", made.name)
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.close()


@pytest.fixture
def url(sim: Simulation, tmp_path: Path) -> Iterator[str]:
    file = str(tmp_path / "live.clab.yml")
    with served_graph(file, "--sim", "--name", sim.name) as address:
        yield address


def first_link(url: str) -> list[Any]:
    found: list[Any] = graph_state(url)["links"][0]
    return found


def link(sim: Simulation, command: str) -> None:
    done = ratchetctl("link", command, "r1:eth1", "--sim", "--name", sim.name)
    assert done.returncode == 0, done.stderr


def test_served_page_tells_what_really_happens(sim: Simulation, url: str, tmp_path: Path) -> None:
    found = graph_state(url)
    where = sim.nodes_of_pods()
    assert found["machines"] == sorted(set(where.values())) == ["node1", "node2"]
    machines = [found["machines"][one[0]] for one in found["nodes"]]
    assert machines == [where[name] for name in ("r1", "r2", "r3")]
    for number, (kind, how, vni, _) in enumerate(found["links"]):
        same = where["r1"] == where[f"r{number + 2}"]
        assert (kind, how) == ("veth" if same else "vxlan", "up")
        assert same or vni is not None
    assert sorted(one[0] for one in found["links"]) == ["veth", "vxlan"]
    # What goes over a link is counted at both of its ends.
    before = first_link(url)[3][1]
    assert sim.pings("r1", "10.0.0.2")
    wait_for("the counters", lambda: first_link(url)[3][1][3] > before[3])
    # A cable that is pulled out is down at both ends, with the reason.
    link(sim, "down")
    wait_for("the link to be down", lambda: first_link(url)[1] == "down")
    assert all("its cable is pulled out" in str(end[1]) for end in first_link(url)[3])
    link(sim, "up")
    wait_for("the link to be up", lambda: first_link(url)[1] == "up")
    # A pod that has gone is why its peer's link has no carrier.
    sim("delete", "r2")
    wait_for("the link to be down", lambda: first_link(url)[1] in ("down", "waiting"))
    assert graph_state(url)["nodes"][1][1] is False
    reasons = [end[1] for end in first_link(url)[3]]
    assert "the pod r2 is not there" in reasons
    assert all(reasons)
    # A picture of the moment, for who has no browser.
    picture = tmp_path / "live.svg"
    file = str(tmp_path / "live.clab.yml")
    done = ratchetctl("topo", "graph", file, "--sim", "--name", sim.name, "-o", str(picture))
    assert done.returncode == 0, done.stderr
    assert "the pod r2 is not there" in picture.read_text()
    # The simulation ends before the page does.
    sim("down")
    wait_for("the page to say so", lambda: "no simulation" in str(graph_state(url)["trouble"]))
