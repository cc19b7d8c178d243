"""Placing pods: nodeName, nodeSelector, handing out labels, round robin."""

from __future__ import annotations

import pytest

from ratchetctl.errors import ManifestError, SimError
from ratchetctl.manifest import Pod
from ratchetctl.sim.schedule import Node, hand_out_labels, parse_label, place


def pod(name: str = "p", node: str | None = None, **selector: str) -> Pod:
    return Pod("default", name, {}, {}, node, selector, False, (), (), "f.yaml: document 1")


def nodes(count: int) -> list[Node]:
    return [Node.named(f"node{number}", {}) for number in range(1, count + 1)]


def test_spreads_pods_that_ask_for_nothing() -> None:
    cluster = nodes(3)
    assert [place(pod(), cluster).name for _ in range(6)] == ["node1", "node2", "node3"] * 2


def test_honours_the_node_name() -> None:
    assert place(pod(node="node2"), nodes(3)).name == "node2"


def test_refuses_a_node_that_is_not_there() -> None:
    with pytest.raises(ManifestError, match=r"spec\.nodeName: 'node9': the nodes are node1, node2"):
        place(pod(node="node9"), nodes(2))


def test_hands_out_labels_to_different_nodes() -> None:
    cluster = nodes(2)
    pods = [pod("a", side="left"), pod("b", side="right"), pod("c", side="left")]
    said = hand_out_labels(pods, cluster)
    assert len(said) == 2
    assert "node1 was given the label side=left" in said[0]
    assert [place(one, cluster).name for one in pods] == ["node1", "node2", "node1"]


def test_labels_that_are_there_go_first() -> None:
    cluster = [Node.named("node1", {}), Node.named("node2", {"side": "left"})]
    assert hand_out_labels([pod(side="left")], cluster) == []
    assert place(pod(side="left"), cluster).name == "node2"


def test_the_most_demanding_selector_chooses_first() -> None:
    cluster = nodes(2)
    pods = [pod("a", side="left"), pod("b", side="left", disk="ssd")]
    hand_out_labels(pods, cluster)
    assert place(pods[1], cluster).labels["disk"] == "ssd"
    assert place(pods[0], cluster).labels["side"] == "left"


def test_every_node_has_its_hostname() -> None:
    wanted = pod(**{"kubernetes.io/hostname": "node2"})
    cluster = nodes(2)
    assert hand_out_labels([wanted], cluster) == []
    assert place(wanted, cluster).name == "node2"


def test_refuses_more_selectors_than_nodes() -> None:
    pods = [pod("a", side="left"), pod("b", side="right"), pod("c", side="top")]
    with pytest.raises(ManifestError, match=r"spec\.nodeSelector: 'side=top': .*more --nodes"):
        hand_out_labels(pods, nodes(2))


@pytest.mark.parametrize("text", ["node1", "node1:k", ":k=v", "node1:=v", "node1:k=a/b", "n:-k=v"])
def test_refuses_a_label_that_is_none(text: str) -> None:
    with pytest.raises(SimError, match="NODE:KEY=VALUE"):
        parse_label(text)


def test_reads_a_label() -> None:
    assert parse_label("node1:a.b/side=left") == ("node1", "a.b/side", "left")
