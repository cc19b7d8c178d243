"""An eligible pod's life: every step, every step's failure, and every step once more."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ratchet import plugin, reported
from ratchet.attachments import Directory
from ratchet.cni.errors import CniError, DelegateError
from ratchet.cni.result import link_local
from ratchet.errors import (
    CheckError,
    ConfigError,
    KernelError,
    LabelError,
    LinkWaitError,
    StateError,
)

from .fakes import Became, Call, install, request

LABELS = {
    "ratchet": "true",
    "ratchet.pod_name": "primary-pod",
    "ratchet.primary": "true",
    "ratchet.local_ifname": "in1",
    "ratchet.local_ip": "192.168.2.100",
    "ratchet.pair_name": "pair-pod",
    "ratchet.pair_ifname": "in2",
    "ratchet.pair_ip": "192.168.2.101",
}
LO = {
    "cniVersion": "0.3.1",
    "interfaces": [{"name": "lo", "sandbox": "/x"}],
    "ips": [{"version": "4", "interface": 0, "address": "127.0.0.1/8"}],
}
WITH_ADDRESS = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "sandbox": "/x"}],
    "ips": [{"interface": 0, "address": "10.1.0.5/16"}],
}


class World:
    """A node with its plugins, its child and one network's state directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.plugins, self.child = install(monkeypatch)
        self.directory = Directory(str(tmp_path / "state"))
        self.labels = dict(LABELS)
        self.config: dict[str, Any] = {
            "name": "net",
            "type": "ratchet",
            "cniVersion": "1.0.0",
            "state_dir": self.directory.state_dir,
            "delegate": {"type": "bridge"},
            "boot_network": {"type": "loopback"},
        }
        self.plugins.answer("ADD", "loopback", LO)
        self.plugins.answer("ADD", "bridge", WITH_ADDRESS)

    def add(self, **changes: str) -> Any:
        args = {"args": {"cni": {"labels": self.labels}}}
        return plugin.cmd_add(request("ADD", {**self.config, **args}, **changes))

    def delete(self, **changes: str) -> Any:
        return plugin.cmd_del(request("DEL", self.config, **changes))

    def check(self, previous: Any = None, **changes: str) -> Any:
        added = {} if previous is None else {"prevResult": previous}
        return plugin.cmd_check(request("CHECK", {**self.config, **added}, **changes))

    def gc(self, *valid: tuple[str, str]) -> Any:
        listed = [{"containerID": one, "ifname": other} for one, other in valid]
        keys = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": listed}
        return plugin.cmd_gc(request("GC", {**self.config, **keys}))

    def files(self) -> list[str]:
        """Return what lies in the state directory, deleted records without their time."""
        found = [
            os.path.relpath(os.path.join(folder, name), self.directory.state_dir)
            for folder, _, names in os.walk(self.directory.state_dir)
            for name in names
        ]
        return sorted(
            path.rsplit(".", 2)[0] + ".deleted" if path.endswith(".deleted") else path
            for path in found
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


RECORD = "attachments/c1.eth0.json"
DELETED = "attachments/c1.eth0.deleted"
KEPT = "boot/c1.eth0.json"


def test_add_records_attaches_and_wakes_the_child(world: World) -> None:
    seen: list[Any] = []
    world.plugins.before = lambda call: seen.append(world.directory.read("c1", "eth0"))
    assert world.add() == {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "lo", "sandbox": "/x"},
            {"name": "eth0", "mac": "00:00:00:00:00:00", "sandbox": "/proc/self/ns/uts"},
        ],
        "ips": [
            {"interface": 0, "address": "127.0.0.1/8"},
            {"interface": 1, "address": "192.168.2.100/24"},
        ],
    }
    # The record was there, unfinished, before the boot network was touched.
    assert [found.result for found in seen] == [None]
    found = world.directory.read("c1", "eth0")
    assert found is not None
    assert found.result == LO
    assert (found.pod, found.links[0].pair, found.netns) == (
        "primary-pod", "pair-pod", "/proc/self/ns/uts"
    )  # fmt: skip
    assert world.child.asked == [
        {"op": "attached", "attachment": "c1.eth0", "wait": "present", "timeout_s": 5.0}
    ]
    assert world.files() == [RECORD]


def test_the_boot_network_gets_our_name_and_version_and_what_the_runtime_added(
    world: World,
) -> None:
    world.config["runtimeConfig"] = {"mac": "x"}
    world.add()
    (call,) = world.plugins.calls
    assert call.config == {
        "type": "loopback",
        "name": "net",
        "cniVersion": "1.0.0",
        "runtimeConfig": {"mac": "x"},
        "args": {"cni": {"labels": LABELS}},
    }
    assert call.environ["OTHER"] == "kept"


@pytest.mark.parametrize("version", [None, "0.1.0", "0.2.0"])
def test_an_old_configurations_boot_network_says_where_its_addresses_are(
    world: World, version: str | None
) -> None:
    del world.config["cniVersion"]
    if version:
        world.config["cniVersion"] = version
    assert world.add() == {"cniVersion": version or "0.1.0", "ip4": {"ip": "192.168.2.100/24"}}
    assert world.plugins.calls[0].config["cniVersion"] == "0.3.1"


def test_a_boot_network_that_does_not_know_our_version_is_asked_in_a_lower_one(
    world: World,
) -> None:
    world.config["cniVersion"] = "1.1.0"
    world.plugins.newest = "1.0.0"
    assert world.add()["cniVersion"] == "1.1.0"
    assert [call.config["cniVersion"] for call in world.plugins.calls] == ["1.1.0", "1.0.0"]
    world.delete()
    assert world.plugins.calls[-1].config["cniVersion"] == "1.0.0"


def test_a_plugin_that_refuses_every_version_fails_the_add(world: World) -> None:
    world.plugins.newest = ""
    with pytest.raises(CniError, match="incompatible"):
        world.add()
    assert world.files() == [KEPT]  # its DEL was refused, too


def test_the_boot_networks_own_address_is_the_pods(world: World) -> None:
    del world.config["boot_network"]
    world.labels["ratchet.public_ip"] = "1.1.1.1"
    assert world.add() == WITH_ADDRESS
    assert world.plugins.ran() == [("ADD", "bridge")]


def test_the_public_ip_goes_before_the_first_links_address(world: World) -> None:
    world.labels["ratchet.public_ip"] = "1.1.1.1"
    assert world.add()["ips"][-1]["address"] == "1.1.1.1/24"


def test_a_pod_without_any_address_gets_a_link_local_one(world: World) -> None:
    world.labels = {"ratchet": "true", "ratchet.pod_name": "a"}
    assert world.add()["ips"][-1]["address"].startswith("169.254.")


def test_a_bad_label_changes_nothing(world: World) -> None:
    world.labels["ratchet.local_ip"] = "192.168.2.0"
    with pytest.raises(LabelError):
        world.add()
    assert world.plugins.calls == []
    assert world.child.asked == world.child.told == []
    assert not os.path.exists(world.directory.state_dir)


def test_a_boot_network_that_is_not_installed_changes_nothing(world: World) -> None:
    world.config["boot_network"] = {"plugins": [{"type": "loopback"}, {"type": "absent"}]}
    world.plugins.missing = {"absent"}
    with pytest.raises(DelegateError, match="absent"):
        world.add()
    assert world.plugins.calls == []
    assert world.files() == []


@pytest.mark.parametrize("netns", ["/nowhere", "/etc/passwd", "/proc/self/ns/net"])
def test_a_namespace_that_is_missing_or_the_nodes_own_changes_nothing(
    world: World, netns: str
) -> None:
    with pytest.raises(CniError, match="CNI_NETNS"):
        world.add(netns=netns)
    assert world.plugins.calls == []
    assert not os.path.exists(world.directory.state_dir)


@pytest.mark.parametrize(
    "answer", [CniError(123, "no", "why"), DelegateError("killed"), {"ips": 3}]
)
def test_a_failing_boot_network_is_undone(world: World, answer: Any) -> None:
    world.plugins.answer("ADD", "loopback", answer)
    with pytest.raises(CniError) as caught:
        world.add()
    assert caught.value.code == (101 if isinstance(answer, dict) else answer.code)
    assert world.plugins.ran() == [("ADD", "loopback"), ("DEL", "loopback")]
    assert world.files() == []
    assert world.child.asked == world.child.told == []


def test_what_could_not_be_undone_is_done_by_the_next_del(world: World) -> None:
    world.plugins.answer("ADD", "loopback", CniError(123, "no"))
    world.plugins.answer("DEL", "loopback", CniError(124, "no, too"))
    with pytest.raises(CniError) as caught:
        world.add()
    assert caught.value.code == 123
    assert world.files() == [KEPT]
    world.plugins.answer("DEL", "loopback", None)
    assert world.delete() is None
    assert world.files() == []


def test_a_boot_network_of_several_plugins_is_chained_and_reversed(world: World) -> None:
    world.config["boot_network"] = {"plugins": [{"type": "loopback"}, {"type": "bridge"}]}
    assert world.add() == WITH_ADDRESS
    assert world.plugins.calls[1].config["prevResult"]["cniVersion"] == "1.0.0"
    world.delete()
    assert world.plugins.ran()[2:] == [("DEL", "bridge"), ("DEL", "loopback")]


def test_chained_without_boot_network_the_previous_result_is_completed(world: World) -> None:
    del world.config["boot_network"], world.config["delegate"]
    world.config["prevResult"] = WITH_ADDRESS
    assert world.add() == WITH_ADDRESS
    assert world.delete() is None
    assert world.plugins.calls == []
    assert world.files() == [DELETED]


def test_with_nothing_to_give_the_pod_an_interface_add_fails(world: World) -> None:
    del world.config["boot_network"], world.config["delegate"]
    with pytest.raises(ConfigError):
        world.add()
    assert world.files() == []


def test_a_disk_that_is_full_before_the_boot_network_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(StateError):
        world.add()
    assert world.plugins.calls == []
    assert world.files() == []


def test_a_disk_that_is_full_after_the_boot_network_undoes_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Directory.write

    def full(self: Directory, attachment: Any) -> None:
        if attachment.is_finished:
            raise StateError("full")
        write(self, attachment)

    monkeypatch.setattr(Directory, "write", full)
    with pytest.raises(StateError):
        world.add()
    assert world.plugins.ran() == [("ADD", "loopback"), ("DEL", "loopback")]
    assert world.directory.live() == world.directory.kept_boots() == []


def test_a_del_during_the_add_wins(world: World) -> None:
    def interrupt(call: Call) -> None:
        if call.command == "ADD":
            world.directory.mark_deleted("c1", "eth0")

    world.plugins.before = interrupt
    with pytest.raises(StateError, match="detached while"):
        world.add()
    assert world.directory.live() == []


@pytest.mark.parametrize("wait", ["present", "none"])
@pytest.mark.parametrize(
    "answer", [None, {"ok": False, "code": 50, "msg": "etcd"}, {"ok": True, "complete": False}]
)
def test_links_that_are_late_do_not_fail_an_add_that_does_not_wait_for_all(
    world: World, wait: str, answer: Any
) -> None:
    world.config["wait"] = wait
    world.child.answer = answer
    assert world.add()["cniVersion"] == "1.0.0"
    assert world.files() == [RECORD]
    assert (world.child.told if wait == "none" else world.child.asked)[0]["op"] == "attached"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"ok": False, "code": 50, "msg": "etcd is away"},
        {
            "ok": True,
            "complete": False,
            "links": [{"ifname": "in1", "peer": "b", "state": "waiting", "primary": True}],
        },
    ],
)
def test_wait_all_is_undone_when_links_are_late(world: World, answer: Any) -> None:
    world.config["wait"] = "all"
    world.child.answer = answer
    with pytest.raises(LinkWaitError):
        world.add()
    assert world.plugins.ran() == [("ADD", "loopback"), ("DEL", "loopback")]
    assert world.files() == [DELETED]
    assert world.child.told == [{"op": "deleted", "attachment": "c1.eth0"}]


def test_wait_all_undone_keeps_a_boot_network_that_refuses_in_mind(world: World) -> None:
    world.config["wait"] = "all"
    world.child.answer = None
    world.plugins.answer("DEL", "loopback", CniError(124, "no"))
    with pytest.raises(LinkWaitError):
        world.add()
    assert world.files() == [DELETED, KEPT]


def test_add_twice_leaves_the_boot_network_alone_and_takes_todays_labels(world: World) -> None:
    first = world.add()
    world.labels["ratchet.pair_name"] = "other-pod"
    assert world.add() == first
    assert world.plugins.ran() == [("ADD", "loopback")]
    found = world.directory.read("c1", "eth0")
    assert found is not None
    assert found.links[0].pair == "other-pod"
    assert len(world.child.asked) == 2


def test_an_add_after_one_that_was_killed_begins_with_its_del(world: World) -> None:
    def killed(call: Call) -> None:
        raise KeyboardInterrupt

    world.plugins.before = killed
    with pytest.raises(KeyboardInterrupt):
        world.add()
    # Nothing of what a killed process would not have done.
    world.directory.write(_unfinished(world))
    world.plugins.before = lambda call: None
    world.plugins.calls.clear()
    world.add()
    assert world.plugins.ran() == [("DEL", "loopback"), ("ADD", "loopback")]
    assert world.files() == [RECORD]


def _unfinished(world: World) -> Any:
    from ratchet.cni.dataclasses import replace

    world.plugins.before = lambda call: None
    world.add()
    found = world.directory.read("c1", "eth0")
    assert found is not None
    return replace(found, result=None)


def test_the_del_of_an_add_that_was_killed_runs_the_boot_networks(world: World) -> None:
    world.directory.write(_unfinished(world))
    world.plugins.calls.clear()
    assert world.delete() is None
    assert world.plugins.ran() == [("DEL", "loopback")]
    assert world.directory.live() == []


def test_del_hands_the_record_to_the_child_and_detaches_as_it_was_attached(world: World) -> None:
    world.add(args="K8S_POD_NAME=a", path="/then")
    # Another configuration, and no labels, by now.
    world.config.update(boot_network={"type": "bridge"}, delegate={"type": "ptp"})
    assert world.delete(args="", path="/now", netns="") is None
    call = world.plugins.calls[-1]
    assert (call.command, call.type) == ("DEL", "loopback")
    assert call.config["prevResult"]["ips"][0]["address"] == "127.0.0.1/8"
    assert call.environ["CNI_ARGS"] == "K8S_POD_NAME=a"
    assert call.environ["CNI_PATH"] == "/then:/now"
    assert call.environ["CNI_NETNS"] == ""
    assert call.environ["CNI_CONTAINERID"] == "c1"
    assert world.child.told == [{"op": "deleted", "attachment": "c1.eth0"}]
    assert world.files() == [DELETED]


def test_del_again_is_the_delegates(world: World) -> None:
    world.add()
    world.delete()
    with pytest.raises(Became) as caught:
        world.delete()
    assert caught.value.config["type"] == "bridge"


def test_del_succeeds_without_the_child(world: World) -> None:
    world.add()
    world.child.answer = None
    assert world.delete() is None
    assert world.files() == [DELETED]


def test_a_boot_network_that_refuses_is_detached_by_the_next_del(world: World) -> None:
    world.add()
    world.plugins.answer("DEL", "loopback", CniError(124, "busy"))
    for _ in range(2):
        with pytest.raises(CniError, match="busy"):
            world.delete()
    assert world.files() == [DELETED, KEPT]
    # The child is done with the links, and forgets them.
    for path, _ in world.directory.deleted():
        world.directory.forget(path)
    world.plugins.answer("DEL", "loopback", None)
    assert world.delete() is None
    assert world.files() == []


def test_a_disk_that_is_read_only_fails_the_del_after_detaching_the_boot_network(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()

    def read_only(*args: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        for name in ("rename", "link", "unlink"):
            patch.setattr(os, name, read_only)
        with pytest.raises(StateError):
            world.delete()
    assert world.plugins.ran()[-1] == ("DEL", "loopback")
    assert world.delete() is None


def test_a_disk_that_turns_read_only_during_the_del_is_told_so_that_it_is_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()

    def read_only(*_: object) -> None:
        raise StateError("cannot remove", "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "forget_boot", read_only)
        with pytest.raises(StateError):
            world.delete()
    for path, _ in world.directory.deleted():
        world.directory.forget(path)
    assert world.files() == [KEPT]
    assert world.delete() is None
    assert world.files() == []


def test_check_asks_the_boot_network_and_the_child(world: World) -> None:
    world.add()
    assert world.check() is None
    call = world.plugins.calls[-1]
    assert (call.command, call.type) == ("CHECK", "loopback")
    assert call.config["prevResult"]["interfaces"] == LO["interfaces"]
    assert world.child.asked[-1]["op"] == "check"


def test_check_names_the_links_that_are_not_up(world: World) -> None:
    world.add()
    link = {"ifname": "in1", "peer": "pair-pod", "state": "error", "error": "gone", "primary": True}
    world.child.answer = {"ok": True, "complete": False, "links": [link]}
    with pytest.raises(CheckError) as caught:
        world.check()
    assert caught.value.details == "in1 to pair-pod: gone"
    world.child.answer = {"ok": True, "complete": False, "links": [{"ifname": 5}]}
    with pytest.raises(CheckError, match="nothing is known of its links"):
        world.check()
    world.child.answer = {"ok": False, "code": 199, "msg": "broken"}
    with pytest.raises(CheckError, match="broken"):
        world.check()
    world.plugins.answer("CHECK", "loopback", CniError(125, "no lo"))
    with pytest.raises(CniError, match="no lo"):
        world.check()


def test_check_has_the_boot_network_look_for_what_the_runtime_says(world: World) -> None:
    """A later plugin of the runtime's list may have changed it."""
    del world.config["boot_network"]
    changed = {**WITH_ADDRESS, "interfaces": [{"name": "eth0", "sandbox": "/x", "mac": "02:.."}]}
    world.add()
    assert world.check(changed) is None
    assert world.plugins.calls[-1].config["prevResult"] == changed
    assert world.check() is None
    assert world.plugins.calls[-1].config["prevResult"] == WITH_ADDRESS
    for nonsense in ("x", {"ips": 3}):
        with pytest.raises(ConfigError, match="prevResult"):
            world.check(nonsense)


def test_check_has_the_boot_network_look_for_no_address_that_was_made_up(world: World) -> None:
    answer = world.add()
    assert world.check(answer) is None
    assert world.plugins.calls[-1].config["prevResult"]["interfaces"] == LO["interfaces"]


def test_check_does_not_ask_a_boot_network_that_says_so(world: World) -> None:
    world.config["boot_network"] = {"plugins": [{"type": "loopback"}], "disableCheck": True}
    world.add()
    world.plugins.calls.clear()
    assert world.check() is None
    assert world.plugins.ran() == []
    assert world.child.asked[-1]["op"] == "check"


def test_check_of_another_namespace_fails(world: World) -> None:
    world.add()
    with pytest.raises(CheckError, match="namespace"):
        world.check(netns="/proc/self/ns/ipc")
    for netns, code in (("/nowhere", 3), ("/proc/self/ns/net", 4)):
        with pytest.raises(CniError) as caught:
            world.check(netns=netns)
        assert caught.value.code == code


def test_check_of_an_unfinished_add_fails(world: World) -> None:
    world.directory.write(_unfinished(world))
    with pytest.raises(CheckError):
        world.check()


def test_gc_detaches_what_is_not_valid_and_asks_both_networks(world: World) -> None:
    world.add()
    world.add(container_id="c2")
    world.add(container_id="c3")
    world.plugins.calls.clear()
    assert world.gc(("c2", "eth0"), ("c3", "eth1")) is None
    assert [found.container_id for found in world.directory.live()] == ["c2"]
    ran = [
        (call.command, call.type, call.environ["CNI_CONTAINERID"]) for call in world.plugins.calls
    ]
    assert ran == [
        ("DEL", "loopback", "c1"), ("DEL", "loopback", "c3"),
        ("GC", "bridge", "c1"), ("GC", "loopback", "c1"),
    ]  # fmt: skip
    # The namespace lay under /proc: its process ID may be somebody else's.
    assert world.plugins.calls[0].environ["CNI_NETNS"] == ""
    assert world.plugins.calls[-1].config["cni.dev/valid-attachments"]


def test_gc_carries_on_past_errors_and_reports_them(world: World) -> None:
    world.add()
    world.add(container_id="c2")
    world.plugins.answer("DEL", "loopback", CniError(124, "busy"))
    world.plugins.answer("GC", "bridge", CniError(126, "no GC"))
    with pytest.raises(CniError) as caught:
        world.gc()
    assert caught.value.code == 124
    assert "no GC" in caught.value.details
    assert world.directory.live() == []
    assert len(world.directory.kept_boots()) == 2
    world.plugins.answer("DEL", "loopback", None)
    world.plugins.answer("GC", "bridge", None)
    assert world.gc() is None
    assert world.directory.kept_boots() == []


def test_gc_without_a_list_removes_nothing(world: World) -> None:
    world.add()
    world.plugins.calls.clear()
    config = {**world.config, "cniVersion": "1.1.0"}
    assert plugin.cmd_gc(request("GC", config)) is None
    assert world.plugins.calls == []
    assert world.files() == [RECORD]


def test_a_damaged_record_leaves_the_pod_to_the_delegate(world: World) -> None:
    world.add()
    with open(os.path.join(world.directory.state_dir, RECORD), "w", encoding="utf-8") as file:
        file.write("{")
    with pytest.raises(Became):
        world.delete()


# A path is not an identity


def at(world: World, path: Path, target: str) -> str:
    """Have a path lead to another namespace from now on, as a process ID that is used again."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return str(path)


def test_the_record_says_which_namespace_stood_at_the_path(world: World, tmp_path: Path) -> None:
    world.add(netns=at(world, tmp_path / "ns", "/proc/self/ns/uts"))
    found = world.directory.read("c1", "eth0")
    assert found is not None
    status = os.stat("/proc/self/ns/uts")
    assert found.netns_identity == (status.st_dev, status.st_ino)


@pytest.mark.parametrize("target", ["/proc/self/ns/ipc", "/proc/self/ns/net"])
def test_a_del_never_takes_the_boot_network_to_another_namespace(
    world: World, tmp_path: Path, target: str
) -> None:
    world.add(netns=at(world, tmp_path / "ns", "/proc/self/ns/uts"))
    world.delete(netns=at(world, tmp_path / "ns", target))
    (call,) = (call for call in world.plugins.calls if call.command == "DEL")
    assert call.environ["CNI_NETNS"] == ""


@pytest.mark.parametrize(
    ("target", "given"),
    [("/proc/self/ns/uts", "ns"), ("/proc/self/ns/ipc", ""), ("/proc/self/ns/net", "")],
)
def test_gc_takes_the_boot_network_to_the_pods_namespace_only(
    world: World, tmp_path: Path, target: str, given: str
) -> None:
    world.add(netns=at(world, tmp_path / "ns", "/proc/self/ns/uts"))
    at(world, tmp_path / "ns", target)
    world.gc()
    (call,) = (call for call in world.plugins.calls if call.command == "DEL")
    assert os.path.basename(call.environ["CNI_NETNS"]) == given


def test_a_check_fails_where_another_namespace_stands_at_the_path(
    world: World, tmp_path: Path
) -> None:
    world.add(netns=at(world, tmp_path / "ns", "/proc/self/ns/uts"))
    with pytest.raises(CheckError, match="another namespace"):
        world.check(netns=at(world, tmp_path / "ns", "/proc/self/ns/ipc"))


def test_an_add_into_a_new_namespace_at_the_same_path_attaches_anew(
    world: World, tmp_path: Path
) -> None:
    world.add(netns=at(world, tmp_path / "ns", "/proc/self/ns/uts"))
    world.add(netns=at(world, tmp_path / "ns", "/proc/self/ns/ipc"))
    assert world.plugins.ran() == [("ADD", "loopback"), ("DEL", "loopback"), ("ADD", "loopback")]
    found = world.directory.read("c1", "eth0")
    assert found is not None
    assert found.netns_identity is not None
    assert found.netns_identity[1] == os.stat("/proc/self/ns/ipc").st_ino


# The address that a pod reports


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.0.1", "fe80::1", "0.1.2.3", "255.255.255.255",
     "::ffff:169.254.169.254", "::ffff:1.1.1.1", "::169.254.169.254", "64:ff9b::169.254.169.254",
     "64:ff9b::127.0.0.1"],
)  # fmt: skip
def test_a_pod_cannot_report_an_address_that_means_something_else(
    world: World, address: str
) -> None:
    world.labels["ratchet.public_ip"] = address
    with pytest.raises(LabelError, match=r"ratchet\.public_ip") as caught:
        world.add()
    assert caught.value.code == 100
    assert (world.files(), world.plugins.calls) == ([], [])


@pytest.mark.parametrize("kind", [2, 3, 4, 5], ids=["local", "broadcast", "anycast", "multicast"])
def test_a_pod_cannot_report_what_the_node_has(
    world: World, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def type_of(host: object) -> int:
        return kind if str(host) == "10.0.0.9" else 1

    monkeypatch.setattr(reported, "_route_type", type_of)
    world.labels["ratchet.public_ip"] = "10.0.0.8"
    assert reported_by(world.add()) == "10.0.0.8"
    world.labels["ratchet.public_ip"] = "10.0.0.9"
    with pytest.raises(LabelError, match="that the node does not have"):
        world.add(container_id="c2")


def test_a_pod_cannot_report_the_parent_address_that_stands_on_no_interface(world: World) -> None:
    world.config["parent_address"] = "198.51.100.1"
    world.labels["ratchet.public_ip"] = "198.51.100.1"
    with pytest.raises(LabelError):
        world.add()


def test_nothing_is_changed_where_the_kernel_does_not_say_what_the_node_has(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(host: object) -> int:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(reported, "_route_type", broken)
    world.labels["ratchet.public_ip"] = "10.0.0.8"
    with pytest.raises(KernelError, match="an address of the node"):
        world.add()
    assert (world.files(), world.plugins.calls) == ([], [])


@pytest.mark.parametrize(
    ("networks", "address", "is_refused"),
    [
        (["10.1.0.0/16"], "10.1.2.3", False),
        (["10.1.0.0/16"], "10.2.2.3", True),
        (["192.0.2.0/24", "10.1.0.0/16"], "10.1.2.3", False),
        (["10.1.2.3"], "10.1.2.3", False),
        (["fd00::/8"], "fd12::1", False),
        (["fd00::/8"], "10.1.2.3", True),
        ([], "10.1.2.3", True),
        (["0.0.0.0/0"], "169.254.169.254", True),
    ],
)
def test_an_administrator_says_of_which_networks_it_is(
    world: World, networks: list[str], address: str, is_refused: bool
) -> None:
    world.config["public_ip_networks"] = networks
    world.labels["ratchet.public_ip"] = address
    if is_refused:
        with pytest.raises(LabelError, match=r"ratchet\.public_ip"):
            world.add()
    else:
        assert reported_by(world.add()) == address


@pytest.mark.parametrize(
    ("networks", "addresses", "expected"),
    [
        (None, ["169.254.169.254", "10.3.0.1"], "10.3.0.1"),
        (None, ["fe80::7", "169.254.1.1"], None),
        (None, ["10.0.0.9", "10.3.0.1"], "10.3.0.1"),
        (["10.3.0.0/16"], ["10.2.0.1", "10.3.0.1"], "10.3.0.1"),
        (["10.4.0.0/16"], ["10.2.0.1", "10.3.0.1"], None),
    ],
)
def test_a_links_address_is_reported_only_if_a_label_could_name_it(
    world: World,
    networks: list[str] | None,
    addresses: list[str],
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The link has it all the same. What is made up is link-local, and Ratchet's own choice."""
    monkeypatch.setattr(
        reported, "_route_type", lambda host: 2 if str(host) == "10.0.0.9" else None
    )
    world.config["public_ip_networks"] = networks
    for number, address in enumerate(addresses, start=2):
        world.labels |= {
            f"ratchet.{number}.local_ifname": f"x{number}",
            f"ratchet.{number}.local_ip": address,
            f"ratchet.{number}.pair_name": "other",
            f"ratchet.{number}.pair_ifname": f"y{number}",
        }
    world.labels["ratchet.local_ip"] = "169.254.9.9"
    got = reported_by(world.add())
    assert got == (expected or str(link_local("c1").ip))
    found = world.directory.read("c1", "eth0")
    assert found is not None
    assert [str(link.address.ip) for link in found.links if link.address][1:] == addresses


def test_an_address_that_is_made_up_is_not_the_nodes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = str(link_local("c1").ip)
    monkeypatch.setattr(reported, "_route_type", lambda host: 2 if str(host) == taken else None)
    del world.labels["ratchet.local_ip"]
    got = reported_by(world.add())
    assert got != taken
    assert got.startswith("169.254.")


def test_the_clouds_own_addresses_are_never_made_up() -> None:
    made_up = {str(link_local(f"c{number}").ip) for number in range(50_000)}
    assert not [one for one in made_up if one.startswith(("169.254.169.", "169.254.170."))]


def reported_by(result: Any) -> str:
    (ip,) = (ip for ip in result["ips"] if ip["address"] != "127.0.0.1/8")
    return str(ip["address"]).partition("/")[0]
