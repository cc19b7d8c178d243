"""An end lives as long as its pod: the cable is pulled out and plugged in, the socket stays."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from ratchet_child.model.keys import Published
from ratchetctl import node as reading
from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.namespaces import Namespace, has_carrier, is_up, kind_of, vxlan_of
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

PLACES = [0, 1]
IDS = ["same node", "two nodes"]
FAR_IFNAME = {"a": "in1", "b": "in2"}
ALONE_S = 1.0  # a child that has begun has made by then what the records alone decide
SETTLED_S = 5.0  # by then a link that nobody is going to declare is given up


class Link:
    """A link between a, on the first node, and b; either may go and come."""

    def __init__(self, cluster: Cluster, place: int, labels: dict[str, str] | None = None) -> None:
        self.cluster = cluster
        self.at = {"a": cluster.nodes[0], "b": cluster.nodes[place]}
        self.labels = {"a": labels or in1_in2("b"), "b": PAIR}
        self.pods: dict[str, Pod] = {}
        for name in "ab":
            self.come(name)

    def come(self, name: str, at: Node | None = None) -> Pod:
        self.at[name] = at or self.at[name]
        pod = self.pods[name] = self.cluster.pod(name)
        self.at[name].add(pod, self.labels[name]).succeeded()
        return pod

    def go(self, name: str) -> None:
        self.at[name].delete(self.pods[name]).succeeded()
        self.pods[name].netns.remove()

    def end(self, name: str) -> dict[str, Any]:
        found = self.pods[name].netns.link(FAR_IFNAME[name])
        assert found is not None
        return found

    def works(self) -> None:
        self.pods["a"].netns.wait_ping("192.168.2.101")
        self.pods["b"].netns.wait_ping("192.168.2.100")

    def pulled_out(self, name: str) -> None:
        wait_for("the cable to be out", lambda: not has_carrier(self.end(name)))


def facts(netns: Namespace, ifname: str) -> dict[str, Any]:
    """What a pod's owner cares about of an interface."""
    link = netns.link(ifname)
    assert link is not None
    return {
        "index": link["ifindex"],
        "mac": link["address"],
        "addresses": netns.addresses(ifname),
        "master": link.get("master"),
        "routes": [
            line.replace(" linkdown", "").strip() for line in netns.ip("route").splitlines()
        ],
        "qdisc": netns.command_output("tc", "qdisc", "show", "dev", ifname).split(" refcnt")[0],
    }


@each_of("place", PLACES)
@each_of("gone", ["a", "b"])
def test_the_end_of_the_pod_that_stays_keeps_all_that_it_has(
    cluster: Cluster, place: int, gone: str
) -> None:
    link = Link(cluster, place)
    link.works()
    stays = "b" if gone == "a" else "a"
    netns, ifname = link.pods[stays].netns, FAR_IFNAME[stays]
    netns.ip("route", "add", "10.77.0.0/16", "dev", ifname)
    netns.ip("address", "add", "10.9.9.9/24", "dev", ifname)
    before = facts(netns, ifname)
    for _ in range(2):
        link.go(gone)
        link.pulled_out(stays)
        assert facts(netns, ifname) == before
        link.come(gone)
        link.works()
        assert has_carrier(link.end(stays))
        assert facts(netns, ifname) == before


@each_of("place", PLACES)
def test_an_end_in_a_bridge_stays_in_it(cluster: Cluster, place: int) -> None:
    link = Link(cluster, place)
    link.works()
    netns = link.pods["b"].netns
    netns.ip("link", "add", "br9", "type", "bridge")
    netns.ip("link", "set", "in2", "master", "br9")
    before = facts(netns, "in2")
    link.go("a")
    link.pulled_out("b")
    link.come("a")
    wait_for("the carrier", lambda: has_carrier(link.end("b")))
    assert facts(netns, "in2") == before
    assert before["master"] == "br9"
    netns.ip("link", "delete", "br9")


def test_a_tunnel_follows_its_far_pod_to_another_node_in_place(cluster: Cluster) -> None:
    link = Link(cluster, 1)
    link.works()
    before = link.end("a")
    for number in (2, 1):
        link.go("b")
        link.pulled_out("a")
        link.come("b", cluster.nodes[number])
        link.works()
        after = link.end("a")
        assert after["ifindex"] == before["ifindex"]
        assert vxlan_of(after)["remote"] == cluster.nodes[number].address
        assert vxlan_of(after)["id"] == vxlan_of(before)["id"]


def test_a_primary_that_comes_back_elsewhere_takes_up_its_vni(cluster: Cluster) -> None:
    link = Link(cluster, 1)
    link.works()
    before = link.end("b")
    link.go("a")
    link.pulled_out("b")
    link.come("a", cluster.nodes[2])
    link.works()
    assert link.end("b")["ifindex"] == before["ifindex"]
    assert vxlan_of(link.end("b"))["id"] == vxlan_of(before)["id"]
    assert cluster.etcd.get(f"/ratchet/vni/{vxlan_of(before)['id']}") is not None


@pytest.mark.nodes("fresh")
def test_an_end_stays_when_a_child_comes_back_to_the_record_of_a_pod_that_is_elsewhere_by_now(
    cluster: Cluster,
) -> None:
    link = Link(cluster, 0)
    link.works()
    older = link.pods["a"]
    link.come("a", cluster.nodes[1])  # the DEL of the older one has not come
    link.works()
    before = link.end("b")
    assert kind_of(before) == "vxlan"
    node = link.at["b"]
    cluster.etcd.stop()
    try:
        os.kill(node.wait_child(), signal.SIGKILL)
        node.check(link.pods["b"])
        time.sleep(ALONE_S)
        assert link.end("b")["ifindex"] == before["ifindex"]
    finally:
        cluster.etcd.start()
    link.works()
    assert link.end("b")["ifindex"] == before["ifindex"]
    node.delete(older).succeeded()


@each_of("place", PLACES)
def test_an_end_goes_when_its_link_is_declared_for_another_interface(
    cluster: Cluster, place: int
) -> None:
    link = Link(cluster, place)
    link.works()
    labels = {name: value.replace("in2", "in3") for name, value in link.labels["a"].items()}
    link.at["a"].add(link.pods["a"], labels).succeeded()
    link.pods["b"].netns.wait_no_link("in2")
    link.pods["a"].netns.ip("neigh", "flush", "dev", "in1")  # in3 has another MAC address
    link.works()


@each_of("place", PLACES)
def test_the_far_pod_hears_at_once_that_an_end_has_another_mac_address(
    cluster: Cluster, place: int
) -> None:
    link = Link(cluster, place)
    link.works()
    before = link.end("b")["ifindex"]
    labels = link.labels["a"] | {"ratchet.pair_mac": "02-00-00-00-aa-01"}
    link.at["a"].add(link.pods["a"], labels).succeeded()
    wait_for("the address", lambda: link.end("b")["address"] == "02:00:00:00:aa:01")
    assert link.end("b")["ifindex"] == before
    link.pods["a"].netns.wait_ping("192.168.2.101", timeout_s=3)


@pytest.mark.nodes("fresh")
def test_an_end_waits_for_a_primary_whose_node_takes_long_to_declare_its_links(
    cluster: Cluster,
) -> None:
    """Its node has published the pod and hangs: a child that is stopped, or an etcd without one."""
    link = Link(cluster, 1)
    link.works()
    before = link.end("b")["ifindex"]
    link.go("a")
    link.pulled_out("b")
    stopped = link.at["a"].wait_child()
    os.kill(stopped, signal.SIGSTOP)
    try:
        address = cluster.nodes[0].address
        published = Published("a2", (("b", "in1"),)).dumps()
        words = {"id": "a2", "parentiface": "eth1", "parentaddr": address}
        cluster.etcd.put(f"/ratchet/nodes/{address}/pods/a", published)
        for name, value in words.items():
            cluster.etcd.put(f"/ratchet/association/a/{name}", value)
        link.at["b"].add(link.pods["b"], PAIR).succeeded()
        time.sleep(SETTLED_S)
        assert link.end("b")["ifindex"] == before
        cluster.etcd.put(f"/ratchet/nodes/{address}/pods/a", Published("a2", ()).dumps())
        link.pods["b"].netns.wait_no_link("in2")
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_a_cable_that_changes_its_kind_is_made_anew_and_the_log_says_so(cluster: Cluster) -> None:
    link = Link(cluster, 0)
    link.works()
    link.go("b")
    link.come("b", cluster.nodes[1])
    link.works()
    assert kind_of(link.end("a")) == "vxlan"
    assert 'msg="end made anew"' in cluster.nodes[0].log()


@each_of("place", PLACES)
def test_a_link_that_is_dropped_on_purpose_goes_at_both_ends(cluster: Cluster, place: int) -> None:
    link = Link(cluster, place)
    link.works()
    labels = {"ratchet": "true"}
    link.at["a"].add(link.pods["a"], labels).succeeded()
    link.pods["a"].netns.wait_no_link("in1")
    link.pods["b"].netns.wait_no_link("in2")


@each_of("place", PLACES)
def test_a_primary_that_comes_back_with_other_links_takes_its_old_one_away(
    cluster: Cluster, place: int
) -> None:
    link = Link(cluster, place)
    link.works()
    link.go("a")
    link.pulled_out("b")
    link.labels["a"] = {"ratchet": "true"}
    link.come("a")
    link.pods["b"].netns.wait_no_link("in2")


def test_an_end_survives_a_namespace_that_goes_without_a_del(cluster: Cluster, node: Node) -> None:
    link = Link(cluster, 0)
    link.works()
    before = link.end("b")["ifindex"]
    link.pods["a"].netns.remove()
    wait_for("it to be noticed", lambda: "gone without a DEL" in node.log())
    link.pulled_out("b")
    node.delete(link.pods["a"], environ={"CNI_NETNS": ""}).succeeded()
    link.come("a")
    link.works()
    assert link.end("b")["ifindex"] == before


@pytest.mark.nodes("fresh")
def test_an_end_survives_a_child_that_dies_while_its_peer_is_away(
    cluster: Cluster, node: Node
) -> None:
    link = Link(cluster, 0)
    link.works()
    before = link.end("b")["ifindex"]
    link.go("a")
    link.pulled_out("b")
    os.kill(node.wait_child(), signal.SIGKILL)
    link.come("a")
    link.works()
    assert link.end("b")["ifindex"] == before


@pytest.mark.nodes("fresh")
def test_an_end_is_its_pods_own_to_each_child_that_comes(cluster: Cluster, node: Node) -> None:
    link = Link(cluster, 0)
    link.works()
    before = link.end("b")["ifindex"]
    for _ in range(3):
        os.kill(node.wait_child(), signal.SIGKILL)
        node.check(link.pods["a"]).succeeded()
    assert [one.by_pod for pod in reading.read(node.state_dir).pods for one in pod.links] == [
        None,
        None,
    ]
    link.go("a")
    link.pulled_out("b")
    link.come("a")
    link.works()
    assert link.end("b")["ifindex"] == before


@pytest.mark.nodes("fresh")
def test_an_end_survives_a_child_that_dies_before_the_del_of_its_pods_older_container(
    cluster: Cluster, node: Node
) -> None:
    """The leg was moved out of that one's namespace, which therefore knows the newer one's."""
    link = Link(cluster, 0)
    link.works()
    older = link.pods["a"]
    link.come("a")
    link.works()
    before = {name: link.end(name)["ifindex"] for name in "ab"}
    os.kill(node.wait_child(), signal.SIGKILL)
    node.check(link.pods["a"]).succeeded()
    node.delete(older).succeeded()
    wait_for("the older one's record to go", lambda: len(node.records()) == 2)
    assert {name: link.end(name)["ifindex"] for name in "ab"} == before
    link.works()


def test_an_end_survives_a_del_that_is_tried_again(cluster: Cluster, node: Node) -> None:
    link = Link(cluster, 0)
    link.works()
    before = link.end("b")["ifindex"]
    cluster.etcd.stop()
    node.delete(link.pods["a"]).succeeded()  # what is to go from etcd is tried again and again
    link.pulled_out("b")
    time.sleep(1)
    link.pods["a"].netns.remove()
    cluster.etcd.start()
    link.come("a")
    link.works()
    assert link.end("b")["ifindex"] == before


# A container that lives on after its DEL: podman's network disconnect, connect and reload.


@pytest.mark.nodes("fresh")
def test_a_container_that_lives_on_loses_its_end_for_good(cluster: Cluster, node: Node) -> None:
    link = Link(cluster, 0)
    link.works()
    before = link.end("b")["ifindex"]
    alive = link.pods["a"]
    node.delete(alive).succeeded()
    alive.netns.wait_no_link("in1")
    assert alive.netns.names() == {"lo"}
    assert link.pods["b"].netns.wait_no_carrier("in2")["ifindex"] == before
    os.kill(node.wait_child(), signal.SIGKILL)
    node.add(alive, link.labels["a"]).succeeded()
    link.works()
    assert link.end("b")["ifindex"] == before
    # The leg waits elsewhere for whoever comes with that name.
    node.delete(alive).succeeded()
    alive.netns.wait_no_link("in1")
    link.come("a")
    link.works()
    assert link.end("b")["ifindex"] == before


def test_a_container_that_is_detached_and_attached_at_once_is_linked_again(
    cluster: Cluster, node: Node
) -> None:
    link = Link(cluster, 0)
    link.works()
    before = link.end("b")["ifindex"]
    for _ in range(2):
        node.delete(link.pods["a"]).succeeded()
        node.add(link.pods["a"], link.labels["a"]).succeeded()
        link.works()
    time.sleep(5)  # until somebody has looked whether it lives on
    link.works()
    link.go("a")
    link.pulled_out("b")
    link.come("a")
    link.works()
    assert link.end("b")["ifindex"] == before


# What the pod does is the pod's -----------------------------------------------------------------


@each_of("place", PLACES)
def test_an_end_that_the_pod_sets_down_stays_down(cluster: Cluster, node: Node, place: int) -> None:
    link = Link(cluster, place)
    link.works()
    netns = link.pods["a"].netns
    netns.ip("link", "set", "in1", "down")
    node.check(link.pods["a"]).succeeded()
    link.go("b")
    link.come("b")
    node.check(link.pods["a"]).succeeded()
    assert not is_up(link.end("a"))
    (shown,) = reading.read(node.state_dir).pods[0].links
    assert (shown.state, shown.by_pod) == ("up", "down")
    netns.ip("link", "set", "in1", "up")
    link.works()


@pytest.mark.nodes("fresh")
@each_of("place", PLACES)
def test_an_end_that_the_pod_renames_is_the_same_end(
    cluster: Cluster, node: Node, place: int
) -> None:
    link = Link(cluster, place)
    link.works()
    netns = link.pods["a"].netns
    index = link.end("a")["ifindex"]
    netns.ip("link", "set", "in1", "name", "up1")  # also while it is up
    link.go("b")
    wait_for("the cable to be out", lambda: not has_carrier(netns.link("up1")))
    link.come("b")
    netns.wait_ping("192.168.2.101")
    assert netns.link("in1") is None
    renamed = netns.link("up1")
    assert renamed is not None
    assert renamed["ifindex"] == index
    os.kill(node.wait_child(), signal.SIGKILL)
    node.check(link.pods["a"]).succeeded()
    netns.wait_ping("192.168.2.101")
    assert netns.link("in1") is None


@each_of("place", PLACES)
def test_an_end_that_the_pod_moves_away_is_left_alone(
    cluster: Cluster, node: Node, place: int
) -> None:
    link = Link(cluster, place)
    link.works()
    inner = cluster.pod("inner").netns
    link.pods["a"].netns.ip("link", "set", "in1", "netns", inner.name)
    wait_for("it to be noticed", lambda: "the pod has moved an end" in node.log())
    inner.ip("address", "add", "192.168.2.100/24", "dev", "in1")
    inner.ip("link", "set", "in1", "up")
    inner.wait_ping("192.168.2.101")
    node.check(link.pods["a"]).succeeded()
    assert link.pods["a"].netns.link("in1") is None
    link.go("b")
    link.come("b")
    inner.wait_ping("192.168.2.101")
    link.go("a")
    inner.wait_no_link("in1")


@pytest.mark.nodes("fresh")
@each_of("place", PLACES)
@each_of("moved", ["before", "afterwards"])
def test_an_end_that_was_moved_is_known_to_the_next_child(
    cluster: Cluster, node: Node, place: int, moved: str
) -> None:
    link = Link(cluster, place)
    link.works()
    inner, pod = cluster.pod("inner").netns, link.pods["a"]

    def move() -> None:
        pod.netns.ip("link", "set", "in1", "netns", inner.name)
        inner.ip("address", "add", "192.168.2.100/24", "dev", "in1")
        inner.ip("link", "set", "in1", "up")

    if moved == "before":
        move()
    os.kill(node.wait_child(), signal.SIGKILL)
    if moved == "afterwards":
        move()
    node.check(pod).succeeded()
    inner.wait_ping("192.168.2.101")
    assert pod.netns.link("in1") is None
    if place == 0:  # what is in another namespace cannot be given another far node
        link.go("b")
        link.come("b")
        inner.wait_ping("192.168.2.101")
    link.go("a")
    inner.wait_no_link("in1")


@each_of("place", PLACES)
def test_an_end_that_goes_where_the_pod_has_moved_it_is_made_again(
    cluster: Cluster, place: int
) -> None:
    link = Link(cluster, place)
    link.works()
    inner = cluster.pod("inner").netns
    link.pods["a"].netns.ip("link", "set", "in1", "netns", inner.name)
    inner.wait_link("in1")
    inner.remove()
    link.works()


@each_of("place", PLACES)
def test_an_end_that_the_pod_deletes_is_made_again(cluster: Cluster, place: int) -> None:
    link = Link(cluster, place)
    link.works()
    link.pods["a"].netns.ip("link", "delete", "in1")
    link.works()


V6 = {
    **in1_in2("b"),
    "ratchet.local_ip": "fd00:9::1/64",
    "ratchet.pair_ip": "fd00:9::2/64",
}


@each_of("place", PLACES)
def test_an_ipv6_address_outlives_a_flap(cluster: Cluster, place: int) -> None:
    link = Link(cluster, place, V6)
    netns = link.pods["b"].netns
    netns.wait_ping("fd00:9::1")
    netns.batch("link set in2 down\nlink set in2 up\n")
    netns.wait_ping("fd00:9::1")
    assert "fd00:9::2/64" in netns.addresses("in2")


def test_a_pod_without_ipv6_gets_it_on_the_end_that_has_an_ipv6_address(
    cluster: Cluster, node: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    right.netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
    node.add(left, V6).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("fd00:9::2")


def test_an_end_of_pods_with_the_longest_names_stays_as_well(cluster: Cluster, node: Node) -> None:
    """Their link does not fit into an interface's alias."""
    names = ["a" * 230, "b" * 230]
    left, right = map(cluster.pod, names)
    node.add(left, in1_in2(names[1])).succeeded()
    node.add(right, PAIR).succeeded()
    right.netns.wait_ping("192.168.2.100")
    before = (right.netns.link("in2") or {})["ifindex"]
    node.delete(left).succeeded()
    left.netns.remove()
    wait_for("the cable to be out", lambda: not has_carrier(right.netns.link("in2")))
    again = cluster.pod(names[0])
    node.add(again, in1_in2(names[1])).succeeded()
    right.netns.wait_ping("192.168.2.100")
    assert (right.netns.link("in2") or {})["ifindex"] == before
