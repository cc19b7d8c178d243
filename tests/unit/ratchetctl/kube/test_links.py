"""Links as they are joined from what two nodes say, and what is not taken for anything."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ratchet.cni.dataclasses import replace
from ratchet.status import LinkStatus
from ratchetctl.kube.links import Row, rows
from tests.unit.ratchetctl.kube.clusters import FAR, OWN, R1, R2, agent, cluster, pod


def only(*pods: Any, **values: Any) -> Row:
    (row,) = rows(cluster(*pods, **values))
    return row


def test_a_link_is_up_when_both_nodes_say_so() -> None:
    row = only(pod("r1", R1, OWN), pod("r2", R2, FAR, node="node-2"))
    assert row.primary is not None
    assert row.pair is not None
    assert (row.primary.pod, row.primary.ifname, row.primary.node) == ("r1", "eth1", "node-1")
    assert (row.pair.pod, row.pair.ifname, row.pair.node) == ("r2", "eth2", "node-2")
    assert (row.state, row.kind, row.vni, row.since, row.why) == ("up", "vxlan", 11, 1005.0, ())
    assert (row.primary.address, row.pair.address) == ("10.0.0.1/24", "10.0.0.2/24")


def test_what_one_node_says_is_not_enough() -> None:
    row = only(pod("r1", R1, OWN), pod("r2", R2, node="node-2", phase="Pending"))
    assert (row.state, row.why) == ("unknown", ("r2 is being started",))
    row = only(pod("r1", R1, OWN))
    assert (row.state, row.why) == ("unknown", ("there is no pod r2 in namespace default",))


@pytest.mark.parametrize(
    ("far", "state", "why"),
    [
        (replace(FAR, state="error", error="eth2 is taken"), "error", "eth2 is taken"),
        (replace(FAR, state="waiting", kind=None), "waiting", None),
        (replace(FAR, fault="the kernel refuses mtu 9000"), "up", "the kernel refuses mtu 9000"),
        (replace(FAR, by_pod="down"), "up", "r2 has set down its end"),
        (replace(FAR, silent_since=5.0), "up", "node 192.168.1.1 has not been heard of"),
    ],
)
def test_the_worse_end_says_how_a_link_is(far: LinkStatus, state: str, why: str | None) -> None:
    row = only(pod("r1", R1, OWN), pod("r2", R2, far, node="node-2"))
    assert row.state == state
    assert row.why == (() if why is None else (why,))


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ([agent("node-1")], "node node-2 has no agent"),
        ([agent("node-1"), agent("node-2", ready=False)], "the agent of node node-2 is not ready"),
    ],
)
def test_what_a_node_that_is_away_said_last_is_not_believed(there: Any, why: str) -> None:
    row = only(pod("r1", R1, OWN), pod("r2", R2, FAR, node="node-2"), agents=there)
    assert (row.state, row.why) == ("unknown", (why,))


def test_what_labels_declare_and_nobody_tells_of_is_shown() -> None:
    row = only(pod("r1", R1, phase="Pending"), pod("r2", R2, is_told=True))
    assert row.primary is not None
    assert (row.primary.ifname, row.state) == ("eth1", "unknown")
    assert row.why == ("r1 is being started",)


def test_the_pod_that_has_a_name_is_the_end_and_not_the_one_that_lost_it() -> None:
    old = pod("r2-old", {**R2, "ratchet.pod_name": "r2"}, is_told=True, superseded=True)
    new = pod("r2-new", {**R2, "ratchet.pod_name": "r2"}, FAR, node="node-2")
    row = only(old, pod("r1", R1, OWN), new)
    assert row.pair is not None
    assert (row.pair.kubernetes_name, row.state) == ("r2-new", "up")


def test_two_primaries_of_one_pair_are_two_links() -> None:
    second = replace(OWN, ifname="eth7", peer_ifname="eth9")
    far = replace(FAR, ifname="eth9", peer_ifname="eth7", peer="r3")
    found = rows(
        cluster(
            pod("r1", R1, OWN),
            pod("r3", {**R1, "ratchet.local_ifname": "eth7"}, second),
            pod("r2", R2, FAR, far, node="node-2"),
        )
    )
    assert [(row.primary.pod, row.state) for row in found if row.primary] == [
        ("r1", "up"),
        ("r3", "up"),
    ]


def test_names_of_other_namespaces_are_other_pods() -> None:
    found = rows(
        cluster(
            pod("r1", R1, replace(OWN, peer="lab:r2"), namespace="lab"),
            pod("r2", R2, FAR, node="node-2"),
            namespace=None,
        )
    )
    assert [(row.namespace, row.state) for row in found] == [
        ("default", "unknown"),
        ("lab", "unknown"),
    ]


def test_uplinks_and_links_that_are_waited_for_are_rows_of_their_own() -> None:
    uplink = LinkStatus(
        "net1", "the node", "up", True, kind="macvlan", peer_ifname="eth0", since=1.0
    )
    expected = LinkStatus("eth5", "", "waiting", False, since=2.0)
    found = rows(cluster(pod("r2", R2, uplink, expected)))
    by_ifname = {(row.primary or row.pair).ifname: row for row in found}  # type: ignore[union-attr]
    assert (by_ifname["net1"].kind, by_ifname["net1"].device) == ("macvlan", "eth0")
    assert by_ifname["eth5"].primary is None
    assert by_ifname["eth5"].why == ("no pod declares a link to eth5 of r2",)


def test_a_thousand_links_are_joined_in_a_moment() -> None:
    pods = []
    for number in range(1000):
        left, right = f"a{number}", f"b{number}"
        labels = {**R1, "ratchet.pair_name": right}
        pods.append(pod(left, labels, replace(OWN, peer=right)))
        pods.append(pod(right, R2, replace(FAR, peer=left), node="node-2"))
    there = cluster(*pods)
    started = time.process_time()
    found = rows(there)
    assert {row.state for row in found} == {"up"}
    assert len(found) == 1000
    # Ten times as many in a second or two; what grows with the square would take minutes.
    assert time.process_time() - started < 2
