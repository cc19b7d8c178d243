"""`ratchetctl link`: something of a link that is up is set, at both nodes, and reset."""

from __future__ import annotations

import os
import signal

import pytest

from tests.integration.test_impairments import rates
from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2
from tests.lab.simulation import ratchetctl

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

PLACES = pytest.mark.parametrize("place", [0, 1], ids=["same node", "two nodes"])


def link(node: Node, command: str, *arguments: str) -> None:
    done = ratchetctl("link", command, *arguments, "--state-dir", node.state_dir)
    assert done.returncode == 0, done.stdout + done.stderr


def linked(cluster: Cluster, place: int, **labels: str) -> tuple[Pod, Pod]:
    left, right = cluster.pod("a"), cluster.pod("b")
    more = {f"ratchet.{name}": value for name, value in labels.items()}
    cluster.nodes[0].add(left, {**in1_in2("b"), **more}).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    return left, right


@PLACES
def test_either_end_is_impaired_from_either_node(cluster: Cluster, place: int) -> None:
    left, right = linked(cluster, place, rate="50mbit")
    ends = (left, "in1"), (right, "in2")
    link(cluster.nodes[0], "impair", "a:in1", "--rate", "20mbit")
    assert rates(*ends) == [20_000_000, 50_000_000]
    link(cluster.nodes[place], "impair", "b:in2", "--rate", "10mbit")
    wait_for("the far end", lambda: rates(*ends) == [20_000_000, 10_000_000])
    link(cluster.nodes[place], "impair", "b:in2", "--rate", "30mbit", "--both")
    wait_for("both", lambda: rates(*ends) == [30_000_000, 30_000_000])
    link(cluster.nodes[0], "impair", "a:in1")
    assert rates(*ends) == [None, 30_000_000]
    link(cluster.nodes[0], "reset", "a:in1")
    wait_for("the labels'", lambda: rates(*ends) == [50_000_000, 50_000_000])


@PLACES
def test_an_mtu_is_set_at_both_ends(cluster: Cluster, place: int) -> None:
    left, right = linked(cluster, place)

    def mtus() -> list[int]:
        return [left.netns.links()["in1"]["mtu"], right.netns.links()["in2"]["mtu"]]

    link(cluster.nodes[0], "set", "a:in1", "--mtu", "1300")
    wait_for("both", lambda: mtus() == [1300, 1300])


@pytest.mark.nodes("fresh")
@PLACES
def test_what_was_set_outlives_the_child_and_not_its_primary(cluster: Cluster, place: int) -> None:
    left, right = linked(cluster, place)
    node = cluster.nodes[0]
    link(node, "impair", "a:in1", "--rate", "20mbit", "--both")
    ends = (left, "in1"), (right, "in2")
    wait_for("both", lambda: rates(*ends) == [20_000_000, 20_000_000])
    os.kill(node.wait_child(), signal.SIGKILL)
    node.check(left).succeeded()
    wait_for("both", lambda: rates(*ends) == [20_000_000, 20_000_000])
    node.delete(left).succeeded()
    left.netns.remove()
    again = cluster.pod("a")
    node.add(again, in1_in2("b")).succeeded()
    again.netns.wait_ping("192.168.2.101")
    wait_for("none", lambda: rates((again, "in1"), (right, "in2")) == [None, None])


def facts(pod: Pod, ifname: str) -> tuple[int, list[str], str]:
    netns = pod.netns
    index = netns.links()[ifname]["ifindex"]
    return index, netns.addresses(ifname), netns.ip("route").replace(" linkdown", "").strip()


@pytest.mark.nodes("fresh")
@PLACES
@each_of("end", ["a:in1", "b:in2"])
@each_of("labels", [{}, {"rate": "20mbit"}])
def test_a_cable_is_pulled_out_at_both_ends_and_plugged_in_again(
    cluster: Cluster, place: int, end: str, labels: dict[str, str]
) -> None:
    left, right = linked(cluster, place, **labels)
    ends = (left, "in1"), (right, "in2")
    node = cluster.nodes[0 if end == "a:in1" else place]
    right.netns.ip("route", "add", "10.77.0.0/16", "via", "192.168.2.100")
    before = [facts(*one) for one in ends]

    def running() -> list[bool]:
        return ["NO-CARRIER" not in pod.netns.links()[name]["flags"] for pod, name in ends]

    link(node, "down", end)
    wait_for("no carrier", lambda: running() == [False, False])
    assert not left.netns.pings("192.168.2.101")
    assert [facts(*one) for one in ends] == before
    for pid in {one.wait_child() for one in (cluster.nodes[0], cluster.nodes[place])}:
        os.kill(pid, signal.SIGKILL)
    cluster.nodes[0].check(left).succeeded()
    cluster.nodes[place].check(right).succeeded()
    assert running() == [False, False]
    assert not right.netns.pings("192.168.2.100")
    link(node, "up", end)
    wait_for("the carrier", lambda: running() == [True, True])
    left.netns.wait_ping("192.168.2.101")
    assert [facts(*one) for one in ends] == before
    rate = 20_000_000 if labels else None
    wait_for("the rates", lambda: rates(*ends) == [rate, rate])


def test_what_the_kernel_refuses_of_a_change_is_said_at_once(cluster: Cluster, node: Node) -> None:
    linked(cluster, 1)
    done = ratchetctl("link", "set", "a:in1", "--mtu", "9000", "--state-dir", node.state_dir)
    assert done.returncode == 0
    assert "note: default/a:in1: the kernel refuses mtu 9000: Invalid argument" in done.stderr


def test_a_cable_that_is_out_is_shown_as_that(cluster: Cluster, node: Node) -> None:
    linked(cluster, 0)
    link(node, "down", "a:in1")
    shown = ratchetctl("status", "--state-dir", node.state_dir)
    assert "default/a in1: fault: its cable is pulled out (ratchetctl link up)\n" in shown.stdout


@PLACES
def test_a_pair_that_comes_back_finds_the_cable_pulled_out(cluster: Cluster, place: int) -> None:
    left, right = linked(cluster, place)
    node, far = cluster.nodes[0], cluster.nodes[place]
    link(node, "down", "a:in1")
    far.delete(right).succeeded()
    right.netns.remove()
    again = cluster.pod("b")
    far.add(again, PAIR).succeeded()
    wait_for("no carrier", lambda: "NO-CARRIER" in again.netns.wait_link("in2")["flags"])
    assert not left.netns.pings("192.168.2.101")
    link(node, "up", "a:in1")
    left.netns.wait_ping("192.168.2.101")


@PLACES
@each_of("away", [False, True])
def test_a_primary_that_is_created_again_has_its_cable_plugged_in(
    cluster: Cluster, place: int, away: bool
) -> None:
    """What was said of the link went with the primary's container; `away`, before its DEL came."""
    left, right = linked(cluster, place)
    node = cluster.nodes[0]
    link(node, "down", "a:in1")
    wait_for("no carrier", lambda: "NO-CARRIER" in right.netns.links()["in2"]["flags"])
    if away:
        left.netns.remove()
    node.delete(left).succeeded()
    left.netns.remove()
    again = cluster.pod("a")
    node.add(again, in1_in2("b")).succeeded()
    again.netns.wait_ping("192.168.2.101")
    for pod, name in ((again, "in1"), (right, "in2")):
        assert "NO-CARRIER" not in pod.netns.links()[name]["flags"], name


@each_of("number", range(4))
def test_a_primary_that_is_replaced_at_once_has_its_cable_plugged_in(
    cluster: Cluster, node: Node, number: int
) -> None:
    """Its pair on the same node may look while the link is declared by neither container."""
    left, right = linked(cluster, 0)
    again = cluster.pod("a")
    link(node, "down", "a:in1")
    wait_for("no carrier", lambda: "NO-CARRIER" in right.netns.links()["in2"]["flags"])
    node.delete(left).succeeded()
    node.add(again, in1_in2("b")).succeeded()

    def without_a_carrier() -> list[str]:
        ends = (again, "in1"), (right, "in2")
        return [name for pod, name in ends if "NO-CARRIER" in pod.netns.links()[name]["flags"]]

    wait_for("a carrier at both", without_a_carrier, until=lambda names: not names)


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("impair", "a:in7", "--rate", "1mbit"), 1, "a has no link at 'in7': there are in1"),
        (("impair", "a:in1", "--rate", "fast"), 2, "--rate 'fast': allowed is a rate from 8kbit"),
        (("impair", "a:in1", "--jitter", "1ms"), 2, "--jitter needs a --delay"),
        (("set", "a:in1", "--mtu", "1"), 2, "68<=x<=65535"),
        (("reset", "z:in1"), 1, "no labelled pod 'z' on this node"),
    ],
)
def test_what_cannot_be_set_is_said(
    cluster: Cluster, node: Node, arguments: tuple[str, ...], status: int, why: str
) -> None:
    linked(cluster, 0)
    done = ratchetctl("link", *arguments, "--state-dir", node.state_dir)
    assert done.returncode == status
    assert why in done.stderr
