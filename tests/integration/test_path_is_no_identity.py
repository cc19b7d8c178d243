"""What stands at an attachment's path may be another's by now: the node's own, another tenant's.

With docker, cri-dockerd and nerdctl CNI_NETNS is /proc/<pid>/ns/net, and process IDs are used
again. A symbolic link stands for that here: it leads elsewhere from one moment to the next.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.lab.cluster import Cluster
from tests.lab.namespaces import Namespace
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, Node, in1_in2, primary

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

GONE = "the network namespace is gone without a DEL"


class Attacked:
    """A pod whose path leads elsewhere, and a witness of another tenant with a link."""

    def __init__(self, cluster: Cluster, node: Node, folder: Path) -> None:
        folder.chmod(0o755)
        self.node = node
        self.path = folder / "net"
        self.pod, self.pair = cluster.pod("a", "red"), cluster.pod("b", "red")
        self.witness, self.other = cluster.pod("w", "blue"), cluster.pod("o", "blue")
        labels = primary("w1", "10.7.0.1", "o", "w2", "10.7.0.2")
        node.add(self.witness, labels).succeeded()
        node.add(self.other, PAIR).succeeded()
        self.witness.netns.wait_ping("10.7.0.2")
        self.lead_to(self.pod.netns)
        self.environ = {"CNI_NETNS": str(self.path)}

    def lead_to(self, namespace: Namespace) -> None:
        temporary = self.path.with_name("new")
        temporary.symlink_to(namespace.path)
        temporary.rename(self.path)

    def attach(self) -> None:
        self.node.add(self.pod, in1_in2("b"), environ=self.environ).succeeded()
        self.node.add(self.pair, PAIR).succeeded()
        self.pod.netns.wait_ping("192.168.2.101")

    def seen(self) -> dict[str, object]:
        """Return what the attacker must not change: interfaces, addresses and routes."""
        return {
            space.name: [
                sorted(space.names()),
                json.loads(space.ip("-j", "address", "show", "dev", "lo"))[0]["flags"],
                space.ip("route"),
            ]
            for space in (self.node.namespace, self.witness.netns, self.other.netns)
        }


def spaces(attacked: Attacked) -> dict[str, Namespace]:
    return {"node": attacked.node.namespace, "tenant": attacked.witness.netns}


@pytest.mark.nodes("fresh")
@pytest.mark.parametrize("restart", [False, True], ids=["while it runs", "after a restart"])
@pytest.mark.parametrize("whose", ["node", "tenant"])
def test_a_path_that_leads_elsewhere_changes_nothing_there(
    cluster: Cluster, node: Node, tmp_path: Path, whose: str, restart: bool
) -> None:
    attacked = Attacked(cluster, node, tmp_path)
    attacked.attach()
    before = attacked.seen()
    if restart:
        node.kill_all()
    attacked.lead_to(spaces(attacked)[whose])
    if restart:
        node.check(attacked.witness).succeeded()  # starts the child again
    wait_for("the namespace to be missed", lambda: GONE in node.log())
    hold_for("nothing to change", lambda: attacked.seen() == before, duration_s=1)
    # The DEL that comes at last has the old path as well.
    node.delete(attacked.pod, environ=attacked.environ).succeeded()
    wait_for("the record to go", lambda: len(node.records()) == 3)
    assert attacked.seen() == before
    assert attacked.witness.netns.pings("10.7.0.2")
    attacked.lead_to(attacked.pod.netns)


@pytest.mark.nodes("fresh")
def test_a_record_that_names_the_nodes_own_namespace_is_not_obeyed(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    """As one is that an earlier version has written, without the identity of the namespace."""
    attacked = Attacked(cluster, node, tmp_path)
    attacked.attach()
    before = attacked.seen()
    node.kill_all()
    record = Path(node.state_dir, "attachments", f"{attacked.pod.container_id}.eth0.json")
    found = json.loads(record.read_text())
    del found["netns_identity"]
    record.write_text(json.dumps(found))
    attacked.lead_to(node.namespace)
    node.check(attacked.witness).succeeded()
    wait_for("the namespace to be missed", lambda: GONE in node.log())
    assert attacked.seen() == before
    attacked.lead_to(attacked.pod.netns)
    node.delete(attacked.pod, environ=attacked.environ).succeeded()


@pytest.mark.nodes("fresh")
def test_a_record_of_an_earlier_version_keeps_its_links(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    attacked = Attacked(cluster, node, tmp_path)
    attacked.attach()
    for name in node.records():
        record = Path(node.state_dir, "attachments", name)
        found = json.loads(record.read_text())
        del found["netns_identity"]
        record.write_text(json.dumps(found))
    with attacked.pod.netns.watch("in1") as watch:
        os.kill(node.wait_child(), signal.SIGKILL)
        node.check(attacked.pod, environ=attacked.environ).succeeded()
        assert attacked.pod.netns.pings("192.168.2.101")
        assert watch.flaps() == []


def test_an_add_into_the_nodes_own_namespace_is_refused_with_a_reason(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    attacked = Attacked(cluster, node, tmp_path)
    before = attacked.seen()
    attacked.lead_to(node.namespace)
    outcome = node.add(attacked.pod, in1_in2("b"), environ=attacked.environ)
    assert outcome.error["code"] == 4
    assert f"CNI_NETNS is '{attacked.path}', the node's own namespace" in outcome.error_text
    assert attacked.seen() == before
    assert len(node.records()) == 2
    node.attachments.pop((attacked.pod.container_id, "eth0"))


def test_a_number_that_stands_for_another_namespace_by_now_removes_nothing_there(
    cluster: Cluster, node: Node
) -> None:
    """A pod moves an end into a namespace of its own, whose number the kernel gives out again."""
    left, right, bystander = (cluster.pod(name) for name in "abc")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    inner = cluster.pod("inner").netns
    left.netns.ip("netns", "set", inner.name, "7")
    left.netns.ip("link", "set", "in1", "netns", inner.name)
    wait_for("it to be noticed", lambda: "the pod has moved an end" in node.log())
    index = inner.links()["in1"]["ifindex"]
    inner.remove()
    wait_for("the number to be free", lambda: "nsid 7" not in left.netns.ip("netns", "list-id"))
    left.netns.ip("netns", "set", bystander.netns.name, "7")
    bystander.netns.ip("link", "add", "own", "index", str(index), "type", "bridge")
    node.delete(left).succeeded()
    wait_for("the record to go", lambda: len(node.records()) == 1)
    assert bystander.netns.links()["own"]["ifindex"] == index
    bystander.netns.ip("link", "delete", "own")
