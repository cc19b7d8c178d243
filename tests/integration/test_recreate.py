"""Pods that are deleted and come again, here or elsewhere: their links come back, others stay."""

from __future__ import annotations

import contextlib
import os
import random
import secrets

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.namespaces import LinkWatch
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

PLACES = [pytest.param(0, id="same node"), pytest.param(1, id="two nodes")]


class Chain:
    """Four pods d - a - b - c: a and b are re-created, d and c bear witness."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.pods: dict[str, Pod] = {}
        self.places: dict[str, Node] = {}
        self.labels = {
            "a": primary("ab", "10.1.1.1", "b", "ba", "10.1.1.2"),
            "b": primary("bc", "10.1.2.1", "c", "cb", "10.1.2.2"),
            "c": PAIR,
            "d": primary("da", "10.1.3.1", "a", "ad", "10.1.3.2"),
        }

    def create(self, name: str, node: Node) -> None:
        self.pods[name], self.places[name] = self.cluster.pod(name), node
        node.add(self.pods[name], self.labels[name]).succeeded()

    def wait_all(self) -> None:
        a, b = self.pods["a"].netns, self.pods["b"].netns
        a.wait_ping("10.1.1.2")
        b.wait_ping("10.1.1.1")
        b.wait_ping("10.1.2.2")
        a.wait_ping("10.1.3.1")

    def index(self, name: str, ifname: str) -> int:
        link = self.pods[name].netns.link(ifname)
        assert link is not None
        return int(link["ifindex"])

    def watches(self, name: str) -> list[LinkWatch]:
        """Return watches on the link that has nothing to do with the pod `name`."""
        if name == "a":
            return [self.pods["b"].netns.watch("bc"), self.pods["c"].netns.watch("cb")]
        return [self.pods["a"].netns.watch("ad"), self.pods["d"].netns.watch("da")]


@pytest.mark.slow
def test_link_is_back_each_of_20_times_and_other_links_never_flap(cluster: Cluster) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    chain = Chain(cluster)
    nodes = cluster.nodes[:2]
    chain.create("d", nodes[0])
    chain.create("c", nodes[1])
    chain.create("a", nodes[0])
    chain.create("b", nodes[1])
    chain.wait_all()

    for attempt in range(20):
        name, node = dice.choice("ab"), dice.choice(nodes)
        gone, was_at = chain.pods[name], chain.places[name]
        step = f"seed {seed}, attempt {attempt + 1}: {name} to node {node.number}"
        with contextlib.ExitStack() as stack:
            watches = [stack.enter_context(watch) for watch in chain.watches(name)]
            if dice.random() < 0.5:
                # A container that died by itself: its namespace is gone before DEL.
                gone.netns.remove()
            late = dice.random() < 0.3
            if not late:
                was_at.delete(gone).succeeded()
            chain.create(name, node)
            if late:
                was_at.delete(gone).succeeded()
            try:
                chain.wait_all()
            except AssertionError as error:
                raise AssertionError(f"{step}: {error}") from error
            flaps = [flap for watch in watches for flap in watch.flaps()]
            assert flaps == [], step
        # A runtime repeats DEL, up to a minute late and with an empty namespace.
        if dice.random() < 0.5:
            before = chain.index("a", "ab")
            was_at.delete(gone, environ={"CNI_NETNS": ""}).succeeded()
            # That the old one has gone may only now be heard of: the cable is out for a moment.
            chain.pods["a"].netns.wait_ping("10.1.1.2")
            assert chain.index("a", "ab") == before, step
        gone.netns.remove()


@pytest.mark.nodes("fresh")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("first", ["a", "b"])
def test_nothing_but_vxlanid_is_left_when_both_pods_are_gone(
    cluster: Cluster, node: Node, place: int, first: str
) -> None:
    other = cluster.nodes[place]
    pods = {"a": (node, cluster.pod("a")), "b": (other, cluster.pod("b"))}
    node.add(pods["a"][1], in1_in2("b")).succeeded()
    other.add(pods["b"][1], PAIR).succeeded()
    pods["a"][1].netns.wait_ping("192.168.2.101")

    for name in (first, "b" if first == "a" else "a"):
        at, pod = pods[name]
        at.delete(pod).succeeded()
    for _, pod in pods.values():
        pod.netns.wait_no_link("in1")
        pod.netns.wait_no_link("in2")
        assert pod.netns.names() == {"lo"}
    for at in (node, other):
        wait_for("the records to go", at.records, until=lambda records: not records)
    wait_for(
        "the keys to go",
        cluster.etcd.tree,
        until=lambda tree: set(tree) <= {"/ratchet/", "/ratchet/vxlanid"},
    )
    if place:
        assert cluster.etcd.get("/ratchet/vxlanid") == "12"


@each_of("place", PLACES)
def test_late_del_of_an_old_container_never_harms_the_new_one(
    cluster: Cluster, node: Node, place: int
) -> None:
    other = cluster.nodes[place]
    old, right = cluster.pod("a"), cluster.pod("b")
    node.add(old, in1_in2("b")).succeeded()
    other.add(right, PAIR).succeeded()
    old.netns.wait_ping("192.168.2.101")

    # The sandbox crashed; the runtime makes a new one before it takes the old one away.
    old.netns.remove()
    new = cluster.pod("a")
    node.add(new, in1_in2("b")).succeeded()
    new.netns.wait_ping("192.168.2.101")
    with new.netns.watch("in1") as in1, right.netns.watch("in2") as in2:
        for environ in ({}, {"CNI_NETNS": ""}, {"CNI_NETNS": ""}):
            node.delete(old, environ=environ).succeeded()
        wait_for(
            "the record of the old container to go",
            node.records,
            until=lambda records: not any(old.container_id in name for name in records),
        )
        assert in1.flaps() == []
        assert in2.flaps() == []
    assert new.netns.pings("192.168.2.101")
    assert cluster.etcd.get("/ratchet/association/a/id") == new.container_id


def test_link_changes_its_kind_when_the_far_pod_moves(cluster: Cluster, node: Node) -> None:
    left = cluster.pod("a")
    node.add(left, in1_in2("b")).succeeded()
    for number, kind in ((1, "vxlan"), (0, "veth"), (2, "vxlan"), (1, "vxlan")):
        at, right = cluster.nodes[number], cluster.pod("b")
        at.add(right, PAIR).succeeded()
        left.netns.wait_link("in1", kind)
        left.netns.wait_ping("192.168.2.101")
        right.netns.wait_ping("192.168.2.100")
        at.delete(right).succeeded()
        right.netns.remove()


@pytest.mark.nodes("fresh")
@pytest.mark.parametrize("place", PLACES)
def test_a_pod_whose_del_never_comes_is_found_by_the_child(cluster: Cluster, place: int) -> None:
    """As after a runtime that has lost its state, and a namespace that went with the machine's."""
    node, far = cluster.nodes[0], cluster.nodes[place]
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), boot_network=node.bridge_config()).succeeded()
    far.add(right, PAIR).succeeded()
    right.netns.wait_ping("192.168.2.100")
    left.netns.remove()
    wait_for(
        "the record to go",
        lambda: [name for name in node.records() if left.container_id in name],
        until=lambda found: not found,
        timeout_s=25,
    )
    wait_for(
        "the pod's keys to go",
        # What stays for a while reserves the VNI for the link: its claim and its declaration.
        lambda: [
            key
            for key, value in cluster.etcd.keys().items()
            if left.container_id in (value or "")
            and "/vni/" not in key
            and '"gone":true' not in (value or "")
        ],
        until=lambda found: not found,
    )
    assert "no DEL has come" in node.log()
    # The address is still taken: a DEL that comes late, or a GC, gives it back.
    owed = f"{node.state_dir}/boot/{left.container_id}.eth0.json"
    assert os.path.exists(owed)
    environ = {"CNI_NETNS": ""}
    node.delete(left, environ=environ).succeeded()
    assert not os.path.exists(owed)
