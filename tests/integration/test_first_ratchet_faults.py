"""What broke the first Ratchet, each one right here."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from tests.integration.conftest import missing_for_root_tests
from tests.integration.two_minutes import TwoMinutes
from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.namespaces import kind_of, vxlan_of
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary
from tests.parallel import TWO_MINUTES, waits_for_long

pytestmark = pytest.mark.root

PLACES = [pytest.param(0, id="same node"), pytest.param(1, id="two nodes")]


@pytest.fixture(scope="module", autouse=True)
def _start_early(request: pytest.FixtureRequest) -> None:
    """Start the long wait with the first test of this file; what asks for it comes last."""
    if any(map(waits_for_long, request.session.items)) and missing_for_root_tests() is None:
        # What goes wrong is told to the test that asks for it, not to the first one.
        with contextlib.suppress(Exception):
            request.getfixturevalue(TWO_MINUTES)


def start_all(adds: list[tuple[Node, Pod, dict[str, str]]]) -> None:
    """Start all ADDs at once, in random order."""
    shuffled = random.sample(adds, len(adds))
    for call in [node.start_add(pod, labels) for node, pod, labels in shuffled]:
        call.finish().succeeded()


# An ADD repeated for the same pod


@pytest.mark.parametrize("place", PLACES)
def test_add_repeated_for_the_same_container_keeps_the_link(
    cluster: Cluster, node: Node, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    other = cluster.nodes[place]
    first = node.add(left, in1_in2("b")).result
    other.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    with left.netns.watch("in1") as in1, right.netns.watch("in2") as in2:
        assert node.add(left, in1_in2("b")).result == first
        other.add(right, PAIR).succeeded()
        assert left.netns.pings("192.168.2.101")
        assert in1.flaps() == []
        assert in2.flaps() == []
    if place:
        assert cluster.etcd.get("/ratchet/vxlanid") == "12"


@each_of("place", PLACES)
def test_add_repeated_in_a_new_sandbox_moves_the_link_there(
    cluster: Cluster, node: Node, place: int
) -> None:
    """A runtime whose ADD failed late tries again in a new sandbox; the DEL may come after that."""
    old, right = cluster.pod("a"), cluster.pod("b")
    node.add(old, in1_in2("b")).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    old.netns.wait_ping("192.168.2.101")

    new = cluster.pod("a")
    node.add(new, in1_in2("b")).succeeded()
    new.netns.wait_ping("192.168.2.101")
    node.delete(old).succeeded()
    assert new.netns.pings("192.168.2.101")
    hold_for("the link of the new sandbox", lambda: new.netns.link("in1"), duration_s=1)


# Both pods primary, neither primary


@each_of("place", PLACES)
def test_one_link_declared_by_both_pods_is_one_link(
    cluster: Cluster, node: Node, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, primary("in1", "10.1.1.1", "b", "in2", "10.1.1.2")).succeeded()
    cluster.nodes[place].add(right, primary("in2", "10.1.1.2", "a", "in1", "10.1.1.1")).succeeded()

    left.netns.wait_ping("10.1.1.2")
    right.netns.wait_ping("10.1.1.1")
    assert left.netns.names() == {"lo", "in1"}
    assert right.netns.names() == {"lo", "in2"}
    hold_for("the link", lambda: left.netns.pings("10.1.1.2"), duration_s=1)


@each_of("place", PLACES)
def test_one_link_declared_by_both_pods_at_once_is_one_link(
    cluster: Cluster, node: Node, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    start_all(
        [
            (node, left, primary("in1", "10.1.1.1", "b", "in2", "10.1.1.2")),
            (cluster.nodes[place], right, primary("in2", "10.1.1.2", "a", "in1", "10.1.1.1")),
        ]
    )

    left.netns.wait_ping("10.1.1.2")
    right.netns.wait_ping("10.1.1.1")
    hold_for("the link", lambda: left.netns.pings("10.1.1.2"), duration_s=1)


@each_of("place", PLACES)
def test_two_pods_without_a_primary_are_attached_without_a_link(
    cluster: Cluster, node: Node, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    # There is nothing to wait for.
    assert node.add(left, PAIR).succeeded().elapsed_s < 4
    assert cluster.nodes[place].add(right, {"ratchet": "true"}).succeeded().elapsed_s < 4

    def apart() -> bool:
        return left.netns.names() == right.netns.names() == {"lo"}

    hold_for("being apart", apart, duration_s=1)
    assert cluster.etcd.get("/ratchet/vxlanid") is None


# Equal names


@each_of("place", PLACES)
def test_same_ifname_at_both_ends(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, primary("net1", "10.1.1.1", "b", "net1", "10.1.1.2")).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()

    left.netns.wait_ping("10.1.1.2")
    assert left.netns.addresses("net1") == ["10.1.1.1/24"]
    assert right.netns.addresses("net1") == ["10.1.1.2/24"]


def test_ifname_that_the_node_itself_uses(cluster: Cluster, node: Node, far: Node) -> None:
    """The names of the pods' ends have nothing to do with the names on the node."""
    for at in (node, far):
        at.namespace.ip("link", "add", "in1", "type", "bridge")
        at.namespace.ip("link", "add", "in2", "type", "bridge")
    pods = {name: cluster.pod(name) for name in ("a", "b", "c")}
    node.add(pods["a"], in1_in2("b")).succeeded()
    node.add(pods["b"], PAIR).succeeded()
    node.add(pods["c"], primary("in1", "10.1.1.1", "d", "in2", "10.1.1.2")).succeeded()
    pods["d"] = cluster.pod("d")
    far.add(pods["d"], PAIR).succeeded()

    pods["a"].netns.wait_ping("192.168.2.101")
    pods["c"].netns.wait_ping("10.1.1.2")
    for at in (node, far):
        for ifname in ("in1", "in2"):
            assert kind_of(at.namespace.links()[ifname]) == "bridge"
            at.namespace.ip("link", "delete", ifname)


def test_40_pods_on_one_node_that_all_want_in1_and_in2(cluster: Cluster, node: Node) -> None:
    pairs = [(cluster.pod(f"left-{n}"), cluster.pod(f"right-{n}")) for n in range(20)]
    start_all(
        [(node, left, in1_in2(right.name)) for left, right in pairs]
        + [(node, right, PAIR) for _, right in pairs]
    )

    for left, right in pairs:
        left.netns.wait_ping("192.168.2.101", timeout_s=30)
        in1, in2 = left.netns.wait_link("in1", "veth"), right.netns.wait_link("in2", "veth")
        assert in1["link_index"] == in2["ifindex"]


def test_20_pairs_at_once_across_two_nodes_are_20_links_with_20_vnis(
    cluster: Cluster, node: Node, far: Node
) -> None:
    pairs = [(cluster.pod(f"left-{n}"), cluster.pod(f"right-{n}")) for n in range(20)]
    start_all(
        [(node, left, in1_in2(right.name)) for left, right in pairs]
        + [(far, right, PAIR) for _, right in pairs]
    )

    vnis = set()
    for left, right in pairs:
        left.netns.wait_ping("192.168.2.101", timeout_s=30)
        in1, in2 = left.netns.wait_link("in1", "vxlan"), right.netns.wait_link("in2", "vxlan")
        assert vxlan_of(in1)["id"] == vxlan_of(in2)["id"]
        vnis.add(vxlan_of(in1)["id"])
    assert len(vnis) == 20
    assert cluster.etcd.get("/ratchet/vxlanid") == str(max(vnis) + 1)


# Waiting


@pytest.mark.slow
def test_pod_that_is_away_for_two_minutes_and_then_comes(two_minutes: TwoMinutes) -> None:
    waiting, cluster = two_minutes, two_minutes.cluster
    time.sleep(waiting.remaining_s())
    near, across, late = cluster.pod("late-near"), cluster.pod("late-far"), cluster.pod("late")
    waiting.node.add(near, PAIR).succeeded()
    waiting.far.add(across, PAIR).succeeded()
    labels = primary("y1", "10.1.3.2", "waiting-pair", "x1", "10.1.3.1")
    waiting.far.add(late, labels).succeeded()

    waiting.near.netns.wait_ping("10.1.1.2")
    waiting.across.netns.wait_ping("10.1.2.2")
    waiting.pair.netns.wait_ping("10.1.3.2")
    assert cluster.problems_after_test() == []
    assert cluster.end_test() == []


def test_first_pod_does_not_wait_for_a_far_pod_that_is_not_there(
    cluster: Cluster, node: Node
) -> None:
    left = cluster.pod("a")
    assert node.add(left, in1_in2("b")).succeeded().elapsed_s < 4
    assert left.netns.names() == {"lo"}


# etcd


@each_of("place", PLACES)
def test_etcd_away_at_add_and_back_three_seconds_later(
    cluster: Cluster, node: Node, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    cluster.etcd.stop()
    calls = [
        node.start_add(left, in1_in2("b")),
        cluster.nodes[place].start_add(right, PAIR),
    ]
    time.sleep(3)
    cluster.etcd.start()
    for call in calls:
        call.finish().succeeded()

    left.netns.wait_ping("192.168.2.101", timeout_s=15)


@each_of("place", PLACES)
def test_add_succeeds_while_etcd_is_away_within_the_wait(
    cluster: Cluster, node: Node, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    cluster.etcd.stop()
    assert node.add(left, in1_in2("b"), wait_seconds=1).succeeded().elapsed_s < 5
    other = cluster.nodes[place]
    assert other.add(right, PAIR, wait_seconds=1).succeeded().elapsed_s < 5
    cluster.etcd.start()

    left.netns.wait_ping("192.168.2.101", timeout_s=15)


@each_of("place", PLACES)
def test_links_outlive_an_etcd_that_is_restarted(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    with left.netns.watch("in1") as in1, right.netns.watch("in2") as in2:
        cluster.etcd.stop()
        assert left.netns.pings("192.168.2.101")
        cluster.etcd.start()
        time.sleep(2)
        assert left.netns.pings("192.168.2.101")
        assert in1.flaps() == []
        assert in2.flaps() == []


# VNIs


@each_of("value", [None, "11", "nonsense"])
def test_vxlanid_reset_while_links_exist(
    cluster: Cluster, node: Node, far: Node, value: str | None
) -> None:
    pairs = [(cluster.pod(f"left-{n}"), cluster.pod(f"right-{n}")) for n in range(3)]

    def connect(number: int) -> int:
        left, right = pairs[number]
        node.add(left, in1_in2(right.name)).succeeded()
        far.add(right, PAIR).succeeded()
        left.netns.wait_ping("192.168.2.101")
        return int(vxlan_of(left.netns.wait_link("in1", "vxlan"))["id"])

    vnis = {connect(0)}
    with pairs[0][0].netns.watch("in1") as in1, pairs[0][1].netns.watch("in2") as in2:
        if value is None:
            cluster.etcd.delete("/ratchet/vxlanid")
        else:
            cluster.etcd.put("/ratchet/vxlanid", value)
        vnis |= {connect(1), connect(2)}
        assert len(vnis) == 3
        assert in1.flaps() == []
        assert in2.flaps() == []
    for left, _ in pairs:
        assert left.netns.pings("192.168.2.101")
    assert int(cluster.etcd.get("/ratchet/vxlanid") or 0) > max(vnis)


@each_of("where", [[0], [1], [0, 1]])
@each_of("pair_first", [False, True])
def test_vxlan_device_of_somebody_else_with_the_vni_that_is_next(
    cluster: Cluster, node: Node, far: Node, where: list[int], pair_first: bool
) -> None:
    for number in where:
        host = cluster.nodes[number].namespace
        # Two in a row, as an overlay would have them.
        for vni in (11, 12):
            host.ip(
                *("link", "add", f"flannel.{vni}", "type", "vxlan", "id", str(vni)),
                *("dev", "eth0", "dstport", "4789"),
            )
            host.ip("link", "set", f"flannel.{vni}", "up")
    left, right = cluster.pod("a"), cluster.pod("b")
    if pair_first:
        far.add(right, PAIR).succeeded()
        node.add(left, in1_in2("b")).succeeded()
    else:
        node.add(left, in1_in2("b")).succeeded()
        far.add(right, PAIR).succeeded()

    left.netns.wait_ping("192.168.2.101")
    in1, in2 = left.netns.wait_link("in1", "vxlan"), right.netns.wait_link("in2", "vxlan")
    assert vxlan_of(in1)["id"] == vxlan_of(in2)["id"]
    assert vxlan_of(in1)["id"] > 12
    for number in where:
        for vni in (11, 12):
            host = cluster.nodes[number].namespace
            foreign = host.link(f"flannel.{vni}")
            assert foreign is not None
            assert vxlan_of(foreign)["id"] == vni
            host.ip("link", "delete", f"flannel.{vni}")


def test_vxlan_device_of_somebody_else_in_a_pod_with_the_vni_that_is_next(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """Nobody sees it from the node, but the node's tunnels are where it was made (v0.1.0)."""
    stranger, left, right = cluster.pod("stranger"), cluster.pod("a"), cluster.pod("b")
    node.namespace.ip(
        *("link", "add", "foreign", "type", "vxlan", "id", "11", "dev", "eth0", "dstport", "4789")
    )
    node.namespace.ip("link", "set", "foreign", "netns", stranger.netns.name)
    far.add(right, PAIR).succeeded()
    node.add(left, in1_in2("b")).succeeded()

    left.netns.wait_ping("192.168.2.101", timeout_s=8)
    assert vxlan_of(left.netns.wait_link("in1", "vxlan"))["id"] == 12
    foreign = stranger.netns.link("foreign")
    assert foreign is not None
    assert vxlan_of(foreign)["id"] == 11
    stranger.netns.ip("link", "delete", "foreign")


# parent_interface


def test_parent_interface_missing_on_one_node_harms_no_other_link(
    cluster: Cluster, node: Node, far: Node
) -> None:
    third = cluster.nodes[2]
    pods = {name: cluster.pod(name) for name in ("a", "b", "c", "d", "e")}
    broken = {"parent_interface": "nosuch0"}
    labels = {
        **primary("to-b", "10.1.1.1", "b", "x", "10.1.1.2"),
        **primary("to-e", "10.1.2.1", "e", "x", "10.1.2.2", number=2),
    }
    node.add(pods["a"], labels).succeeded()
    third.add(pods["e"], PAIR).succeeded()
    # One end of a-b is on the node without its parent interface; c-d is all there.
    far.add(pods["b"], PAIR, parent_interface="nosuch0").succeeded()
    far.add(pods["c"], primary("y", "10.1.3.1", "d", "y", "10.1.3.2"), **broken).succeeded()  # type: ignore[arg-type]
    far.add(pods["d"], PAIR, parent_interface="nosuch0").succeeded()

    pods["c"].netns.wait_ping("10.1.3.2")
    pods["a"].netns.wait_ping("10.1.2.2")
    assert pods["b"].netns.link("x") is None
    assert far.namespace.names() == {"lo", "eth0"}


def test_link_follows_when_a_missing_parent_interface_appears(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    late_address = "10.99.0.112"
    far.add(right, PAIR, parent_interface="lan0", parent_address=late_address).succeeded()
    assert right.netns.link("in2") is None

    cluster.join(far, "lan0", late_address)
    left.netns.wait_ping("192.168.2.101", timeout_s=20)
    assert vxlan_of(left.netns.wait_link("in1", "vxlan"))["remote"] == late_address
    for at, pod in ((node, left), (far, right)):
        at.delete(pod).succeeded()
        pod.netns.wait_no_link("in1")
        pod.netns.wait_no_link("in2")
    far.namespace.ip("link", "delete", "lan0")


def test_missing_parent_interface_is_named_when_the_link_has_to_be_there(
    cluster: Cluster, node: Node, far: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    outcome = far.add(
        right,
        PAIR | primary("z", None, "a", "z", None),
        parent_interface="nosuch0",
        wait="all",
        wait_seconds=5,
    )

    assert outcome.exit != 0
    assert "nosuch0" in outcome.error_text
    assert right.netns.names() == {"lo"}


def test_same_node_link_needs_no_parent_interface(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), parent_interface="nosuch0").succeeded()
    node.add(right, PAIR, parent_interface="nosuch0").succeeded()

    wait_for("the link", lambda: left.netns.pings("192.168.2.101"))
