"""Running and becoming plugins: real processes, and the reference plugins in a real namespace."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet.cni import invoke
from ratchet.cni.errors import CniError, DelegateError
from tests.lab.runtime import mark_at_rest

ROOT = str(Path(__file__).parents[2])
REFERENCE = "/usr/lib/cni"
LABELS = {
    "ratchet": "true",
    "ratchet.pod_name": "a",
    "ratchet.primary": "true",
    "ratchet.local_ifname": "in1",
    "ratchet.local_ip": "192.168.2.100",
    "ratchet.pair_name": "b",
    "ratchet.pair_ifname": "in2",
    "ratchet.pair_ip": "192.168.2.101",
}


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def run(folder: Path, text: str, timeout_s: float | None = None) -> Any:
    script(folder, "plugin", text)
    return invoke.run({"type": "plugin", "name": "n"}, str(folder), dict(os.environ), timeout_s)


def test_a_plugins_result_is_returned_and_its_configuration_given(tmp_path: Path) -> None:
    assert run(tmp_path, "cat") == {"type": "plugin", "name": "n"}
    assert run(tmp_path, "true") is None


def test_a_large_configuration_does_not_block(tmp_path: Path) -> None:
    script(tmp_path, "plugin", "cat")
    config = {"type": "plugin", "x": "y" * 3_000_000}
    assert invoke.run(config, str(tmp_path), {}) == config


def test_a_plugins_error_goes_up_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(CniError) as caught:
        run(tmp_path, """echo '{"code": 123, "msg": "no", "details": "why"}'; exit 1""")
    assert not isinstance(caught.value, DelegateError)
    assert (caught.value.code, caught.value.msg, caught.value.details) == (123, "no", "why")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 1", "printed nothing"),
        ("echo nonsense; exit 1", "nonsense"),
        ("echo nonsense", "nonsense"),
        ("echo '[]'", "printed"),
        ("""echo '{"code": "x"}'; exit 1""", "code"),
        ("kill -9 $$", "signal 9"),
        ("printf '\\377'", "printed"),
    ],
)
def test_a_plugin_that_does_not_speak_cni_is_a_delegate_error(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(DelegateError) as caught:
        run(tmp_path, text)
    assert said in str(caught.value)


def own_children() -> set[str]:
    return {
        pid
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


@pytest.mark.parametrize("text", ["exec sleep 60", "exec >&-; exec sleep 60", "exec yes"])
def test_a_plugin_that_does_not_end_is_killed(tmp_path: Path, text: str) -> None:
    before, children = time.monotonic(), own_children()
    with pytest.raises(DelegateError, match="killed"):
        run(tmp_path, text, 1.0)
    assert time.monotonic() - before < 5
    assert own_children() <= children  # nothing is left to wait for


def test_a_plugin_that_cannot_be_executed_is_a_delegate_error(tmp_path: Path) -> None:
    (tmp_path / "plugin").touch(mode=0o644)
    with pytest.raises(DelegateError, match="cannot execute"):
        invoke.run({"type": "plugin"}, str(tmp_path), {})


def test_a_plugin_that_is_just_being_written_is_waited_for(tmp_path: Path) -> None:
    shutil.copy("/bin/cat", tmp_path / "plugin")
    writing = os.open(tmp_path / "plugin", os.O_RDWR)
    threading.Timer(0.3, os.close, [writing]).start()
    config = {"type": "plugin", "name": "n"}
    assert invoke.run(config, str(tmp_path), {}) == config


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    run(tmp_path, "cat")
    for text in ("kill -9 $$", "sleep 60"):
        with pytest.raises(DelegateError):
            run(tmp_path, text, 0.3)
    assert len(os.listdir("/proc/self/fd")) == before


TELL = """
exec > "$OUT"; env | grep -v '^_=' | sort; echo --; cat; echo --
ls -l /proc/self/fd | grep -c . ; grep -E '^Sig(Ign|Blk)' /proc/self/status
"""


def test_the_delegate_sees_what_it_would_see_if_it_were_called_directly(tmp_path: Path) -> None:
    script(tmp_path, "plugin", TELL)
    own = {"type": "plugin", "name": "own", "cniVersion": "1.0.0", "x": [1, "ä", {"y": None}]}
    config = {"name": "n", "cniVersion": "1.0.0", "type": "ratchet", "delegate": own}
    config["docker_socket"] = str(tmp_path / "none")
    config["state_dir"] = str(tmp_path / "state")
    environ = {
        "PATH": os.environ["PATH"],
        "LANG": "C",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/nowhere",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(tmp_path),
        "CNI_ARGS": "IgnoreUnknown=1",
        "PYTHONPATH": ROOT,
    }
    seen = []
    for argv, given in (
        ([str(tmp_path / "plugin")], own),
        ([sys.executable, "-m", "ratchet.main"], config),
    ):
        out = tmp_path / "out"
        with open(tmp_path / "stdin", "w+", encoding="utf-8") as stdin:
            json.dump(given, stdin)
            stdin.seek(0)
            subprocess.run(argv, env={**environ, "OUT": str(out)}, stdin=stdin, check=True)
        environment, handed, rest = out.read_text().split("--\n")
        seen.append((environment, json.loads(handed), rest))
    assert seen[0] == seen[1]


# With the reference plugins ----------------------------------------------------------------------


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"rp{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield f"/var/run/netns/{name}"
    subprocess.run(["ip", "netns", "del", name])


class Parent:
    def __init__(self, folder: Path, netns: str) -> None:
        self.folder = folder
        self.netns = netns
        self.config: dict[str, Any] = {
            "name": "net",
            "type": "ratchet",
            "state_dir": str(folder / "state"),
            "docker_socket": str(folder / "none"),
            "child_path": str(folder / "no-child"),
            "wait": "none",
            "boot_network": {"type": "loopback"},
            "args": {"cni": {"labels": LABELS}},
        }

    def call(self, command: str, **keys: Any) -> tuple[int, bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "ratchet.main"],
            input=json.dumps({**self.config, **keys}).encode(),
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": ROOT,
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": "c1",
                "CNI_NETNS": self.netns,
                "CNI_IFNAME": "eth0",
                "CNI_PATH": REFERENCE,
            },
            capture_output=True,
            timeout=60,
        )
        return done.returncode, done.stdout


@pytest.fixture
def parent(tmp_path: Path, netns: str) -> Parent:
    return Parent(tmp_path, netns)


@pytest.mark.root
@pytest.mark.parametrize(
    "version", [None, "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
)
def test_an_eligible_pods_result_has_an_address_in_every_version(
    parent: Parent, version: str | None
) -> None:
    if version:
        parent.config["cniVersion"] = version
    code, out = parent.call("ADD")
    assert code == 0, out
    result = json.loads(out)
    assert result["cniVersion"] == version or "0.1.0"
    if version in (None, "0.1.0", "0.2.0"):
        assert result["ip4"] == {"ip": "192.168.2.100/24"}
        assert "ip6" not in result
        assert "ips" not in result
    else:
        (ip,) = [
            ip for ip in result["ips"] if result["interfaces"][ip["interface"]]["name"] == "eth0"
        ]
        assert ip["address"] == "192.168.2.100/24"
        assert (ip.get("version") == "4") == (version[0] == "0")
    for _ in range(2):
        assert parent.call("DEL") == (0, b"")


@pytest.mark.root
@pytest.mark.parametrize("version", [None, "0.2.0", "0.3.1", "1.0.0"])
@pytest.mark.parametrize("labels", [{}, {"ratchet": "false"}])
def test_a_pass_through_is_byte_for_byte_the_plugins_own(
    parent: Parent, version: str | None, labels: dict[str, str]
) -> None:
    mark_at_rest(parent.config["state_dir"])  # otherwise the first call after a boot starts a child
    stated = {"cniVersion": version} if version else {}
    given = {"type": "loopback", "name": "net", **stated}
    ours = {"delegate": {"type": "loopback"}, "args": {"cni": {"labels": labels}}, **stated}
    for command in ("ADD", "DEL"):
        direct = subprocess.run(
            [f"{REFERENCE}/loopback"],
            input=json.dumps(given).encode(),
            env={
                "CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_NETNS": parent.netns,
                "CNI_IFNAME": "eth0", "CNI_PATH": REFERENCE,
            },
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert parent.call(command, **ours) == (direct.returncode, direct.stdout)
    kept = parent.config["state_dir"]
    assert set(os.listdir(kept)) <= {"versions", "at-rest"}


@pytest.mark.root
def test_a_delegate_older_than_our_version_is_answered_for_in_ours(parent: Parent) -> None:
    """The distribution's plugins, which know 1.0.0 at most, in a configuration of 1.1.0."""
    ours = {
        "delegate": {"type": "loopback"},
        "args": {"cni": {"labels": {}}},
        "cniVersion": "1.1.0",
    }
    code, out = parent.call("ADD", **ours)
    assert code == 0, out
    result = json.loads(out)
    assert result["cniVersion"] == "1.1.0"
    assert result["ips"][0]["address"] == "127.0.0.1/8"
    for command in ("CHECK", "DEL"):
        assert parent.call(command, **ours, prevResult=result) == (0, b"")
    ours["delegate"] = {"type": "loopback", "cniVersion": "1.1.0"}
    code, out = parent.call("ADD", **ours)
    assert (code, json.loads(out)["code"]) == (1, 1)
    assert "loopback does not know cniVersion 1.1.0" in json.loads(out)["msg"]


@pytest.mark.root
def test_del_succeeds_when_the_namespace_is_gone(parent: Parent) -> None:
    parent.call("ADD")
    subprocess.run(["ip", "netns", "del", os.path.basename(parent.netns)], check=True)
    for netns in (parent.netns, ""):
        parent.netns = netns
        assert parent.call("DEL", delegate={"type": "loopback"}, cniVersion="1.0.0") == (0, b"")


@pytest.mark.root
def test_a_bad_label_is_an_error_of_the_specification_and_leaves_nothing(parent: Parent) -> None:
    bad = {"cni": {"labels": {**LABELS, "ratchet.local_ip": "192.168.2.0"}}}
    code, out = parent.call("ADD", args=bad, cniVersion="1.0.0")
    assert code == 1
    error = json.loads(out)
    assert (error["cniVersion"], error["code"]) == ("1.0.0", 100)
    assert "ratchet.local_ip" in error["msg"]
    assert "192.168.2.0" in error["msg"]
    assert not os.path.exists(parent.config["state_dir"])


def test_an_internal_error_is_a_cni_error_without_a_traceback_on_stdout(tmp_path: Path) -> None:
    code = (
        "import sys, ratchet.plugin as p; "
        "p.OPERATIONS['DEL'] = lambda request: 1 / 0; "
        "from ratchet.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=b'{"name": "n"}',
        env={
            "PYTHONPATH": ROOT, "CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c",
            "CNI_IFNAME": "eth0", "CNI_PATH": "/",
        },
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 199
    assert b"ZeroDivisionError" in done.stderr


@pytest.mark.root
def test_a_delegate_that_begins_new_books_is_told_once(parent: Parent, tmp_path: Path) -> None:
    """The name is gone under which host-local keeps the addresses of the pods that are there."""
    books = tmp_path / "networks"
    (books / "cbr0").mkdir(parents=True)
    (books / "cbr0" / "10.244.1.2").write_text("older\neth0")
    ipam = {"type": "host-local", "subnet": "10.244.1.0/24", "dataDir": str(books)}
    log_file = tmp_path / "log"
    ours = {
        "delegate": {"type": "ptp", "ipam": ipam},
        "args": {"cni": {"labels": {}}},
        "cniVersion": "1.0.0",
        "log_file": str(log_file),
    }
    for command in ("ADD", "DEL", "ADD", "DEL"):
        code, out = parent.call(command, **ours)
        assert code == 0, out
    assert log_file.read_text().count("under the name cbr0") == 1
