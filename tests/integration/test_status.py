"""`ratchetctl status` tells what is there, while it happens and when it is over."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from ratchet.status import LinkStatus
from ratchetctl import node as reading
from ratchetctl.status import exit_status
from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2, primary, request_config
from tests.lab.simulation import ratchetctl

pytestmark = pytest.mark.root

WELL, FAILED, WAITS, WRONG = 0, 1, 3, 4


def code(node: Node) -> int:
    """The command's exit status, without the time that its start takes."""
    return exit_status(reading.read(node.state_dir))


def pods(node: Node) -> dict[str, reading.Pod]:
    return {pod.container_id: pod for pod in reading.read(node.state_dir).pods}


def link(node: Node, name: str, ifname: str) -> LinkStatus:
    found = [pod for pod in pods(node).values() if pod.name == name]
    return next(link for pod in found for link in pod.links if link.ifname == ifname)


def wait_up(node: Node, name: str, ifname: str) -> LinkStatus:
    return wait_for(
        f"{ifname} of {name}",
        lambda: link(node, name, ifname),
        until=lambda one: one.state == "up",
    )


def test_links_of_both_kinds_and_one_that_waits(cluster: Cluster, node: Node, far: Node) -> None:
    left, near, away = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    node.add(left, {**in1_in2("b"), **primary("in3", None, "c", "in4", None, 2)}).succeeded()
    assert code(node) == WAITS
    waiting = link(node, "a", "in3")
    assert waiting.state == "waiting"

    node.add(near, PAIR).succeeded()
    far.add(away, PAIR).succeeded()
    wait_for("all to be up", lambda: code(node), until=lambda seen: seen == WELL)
    one, two, other = link(node, "a", "in1"), link(node, "a", "in3"), link(far, "c", "in4")
    assert (one.kind, one.address, one.peer, one.peer_ifname, one.peer_node, one.primary) == (
        *("veth", "192.168.2.100/24", "b", "in2", node.address, True),
    )
    assert (two.kind, two.address, two.peer, two.peer_ifname, two.peer_node, two.primary) == (
        *("vxlan", None, "c", "in4", far.address, True),
    )
    assert (other.vni, other.primary, other.peer_node) == (two.vni, False, node.address)
    assert waiting.since is not None
    assert two.since is not None
    assert left_at(node, left.container_id) <= waiting.since < two.since
    # Asking does not make it younger.
    assert link(node, "a", "in3") == two

    done = ratchetctl("status", "--state-dir", node.state_dir, "-o", "json", "a")
    assert (done.returncode, done.stderr) == (WELL, "")
    found = json.loads(done.stdout)
    assert (found["node"], found["etcd"]["state"]) == (node.address, "reachable")
    assert [one["ifname"] for one in found["pods"][0]["links"]] == ["in1", "in3"]


def left_at(node: Node, container: str) -> float:
    at = pods(node)[container].attached_at
    assert at is not None
    return at


def test_refused_link_and_that_it_was_refused(cluster: Cluster, node: Node) -> None:
    """Two primaries want one interface of b: the second is told, also after the first has gone."""
    first, second, pair = cluster.pod("a"), cluster.pod("c"), cluster.pod("b")
    for pod, labels in ((first, in1_in2("b")), (pair, PAIR), (second, in1_in2("b"))):
        node.add(pod, labels).succeeded()
    assert code(node) == WRONG
    assert pods(node)[second.container_id].state == "error"
    refused = link(node, "c", "in1")
    assert refused.error is not None
    assert "in2" in refused.error

    node.delete(first).succeeded()
    again = wait_up(node, "c", "in1")
    assert (again.error, again.last_error) == (None, refused.error)
    assert again.last_error_at == refused.last_error_at
    assert code(node) == WELL


def test_property_that_the_kernel_refuses_is_a_fault_of_a_link_that_is_up(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """A tunnel takes no MTU that its lower device cannot carry; a veth pair takes this one."""
    left, near, away = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    labels = {**in1_in2("b"), **primary("in3", None, "c", "in4", None, 2)}
    node.add(left, labels, mtu=9000).succeeded()
    node.add(near, PAIR, mtu=9000).succeeded()
    far.add(away, PAIR).succeeded()
    found = wait_up(node, "a", "in3")
    assert found.fault is not None
    assert "mtu 9000" in found.fault
    assert (found.error, found.last_error) == (None, None)
    assert link(node, "a", "in1").fault is None
    assert link(far, "c", "in4").fault is None
    assert code(node) == WRONG

    done = ratchetctl("status", "--state-dir", node.state_dir, "a")
    assert done.returncode == WRONG
    assert f"default/a in3: fault: {found.fault}\n" in done.stdout


@each_of("place", [0, 1])
def test_superseded_pod_is_shown(cluster: Cluster, node: Node, place: int) -> None:
    old, new = cluster.pod("a"), cluster.pod("a")
    node.add(old, PAIR).succeeded()
    cluster.nodes[place].add(new, PAIR).succeeded()
    wait_for("the older to be superseded", lambda: code(node), until=lambda seen: seen == WRONG)
    states = {container: pod.state for container, pod in pods(node).items()}
    assert states.pop(old.container_id) == "superseded"
    assert states == ({new.container_id: "up"} if place == 0 else {})
    cluster.nodes[place].delete(new).succeeded()
    if place == 1:
        wait_for("the older to be back", lambda: code(node), until=lambda seen: seen == WELL)


@each_of("place", [0, 1])
def test_end_that_was_deleted_or_plugged_in_again_is_as_young_as_it_is(
    cluster: Cluster, node: Node, place: int
) -> None:
    far = cluster.nodes[place]
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    far.add(right, PAIR).succeeded()
    since = {"a": wait_up(node, "a", "in1").since, "b": wait_up(far, "b", "in2").since}

    def younger(on: Node, name: str, ifname: str) -> None:
        one = wait_for(
            "the link to be up again",
            lambda: link(on, name, ifname),
            until=lambda one: one.state == "up" and (one.since or 0) > (since[name] or 0),
        )
        since[name] = one.since

    left.netns.ip("link", "delete", "in1")
    younger(node, "a", "in1")
    # The pair does not even know of the link while its primary is away.
    node.delete(left).succeeded()
    wait_for("it to be unknown", lambda: not pods(far)[right.container_id].links)
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    wait_for("it to be known again", lambda: pods(far)[right.container_id].links)
    younger(far, "b", "in2")


def test_etcd_that_is_away(cluster: Cluster, node: Node) -> None:
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    cluster.etcd.stop()
    found = wait_for(
        "it to be noticed",
        lambda: reading.read(node.state_dir),
        until=lambda found: found.etcd == "away",
    )
    assert found.etcd_error
    assert code(node) == WRONG
    again = wait_for(
        "another try", lambda: reading.read(node.state_dir), until=lambda found: found.pods[0].error
    )
    assert again.etcd_since == found.etcd_since
    cluster.etcd.start()
    wait_for("it to be back", lambda: code(node), until=lambda seen: seen == WAITS)
    (pod,) = pods(node).values()
    assert pod.error is None
    assert pod.last_error is not None
    # The last try of all may have failed in another way: "(timed out)".
    assert pod.last_error.rpartition("(")[0] == str(again.pods[0].error).rpartition("(")[0]


def test_without_a_child_the_records_are_shown_and_none_is_started(
    cluster: Cluster, node: Node
) -> None:
    node.boot()
    assert ratchetctl("status", "--state-dir", node.state_dir).returncode == FAILED
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    node.kill_all()
    done = ratchetctl("status", "--state-dir", node.state_dir)
    assert done.returncode == WRONG
    assert done.stderr == "ratchetctl: no child runs: what follows is what the records say\n"
    assert "default/a" in done.stdout
    assert "unknown" in done.stdout
    assert not node.children()


def test_what_a_missing_child_has_not_cleaned_up_is_wrong(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    node.add(pod, in1_in2("b")).succeeded()
    node.kill_all()
    config = request_config(node.config(child_path="/nonexistent/child"), in1_in2("b"), None)
    node.delete(pod, config=config).succeeded()
    done = ratchetctl("status", "--state-dir", node.state_dir)
    assert done.returncode == WRONG
    assert done.stderr == (
        "ratchetctl: no child runs: no pod is recorded, and 1 that are gone have not been cleaned"
        " up after\n"
    )
    # STATUS, which a runtime asks, starts one.
    node.status().succeeded()
    wait_for("the records to go", node.records, until=lambda records: not records)


def test_looking_brings_no_configuration_to_the_child(cluster: Cluster, node: Node) -> None:
    """The file may be another one than the node's, and `--state-dir` knows none at all."""
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    assert code(node) == WAITS
    assert code(node) == WAITS
    assert "the configuration has changed" not in node.log()


def silent(_: socket.socket) -> None:
    """Never answers."""


def closing(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.close()


def talking(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b'{"ok": true, "pods": "\x1b[2J"}\n')
    connection.close()


@pytest.mark.parametrize("behaviour", [silent, closing, talking])
def test_child_that_is_none_is_not_believed_and_not_waited_for(
    cluster: Cluster,
    node: Node,
    behaviour: Callable[[socket.socket], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "ANSWER_TIMEOUT_S", 0.3)
    os.makedirs(os.path.join(node.state_dir, "attachments"))
    path = os.path.join(node.state_dir, "child.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        accepted: list[socket.socket] = []

        def serve() -> None:
            connection, _ = listener.accept()
            accepted.append(connection)
            behaviour(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        found = reading.read(node.state_dir)
        thread.join()
        accepted[0].close()
    os.unlink(path)
    assert found.child in ("absent", "silent")
    assert found.child_error


def test_only_root_may_look(cluster: Cluster, node: Node) -> None:
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    os.chmod(node.state_dir, 0o700)
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    main = "import sys; from ratchetctl.main import main; main()"
    done = subprocess.run(
        [*drop, sys.executable, "-c", main, "status", "--state-dir", node.state_dir],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == FAILED
    assert done.stderr == "ratchetctl: Permission denied; are you root?\n"
