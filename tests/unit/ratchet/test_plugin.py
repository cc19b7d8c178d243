"""Whose a pod is, and what is handed to the delegate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ratchet import log, plugin, pods, repeated, statedir
from ratchet.cni import invoke
from ratchet.cni.errors import CniError, DelegateError
from ratchet.errors import ConfigError

from .fakes import Became, Child, Plugins, install, request

DELEGATE = {"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local"}}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> tuple[Plugins, Child]:
    return install(monkeypatch)


@pytest.fixture
def plugins(fakes: tuple[Plugins, Child]) -> Plugins:
    return fakes[0]


@pytest.fixture
def child(fakes: tuple[Plugins, Child]) -> Child:
    return fakes[1]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "net",
        "type": "ratchet",
        "cniVersion": "1.0.0",
        "state_dir": str(tmp_path / "state"),
        "docker_socket": str(tmp_path / "none"),
        "delegate": DELEGATE,
    }


def became(operation: Any, command: str, config: dict[str, Any]) -> Became:
    with pytest.raises(Became) as caught:
        operation(request(command, config))
    return caught.value


@pytest.mark.parametrize("labels", [None, {}, {"ratchet": "false"}, {"ratchet": "True"}])
def test_an_unlabelled_pod_is_the_delegates_and_leaves_no_trace(
    plugins: Plugins, config: dict[str, Any], tmp_path: Path, labels: dict[str, str] | None
) -> None:
    if labels is not None:
        config["args"] = {"cni": {"labels": labels}}
    found = became(plugin.cmd_add, "ADD", config)
    given = {"args": config["args"]} if labels is not None else {}
    assert found.config == {**DELEGATE, "name": "net", "cniVersion": "1.0.0", **given}
    assert found.environ == request("ADD", config).environ
    # What the delegate's program knows is kept; nothing is kept of the pod.
    assert [one.name for one in (tmp_path / "state").iterdir()] == ["versions"]


def test_use_labels_false_asks_nobody(
    plugins: Plugins, child: Child, config: dict[str, Any]
) -> None:
    config.update(use_labels=False, args={"cni": {"labels": {"ratchet": "true"}}})
    became(plugin.cmd_add, "ADD", config)
    assert child.asked == []
    assert child.attended == 0


def test_a_child_that_was_killed_is_started_for_a_pod_that_needs_none(
    plugins: Plugins, child: Child, config: dict[str, Any]
) -> None:
    became(plugin.cmd_add, "ADD", config)
    became(plugin.cmd_del, "DEL", config)
    assert child.attended == 2
    statedir.mark_at_rest(config["state_dir"])
    became(plugin.cmd_add, "ADD", config)
    assert child.attended == 2
    assert child.asked == child.told == []


def test_without_a_version_the_delegate_gets_none(plugins: Plugins, config: dict[str, Any]) -> None:
    del config["cniVersion"]
    assert "cniVersion" not in became(plugin.cmd_add, "ADD", config).config


@pytest.mark.parametrize(
    ("operation", "command"), [(plugin.cmd_del, "DEL"), (plugin.cmd_check, "CHECK")]
)
def test_what_has_no_record_was_the_delegates(
    plugins: Plugins, child: Child, config: dict[str, Any], operation: Any, command: str
) -> None:
    config["args"] = {"cni": {"labels": {"ratchet": "true", "ratchet.primary": "nonsense"}}}
    assert became(operation, command, config).config["type"] == "bridge"
    assert child.asked == child.told == []


def test_a_list_is_chained_on_add(plugins: Plugins, config: dict[str, Any]) -> None:
    config["delegate"] = {"plugins": [{"type": "a"}, {"type": "b"}, {"type": "c"}]}
    plugins.answer("ADD", "a", {"cniVersion": "1.0.0", "ips": []})
    plugins.answer("ADD", "b", {"cniVersion": "1.0.0", "interfaces": []})
    config["prevResult"] = {"cniVersion": "1.0.0"}
    found = became(plugin.cmd_add, "ADD", config)
    assert plugins.ran() == [("ADD", "a"), ("ADD", "b")]
    assert [call.config["prevResult"] for call in plugins.calls] == [
        {"cniVersion": "1.0.0"},
        {"cniVersion": "1.0.0", "ips": []},
    ]
    assert found.config["type"] == "c"
    assert found.config["prevResult"] == {"cniVersion": "1.0.0", "interfaces": []}


def test_prev_result_is_in_the_next_plugins_version(
    plugins: Plugins, config: dict[str, Any]
) -> None:
    config["delegate"] = {"plugins": [{"type": "a", "cniVersion": "0.4.0"}, {"type": "b"}]}
    ips = [{"address": "10.0.0.1/24"}]
    plugins.answer("ADD", "a", {"cniVersion": "0.4.0", "ips": [{"version": "4", **ips[0]}]})
    found = became(plugin.cmd_add, "ADD", config)
    assert found.config["prevResult"] == {"cniVersion": "1.0.0", "ips": ips}


def test_a_list_is_reversed_on_del(plugins: Plugins, config: dict[str, Any]) -> None:
    config["delegate"] = {"plugins": [{"type": "a"}, {"type": "b"}, {"type": "c"}]}
    assert became(plugin.cmd_del, "DEL", config).config["type"] == "a"
    assert plugins.ran() == [("DEL", "c"), ("DEL", "b")]


def test_the_delegates_error_goes_up_as_it_is(plugins: Plugins, config: dict[str, Any]) -> None:
    config["delegate"] = {"plugins": [{"type": "a"}, {"type": "b"}]}
    error = CniError(123, "no", "because")
    plugins.answer("ADD", "a", error)
    with pytest.raises(CniError) as caught:
        plugin.cmd_add(request("ADD", config))
    assert caught.value is error


def test_check_is_not_sent_to_a_delegate_that_does_not_know_it(
    plugins: Plugins, config: dict[str, Any]
) -> None:
    config["delegate"] = {**DELEGATE, "cniVersion": "0.3.1"}
    assert plugin.cmd_check(request("CHECK", config)) is None


def test_chained_without_delegate_the_previous_result_is_handed_on(
    plugins: Plugins, config: dict[str, Any]
) -> None:
    del config["delegate"]
    config["prevResult"] = {"cniVersion": "1.0.0", "x": 1}
    assert plugin.cmd_add(request("ADD", config)) == {"cniVersion": "1.0.0", "x": 1}
    assert plugin.cmd_del(request("DEL", config)) is None
    assert plugin.cmd_check(request("CHECK", config)) is None
    config["prevResult"] = {
        "cniVersion": "0.4.0",
        "ips": [{"version": "4", "address": "10.0.0.1/8"}],
    }
    assert plugin.cmd_add(request("ADD", config)) == {
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.0.0.1/8"}],
    }


def test_with_neither_delegate_nor_previous_result_add_fails_and_del_does_not(
    plugins: Plugins, config: dict[str, Any]
) -> None:
    del config["delegate"]
    with pytest.raises(ConfigError, match="delegate"):
        plugin.cmd_add(request("ADD", config))
    assert plugin.cmd_del(request("DEL", config)) is None


@pytest.mark.parametrize("previous", ["x", [], {"cniVersion": "0.4.0", "ips": 3}])
def test_a_previous_result_that_is_none_is_a_config_error(
    plugins: Plugins, config: dict[str, Any], previous: Any
) -> None:
    del config["delegate"]
    config["prevResult"] = previous
    with pytest.raises(ConfigError, match="prevResult"):
        plugin.cmd_add(request("ADD", config))


KUBERNETES = "K8S_POD_NAME=p;K8S_POD_NAMESPACE=ns;K8S_POD_UID=u"


def test_labels_are_asked_of_a_child_that_runs(
    plugins: Plugins, child: Child, config: dict[str, Any]
) -> None:
    config["kubeconfig"] = "/etc/kubeconfig"
    child.answer = {"ok": True, "labels": {"ratchet": "no"}, "annotations": {}}
    with pytest.raises(Became):
        plugin.cmd_add(request("ADD", config, args=KUBERNETES))
    assert child.asked == [{"op": "labels", "namespace": "ns", "name": "p", "uid": "u"}]


@pytest.mark.parametrize("code", [11, 102])
def test_labels_that_cannot_be_read_are_an_error_and_not_a_no(
    plugins: Plugins, child: Child, config: dict[str, Any], code: int
) -> None:
    config["kubeconfig"] = "/etc/kubeconfig"
    child.answer = {"ok": False, "code": code, "msg": "no", "details": "d"}
    with pytest.raises(CniError) as caught:
        plugin.cmd_add(request("ADD", config, args=KUBERNETES))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "answer", [{"ok": True, "etcd": "connection refused"}, {"ok": False, "code": 108}, None]
)
def test_status_is_not_etcds_or_the_childs(
    plugins: Plugins, child: Child, config: dict[str, Any], answer: dict[str, Any] | None
) -> None:
    config["cniVersion"] = "1.1.0"
    child.answer = answer
    assert plugin.cmd_status(request("STATUS", config)) is None
    assert plugins.ran() == [("STATUS", "bridge")]
    assert child.asked == [{"op": "health"}]


def test_status_fails_where_labels_are_refused_and_counts_what_it_repeats(
    plugins: Plugins, child: Child, config: dict[str, Any]
) -> None:
    config["cniVersion"] = "1.1.0"
    refused = {"ok": False, "code": 102, "msg": "refused", "details": "401"}
    child.answer = {"ok": True, "etcd": None, "labels": refused}
    for repeats in range(3):
        with pytest.raises(CniError, match="refused") as caught:
            plugin.cmd_status(request("STATUS", config))
        assert (caught.value.code, caught.value.repeats) == (102, repeats)
    child.answer = {"ok": True, "etcd": None, "labels": None}
    assert plugin.cmd_status(request("STATUS", config)) is None
    child.answer = {"ok": True, "etcd": None, "labels": refused}
    with pytest.raises(CniError) as caught:
        plugin.cmd_status(request("STATUS", config))
    assert caught.value.repeats == 0


def test_status_is_the_delegates(plugins: Plugins, config: dict[str, Any]) -> None:
    config["cniVersion"] = "1.1.0"
    plugins.answer("STATUS", "bridge", CniError(51, "full"))
    with pytest.raises(CniError, match="full"):
        plugin.cmd_status(request("STATUS", config))


def test_status_is_not_sent_to_a_plugin_that_does_not_know_it(
    plugins: Plugins, child: Child, config: dict[str, Any]
) -> None:
    config["cniVersion"] = "1.1.0"
    plugins.newest = "1.0.0"
    child.answer = {"ok": True, "etcd": None}
    assert plugin.cmd_status(request("STATUS", config)) is None
    assert plugins.ran() == []
    assert child.asked == [{"op": "health"}]


def test_status_fails_when_the_delegate_is_not_installed(
    plugins: Plugins, config: dict[str, Any]
) -> None:
    config["cniVersion"] = "1.1.0"
    plugins.missing = {"bridge"}
    with pytest.raises(CniError) as caught:
        plugin.cmd_status(request("STATUS", config))
    assert caught.value.code == 101


def test_status_without_labels_is_the_delegates_alone(
    plugins: Plugins, child: Child, config: dict[str, Any]
) -> None:
    config.update(cniVersion="1.1.0", use_labels=False)
    config["delegate"] = {**DELEGATE, "cniVersion": "1.0.0"}
    assert plugin.cmd_status(request("STATUS", config)) is None
    assert plugins.ran() == []
    assert child.asked == []


# A delegate with a version of its own: to the runtime it is we who answer, in our version.

OLDER = {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.0.0.1/24"}]}
NEWER = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/24"}]}


def test_a_delegate_of_another_version_is_answered_for_in_ours(
    plugins: Plugins, config: dict[str, Any]
) -> None:
    config["delegate"] = {**DELEGATE, "cniVersion": "0.4.0"}
    plugins.answer("ADD", "bridge", OLDER)
    assert plugin.cmd_add(request("ADD", config)) == NEWER
    assert plugins.calls[0].config["cniVersion"] == "0.4.0"
    plugins.answer("ADD", "bridge", {"cniVersion": "0.4.0", "ips": 3})
    with pytest.raises(DelegateError, match="bridge"):
        plugin.cmd_add(request("ADD", config))
    del config["cniVersion"]  # nobody has asked for any version
    assert became(plugin.cmd_add, "ADD", config).config["cniVersion"] == "0.4.0"


@pytest.mark.parametrize(
    ("operation", "command"), [(plugin.cmd_del, "DEL"), (plugin.cmd_check, "CHECK")]
)
def test_a_delegate_of_another_version_gets_prev_result_in_its_own(
    plugins: Plugins, config: dict[str, Any], operation: Any, command: str
) -> None:
    config.update(delegate={**DELEGATE, "cniVersion": "0.4.0"}, prevResult=NEWER)
    assert became(operation, command, config).config["prevResult"] == OLDER
    config["prevResult"] = {"cniVersion": "1.0.0", "ips": 3}  # for the delegate to judge
    assert became(operation, command, config).config["prevResult"] == config["prevResult"]


@pytest.mark.parametrize("answer", [None, {"cniVersion": "0.4.0", "ips": 3}])
def test_in_a_list_what_is_no_result_is_the_plugins_failure(
    plugins: Plugins, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    config["delegate"] = {"plugins": [{"type": "a"}, {"type": "b"}]}
    monkeypatch.setattr(invoke, "run", lambda *_: answer)
    with pytest.raises(DelegateError, match="plugin a "):
        plugin.cmd_add(request("ADD", config))


def test_a_list_is_not_checked_or_collected_when_it_says_so(
    plugins: Plugins, child: Child, config: dict[str, Any]
) -> None:
    config["delegate"] = {"plugins": [DELEGATE], "disableCheck": True, "disableGC": True}
    assert plugin.cmd_check(request("CHECK", config)) is None
    config.update({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []})
    assert plugin.cmd_gc(request("GC", config)) is None
    assert plugins.ran() == []
    assert plugin.cmd_status(request("STATUS", config)) is None
    assert plugins.ran() == [("STATUS", "bridge")]


def test_gc_with_null_reaches_the_delegate_as_it_came(
    plugins: Plugins, config: dict[str, Any]
) -> None:
    config.update({"cniVersion": "1.1.0", "cni.dev/valid-attachments": None})
    assert plugin.cmd_gc(request("GC", config)) is None
    assert [call.config["cni.dev/valid-attachments"] for call in plugins.calls] == [None]


def test_gc_and_status_reach_the_boot_network_once(
    plugins: Plugins, child: Child, config: dict[str, Any]
) -> None:
    config.update({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []})
    config["boot_network"] = {"plugins": [DELEGATE, {"type": "ptp"}]}
    assert plugin.cmd_gc(request("GC", config)) is None
    assert plugin.cmd_status(request("STATUS", config)) is None
    assert plugins.ran() == [
        ("GC", "bridge"), ("GC", "ptp"), ("STATUS", "bridge"), ("STATUS", "ptp")
    ]  # fmt: skip
    plugins.calls.clear()
    config["use_labels"] = False  # nobody is attached to it
    assert plugin.cmd_status(request("STATUS", config)) is None
    assert plugins.ran() == [("STATUS", "bridge")]


def test_a_delegates_name_and_version_of_null_are_none(
    plugins: Plugins, config: dict[str, Any]
) -> None:
    config["delegate"] = {**DELEGATE, "name": None, "cniVersion": None}
    found = became(plugin.cmd_add, "ADD", config).config
    assert (found["name"], found["cniVersion"]) == ("net", "1.0.0")


# A delegate without a version of its own is given ours, and may be older.


def test_a_delegate_that_does_not_know_ours_is_given_the_highest_that_it_knows(
    plugins: Plugins, config: dict[str, Any]
) -> None:
    config["cniVersion"] = "1.1.0"
    plugins.newest = "0.4.0"
    plugins.answer("ADD", "bridge", OLDER)
    assert plugin.cmd_add(request("ADD", config)) == {**NEWER, "cniVersion": "1.1.0"}
    assert plugins.calls[0].config["cniVersion"] == "0.4.0"
    config["prevResult"] = {**NEWER, "cniVersion": "1.1.0"}
    detached = became(plugin.cmd_del, "DEL", config).config
    assert (detached["cniVersion"], detached["prevResult"]) == ("0.4.0", OLDER)
    plugins.newest = "0.3.1"
    assert became(plugin.cmd_check, "CHECK", config).config["cniVersion"] == "0.4.0"  # remembered


def test_a_plugin_is_asked_for_its_versions_once_a_file(
    plugins: Plugins, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.newest = "1.0.0"
    stamps = iter(["1", "1", "1", "2", "2"])
    monkeypatch.setattr(statedir, "stamp", lambda _: next(stamps))
    asked = []
    plugins.before = lambda call: asked.append(call.command)
    for command in (plugin.cmd_add, plugin.cmd_add, plugin.cmd_del):
        became(command, "ADD" if command is plugin.cmd_add else "DEL", config)
    assert asked == ["VERSION"]
    became(plugin.cmd_add, "ADD", config)
    assert asked == ["VERSION", "VERSION"]


def test_a_stated_version_that_the_delegate_does_not_know_names_the_delegate(
    plugins: Plugins, child: Child, config: dict[str, Any]
) -> None:
    config.update(cniVersion="1.1.0", delegate={**DELEGATE, "cniVersion": "1.1.0"})
    plugins.newest = "1.0.0"
    for operation, command in ((plugin.cmd_add, "ADD"), (plugin.cmd_status, "STATUS")):
        with pytest.raises(CniError, match=r"bridge does not know cniVersion 1\.1\.0") as caught:
            operation(request(command, config))
        assert caught.value.code == 1
        assert "1.0.0" in caught.value.details
    assert became(plugin.cmd_del, "DEL", config).config["cniVersion"] == "1.1.0"
    config.update(delegate=DELEGATE, boot_network={"type": "ptp", "cniVersion": "1.1.0"})
    assert plugin.cmd_status(request("STATUS", config)) is None  # it is attached in 1.0.0


def test_a_delegate_that_does_not_tell_its_versions_is_given_ours(
    plugins: Plugins, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CniError(4, "no VERSION here")

    monkeypatch.setattr(invoke, "run", refuse)
    assert became(plugin.cmd_add, "ADD", config).config["cniVersion"] == "1.0.0"


# No source of labels.


def test_that_nothing_tells_the_labels_is_told_once_until_it_is_mended(
    plugins: Plugins, child: Child, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "warning", lambda message, **_: told.append(message))
    for _ in range(3):
        with pytest.raises(Became):
            plugin.cmd_add(request("ADD", config, args=KUBERNETES))
    assert told == [pods.NO_SOURCE]
    assert "set kubeconfig" in told[0]
    assert repeated.last(config["state_dir"], plugin.SOURCE) == pods.NO_SOURCE
    child.answer = {"ok": True, "labels": {}, "annotations": {}}
    with pytest.raises(Became):
        plugin.cmd_add(request("ADD", {**config, "kubeconfig": "/k"}, args=KUBERNETES))
    assert repeated.last(config["state_dir"], plugin.SOURCE) is None


@pytest.mark.parametrize(
    ("changes", "args"),
    [
        ({"use_labels": False}, KUBERNETES),
        ({"args": {"cni": {"labels": {}}}}, KUBERNETES),
        ({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": None}}, KUBERNETES),
        ({"label_source": "runtime"}, KUBERNETES),
        ({}, "K8S_POD_NAME=podman"),
        ({}, ""),
    ],
)
def test_where_labels_can_come_from_somewhere_nothing_is_told(
    plugins: Plugins, config: dict[str, Any], changes: dict[str, Any], args: str
) -> None:
    with pytest.raises(Became):
        plugin.cmd_add(request("ADD", {**config, **changes}, args=args))
    assert repeated.last(config["state_dir"], plugin.SOURCE) is None
