"""CHECK tells the truth, STATUS is the delegate's, GC removes what nobody wants."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.lab.api_server import TOKEN, ApiServer, Authority, kubeconfig
from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.namespaces import is_up
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2, request_config, script

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

# CNI spec §5 Error
INCOMPATIBLE = 1


@each_of("place", [0, 1])
def test_check_succeeds_when_all_is_well(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    # The far pod is not there yet: nothing to verify, nothing wrong.
    node.check(left).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    node.check(left).succeeded()
    cluster.nodes[place].check(right).succeeded()


@each_of("place", [0, 1])
def test_check_succeeds_only_if_the_link_is_there(cluster: Cluster, node: Node, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    left.netns.ip("link", "delete", "in1")
    outcome = node.check(left)
    if outcome.exit == 0:
        assert left.netns.pings("192.168.2.101"), "CHECK says that the link is there"
    else:
        assert "in1" in outcome.error_text


@each_of("place", [0, 1])
@each_of("done", [("down",), ("name", "other")])
def test_check_accepts_what_a_pod_has_done_to_its_end(
    cluster: Cluster, node: Node, place: int, done: tuple[str, ...]
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    index = left.netns.wait_link("in1")["ifindex"]

    left.netns.ip("link", "set", "in1", *done)
    for _ in range(2):  # the child hears of it now or a little later
        node.check(left).succeeded()
    links = left.netns.links()
    del links["lo"]
    (ifname,) = links
    assert ifname == ("in1" if done == ("down",) else "other")
    assert links[ifname]["ifindex"] == index
    assert is_up(links[ifname]) == (done != ("down",))
    left.netns.ip("link", "set", ifname, "up")
    left.netns.wait_ping("192.168.2.101")


@pytest.mark.nodes("fresh")
def test_check_fails_with_the_boot_networks_error(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    node.add(pod, in1_in2("b"), boot_network=node.bridge_config()).succeeded()
    node.check(pod).succeeded()
    pod.netns.ip("link", "delete", "eth0")
    assert node.check(pod).error


@pytest.mark.nodes("fresh")
def test_check_of_a_pod_that_was_never_added_fails(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    config = request_config(node.config(), in1_in2("b"), None)
    config["prevResult"] = {"cniVersion": "1.0.0", "interfaces": [], "ips": [], "dns": {}}
    assert node.check(pod, config=config).error


@each_of("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1"])
def test_check_needs_version_040(cluster: Cluster, node: Node, version: str) -> None:
    pod = cluster.pod("a")
    node.add(pod, in1_in2("b"), cniVersion=version).succeeded()
    assert node.check(pod).error["code"] == INCOMPATIBLE


# STATUS and GC


def test_status_succeeds_when_etcd_answers(cluster: Cluster, node: Node) -> None:
    outcome = node.status()
    assert outcome.succeeded().stdout.strip() == b""


def test_status_succeeds_at_once_when_etcd_is_away(cluster: Cluster, node: Node) -> None:
    node.status().succeeded()
    cluster.etcd.stop()
    started = time.monotonic()
    node.status().succeeded()
    assert time.monotonic() - started < 2


@pytest.mark.nodes("fresh")
def test_a_repeated_failure_of_status_is_one_line(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    error = {"cniVersion": "1.1.0", "code": 50, "msg": "not yet", "details": ""}
    environ = script(tmp_path, "modern", f"cat >/dev/null; echo '{json.dumps(error)}'; exit 1")
    config = node.config(
        cniVersion="1.1.0", delegate={"type": "modern", "cniVersion": "1.1.0"}, boot_network=None
    )
    for _ in range(4):
        outcome = node.execute(config, node.environ("STATUS", changes=environ)).finish()
        assert outcome.error["code"] == 50
    assert node.log().count("not yet") == 1


@pytest.mark.nodes("fresh")
def test_status_fails_for_as_long_as_the_api_server_refuses_us(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    """Every pod fails then; and no pod comes any more whose labels would show that it is over."""
    authority = Authority(str(tmp_path / "ca"))
    certificate = authority.issue("server")
    api = node.namespace.do(lambda: ApiServer(certificate))
    try:
        server = {"server": api.url, "certificate-authority": authority.ca}
        access = kubeconfig(str(tmp_path / "kubeconfig"), server, {"token": TOKEN})
        config = node.config(cniVersion="1.1.0", kubeconfig=access)
        pod = cluster.pod("a")
        node.status(config=config).succeeded()
        api.allowed = False
        assert node.execute(config, node.environ("ADD", pod)).finish().error["code"] == 102
        outcome = node.status(config=config)
        assert outcome.error["code"] == 102
        assert "check RBAC" in outcome.error_text
        assert node.status(config=config).error["code"] == 102
        api.allowed = True
        wait_for(
            "STATUS to succeed", lambda: node.status(config=config).exit, until=lambda e: e == 0
        )
    finally:
        api.close()


@pytest.mark.nodes("fresh")
@each_of("version", ["0.4.0", "1.0.0"])
@each_of("command", ["GC", "STATUS"])
def test_gc_and_status_need_version_110(
    cluster: Cluster, node: Node, command: str, version: str
) -> None:
    config = node.config(cniVersion=version)
    assert node.execute(config, node.environ(command)).finish().error["code"] == INCOMPATIBLE


@pytest.mark.nodes("fresh")
@each_of("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_removes_attachments_that_are_not_listed(
    cluster: Cluster, node: Node, far: Node, key: str
) -> None:
    left, right, other, last = (cluster.pod(name) for name in ("a", "b", "c", "d"))
    node.add(left, in1_in2("b"), boot_network=node.bridge_config()).succeeded()
    far.add(right, PAIR).succeeded()
    node.add(other, in1_in2("d")).succeeded()
    node.add(last, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    other.netns.wait_ping("192.168.2.101")
    index = right.netns.wait_link("in2")["ifindex"]

    node.gc([(other, "eth0"), (last, "eth0")], key=key).succeeded()
    left.netns.wait_no_link("in1")
    assert right.netns.wait_no_carrier("in2")["ifindex"] == index
    assert "eth0" not in left.netns.names()
    assert other.netns.pings("192.168.2.101")
    cluster.wait_withdrawn(left, "b/links/a:in1")
    wait_for("the record to go", node.records, until=lambda records: len(records) == 2)


def test_gc_without_a_list_removes_nothing(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    with left.netns.watch("in1") as in1:
        node.gc(None).succeeded()
        time.sleep(0.5)
        assert in1.flaps() == []
    assert len(node.records()) == 2


def test_gc_with_an_empty_list_removes_all(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    node.gc([]).succeeded()
    left.netns.wait_no_link("in1")
    right.netns.wait_no_link("in2")
    wait_for("the records to go", node.records, until=lambda records: not records)


@pytest.mark.nodes("fresh")
def test_gc_and_status_are_forwarded_to_a_delegate_that_knows_them(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    environ = script(
        tmp_path,
        "modern",
        'if [ "$CNI_COMMAND" = VERSION ]; then'
        ' echo \'{"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}\';'
        f" else cat > {tmp_path}/$CNI_COMMAND; fi",
    )
    config = node.config(cniVersion="1.1.0", delegate={"type": "modern"}, boot_network=None)
    valid = [{"containerID": "x", "ifname": "eth0"}]
    gc = {**config, "cni.dev/valid-attachments": valid}
    node.execute(gc, node.environ("GC", changes=environ)).finish().succeeded()
    node.execute(config, node.environ("STATUS", changes=environ)).finish().succeeded()

    assert json.loads((tmp_path / "GC").read_text())["cni.dev/valid-attachments"] == valid
    assert json.loads((tmp_path / "STATUS").read_text())["type"] == "modern"


@pytest.mark.nodes("fresh")
def test_delegates_status_error_goes_up(cluster: Cluster, node: Node, tmp_path: Path) -> None:
    error = {"cniVersion": "1.1.0", "code": 51, "msg": "limited", "details": ""}
    environ = script(tmp_path, "modern", f"cat >/dev/null; echo '{json.dumps(error)}'; exit 1")
    config = node.config(
        cniVersion="1.1.0", delegate={"type": "modern", "cniVersion": "1.1.0"}, boot_network=None
    )
    outcome = node.execute(config, node.environ("STATUS", changes=environ)).finish()
    assert outcome.error["code"] == 51
