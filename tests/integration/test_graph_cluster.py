"""`ratchetctl topo graph --cluster`: what agents write into pods is drawn, and served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet import annotations as told
from ratchet.annotations import PodTold
from ratchet.cni.dataclasses import replace
from ratchet.status import PULLED, LinkStatus
from ratchetctl.kube import reading
from tests.integration.test_topo_cluster import Lab
from tests.lab.api_server import Authority
from tests.lab.polling import wait_for
from tests.lab.simulation import graph_state, served_graph


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    authority = Authority(str(tmp_path))
    made = Lab(tmp_path, authority, authority.issue("server"))
    yield made
    made.close()


@pytest.fixture
def url(lab: Lab) -> Iterator[str]:
    run_agents(lab, "machine-1", "machine-2")
    with served_graph(str(lab.file), "--cluster", KUBECONFIG=lab.config) as address:
        yield address


def tell(lab: Lab, pod: str, *links: LinkStatus) -> None:
    """Write of a pod what its node's agent would."""
    value = PodTold(pod, "machine-1", "192.0.2.1", links).dumps()

    def change(one: dict[str, Any]) -> None:
        one["metadata"].setdefault("annotations", {})[told.POD] = value

    lab.objects.change_pod("default", pod, change)


def run_agents(lab: Lab, *machines: str) -> None:
    for machine in machines:
        lab.objects.put_pod(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"agent-{machine}",
                    "namespace": "ratchet",
                    "uid": machine,
                    "labels": dict(one.split("=") for one in reading.AGENTS.split(",")),
                },
                "spec": {"nodeName": machine, "containers": [{"name": "agent", "image": "x"}]},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
        )


def test_served_page_follows_what_the_cluster_tells(lab: Lab, url: str) -> None:
    # The page is open before there is any pod.
    assert [one[1] for one in graph_state(url)["nodes"]] == [False, False, False]
    lab.topo("create")
    wait_for("every link to be up", lambda: {one[1] for one in graph_state(url)["links"]} == {"up"})
    found = graph_state(url)
    assert found["machines"] == ["machine-1", "machine-2"]
    assert [found["machines"][one[0]] for one in found["nodes"]] == [
        lab.pod(name)["spec"]["nodeName"] for name in "abc"
    ]
    up = LinkStatus("eth1", "b", "up", True, kind="vxlan", vni=12)
    tell(lab, "a", replace(up, fault=PULLED))
    wait_for("the link to be down", lambda: graph_state(url)["links"][0][1] == "down")
    kind, _, vni, ends = graph_state(url)["links"][0]
    assert (kind, vni, ends[0][1]) == ("vxlan", 12, PULLED)
    # Agents write no counters.
    assert ends[0][2:] == [None, None, None, None]
    tell(lab, "a", up)
    wait_for("the link to be up", lambda: graph_state(url)["links"][0][1] == "up")
    lab.topo("destroy")
    wait_for("the pods to be gone", lambda: not any(one[1] for one in graph_state(url)["nodes"]))
    lab.api.rights.clear()
    wait_for("the page to say so", lambda: "list pods" in str(graph_state(url)["trouble"]))


def test_a_picture_of_the_moment_has_machines_and_reasons(lab: Lab) -> None:
    run_agents(lab, "machine-1")  # machine-2 has none
    lab.topo("create")
    tell(lab, "b", LinkStatus("eth2", "c", "error", True, error="no such device"))
    picture = lab.folder / "lab.svg"
    lab.topo("graph", "--cluster", "-o", str(picture))
    drawn = picture.read_text()
    assert "no such device" in drawn
    assert "machine-1" in drawn
    assert "node machine-2 has no agent" in drawn


def test_graph_says_which_options_go_together(lab: Lab) -> None:
    assert "--context is for --cluster only" in lab.topo("graph", "--context", "x", status=2)
    assert "--namespace is for --cluster and --sim only" in lab.topo("graph", "-n", "x", status=2)
    assert "either --cluster or --sim" in lab.topo("graph", "--cluster", "--sim", status=2)
    assert "dot shows what the file says" in lab.topo("graph", "--cluster", status=2)
    assert "take html, svg" in lab.topo("graph", "--sim", "-t", "mermaid", status=2)
