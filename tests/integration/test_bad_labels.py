"""A label that is wrong fails the ADD with an error that names it, and nothing has been changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cluster import Cluster
from tests.integration.runtime import CNI_IFNAME, Node, in1_in2, primary

pytestmark = pytest.mark.root

LABEL_ERROR = 100
LONG = "abcdefghijklmnop"
assert len(LONG) == 16

GOOD = {
    **in1_in2("pair-pod"),
    **primary("x2", "10.2.2.1", "pair-pod", "y2", "10.2.2.2", number=2),
}

# Labels that are wrong: the label, its value (None: absent).
WRONG_NAMES = ["", LONG, "lo", "in/1", "in 1", "in:1", "in\t1", ".", ".."]
WRONG_ADDRESSES = [
    "",
    "hello",
    "192.168.2.300",
    "192.168.2",
    "192.168.2.100/33",
    "192.168.2.0/24",
    "192.168.2.0",
    "192.168.2.255",
    "0.0.0.0",
    "127.0.0.1",
    "224.0.0.5",
    "255.255.255.255",
    "fd00::1/129",
    "fd00::g",
    "::1",
    "ff02::5",
    "192.168.2.100 ",
    "3232236132",
]
WRONG_POD_NAMES = ["", "a/b", "../up", "-a", "a b", "a:b", "x" * 254]

CASES: list[tuple[str, str | None]] = [
    *(
        (f"{prefix}{field}", value)
        for prefix in ("ratchet.", "ratchet.2.")
        for field in ("local_ifname", "pair_ifname")
        for value in (None, *WRONG_NAMES)
    ),
    *(
        (f"ratchet.{number}{field}", value)
        for number in ("", "2.")
        for field in ("local_ip", "pair_ip")
        for value in WRONG_ADDRESSES
    ),
    *(
        (f"ratchet.{number}pair_name", value)
        for number in ("", "2.")
        for value in (None, *WRONG_POD_NAMES)
    ),
    *(("ratchet.pod_name", value) for value in WRONG_POD_NAMES),
    ("ratchet.primary", ""),
    ("ratchet.primary", "yes"),
    ("ratchet.primary", "True"),
    ("ratchet.public_ip", "hello"),
    ("ratchet.public_ip", ""),
    # The runtime's interface.
    ("ratchet.local_ifname", CNI_IFNAME),
    ("ratchet.2.local_ifname", CNI_IFNAME),
    # Twice in this pod, and twice in the other one.
    ("ratchet.2.local_ifname", "in1"),
    ("ratchet.2.pair_ifname", "in2"),
    # The pair is the pod itself.
    ("ratchet.pair_name", "primary-pod"),
    ("ratchet.2.pair_name", "primary-pod"),
    # Both ends alike.
    ("ratchet.pair_ip", "192.168.2.100"),
    ("ratchet.2.pair_ip", "10.2.2.1"),
]


def describe(case: tuple[str, str | None]) -> str:
    label, value = case
    return f"{label} {'absent' if value is None else repr(value)[:24]}"


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


@pytest.mark.parametrize("case", CASES, ids=map(describe, CASES))
def test_wrong_label_is_named_and_nothing_is_changed(
    cluster: Cluster, node: Node, case: tuple[str, str | None]
) -> None:
    label, value = case
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


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("ratchet.local_ip", "fd00::1/200"),
        ("ratchet.2.pair_ifname", "a/b"),
        ("ratchet.pair_name", ""),
    ],
)
def test_wrong_annotation_is_named_and_nothing_is_changed(
    cluster: Cluster, node: Node, annotation: str, value: str
) -> None:
    pod = cluster.pod("primary-pod")
    outcome = node.add(pod, GOOD, {annotation: value})

    assert outcome.error["code"] == LABEL_ERROR
    assert annotation in outcome.error_text
    assert value in outcome.error_text
    assert_nothing_changed(cluster, node, dict(pod.netns.links()))


@pytest.mark.parametrize(
    ("misspelt", "right"),
    [
        ("ratchet.local_ifnam", "local_ifname"),
        ("ratchet.pairip", "pair_ip"),
        ("ratchet.2.pair-name", "pair_name"),
    ],
)
def test_misspelt_label_is_an_error_that_names_the_right_one(
    cluster: Cluster, node: Node, misspelt: str, right: str
) -> None:
    pod = cluster.pod("primary-pod")
    outcome = node.add(pod, {**GOOD, misspelt: "10.3.3.3"})

    assert outcome.error["code"] == LABEL_ERROR
    assert misspelt in outcome.error_text
    assert right in outcome.error_text
    assert_nothing_changed(cluster, node, dict(pod.netns.links()))


@pytest.mark.parametrize("number", ["0", "02", "-2"])
def test_wrong_link_number_is_an_error(cluster: Cluster, node: Node, number: str) -> None:
    pod = cluster.pod("primary-pod")
    label = f"ratchet.{number}.local_ifname"
    outcome = node.add(pod, {**GOOD, label: "x9"})

    assert outcome.error["code"] == LABEL_ERROR
    assert label in outcome.error_text
    assert_nothing_changed(cluster, node, dict(pod.netns.links()))


def test_good_labels_are_no_error(cluster: Cluster, node: Node) -> None:
    """The labels from which the wrong ones are made are right."""
    pod = cluster.pod("primary-pod")
    more = {"ratchet.target_pod": "x", "ratchet.target_container": "y", "app": "z"}
    node.add(pod, {**GOOD, **more}).succeeded()
    assert len(node.records()) == 1
