"""What a plugin is given, as libcni and containerd would give it; the programs are stand-ins."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ratchetctl.errors import PluginError, SimError
from ratchetctl.sim import runtime
from ratchetctl.sim.directory import PodState
from ratchetctl.sim.runtime import Runtime

POD = PodState(
    namespace="ns",
    name="p",
    uid="u-1",
    container_id="c" * 64,
    node="node1",
    labels={"ratchet": "true"},
    annotations={"ratchet.local_ip": "10.0.0.1/30"},
    netns="/sim/netns/c",
    result={"cniVersion": "1.0.0", "ips": []},
)


class Calls(list[tuple[str, dict[str, Any], dict[str, str]]]):
    """Stands in for subprocess.run: notes (program, request, environment), answers in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[int, bytes]] = []

    def __call__(self, command: tuple[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        name = command[0].rpartition("/")[2]
        self.append((name, json.loads(options["input"]), options["env"]))
        status, output = self.answers.pop(0) if self.answers else (0, b"{}")
        return subprocess.CompletedProcess(command, status, output, b"on stderr")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    monkeypatch.setattr(subprocess, "run", found)
    return found


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    for name in ("one", "two"):
        path = tmp_path / name
        path.write_text("")
        path.chmod(0o755)
    return str(tmp_path)


def test_passes_labels_annotations_and_identity(calls: Calls, plugins: str) -> None:
    capability = {"io.kubernetes.cri.pod-annotations": True}
    configuration = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "one",
        "capabilities": capability,
    }
    calls.answers = [(0, b'{"cniVersion": "1.0.0"}')]
    assert Runtime(configuration, [plugins]).add(POD) == {"cniVersion": "1.0.0"}
    ((_, request, environ),) = calls
    assert request["args"]["cni"]["labels"] == [{"key": "ratchet", "value": "true"}]
    assert request["runtimeConfig"] == {"io.kubernetes.cri.pod-annotations": POD.annotations}
    assert "capabilities" not in request  # CNI spec 1.1.0 §4
    assert "prevResult" not in request
    assert environ["CNI_COMMAND"] == "ADD"
    assert environ["CNI_CONTAINERID"] == POD.container_id
    assert environ["CNI_NETNS"] == POD.netns
    assert environ["CNI_IFNAME"] == "eth0"
    assert environ["CNI_PATH"] == plugins
    assert "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;" in environ["CNI_ARGS"]
    assert environ["CNI_ARGS"].endswith("K8S_POD_UID=u-1")
    assert "HOME" not in environ


def test_annotations_need_the_capability(calls: Calls, plugins: str) -> None:
    one = Runtime({"cniVersion": "1.0.0", "name": "net", "type": "one"}, [plugins])
    one.add(POD)
    assert "runtimeConfig" not in calls[0][1]
    assert not one.passes_annotations


def test_a_list_runs_forwards_for_add_and_backwards_for_del(calls: Calls, plugins: str) -> None:
    configuration = {
        "cniVersion": "0.4.0",
        "name": "net",
        "plugins": [{"type": "one"}, {"type": "two", "args": {"x": 1, "cni": {"ips": []}}}],
    }
    calls.answers = [(0, b'{"a": 1}'), (0, b'{"a": 2}')]
    both = Runtime(configuration, [plugins])
    assert both.add(POD) == {"a": 2}
    assert [name for name, _, _ in calls] == ["one", "two"]
    assert "prevResult" not in calls[0][1]
    assert calls[1][1]["prevResult"] == {"a": 1}
    assert calls[1][1]["name"] == "net"
    assert calls[1][1]["args"]["x"] == 1
    assert calls[1][1]["args"]["cni"]["ips"] == []
    calls.clear()
    both.delete(POD)
    assert [name for name, _, _ in calls] == ["two", "one"]
    assert all(request["prevResult"] == POD.result for _, request, _ in calls)


def test_del_asks_every_plugin_and_then_fails(calls: Calls, plugins: str) -> None:
    configuration = {
        "cniVersion": "1.0.0",
        "name": "n",
        "plugins": [{"type": "one"}, {"type": "two"}],
    }
    calls.answers = [(1, b'{"code": 7, "msg": "bad", "details": "more"}'), (0, b"")]
    with pytest.raises(PluginError, match=r"plugin two failed DEL: bad \(code 7\)\n  more"):
        Runtime(configuration, [plugins]).delete(POD)
    assert [name for name, _, _ in calls] == ["two", "one"]


def test_old_versions_get_no_prev_result_on_del(calls: Calls, plugins: str) -> None:
    Runtime({"cniVersion": "0.3.1", "name": "n", "type": "one"}, [plugins]).delete(POD)
    assert "prevResult" not in calls[0][1]


@pytest.mark.parametrize(
    ("status", "output"), [(1, b"panic"), (1, b""), (1, b"[]"), (0, b"no JSON")]
)
def test_an_answer_that_is_none_is_an_error(
    calls: Calls, plugins: str, status: int, output: bytes
) -> None:
    calls.answers = [(status, output)]
    with pytest.raises(PluginError, match="code 999"):
        Runtime({"cniVersion": "1.0.0", "name": "n", "type": "one"}, [plugins]).add(POD)


@pytest.mark.parametrize("kind", ["three", "../one", "/bin/sh", ""])
def test_a_plugin_is_found_by_its_name_only(plugins: str, kind: str) -> None:
    with pytest.raises(SimError, match="is in none of"):
        runtime.find_plugin(kind, [plugins])
