"""Labels, arguments and keys in etcd that are written to do harm, tried on the real programs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_docker import Engine
from tests.integration.test_secrets import ask
from tests.lab.cluster import Cluster
from tests.lab.etcd_server import Etcd
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary

pytestmark = pytest.mark.root

MEMORY_BYTES = 64 << 20


def resident(pid: int) -> int:
    """Return how much memory a process has, in bytes."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def states(node: Node, name: str) -> dict[str, dict[str, Any]]:
    """Return the links of a pod as the child tells them, by interface."""
    for pod in json.loads(ask(node, "status"))["pods"]:
        if pod["name"] == name:
            return {f"{link['ifname']} {link['peer']}": link for link in pod["links"]}
    return {}


# What others write below the prefix


def lie(etcd: Etcd, keys: Mapping[str, str], method: str = "PUT") -> None:
    """Write or delete keys below the prefix, over one connection."""
    connection = etcd._connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for key, value in keys.items():
        path = urllib.parse.quote(f"/v2/keys/ratchet/{key}", safe="/:")
        body = urllib.parse.urlencode({"value": value}) if method == "PUT" else None
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request(method, path, body, form if body else {})
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status in (200, 201), (key[:100], answer.status, said[:200])
    connection.close()


def declared(ifname: str = "x1", pair_ifname: object = "y1", **changes: Any) -> str:
    return json.dumps(
        {
            "container": "liar",
            "vni": 4000,
            "ifname": ifname,
            "address": "10.6.6.1/24",
            "pair_ifname": pair_ifname,
            "pair_address": "10.6.6.2/24",
            **changes,
        }
    )


def place(name: str, address: str) -> dict[str, str]:
    base = f"association/{name}"
    return {f"{base}/parentiface": "eth0", f"{base}/parentaddr": address, f"{base}/id": "liar"}


UNREADABLE: list[str] = [
    "",
    "{",
    "[]",
    "null",
    "7",
    "[" * 100_000,
    '{"a":' * 100_000,
    "9" * 6000,
    "x" * 2_000_000,  # what is larger than an answer may be: test_etcd_writer.py
    declared(vni=0),
    declared(vni=-1),
    declared(vni=1 << 24),
    declared(vni=11.5),
    declared(vni=True),
    declared(vni="11"),
    declared(vni=None),
    declared(container=""),
    declared(container=7),
    declared(container=None),
    declared(address=7),
    declared(address="x"),
    declared(pair_address=["10.6.6.2/24"]),
    declared(pair_address="0.0.0.0/24"),
    declared(pair_address="224.0.0.5/24"),
    declared(pair_address="127.0.0.1/8"),
    declared(pair_address="::1/128"),
    declared(pair_address="10.6.6.2/99"),
    *(
        declared(pair_ifname=name)
        for name in ("../x", "", ".", "..", "a b", "a/b", "in%d", "x" * 16, "\udcff", "a\0b")
    ),
    declared(pair_ifname=7),
    declared(ifname="other"),
]

# Readable, and still not to be made: what the state then says.
REFUSED = [
    ("lo", "the runtime's"),
    ("eth0", "the runtime's"),
    ("mine", "is not Ratchet's"),
]

NO_NODES = [
    "10.99.0.999",
    "127.0.0.1",
    "224.0.0.5",
    "0.0.0.0",
    "::1",
    "node",
    "../../outside",
    "/",
    "..",
    "",
    "10.99.0.12/24",
    "a?recursive=true&",
    "%2e%2e",
    "x" * 10_000,
]


def test_lies_in_etcd_harm_nothing_but_the_links_they_speak_of(
    cluster: Cluster, node: Node, far: Node
) -> None:
    witness, other = cluster.pod("witness"), cluster.pod("other")
    node.add(witness, primary("w1", "10.7.0.1", "other", "w2", "10.7.0.2")).succeeded()
    far.add(other, PAIR).succeeded()
    witness.netns.wait_ping("10.7.0.2")
    victim = cluster.pod("victim")
    victim.netns.ip("link", "add", "mine", "type", "veth", "peer", "name", "eth0")
    victim.netns.ip("addr", "add", "10.8.0.1/24", "dev", "mine")
    victim.netns.ip("link", "set", "mine", "up")
    victim.netns.ip("link", "set", "eth0", "up")
    node.add(victim, PAIR).succeeded()
    child = node.wait_child()
    before = resident(child)
    node_before, lo = node.namespace.links(), victim.netns.addresses("lo")
    cluster.etcd.put("/outside/association/x/id", "not Ratchet's")

    links = "association/victim/links"
    lies = {f"{links}/wrong{number}:x1": text for number, text in enumerate(UNREADABLE)}
    for number, address in enumerate(NO_NODES):
        lies |= place(f"placed{number}", address)
        lies[f"{links}/placed{number}:x1"] = declared(pair_ifname=f"p{number}")
    lies |= place("liar", far.address)
    for number, (ifname, _) in enumerate(REFUSED):
        lies[f"{links}/liar:r{number}"] = declared(f"r{number}", ifname)
    # Of this node: a pod that it does not have.
    lies |= place("ghost", node.address)
    lies[f"{links}/ghost:x1"] = declared(pair_ifname="g1")
    lies[f"{links}/..:x1"] = declared(pair_ifname="d1")
    lies[f"{links}/%2e%2e:x1"] = declared(pair_ifname="d2")
    lies[f"{links}/deep/down:x1"] = declared(pair_ifname="d3")
    own = f"nodes/{node.address}"
    for name in ("x", "..:x", "default:..", "a%2fb", "x:..", "?", "a:b:c"):
        lies[f"{own}/bell/{name}"] = "victim,..,/,../../outside,victim:,," + "x" * 100_000
        lies[f"{own}/pods/{name}"] = json.dumps(
            {"container": "not Ratchet's", "declared": [["../../outside", "x"], ["..", "x1"]]}
        )
    lies[f"{own}/pods/w"] = json.dumps({"container": "c", "declared": [["x", "x1"]] * 2000})
    lies["association/victim/vxlanid"] = "9" * 6000
    lies["association/victim/primaryname"] = "../../outside"
    lies["association/victim/pairifname"] = "eth%d"
    lies["association/victim/pairip"] = "224.0.0.1"
    lies["vni/" + "9" * 200] = "x"
    lies["vni/0011"] = "x y"
    # One that is right, heard last: by its end the rest has been read.
    lies["association/victim/links/liar:z1"] = declared("z1", "z2")

    with (
        witness.netns.watch("w1") as w1,
        other.netns.watch("w2") as w2,
        victim.netns.watch("mine") as mine,
        victim.netns.watch("eth0") as eth0,
        victim.netns.watch("lo") as loopback,
    ):
        lie(cluster.etcd, lies)
        lie(cluster.etcd, {f"{own}/bell/liar": "victim"})
        victim.netns.wait_link("z2", "vxlan")
        shown = states(node, "victim")
        for number, (ifname, why) in enumerate(REFUSED):
            link = shown[f"{ifname} liar"]
            assert (link["state"], why in link["error"]) == ("error", True), (number, link)
        for number, address in enumerate(NO_NODES[:7]):
            link = shown[f"p{number} placed{number}"]
            assert "not an IP address of a node" in str(link["error"]), (address, link)
        assert victim.netns.names() == {"lo", "mine", "eth0", "z2"}
        for watch in (w1, w2, mine, eth0, loopback):
            assert watch.flaps() == []

    assert witness.netns.pings("10.7.0.2")
    assert victim.netns.addresses("lo") == lo
    assert victim.netns.addresses("mine") == ["10.8.0.1/24"]
    assert node.namespace.links().keys() == node_before.keys()
    assert node.wait_child() == child
    assert "Traceback" not in node.log()
    assert len(node.log()) < 100_000, "a writer of etcd fills the disk with the log"
    assert resident(child) - before < MEMORY_BYTES
    outside = {key for key in cluster.etcd.tree() if not key.startswith("/ratchet/")}
    assert {key for key in outside if not key.endswith("/")} == {"/outside/association/x/id"}

    # Whoever wrote them takes them away: what was made stays, and leads nowhere.
    for key in lies:
        cluster.etcd.delete(f"/ratchet/{key}")
    for directory in ("association/liar", "association/ghost", f"{own}/bell", "vni"):
        cluster.etcd.delete(f"/ratchet/{directory}")
    for number in range(len(NO_NODES)):
        cluster.etcd.delete(f"/ratchet/association/placed{number}")
    cluster.etcd.delete(f"/ratchet/{links}")
    lie(cluster.etcd, {f"{own}/bell/liar": "victim"})
    victim.netns.wait_no_carrier("z2")
    assert victim.netns.names() == {"lo", "mine", "eth0", "z2"}
    cluster.etcd.delete("/outside")
    victim.netns.ip("link", "delete", "mine")


def test_pods_without_the_label_and_ends_of_other_links_are_out_of_reach(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """Whether a pod of the same namespace declares a link on them, or a writer of etcd does."""
    plain, left, right = cluster.pod("web"), cluster.pod("a"), cluster.pod("b")
    node.add(plain, {"app": "web"}).succeeded()
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    before = sorted(plain.netns.names())
    thief = cluster.pod("thief")
    labels = {
        **primary("x1", "10.6.6.1", "web", "y1", "10.6.6.2"),
        **primary("x2", "10.6.6.1", "b", "in2", "10.6.6.2", number=2),
    }
    with left.netns.watch("in1") as in1, right.netns.watch("in2") as in2:
        node.add(thief, labels).succeeded()
        lies = place("liar", far.address)
        for number, victim in enumerate(("web", "b")):
            lies[f"association/{victim}/links/liar:z{number}"] = declared(f"z{number}", "in2")
        lies["association/web/links/liar:z9"] = declared("z9", "y9")
        lies |= {f"nodes/{node.address}/bell/liar": "web,b"}
        lie(cluster.etcd, lies)
        shown = wait_for(
            "the refusals",
            lambda: states(node, "b"),
            until=lambda links: "in2 liar" in links and "in2 thief" in links,
        )
        assert {shown[f"in2 {one}"]["state"] for one in ("liar", "thief")} == {"error"}
        assert states(node, "thief")["x1 web"]["state"] == "waiting"
        assert sorted(plain.netns.names()) == before
        assert in1.flaps() == []
        assert in2.flaps() == []
    assert thief.netns.names() == {"lo"}
    for key in ("web/links/liar:z0", "web/links/liar:z9", "b/links/liar:z1", "liar"):
        cluster.etcd.delete(f"/ratchet/association/{key}")


def test_thousands_of_declarations_cost_one_pod_time_and_no_more(
    cluster: Cluster, node: Node, far: Node
) -> None:
    victim = cluster.pod("victim")
    node.add(victim, PAIR).succeeded()
    child = node.wait_child()
    before = resident(child)
    count = 2000
    links = "association/victim/links"
    lie(
        cluster.etcd,
        {f"{links}/liar{n}:x1": declared(pair_ifname=f"y{n}") for n in range(count)},
    )
    lie(cluster.etcd, {f"nodes/{node.address}/bell/liar": "victim"})
    # Others' links are made while the child reads them all.
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    wait_for(
        "all to be known",
        lambda: states(node, "victim"),
        until=lambda shown: len(shown) == count,
        timeout_s=30,
    )
    assert resident(child) - before < MEMORY_BYTES
    assert victim.netns.names() == {"lo"}
    cluster.etcd.delete(f"/ratchet/{links}")


@pytest.mark.parametrize(
    ("key", "is_directory"),
    [
        ("vxlanid", True),
        ("vni", False),
        ("association/a/id", True),
        ("association/b/links/a:in1", True),
        ("association/b/links", False),
        ("nodes", False),
    ],
)
def test_a_key_of_the_wrong_kind_is_said_and_the_pods_are_linked_when_it_is_gone(
    cluster: Cluster, node: Node, far: Node, key: str, is_directory: bool
) -> None:
    lie(cluster.etcd, {f"{key}/x" if is_directory else key: "x"})
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), wait="none").succeeded()
    far.add(right, PAIR, wait="none").succeeded()
    wait_for(
        "the log to name the key",
        lambda: node.log() + far.log(),
        until=lambda log: any(
            f"/ratchet/{key}" in line and "level=warning" in line for line in log.splitlines()
        ),
    )
    # Not a loop that keeps etcd busy.
    index = modified(cluster.etcd)
    cluster.etcd.delete(f"/ratchet/{key}")
    left.netns.wait_ping("192.168.2.101")
    assert "Traceback" not in node.log() + far.log()
    assert index < 500


def modified(etcd: Etcd) -> int:
    """Return how many changes etcd has seen for a pair of pods."""
    connection = etcd._connect()
    try:
        connection.request("GET", "/v2/keys/")
        return int(connection.getresponse().headers["X-Etcd-Index"]) - _index[0]
    finally:
        connection.close()


_index = [0]


@pytest.fixture(autouse=True)
def _count_from_here(session_cluster: Cluster) -> None:
    _index[0] = 0
    _index[0] = modified(session_cluster.etcd)


# What pods say of themselves


CANARY = "ratchet-canary"
NASTY = [
    "../../../{canary}",
    "..",
    "/etc/passwd",
    "a/../../b",
    "$(touch {canary})",
    "`touch {canary}`; touch {canary}",
    "a\0b",
    "a\nb level=error",
    "%s%n{0.__class__}%(x)s",
    "%2e%2e%2foutside",
    "?recursive=true&dir=true",
    "pаir-pod",  # with a Cyrillic letter
    "x" * 5000,
    "\ud800",
    "-rf",
    "",
]
FIELDS = ["pod_name", "pair_name", "local_ifname", "pair_ifname", "local_ip", "public_ip"]
GRAMMAR = re.compile(
    r"/ratchet/(vxlanid|vni/\d+"
    r"|association/[\w.:-]+/(id|parent\w+|vxlanid|pair\w+|primaryname|links/[\w.-]+:[\w.-]+)"
    r"|nodes/[\w.]+/(pods|bell)/[\w.:-]+|machines/[\w.:]+@\w+)"
)


class Surroundings:
    """Everything that a value which escapes could reach: etcd, files, the node's interfaces."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self._cluster = cluster
        self._node = node
        self._before = self._look()

    def _look(self) -> object:
        node = self._node
        files = []
        for folder, folders, names in os.walk(os.path.dirname(node.directory)):
            # etcd's and the delegate's own files, and Ratchet's, which are looked at below.
            if not {"etcd", "host-local", "state"}.intersection(folder.split("/")):
                found = [*names, *(name for name in folders if name != "host-local")]
                files += [os.path.join(folder, name) for name in found]
        keys = {k: v for k, v in self._cluster.etcd.keys().items() if not k.startswith("/ratchet/")}
        # The programs run in /, where a shell would put its files.
        return sorted(files), keys, sorted(os.listdir("/")), sorted(node.namespace.names())

    def assert_untouched(self) -> None:
        assert self._look() == self._before
        for key, value in self._cluster.etcd.tree().items():
            if key.startswith("/ratchet/") and value is not None:
                assert GRAMMAR.fullmatch(key), key
        for folder, _, names in os.walk(self._node.state_dir):
            inside = os.path.relpath(folder, self._node.state_dir)
            assert inside in (".", "attachments", "boot", "versions")
            for name in names:
                assert re.fullmatch(r"child\.\w+|settings\.json|[\w.-]+", name), name


@pytest.fixture
def surroundings(cluster: Cluster, node: Node) -> Iterator[Surroundings]:
    cluster.etcd.put("/outside/key", "not Ratchet's")
    # So that log, state and bridge are there.
    pod = cluster.pod("first")
    node.add(pod, PAIR).succeeded()
    yield Surroundings(cluster, node)
    cluster.etcd.delete("/outside")


def tried(node: Node, pod: Pod, add: Any, environ: dict[str, str | None]) -> None:
    """See that an ADD is answered as CNI says, and that its DEL succeeds."""
    outcome = add.finish()
    assert b"Traceback" not in outcome.stdout + outcome.stderr
    if outcome.exit != 0:
        error = outcome.error
        assert error["code"] in (4, 7, 11, 100, 102, 104), error
        # One line that a person can read, however long the value.
        assert "\n" not in error["msg"]
        assert "\0" not in error["msg"]
        assert len(error["msg"]) < 2000
    else:
        assert outcome.result["cniVersion"] == "1.0.0"
    node.attachments.pop((pod.container_id, "eth0"), None)
    deleted = node.execute(
        node.config(args={"cni": {"labels": []}}), node.environ("DEL", pod, changes=environ)
    ).finish()
    if deleted.exit != 0:  # 999: the delegate, whose pod it was, has words of its own
        assert deleted.error["code"] in (4, 999), deleted


@pytest.mark.parametrize("source", ["labels", "annotations", "docker"])
def test_nothing_that_labels_say_gets_out(
    cluster: Cluster, node: Node, surroundings: Surroundings, source: str, tmp_path: Path
) -> None:
    engine = Engine(str(tmp_path / "docker.sock"))
    with contextlib.closing(engine):
        # Each field with some of the values, so that each value meets each kind of field.
        for number, text in enumerate(NASTY):
            value = text.format(canary=CANARY) if "{canary}" in text else text
            field = FIELDS[(number + len(source)) % len(FIELDS)]
            pod = cluster.pod("hostile")
            labels = {**in1_in2("pair-pod"), f"ratchet.{field}": value, value: value}
            labels |= {f"ratchet.{value}": value, "ratchet.target_pod": value}
            if source == "labels":
                add = node.start_add(pod, labels)
            elif source == "annotations":
                add = node.start_add(pod, PAIR, labels)
            else:
                engine.containers[pod.container_id] = {
                    "Id": pod.container_id,
                    "Name": f"/{value}",
                    "Config": {
                        "Labels": labels | {"io.kubernetes.pod.namespace": value, "x": value}
                    },
                }
                config = node.config(label_source="docker", docker_socket=engine.path)
                add = node.execute(config, node.environ("ADD", pod, changes={"CNI_ARGS": ""}))
            tried(node, pod, add, {})
    surroundings.assert_untouched()


def test_nothing_that_arguments_say_gets_out(
    cluster: Cluster, node: Node, surroundings: Surroundings
) -> None:
    for number, text in enumerate(NASTY):
        value = text.replace("\0", "\1").replace("\ud800", "\udcff").format(0, canary=CANARY, x=0)
        pod = cluster.pod("hostile")
        environ: dict[str, str | None] = {
            0: {"CNI_CONTAINERID": value},
            1: {"CNI_IFNAME": value},
            2: {"CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAME={value};K8S_POD_NAMESPACE=default"},
            3: {"CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAME=hostile;K8S_POD_NAMESPACE={value}"},
        }[number % 4]  # type: ignore[assignment]
        add = node.start_add(pod, PAIR, environ=environ)
        tried(node, pod, add, environ)
    surroundings.assert_untouched()
