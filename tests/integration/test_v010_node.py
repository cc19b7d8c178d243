"""A node that still runs Ratchet CNI v0.1.0 pairs with ours, in both directions and both orders.

`OldNode` does to etcd and to the kernel what the published v0.1.0 does, and nothing else: plain
PUTs, polling once a second, one link a pair, no bells, no clean-up.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ratchetctl import node as status
from tests.lab.cluster import Cluster
from tests.lab.etcd_server import Etcd
from tests.lab.namespaces import vxlan_of
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary

pytestmark = pytest.mark.root

ROOT = "/ratchet"
TRIES = 60
# The old node looks once a second and then sleeps one; ours looks again by itself, less and less.
TIMEOUT_S = 10.0


class OldNode:
    """What a node with v0.1.0 does when a container of Ratchet is added."""

    def __init__(self, node: Node, etcd: Etcd) -> None:
        self.node = node
        self.etcd = etcd
        # Between the id and the rest: v0.1.0 writes it first, so others see a pod half published.
        self.pause_s = 0.0
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self.errors: list[str] = []

    def add_primary(
        self, pod: Pod, ifname: str, address: str, pair: str, pair_ifname: str, pair_address: str
    ) -> None:
        self._associate(pod)
        vxlanid = self.etcd.get(f"{ROOT}/vxlanid")
        vni = 11 if vxlanid is None else int(vxlanid)
        self.etcd.put(f"{ROOT}/vxlanid", str(vni + 1))
        mine = f"{ROOT}/association/{pair}"
        self.etcd.put(f"{mine}/vxlanid", str(vni))
        self.etcd.put(f"{mine}/pairip", pair_address)
        self.etcd.put(f"{mine}/pairifname", pair_ifname)
        self.etcd.put(f"{mine}/primaryname", pod.name)
        self._start(lambda: self._primary_child(pod, ifname, address, pair, vni))

    def add_pair(self, pod: Pod) -> None:
        self._associate(pod)
        self._start(lambda: self._pair_child(pod))

    def close(self) -> None:
        """Stop the children. Safe to call twice."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _associate(self, pod: Pod) -> None:
        mine = f"{ROOT}/association/{pod.name}"
        self.etcd.put(f"{mine}/id", pod.container_id)
        time.sleep(self.pause_s)
        self.etcd.put(f"{mine}/parentiface", "eth0")
        self.etcd.put(f"{mine}/parentaddr", self.node.address)

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - shown by the test
                self.errors.append(repr(error))

        thread = threading.Thread(target=guarded)
        self._threads.append(thread)
        thread.start()

    def _poll(self, key: str) -> str | None:
        for _ in range(TRIES):
            value = self.etcd.get(key)
            if value is not None:
                return value
            if self._stopped.wait(1):
                break
        return None

    def _primary_child(self, pod: Pod, ifname: str, address: str, pair: str, vni: int) -> None:
        theirs = f"{ROOT}/association/{pair}"
        if self._poll(f"{theirs}/id") is None:
            return
        self._stopped.wait(1)
        assert self.etcd.get(f"{theirs}/parentiface") is not None
        remote = self.etcd.get(f"{theirs}/parentaddr")
        assert remote is not None
        assert remote != self.node.address, "the emulation has no veth"
        self._make_vxlan(pod, ifname, vni, remote, address)

    def _pair_child(self, pod: Pod) -> None:
        mine = f"{ROOT}/association/{pod.name}"
        primary_name = self._poll(f"{mine}/primaryname")
        if primary_name is None:
            return
        vni = self.etcd.get(f"{mine}/vxlanid")
        address = self.etcd.get(f"{mine}/pairip")
        ifname = self.etcd.get(f"{mine}/pairifname")
        assert self.etcd.get(f"{ROOT}/association/{primary_name}/parentiface") is not None
        remote = self.etcd.get(f"{ROOT}/association/{primary_name}/parentaddr")
        assert vni is not None
        assert address is not None
        assert ifname is not None
        assert remote is not None
        self._make_vxlan(pod, ifname, int(vni), remote, address)

    def _make_vxlan(self, pod: Pod, ifname: str, vni: int, remote: str, address: str) -> None:
        """Make the device on the node and move it, as v0.1.0 does."""
        host = self.node.namespace
        made = f"old{vni}"
        host.ip(
            *("link", "add", made, "type", "vxlan", "id", str(vni), "remote", remote),
            *("dev", "eth0", "dstport", "4789"),
        )
        host.ip("link", "set", made, "netns", pod.netns.name, "name", ifname)
        pod.netns.ip("addr", "add", f"{address}/24", "dev", ifname)
        pod.netns.ip("link", "set", ifname, "up")


@pytest.fixture
def old(cluster: Cluster, far: Node) -> Iterator[OldNode]:
    old_node = OldNode(far, cluster.etcd)
    yield old_node
    old_node.close()
    assert old_node.errors == []


def forget(cluster: Cluster, old_pods: list[Pod], *ifnames: str) -> None:
    """Do for the old node's pods what v0.1.0 never did, so that the test leaves nothing.

    Ours has removed every key that is its own before: no value names one of our containers, and no
    VNI is claimed. A bell that was rung for the old node expires by itself.
    """
    ours = [pod.container_id for pod in cluster.pods if pod not in old_pods]
    wait_for(
        "our keys to go",
        lambda: cluster.etcd.keys(ROOT),
        until=lambda keys: not any(container in str(keys) for container in ours),
    )
    cluster.etcd.delete(f"{ROOT}/association")
    cluster.etcd.delete(f"{ROOT}/nodes/{cluster.nodes[1].address}")
    if not cluster.etcd.keys(f"{ROOT}/nodes"):
        cluster.etcd.delete(f"{ROOT}/nodes")
    for pod in old_pods:
        for ifname in ifnames:
            pod.netns.ip("link", "delete", ifname, check=False)


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "old first"])
def test_ours_as_primary_pairs_with_an_old_node(
    cluster: Cluster, node: Node, far: Node, old: OldNode, ours_first: bool
) -> None:
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")
    if ours_first:
        node.add(ours, in1_in2("theirs")).succeeded()
        time.sleep(1.5)
        old.add_pair(theirs)
    else:
        old.add_pair(theirs)
        time.sleep(1.5)
        node.add(ours, in1_in2("theirs")).succeeded()

    in2 = theirs.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    in1 = ours.netns.wait_link("in1", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.101")
    theirs.netns.wait_ping("192.168.2.100")
    assert vxlan_of(in1)["id"] == vxlan_of(in2)["id"] == 11
    assert vxlan_of(in1)["remote"] == far.address
    assert cluster.etcd.get(f"{ROOT}/vxlanid") == "12"
    keys = cluster.etcd.keys(f"{ROOT}/association/theirs")
    assert keys[f"{ROOT}/association/theirs/primaryname"] == "ours"
    assert keys[f"{ROOT}/association/theirs/pairip"] == "192.168.2.101"

    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in1")
    # What the old node wrote is the old node's.
    assert cluster.etcd.get(f"{ROOT}/association/theirs/id") == theirs.container_id
    forget(cluster, [theirs], "in2")


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "old first"])
def test_ours_as_pair_pairs_with_an_old_node(
    cluster: Cluster, node: Node, far: Node, old: OldNode, ours_first: bool
) -> None:
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")

    def add_theirs() -> None:
        old.add_primary(theirs, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")

    if ours_first:
        node.add(ours, PAIR).succeeded()
        time.sleep(1.5)
        add_theirs()
    else:
        add_theirs()
        time.sleep(1.5)
        node.add(ours, PAIR).succeeded()

    in1 = theirs.netns.wait_link("in1", "vxlan", timeout_s=TIMEOUT_S)
    in2 = ours.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.100")
    theirs.netns.wait_ping("192.168.2.101")
    assert vxlan_of(in1)["id"] == vxlan_of(in2)["id"] == 11
    assert vxlan_of(in2)["remote"] == far.address
    assert ours.netns.addresses("in2") == ["192.168.2.101/24"]
    assert "brd 192.168.2.255" in ours.netns.ip("addr", "show", "dev", "in2")

    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in2")
    wait_for(
        "our pod's keys to go",
        lambda: cluster.etcd.get(f"{ROOT}/association/ours/id"),
        until=lambda value: value is None,
    )
    forget(cluster, [theirs], "in1")


@pytest.mark.parametrize("ours_is", ["primary", "pair"])
def test_old_pod_that_is_published_bit_by_bit_is_linked(
    cluster: Cluster, node: Node, old: OldNode, ours_is: str
) -> None:
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")
    old.pause_s = 1.5
    if ours_is == "primary":
        node.add(ours, in1_in2("theirs")).succeeded()
        old.add_pair(theirs)
    else:
        node.add(ours, PAIR).succeeded()
        old.add_primary(theirs, "in2", "192.168.2.101", "ours", "in1", "192.168.2.100")

    theirs.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_link("in1", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.101")
    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in1")
    forget(cluster, [theirs], "in2")


def test_our_pair_comes_again_while_the_old_primary_stays(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    """The old node does nothing a second time: its keys and its end have to be enough."""
    theirs = cluster.pod("theirs")
    old.add_primary(theirs, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")
    for attempt in range(3):
        ours = cluster.pod("ours")
        node.add(ours, PAIR).succeeded()
        ours.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
        if attempt == 0:
            theirs.netns.wait_link("in1", "vxlan", timeout_s=TIMEOUT_S)
        ours.netns.wait_ping("192.168.2.100")
        node.delete(ours).succeeded()
        ours.netns.wait_no_link("in2")
    assert cluster.etcd.get(f"{ROOT}/association/ours/primaryname") == "theirs"
    forget(cluster, [theirs], "in1")


def test_vni_of_an_old_primary_that_is_in_use_here_is_waited_for_patiently(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    """It cannot have another one: v0.1.0 would not follow."""
    node.namespace.ip(
        *("link", "add", "other", "type", "vxlan", "id", "11"),
        *("dstport", "4789", "dev", "eth0", "remote", "192.0.2.1"),
    )
    ours, theirs = cluster.pod("ours"), cluster.pod("theirs")
    node.add(ours, PAIR).succeeded()
    old.add_primary(theirs, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")
    wait_for("the error", lambda: "in use" in str(status.read(node.state_dir)))
    time.sleep(5)  # as long as a namespace takes that is being removed
    before = cluster.etcd.reads()
    time.sleep(2)
    assert cluster.etcd.reads() - before < 40
    node.namespace.ip("link", "delete", "other")
    ours.netns.wait_ping("192.168.2.100")
    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in2")
    forget(cluster, [theirs], "in1")


@pytest.mark.parametrize("theirs_is", ["primary", "pair"])
def test_old_pod_that_comes_again_elsewhere_is_linked_again(
    cluster: Cluster, node: Node, old: OldNode, theirs_is: str
) -> None:
    """Nobody rings for it: it has another address, and as primary another VNI."""
    ours, theirs, again = cluster.pod("ours"), cluster.pod("theirs"), cluster.pod("theirs")
    third = OldNode(cluster.nodes[2], cluster.etcd)

    def add(there: OldNode, pod: Pod) -> None:
        if theirs_is == "primary":
            there.add_primary(pod, "in2", "192.168.2.101", "ours", "in1", "192.168.2.100")
        else:
            there.add_pair(pod)

    node.add(ours, PAIR if theirs_is == "primary" else in1_in2("theirs")).succeeded()
    add(old, theirs)
    theirs.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.101")
    # The kernel does that when the pod goes; v0.1.0 does nothing.
    theirs.netns.ip("link", "delete", "in2")
    add(third, again)

    in2 = again.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.101", timeout_s=20)
    in1 = ours.netns.wait_link("in1", "vxlan")
    assert vxlan_of(in1)["remote"] == third.node.address
    assert vxlan_of(in1)["id"] == vxlan_of(in2)["id"] == (12 if theirs_is == "primary" else 11)

    third.close()
    assert third.errors == []
    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in1")
    forget(cluster, [theirs, again], "in2")


def test_the_first_old_primary_keeps_its_end_beside_a_second_one_until_it_goes(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    """As at a pair on an old node, which has made its end when v0.1.0's words change."""
    ours, one, two = cluster.pod("ours"), cluster.pod("one"), cluster.pod("two")
    node.add(ours, PAIR).succeeded()
    old.add_primary(one, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")
    in2 = ours.netns.wait_link("in2", "vxlan", timeout_s=TIMEOUT_S)
    ours.netns.wait_ping("192.168.2.100")
    old.add_primary(two, "in1", "192.168.2.100", "ours", "in2", "192.168.2.101")

    def told() -> str:
        return str(status.read(node.state_dir))

    wait_for("the second one's error", told, until=lambda text: "already" in text, timeout_s=45)
    os.kill(node.wait_child(), signal.SIGKILL)
    node.check(ours).succeeded()  # has a child run
    wait_for("the error again", told, until=lambda text: "already" in text)
    assert ours.netns.wait_link("in2", "vxlan")["ifindex"] == in2["ifindex"]
    assert vxlan_of(ours.netns.wait_link("in2", "vxlan"))["id"] == 11
    assert ours.netns.pings("192.168.2.100")

    again = cluster.pod("one")
    one.netns.ip("link", "delete", "in1")
    old.add_pair(again)
    wait_for(
        "the second one's link",
        lambda: vxlan_of(ours.netns.wait_link("in2", "vxlan"))["id"],
        until=lambda vni: vni == 12,
        timeout_s=20,
    )
    ours.netns.wait_ping("192.168.2.100")
    node.delete(ours).succeeded()
    ours.netns.wait_no_link("in2")
    forget(cluster, [one, two, again], "in1")


def test_a_link_gets_another_vni_when_an_old_node_has_taken_the_same(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """v0.1.0 reads the counter and writes it later: the link is between two nodes of ours."""
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    cluster.etcd.put(f"{ROOT}/vxlanid", "12")
    cluster.etcd.put(f"{ROOT}/association/stranger/vxlanid", "11")

    wait_for(
        "another VNI at both ends",
        lambda: {
            vxlan_of(left.netns.wait_link("in1", "vxlan"))["id"],
            vxlan_of(right.netns.wait_link("in2", "vxlan"))["id"],
        },
        until=lambda vnis: vnis == {12},
        timeout_s=45,
    )
    left.netns.wait_ping("192.168.2.101")
    cluster.etcd.delete(f"{ROOT}/association/stranger")


def test_vnis_stay_apart_when_old_and_new_nodes_take_turns(
    cluster: Cluster, node: Node, old: OldNode
) -> None:
    ours = [cluster.pod(f"ours{n}") for n in range(4)]
    theirs = [cluster.pod(f"theirs{n}") for n in range(4)]
    for n in range(4):
        one, two = f"10.1.{n}.1", f"10.1.{n}.2"
        if n % 2:
            node.add(ours[n], primary("x", one, f"theirs{n}", "y", two)).succeeded()
            old.add_pair(theirs[n])
        else:
            old.add_primary(theirs[n], "y", two, f"ours{n}", "x", one)
            node.add(ours[n], PAIR).succeeded()
    vnis = set()
    for n in range(4):
        vnis.add(vxlan_of(ours[n].netns.wait_link("x", "vxlan", timeout_s=TIMEOUT_S))["id"])
        theirs[n].netns.wait_link("y", "vxlan", timeout_s=TIMEOUT_S)
        ours[n].netns.wait_ping(f"10.1.{n}.2")
    assert vnis == {11, 12, 13, 14}

    for n in range(4):
        node.delete(ours[n]).succeeded()
    for n in range(4):
        ours[n].netns.wait_no_link("x")
    forget(cluster, theirs, "y")
