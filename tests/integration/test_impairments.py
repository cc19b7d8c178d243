"""`ratchet.<n>.rate`, `delay` and the like: what each end of a link does to the frames it sends."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from ratchet_child.kernel.devices import RTM_GETLINK, Devices
from ratchet_child.kernel.netns import Namespaces, Netlink
from ratchet_child.kernel.rtnetlink import MARK
from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.namespaces import Namespace as LabNamespace
from tests.lab.namespaces import random_name
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]


def disciplines(pod: Pod, ifname: str) -> list[dict[str, Any]]:
    """Return an interface's queueing disciplines, but for those that the kernel puts by itself."""
    text = pod.netns.command_output("tc", "-j", "qdisc", "show", "dev", ifname)
    return [one for one in json.loads(text) if one["handle"] != "0:"]


def rates(*ends: tuple[Pod, str]) -> list[int | None]:
    """Return the rate of each end, in bits a second; None for an end without one."""
    found = [disciplines(pod, ifname) for pod, ifname in ends]
    return [each[0]["options"]["rate"] * 8 if each else None for each in found]


def linked(node: Node, far: Node, left: Pod, right: Pod, **more: str) -> None:
    labels = {**in1_in2("b"), **{f"ratchet.{name}": value for name, value in more.items()}}
    node.add(left, labels).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")


@each_of("place", [0, 1])
def test_both_ends_have_the_rate_of_the_link(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    linked(node, cluster.nodes[place], left, right, rate="20mbit")
    assert rates((left, "in1"), (right, "in2")) == [20_000_000, 20_000_000]
    node.check(left).succeeded()


def test_an_end_may_have_a_rate_of_its_own(cluster: Cluster, node: Node, far: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    linked(node, far, left, right, rate="20mbit", pair_rate="5mbit", local_mac="02-00-00-00-aa-01")
    assert rates((left, "in1"), (right, "in2")) == [20_000_000, 5_000_000]
    link = left.netns.link("in1")
    assert link is not None
    assert link["address"] == "02:00:00:00:aa:01"


def test_a_rate_holds_frames_back(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    linked(node, node, left, right, local_rate="80kbit")
    ping = ("ping", "-c", "12", "-i", "0.01", "-s", "1400", "-W", "5", "192.168.2.101")
    last = left.netns.command_output(*ping).rpartition("=")[2]
    slowest_ms = float(last.split("/")[2])
    assert slowest_ms > 200  # 80 kbit/s are a frame in 144 ms, and the bucket holds two


@each_of("place", [0, 1])
def test_a_rate_that_changes_is_changed_on_the_interface_that_is_there(
    cluster: Cluster, node: Node, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    linked(node, cluster.nodes[place], left, right, rate="20mbit")
    before = left.netns.link("in1")
    node.add(left, {**in1_in2("b"), "ratchet.rate": "30mbit"}).succeeded()
    ends = (left, "in1"), (right, "in2")
    wait_for("the rates", lambda: rates(*ends) == [30_000_000, 30_000_000])
    node.add(left, in1_in2("b")).succeeded()
    wait_for("no rates", lambda: rates(*ends) == [None, None])
    after = left.netns.link("in1")
    assert before is not None
    assert after is not None
    assert before["ifindex"] == after["ifindex"]


@pytest.mark.nodes("fresh")
def test_a_rate_goes_although_the_child_was_killed_meanwhile(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    linked(node, node, left, right, rate="20mbit")
    os.kill(node.wait_child(), signal.SIGKILL)
    node.add(left, in1_in2("b")).succeeded()
    wait_for("no rates", lambda: rates((left, "in1"), (right, "in2")) == [None, None])


def test_a_discipline_of_the_pods_own_stays_and_is_named(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    linked(node, node, left, right)
    own = ("root", "handle", "1:", "pfifo", "limit", "77")
    left.netns.command_output("tc", "qdisc", "add", "dev", "in1", *own)
    node.add(left, {**in1_in2("b"), "ratchet.rate": "20mbit"}).succeeded()
    wait_for("the other end", lambda: rates((right, "in2")) == [20_000_000])
    wait_for("the fault", lambda: "a queueing discipline of its own" in node.log())
    assert [one["kind"] for one in disciplines(left, "in1")] == ["pfifo"]
    node.add(left, in1_in2("b")).succeeded()
    wait_for("the other end", lambda: rates((right, "in2")) == [None])
    assert [one["kind"] for one in disciplines(left, "in1")] == ["pfifo"]


@each_of("place", [0, 1])
def test_a_pod_that_comes_back_has_its_rate_again(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    far = cluster.nodes[place]
    linked(node, far, left, right, rate="20mbit")
    far.delete(right).succeeded()
    right.netns.remove()
    again = cluster.pod("b")
    far.add(again, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    assert rates((left, "in1"), (again, "in2")) == [20_000_000, 20_000_000]


class Vanishing(Netlink):
    """The interface goes when the kernel has told of it, and before it tells of the rest."""

    def __init__(self, netns: LabNamespace) -> None:
        super().__init__()
        self._netns = netns

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        found = super()._ask(kind, flags, body)
        if kind == RTM_GETLINK:
            self._netns.ip("link", "del", "slow", check=False)
        return found


def test_a_slow_interface_may_go_while_it_is_looked_at() -> None:
    netns = LabNamespace(random_name("slow"))
    netns.create()
    devices = Devices()
    try:
        netns.batch(f"link add slow type veth peer name far\nlink set slow group {MARK}\n")
        own = ("root", "handle", "7262:", "tbf", "rate", "1mbit", "burst", "16kb", "latency", "1ms")
        netns.command_output("tc", "qdisc", "add", "dev", "slow", *own)
        opened = Namespaces().open(f"/run/netns/{netns.name}", None)
        assert devices.find(opened, "slow") is not None
        opened.netlink.close()
        opened.netlink = netns.do(lambda: Vanishing(netns))
        found = devices.find(opened, "slow")
        assert found is not None
        assert (found.addresses, found.impairment) == (frozenset(), None)
        assert devices.find(opened, "slow") is None
        opened.close()
    finally:
        devices.close()
        netns.remove()


def knows_netem(pod: Pod) -> bool:
    add = pod.netns.command("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    return os.spawnvp(os.P_WAIT, add[0], add) == 0


@pytest.mark.nodes("fresh")
def test_a_delay_is_there_or_the_fault_of_a_link_that_is_up(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    linked(node, node, left, right, rate="20mbit", local_delay="30ms", local_loss="0.5")
    node.check(left).succeeded()
    if knows_netem(left):
        assert [one["kind"] for one in disciplines(left, "in1")] == ["tbf", "netem"]
        replies = left.netns.command_output("ping", "-c1", "-n", "192.168.2.101")
        assert float(replies.partition("time=")[2].split()[0]) >= 30
        return
    why = "delay 30ms, loss 0.5%: this node's kernel has no queueing discipline netem"
    wait_for("the fault", lambda: why in node.log())
    assert node.log().count("the kernel refuses a property of a link") == 1
    assert rates((left, "in1"), (right, "in2")) == [20_000_000, 20_000_000]
    # A child that comes later finds the rate, and tells the fault again.
    os.kill(node.wait_child(), signal.SIGKILL)
    node.check(left).succeeded()
    assert node.log().count("the kernel refuses a property of a link") == 2
    assert rates((left, "in1")) == [20_000_000]
