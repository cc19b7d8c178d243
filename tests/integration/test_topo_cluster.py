"""`ratchetctl topo` on a cluster: the API server is a stand-in with TLS, kubelets and agents.

What each command does to objects, what it leaves alone, and what people are told.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ratchetctl.cli import cli
from ratchetctl.errors import OperatorError
from tests.lab import api_kinds, api_server
from tests.lab.agent import NODE_NAME, AgentBed
from tests.lab.api_objects import Obj, StatusError
from tests.lab.api_requests import OPERATOR_RIGHTS
from tests.lab.api_server import TOKEN, ApiServer, Authority
from tests.lab.cluster import Cluster
from tests.lab.machines import Machines
from tests.lab.runtime import Node, Pod
from tests.lab.simulation import ROOT

LAB = """\
name: lab
topology:
  kinds: {linux: {image: "alpine:3"}}
  nodes:
    a: {ports: ["30080:80"], binds: ["motd:/etc/motd"]}
    b: {}
    c: {env: {COLOUR: blue}}
  links:
    - endpoints: ["a:eth1", "b:eth1"]
      ipv4: ["10.0.1.1/24", "10.0.1.2/24"]
    - endpoints: ["b:eth2", "c:eth1"]
      ipv4: ["10.0.2.1/24", "10.0.2.2/24"]
"""
TOPOLOGY = "topo.ratchet/topology"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(str(tmp_path_factory.mktemp("certificates")))


class Lab:
    """A cluster, a kubeconfig for it and a topology's file."""

    def __init__(self, folder: Path, authority: Authority, server: tuple[str, str]) -> None:
        self.folder = folder
        self.api = ApiServer(server, authority.ca)
        self.api.rights |= set(OPERATOR_RIGHTS)
        self.objects = self.api.objects
        self.machines = Machines(self.objects)
        self.authority = authority
        self.config = self.kubeconfig({"token": TOKEN})
        self.file = folder / "lab.clab.yml"
        (folder / "motd").write_text("hello\n")
        self.write()

    def kubeconfig(self, user: dict[str, Any]) -> str:
        cluster = {"server": self.api.url, "certificate-authority": self.authority.ca}
        return api_server.kubeconfig(str(self.folder / "config.yaml"), cluster, user)

    def write(self, *changes: tuple[str, str]) -> None:
        text = LAB
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        self.file.write_text(text)

    def topo(self, command: str, *arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(
            cli, ["topo", command, str(self.file), *arguments], env={"KUBECONFIG": self.config}
        )
        said, code = done.output, done.exit_code
        if isinstance(done.exception, OperatorError):  # as `ratchetctl.main` tells of it
            said, code = f"{said}{done.exception}", 1
        elif done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert code == status, said
        assert TOKEN not in said
        return said

    def uids(self) -> dict[str, str]:
        return {name: pod["metadata"]["uid"] for (_, name), pod in self.objects.pods.items()}

    def pod(self, name: str) -> Obj:
        return self.objects.pods["default", name]

    def written(self) -> list[tuple[str, str]]:
        """Return what was asked for besides reading, since the last time; dry runs do not count."""
        calls = [
            (method, path.partition("?")[0].rpartition("/default/")[2])
            for method, path, _ in self.api.calls
            if method != "GET" and "dryRun" not in path
        ]
        self.api.calls.clear()
        return calls

    def close(self) -> None:
        self.machines.close()
        self.api.close()


@pytest.fixture(scope="module")
def server(authority: Authority) -> tuple[str, str]:
    return authority.issue("server")


@pytest.fixture
def lab(tmp_path: Path, authority: Authority, server: tuple[str, str]) -> Iterator[Lab]:
    made = Lab(tmp_path, authority, server)
    yield made
    made.close()


def test_create_makes_files_before_pods_waits_for_links_and_says_where_pods_are(lab: Lab) -> None:
    said = lab.topo("create")
    assert "2 of 2 links are up" in said
    assert "machine-1: 1 pod (b)" in said
    assert "machine-2: 2 pods (a, c)" in said
    made = lab.written()
    assert sorted(made[:2]) == [("PATCH", "configmaps/a-files"), ("PATCH", "services/a")]
    assert sorted(made[2:]) == [("PATCH", f"pods/{name}") for name in "abc"]
    everything = [*lab.objects.pods.values(), *lab.objects.others.values()]
    assert {one["metadata"]["labels"][TOPOLOGY] for one in everything} == {"lab"}
    assert lab.objects.others["configmaps", "default", "a-files"]["data"] == {"motd": "hello\n"}
    shown = lab.topo("show", "--cluster")
    assert "lab in namespace default: 3 pods, 2 of 2 links are up" in shown
    # What is there is not made again.
    assert "is in the namespace default already" in lab.topo("create", status=1)


def test_apply_makes_exactly_the_difference(lab: Lab) -> None:
    lab.topo("create")
    before = lab.uids()
    lab.written()
    assert "5 unchanged" in lab.topo("apply")
    assert lab.written() == []
    assert lab.topo("diff") == ""
    # An address changes, and the pod keeps running; c has another image, so does it.
    lab.write(("10.0.1.1/24", "10.0.1.9/24"), ("c: {", "c: {image: 'alpine:4', "))
    assert lab.topo("diff", status=3).splitlines() == [
        "~ pod a: metadata.annotations[ratchet.local_ip] 10.0.1.1/24 -> 10.0.1.9/24",
        "~ pod c: spec.containers[node].image alpine:3 -> alpine:4",
    ]
    assert "2 of 2 links are up" in lab.topo("apply")
    assert sorted(lab.written()) == [("PATCH", "pods/a"), ("PATCH", "pods/c")]
    assert lab.uids() == before
    assert lab.pod("a")["metadata"]["annotations"]["ratchet.local_ip"] == "10.0.1.9/24"
    assert lab.pod("c")["spec"]["containers"][0]["image"] == "alpine:4"


def test_a_link_that_goes_takes_its_labels_with_it(lab: Lab) -> None:
    lab.topo("create")
    before = lab.uids()
    lab.write(('    - endpoints: ["b:eth2", "c:eth1"]\n', ""), ('"10.0.2.1/24", "10.0.2.2/24"', ""))
    text = lab.file.read_text().replace("      ipv4: []\n", "")
    lab.file.write_text(text)
    lab.topo("apply")
    assert lab.uids() == before
    found = lab.pod("b")["metadata"]
    assert found["labels"]["ratchet.primary"] == "false"
    assert not [name for name in (*found["labels"], *found["annotations"]) if "pair" in name]


def test_a_pod_is_made_anew_only_where_it_must_and_that_is_said_first(lab: Lab) -> None:
    lab.topo("create")
    before = lab.uids()
    lab.write(("COLOUR: blue", "COLOUR: red"))
    why = "pod c is made anew: spec.containers[node].env[COLOUR].value cannot change while it runs"
    assert lab.topo("diff", status=3) == f"! {why}\n"
    said = lab.topo("apply")
    assert said.index(why) < said.index("1 made anew, 4 unchanged")
    after = lab.uids()
    assert {name for name in "abc" if before[name] != after[name]} == {"c"}


def test_files_that_changed_reach_a_pod_that_is_made_anew(lab: Lab) -> None:
    lab.topo("create")
    before = lab.uids()
    (lab.folder / "motd").write_text("good morning\n")
    assert "files changed of a; the pods go on with the old ones: --restart" in lab.topo("apply")
    assert lab.uids() == before
    (lab.folder / "motd").write_text("good night\n")
    assert "pod a is made anew: its files changed" in lab.topo("apply", "--restart")
    after = lab.uids()
    assert {name for name in "abc" if before[name] != after[name]} == {"a"}


def test_apply_and_destroy_remove_what_is_the_topologys_and_nothing_else(lab: Lab) -> None:
    lab.api.add_pod("stranger", {"ratchet": "true"})
    lab.api.add_pod("owned", {TOPOLOGY: "lab"}, uid="22222222-2222-3333-4444-555555555555")
    lab.objects.change_pod(
        "default",
        "owned",
        lambda pod: pod["metadata"].update(
            ownerReferences=[
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "x",
                    "uid": "1",
                    "controller": True,
                }
            ]
        ),
    )
    lab.topo("create")
    lab.write(
        ("    c: {env: {COLOUR: blue}}\n", ""),
        ('    - endpoints: ["b:eth2", "c:eth1"]\n', ""),
        ('      ipv4: ["10.0.2.1/24", "10.0.2.2/24"]\n', ""),
        ('a: {ports: ["30080:80"], binds: ["motd:/etc/motd"]}', "a: {}"),
    )
    said = lab.topo("diff", status=3).splitlines()
    assert said[:3] == ["- ConfigMap a-files", "- service a", "- pod c"]
    lab.topo("apply")
    assert set(lab.uids()) == {"a", "b", "owned", "stranger"}
    assert not lab.objects.others
    assert lab.topo("destroy", "--dry-run", "client") == "- pod a\n- pod b\n"
    lab.written()
    assert "- pod b\n" in lab.topo("destroy", "--dry-run", "server")
    assert lab.written() == []
    lab.topo("destroy")
    assert set(lab.uids()) == {"owned", "stranger"}
    assert "nothing of the topology lab is in the namespace default" in lab.topo("destroy")


def test_a_name_that_somebody_else_has_is_told_and_left_alone(lab: Lab) -> None:
    lab.api.add_pod("b", {TOPOLOGY: "other"})
    said = lab.topo("create", status=1)
    assert "pod b is in the namespace default already, and it is of the topology other" in said
    assert lab.written() == []


def test_conflicts_are_told_by_name_before_anything_changes(lab: Lab) -> None:
    lab.topo("create")
    address = "ratchet.local_ip"
    patch = {"metadata": {"annotations": {address: "10.0.1.7/24", "ratchet.9.mtu": "1300"}}}
    api_kinds.merge(
        lab.objects, "pods", "default", "a", patch, {"fieldManager": "kubectl-annotate"}
    )
    lab.write(("COLOUR: blue", "COLOUR: red"))
    before, uids = lab.pod("a")["metadata"]["annotations"], lab.uids()
    said = lab.topo("apply", status=1)
    assert "pod a: kubectl-annotate manages metadata.annotations[ratchet.9.mtu]" in said
    assert "nothing was changed; take these fields over with --force-conflicts" in said
    del patch["metadata"]["annotations"]["ratchet.9.mtu"]
    gone = {"metadata": {"annotations": {"ratchet.9.mtu": None}}}
    api_kinds.merge(lab.objects, "pods", "default", "a", gone, {"fieldManager": "kubectl-annotate"})
    said = lab.topo("apply", status=1)
    assert "pod a: kubectl-annotate manages metadata.annotations.ratchet.local_ip" in said
    assert lab.uids() == uids
    assert lab.pod("a")["metadata"]["annotations"][address] == before[address] == "10.0.1.7/24"
    again = {"metadata": {"annotations": {"ratchet.9.mtu": "1300"}}}
    api_kinds.merge(
        lab.objects, "pods", "default", "a", again, {"fieldManager": "kubectl-annotate"}
    )
    lab.topo("apply", "--force-conflicts")
    found = lab.pod("a")["metadata"]["annotations"]
    assert found[address] == "10.0.1.1/24"
    assert "ratchet.9.mtu" not in found
    assert lab.topo("diff") == ""


def test_dry_runs_change_nothing(lab: Lab) -> None:
    said = lab.topo("create", "--dry-run", "client")
    assert "+ pod a" in said.splitlines()
    assert not lab.api.calls or all(method == "GET" for method, _, _ in lab.api.calls)
    said = lab.topo("create", "--dry-run", "server")
    assert "the API server would take it" in said
    assert lab.written() == []
    assert not lab.objects.pods
    assert not lab.objects.others


@pytest.mark.parametrize("right", ["list pods", "patch configmaps", "create pods", "delete pods"])
def test_a_missing_right_is_told_by_verb_and_resource(lab: Lab, right: str) -> None:
    if right == "delete pods":
        lab.topo("create")
    lab.api.rights.discard(right)
    verb, resource = right.split()
    command = "destroy" if verb == "delete" else "create"
    said = lab.topo(command, status=1)
    assert f'cannot {verb} resource "{resource}" in API group "" in the namespace "default"' in said
    assert "(403); check the roles of the user" in said
    assert bool(lab.objects.pods) == (verb == "delete")


def test_create_that_fails_half_way_leaves_nothing(lab: Lab) -> None:
    """The last pod is refused, as by a quota, after its dry run was not."""
    made = lab.objects.put_pod

    def refuse(pod: Obj) -> Obj:
        if pod["metadata"]["name"] == "c" and "nodeName" not in pod["spec"]:
            raise StatusError(403, "Forbidden", 'pods "c" is forbidden: exceeded quota: lab')
        return made(pod)

    lab.objects.put_pod = refuse  # type: ignore[method-assign]
    said = lab.topo("create", status=1)
    assert "exceeded quota: lab" in said
    assert "it is being removed again" in said
    assert not lab.objects.pods
    assert not lab.objects.others


def test_a_namespace_that_is_not_there_is_told_with_the_remedy(lab: Lab) -> None:
    said = lab.topo("create", "-n", "blue", status=1)
    assert 'namespaces "blue" not found' in said
    assert "kubectl create namespace blue" in said


def test_a_busy_server_is_waited_for(lab: Lab) -> None:
    lab.api.most_per_s = 6
    lab.topo("create", "--no-wait")
    assert set(lab.uids()) == {"a", "b", "c"}


def test_a_pod_that_does_not_start_is_told_with_its_reason(lab: Lab) -> None:
    lab.machines.broken["c"] = "ErrImagePull"
    said = lab.topo("create", "--timeout", "1", status=4)
    assert "pod c (Pending): ErrImagePull: c is broken" in said
    assert "1 of 2 links are up" in said
    # Once it is mended, apply waits for the rest.
    lab.machines.broken.clear()
    assert "2 of 2 links are up" in lab.topo("apply")


def test_links_that_nobody_tells_of_are_not_called_up(lab: Lab) -> None:
    lab.machines.silent = True
    said = lab.topo("create", "--timeout", "1", status=3)
    assert "no agent has told of their links" in said
    assert "0 of 2 links are up" in said


def test_a_pod_that_has_ended_is_made_anew(lab: Lab) -> None:
    lab.topo("create")
    before = lab.uids()

    def evict(pod: Obj) -> None:
        pod["status"] = {"phase": "Failed", "reason": "Evicted"}

    lab.objects.change_pod("default", "b", evict)
    assert "pod b is made anew: it has ended (Evicted)" in lab.topo("apply")
    assert before["b"] != lab.uids()["b"]


def test_a_plugin_gives_the_credentials(lab: Lab) -> None:
    plugin = lab.folder / "plugin"
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": TOKEN},
    }
    plugin.write_text(
        '#!/bin/sh\nprintf \'%s\' "$KUBERNETES_EXEC_INFO" > "$WHERE"\n'
        f"echo '{json.dumps(answer)}'\necho ran >> \"$WHERE.count\"\n"
    )
    plugin.chmod(0o755)
    told = lab.folder / "told"
    spec = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./plugin",
        "provideClusterInfo": True,
        "interactiveMode": "Never",
        "env": [{"name": "WHERE", "value": str(told)}],
    }
    lab.config = lab.kubeconfig({"exec": spec})
    lab.topo("create", "--no-wait")
    info = json.loads(told.read_text())["spec"]
    assert info["interactive"] is False
    assert info["cluster"]["server"] == lab.api.url
    assert info["cluster"]["certificate-authority-data"] == api_server.encoded(lab.authority.ca)
    assert (lab.folder / "told.count").read_text() == "ran\n"
    # A token that the server no longer takes is asked for once again, and then it is said.
    lab.api.tokens.clear()
    assert "does not accept the credentials (401)" in lab.topo("show", "--cluster", status=1)
    assert (lab.folder / "told.count").read_text() == "ran\nran\nran\n"
    plugin.unlink()
    lab.config = lab.kubeconfig({"exec": {**spec, "installHint": "get it from your cloud"}})
    said = lab.topo("show", "--cluster", status=1)
    assert "plugin is not there: get it from your cloud" in said


def test_a_client_certificate_is_enough(lab: Lab) -> None:
    certificate, key = lab.authority.issue("operator")
    lab.config = lab.kubeconfig(
        {"client-certificate": certificate, "client-key-data": api_server.encoded(key)}
    )
    lab.topo("create", "--no-wait")
    assert set(lab.uids()) == {"a", "b", "c"}


def test_a_plugin_may_give_a_certificate(lab: Lab) -> None:
    certificate, key = lab.authority.issue("operator")
    status = {
        "clientCertificateData": Path(certificate).read_text(),
        "clientKeyData": Path(key).read_text(),
    }
    version = "client.authentication.k8s.io/v1beta1"
    answer = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    (lab.folder / "answer").write_text(json.dumps(answer))
    spec = {"apiVersion": version, "command": "cat", "args": [str(lab.folder / "answer")]}
    lab.config = lab.kubeconfig({"exec": spec})
    lab.topo("create", "--no-wait")
    assert set(lab.uids()) == {"a", "b", "c"}


class Kubelet(threading.Thread):
    """Attaches the pods that the API server has, through the plugin, and detaches them."""

    def __init__(self, cluster: Cluster, bed: AgentBed) -> None:
        super().__init__(daemon=True)
        self.pods: dict[str, Pod] = {}  # by UID
        self._cluster, self._bed = cluster, bed
        self._ending = threading.Event()
        bed.objects.lingers = True

    def run(self) -> None:
        objects = self._bed.objects
        while not self._ending.wait(0.05):
            for (namespace, name), one in list(objects.pods.items()):
                uid = one["metadata"]["uid"]
                if one["metadata"].get("deletionTimestamp"):
                    self._bed.node.delete(self.pods.pop(uid)).succeeded()
                    objects.delete_pod(namespace, name)
                elif uid not in self.pods:
                    objects.change_pod(namespace, name, self._bind)
                    self.pods[uid] = pod = self._cluster.pod(name)
                    pod.uid = uid
                    self._bed.attach(pod).succeeded()
                    self._bed.running(pod)

    def _bind(self, one: Obj) -> None:
        one["spec"]["nodeName"] = self._bed.name

    def named(self, name: str) -> Pod:
        return next(pod for pod in self.pods.values() if pod.name == name)

    def close(self) -> None:
        self._ending.set()
        self.join()


@pytest.mark.root
def test_a_topology_comes_up_through_the_plugin_and_its_links_follow_the_file(
    cluster: Cluster, node: Node, tmp_path: Path, authority: Authority
) -> None:
    """The node, its plugin, etcd and agent are real; the API server keeps objects."""
    bed = AgentBed(node, str(tmp_path / "agent"), authority, NODE_NAME)
    bed.api.rights |= set(OPERATOR_RIGHTS)
    kubelet = Kubelet(cluster, bed)
    file = tmp_path / "lab.clab.yml"
    (tmp_path / "motd").write_text("hello\n")

    def topo(command: str) -> str:
        argv = [sys.executable, "-m", "ratchetctl", "topo", command, str(file)]
        done = subprocess.run(
            node.namespace.command(*argv, "--kubeconfig", bed.kubeconfig),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def indexes(name: str) -> dict[str, str]:
        lines = kubelet.named(name).netns.ip("-o", "link").splitlines()
        return {line.split(":")[1].strip().partition("@")[0]: line.split(":")[0] for line in lines}

    try:
        bed.start()
        bed.wait_watching()
        kubelet.start()
        file.write_text(LAB)
        assert "2 of 2 links are up" in topo("create")
        kubelet.named("a").netns.wait_ping("10.0.1.2")
        before, uids = indexes("b"), set(kubelet.pods)
        # One link has another address, the other one is left alone; nothing is made anew.
        file.write_text(LAB.replace("10.0.1.2/24", "10.0.1.7/24"))
        assert "2 of 2 links are up" in topo("apply")
        kubelet.named("a").netns.wait_ping("10.0.1.7")
        assert indexes("b") == before
        assert set(kubelet.pods) == uids
        topo("destroy")
        assert not kubelet.pods
        assert not bed.objects.pods
    finally:
        kubelet.close()
        for attachment in list(node.attachments.values()):
            node.delete(attachment.pod)
        bed.close()


def test_options_of_the_other_place_are_refused(lab: Lab) -> None:
    assert "--nodes is for --sim only" in lab.topo("create", "--nodes", "3", status=2)
    assert "--dry-run is for a cluster only" in lab.topo(
        "apply", "--sim", "--dry-run", "client", status=2
    )
