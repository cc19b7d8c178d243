"""`kubectl ratchet` as people run it: against the API server's stand-in, by a kubeconfig."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from ratchet.cni.dataclasses import replace
from ratchetctl.cli import cli
from ratchetctl.errors import OperatorError
from ratchetctl.kube import answer
from tests.lab.api_server import TOKEN, ApiServer, Authority, kubeconfig
from tests.unit.ratchetctl.kube.clusters import FAR, OWN, R1, R2, agent, pod

READING = {"list pods", "get pods", "watch pods"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(str(tmp_path_factory.mktemp("certificates")))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[str, str]:
    return authority.issue("kubernetes")


class Desk:
    """A cluster, and somebody with a kubeconfig for it and nothing else."""

    def __init__(self, folder: Path, authority: Authority, certificate: tuple[str, str]) -> None:
        self.api = ApiServer(certificate)
        self.api.rights = set(READING)
        self.config = kubeconfig(
            str(folder / "config"),
            {"server": self.api.url, "certificate-authority": authority.ca},
            {"token": TOKEN},
        )

    def put(self, *objects: dict[str, Any]) -> None:
        for obj in objects:
            spec = {"containers": [{"name": "agent", "image": "ratchet:0.2.0"}], **obj["spec"]}
            statuses = [
                {"image": "i", "imageID": "i", "restartCount": 0, **one}
                for one in obj["status"].get("containerStatuses", [])
            ]
            status = {**obj["status"], "containerStatuses": statuses}
            if obj["metadata"]["namespace"] == "ratchet":
                obj["metadata"]["labels"] = {
                    "app.kubernetes.io/name": "ratchet",
                    "app.kubernetes.io/component": "node",
                }
            spec = {key: value for key, value in spec.items() if value is not None}
            self.api.objects.put_pod(
                {"apiVersion": "v1", "kind": "Pod", **obj, "spec": spec, "status": status}
            )

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["kube", *arguments, "--kubeconfig", self.config])

    def lines(self, *arguments: str, status: int = 0) -> list[list[str]]:
        """Return a table's rows by their cells."""
        result = self.run(*arguments)
        assert result.exit_code == status, result.output
        return [line.split() for line in result.stdout.splitlines()]


@pytest.fixture
def desk(tmp_path: Path, authority: Authority, certificate: tuple[str, str]) -> Iterator[Desk]:
    desk = Desk(tmp_path, authority, certificate)
    desk.put(agent("node-1"), agent("node-2"))
    try:
        yield desk
    finally:
        desk.api.close()


def test_links_are_shown_as_a_table_and_for_programs(desk: Desk) -> None:
    desk.put(pod("r1", R1, OWN), pod("r2", R2, FAR, node="node-2"), pod("web", {"app": "web"}))
    head, row = desk.lines("links")
    assert head[:6] == ["NAMESPACE", "PRIMARY", "PAIR", "KIND", "STATE", "SINCE"]
    assert row[:5] == ["default", "r1:eth1", "r2:eth2", "vxlan", "up"]
    assert row[6:] == ["node-1", "node-2"]
    wide = desk.lines("links", "-o", "wide")[1]
    assert {"11", "10.0.0.1/24", "10.0.0.2/24"} <= set(wide)
    found = json.loads(desk.run("links", "-o", "json").stdout)
    assert yaml.safe_load(desk.run("links", "-o", "yaml").stdout) == found
    (link,) = found["items"]
    assert (link["state"], link["vni"]) == ("up", 11)
    assert link["pair"] == {
        "knownAs": "r2",
        "pod": "r2",
        "interface": "eth2",
        "address": "10.0.0.2/24",
        "node": "node-2",
        "state": "up",
    }


def test_the_exit_status_says_how_well_links_are(desk: Desk) -> None:
    waits = replace(OWN, state="waiting", kind=None)
    desk.put(pod("r1", R1, waits))
    assert "no pod r2 in namespace default" in desk.run("links", "-o", "wide").stdout
    desk.lines("links", status=3)
    desk.lines("links", "--state", "up", status=0)
    desk.put(pod("r1", R1, replace(OWN, state="error", error="eth2 is taken")))
    desk.lines("links", status=4)
    desk.lines("pods", status=4)


def test_one_pod_s_links_and_other_namespaces(desk: Desk) -> None:
    desk.put(pod("r1", R1, OWN), pod("r2", R2, FAR, node="node-2"))
    desk.put(
        pod("r3", {**R1, "ratchet.pair_name": "r4"}, replace(OWN, peer="lab:r4"), namespace="lab")
    )
    assert len(desk.lines("links", "r1")) == 2
    assert len(desk.lines("links", "-n", "lab", status=3)) == 2
    assert len(desk.lines("links", "-A", status=3)) == 3
    assert len(desk.lines("links", "-A", "-l", "ratchet=true", status=3)) == 3
    result = desk.run("links", "nobody")
    assert isinstance(result.exception, OperatorError)
    assert "no pod nobody of Ratchet's in namespace default" in str(result.exception)


def test_pods_are_shown_with_what_is_wrong(desk: Desk) -> None:
    desk.put(
        pod("r1", R1, replace(OWN, state="waiting", kind=None)),
        pod("bad", {**R2, "ratchet.2.local_ifname": "a/b"}, phase="Pending"),
        pod("old", {**R2, "ratchet.pod_name": "r9"}, is_told=True, superseded=True),
    )
    rows = {row[1]: row for row in desk.lines("pods", status=4)[1:]}
    assert rows["r1"][2:4] == ["waiting", "0/1"]
    assert rows["bad"][2] == "error"
    assert rows["old"][2] == "superseded"


def test_what_a_strangers_text_would_do_to_a_terminal_it_does_not(desk: Desk) -> None:
    desk.put(pod("r1", R1, replace(OWN, state="error", error="\x1b[31mred\nline")))
    for command in (["links", "-o", "wide"], ["pods", "-o", "wide"], ["explain", "r1"]):
        assert "\x1b" not in desk.run(*command).stdout


def test_a_pod_is_explained(desk: Desk) -> None:
    desk.put(pod("r1", R1, replace(OWN, state="waiting", kind=None)), pod("r2", {"ratchet": "yes"}))
    result = desk.run("explain", "r1")
    assert result.exit_code == 3
    assert "pod r2 is there, but its label ratchet is 'yes'" in result.stdout
    result = desk.run("explain", "r2")
    assert result.exit_code == 4
    assert 'only "true" makes a pod Ratchet\'s' in result.stdout
    found = json.loads(desk.run("explain", "r1", "-o", "json").stdout)
    assert found["findings"][0]["about"] == "eth1 to r2"
    missing = desk.run("explain", "nobody")
    assert isinstance(missing.exception, OperatorError)
    assert "nobody" in str(missing.exception)


def test_without_the_right_to_see_agents_it_is_said_what_that_means(desk: Desk) -> None:
    desk.put(pod("r1", R1, OWN), pod("r2", R2, FAR, node="node-2"))

    def refuse(handler: Any) -> bool:
        if "/namespaces/ratchet/" in handler.path:
            handler.status(403, "forbidden", reason="Forbidden")
            return True
        return False

    desk.api.faults = [refuse, refuse]
    result = desk.run("links")
    assert result.exit_code == 0
    assert "may be old" in result.stderr


def test_a_cluster_of_several_pages_is_read_whole(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchetctl.api.client.PAGE", 2)
    desk.put(pod("r1", R1, OWN), pod("r2", R2, FAR, node="node-2"))
    desk.put(*(pod(f"web{number}", {"app": "web"}) for number in range(4)))
    assert desk.lines("links")[1][4] == "up"


def test_changes_are_shown_as_they_come(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(pod("r1", R1, replace(OWN, state="waiting", kind=None)), pod("r2", R2, is_told=True))
    shown: list[str] = []

    def change() -> None:
        time.sleep(2.5)
        desk.put(pod("r1", R1, OWN), pod("r2", R2, FAR, node="node-2"))
        time.sleep(2.5)
        desk.api.objects.delete_pod("default", "r1")
        desk.api.objects.delete_pod("default", "r2")
        time.sleep(2.5)
        desk.api.rights.clear()
        desk.api.hang_up()

    thread = threading.Thread(target=change)
    thread.start()
    result = desk.run("links", "-w")
    thread.join()
    shown = result.stdout.splitlines()
    assert [line.split()[0] for line in shown[:1]] == ["NAMESPACE"]
    states = [line.split()[4] if "gone" not in line else "gone" for line in shown[1:]]
    # Two pods do not change in one moment, and what lies in between may be shown: a pod alone.
    both = [state for state in states if state != "unknown"]
    assert [both[0], both[-2], both[-1]] == ["waiting", "up", "gone"]
    assert isinstance(result.exception, OperatorError)


def test_kubectl_is_told_what_may_come_next(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.put(pod("r1", R1, OWN), pod("web", {"app": "web"}))
    monkeypatch.setenv("KUBECONFIG", desk.config)
    answer.answer(["ex"])
    assert capsys.readouterr().out.splitlines()[0].startswith("explain")
    answer.answer(["explain", ""])
    assert capsys.readouterr().out.splitlines() == ["r1", ":4"]
    answer.answer(["links", "-o", "w"])
    assert capsys.readouterr().out.splitlines() == ["wide", ":4"]
    desk.api.close()
    answer.answer(["explain", ""])
    assert capsys.readouterr().out.splitlines() == [":4"]


def test_nodes_are_checked_without_frames(desk: Desk) -> None:
    desk.api.rights.add("list nodes")
    for name in ("node-1", "node-2", "node-3"):
        desk.api.objects.put_other("nodes", {"kind": "Node", "metadata": {"name": name}})
    desk.put(agent("node-2", address="192.168.1.2", etcd="away", etcd_error="no route"))
    result = desk.run("check", "--no-frames")
    assert result.exit_code == 4
    assert "node node-2: etcd does not answer it: no route." in result.stdout
    assert "node node-3: no agent runs on it as a pod." in result.stdout
    found = json.loads(desk.run("check", "--no-frames", "-o", "json").stdout)
    assert [node["name"] for node in found["nodes"]] == ["node-1", "node-2", "node-3"]
    # Frames need a right, which is named.
    refused = desk.run("check")
    assert "patch pods/status" in str(refused.exception)
