"""A label that is wrong fails the ADD with an error that names it, and nothing has been changed.

Here is one case for each rule, through the real plugin; every other wrong value is in
tests/unit/ratchet/test_label_grammar.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.runtime import CNI_IFNAME, Node, in1_in2, primary

pytestmark = pytest.mark.root

LABEL_ERROR = 100

GOOD = {
    **in1_in2("pair-pod"),
    **primary("x2", "10.2.2.1", "pair-pod", "y2", "10.2.2.2", number=2),
}

# A label, its value (None: absent), and the rule that this breaks.
CASES: list[tuple[str, str | None, str]] = [
    ("ratchet.pair_name", None, "a link has a pair"),
    ("ratchet.2.local_ifname", None, "a link has an interface, also one with a number"),
    ("ratchet.pair_ifname", "", "nothing that a link needs is empty"),
    ("ratchet.local_ifname", "abcdefghijklmnop", "an interface name has at most 15 bytes"),
    ("ratchet.2.pair_ifname", "in/1", "an interface name has the kernel's characters"),
    ("ratchet.local_ifname", "in\t1", "a value that a terminal would swallow is quoted"),
    ("ratchet.pair_ifname", "lo", "an interface is not the loopback"),
    ("ratchet.local_ifname", CNI_IFNAME, "an interface is not the runtime's"),
    ("ratchet.2.local_ifname", "in1", "an interface name is used once in this pod"),
    ("ratchet.2.pair_ifname", "in2", "an interface name is used once in the pair"),
    ("ratchet.local_ip", "hello", "an address is one"),
    ("ratchet.2.pair_ip", "192.168.2.100/33", "a prefix length fits the address"),
    ("ratchet.pair_ip", "192.168.2.0", "an address is not the network's own"),
    ("ratchet.2.local_ip", "224.0.0.5", "an address is one that a host can have"),
    ("ratchet.pair_ip", "192.168.2.100", "the two ends have two addresses"),
    ("ratchet.public_ip", "hello", "the public address is one"),
    ("ratchet.pod_name", "../up", "a pod's name is one"),
    ("ratchet.2.pair_name", "x" * 254, "a value that is long is cut"),
    ("ratchet.pair_name", "primary-pod", "a pod is not its own pair"),
    ("ratchet.primary", "yes", "primary is true or false"),
]


def assert_nothing_changed(cluster: Cluster, node: Node, pod_links: dict[str, object]) -> None:
    assert node.records() == []
    assert node.children() == []
    assert cluster.etcd.tree() == {}
    assert list(Path(node.bridge_config()["ipam"]["dataDir"]).glob("*/10.*")) == []
    # lo is still down: not even the boot network has run.
    assert set(pod_links) == {"lo"}
    lo = pod_links["lo"]
    assert isinstance(lo, dict)
    assert "UP" not in lo["flags"]


@each_of(("label", "value"), [pytest.param(*case, id=rule) for *case, rule in CASES])
def test_wrong_label_is_named_and_nothing_is_changed(
    cluster: Cluster, node: Node, label: str, value: str | None
) -> None:
    labels = {**GOOD}
    if value is None:
        del labels[label]
    else:
        labels[label] = value
    pod = cluster.pod("primary-pod")
    outcome = node.add(pod, labels)

    assert outcome.error["code"] == LABEL_ERROR
    assert label in outcome.error_text
    if value:
        # A value is quoted where it holds what a terminal would swallow, and cut where it is long.
        shown = repr(value)[1:-1][:40]
        assert shown in outcome.error_text or value[:40] in outcome.error_text
    assert_nothing_changed(cluster, node, dict(pod.netns.links()))
    # What a runtime does next.
    node.delete(pod).succeeded()
    assert_nothing_changed(cluster, node, dict(pod.netns.links()))


def test_wrong_annotation_is_named_and_nothing_is_changed(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("primary-pod")
    outcome = node.add(pod, GOOD, {"ratchet.local_ip": "fd00::1/200"})

    assert outcome.error["code"] == LABEL_ERROR
    assert "ratchet.local_ip" in outcome.error_text
    assert "fd00::1/200" in outcome.error_text
    assert_nothing_changed(cluster, node, dict(pod.netns.links()))


def test_misspelt_label_is_an_error_that_names_the_right_one(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("primary-pod")
    outcome = node.add(pod, {**GOOD, "ratchet.2.pair-name": "10.3.3.3"})

    assert outcome.error["code"] == LABEL_ERROR
    assert "ratchet.2.pair-name" in outcome.error_text
    assert "pair_name" in outcome.error_text
    assert_nothing_changed(cluster, node, dict(pod.netns.links()))


def test_wrong_link_number_is_an_error(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("primary-pod")
    outcome = node.add(pod, {**GOOD, "ratchet.02.local_ifname": "x9"})

    assert outcome.error["code"] == LABEL_ERROR
    assert "ratchet.02.local_ifname" in outcome.error_text
    assert_nothing_changed(cluster, node, dict(pod.netns.links()))


def test_good_labels_are_no_error(cluster: Cluster, node: Node) -> None:
    """The labels from which the wrong ones are made are right."""
    pod = cluster.pod("primary-pod")
    more = {"ratchet.target_pod": "x", "ratchet.target_container": "y", "app": "z"}
    node.add(pod, {**GOOD, **more}).succeeded()
    assert len(node.records()) == 1
