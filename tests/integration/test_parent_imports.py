"""What the parent imports on its way to the answer, in a fresh interpreter for each operation.

Every pod on the node pays for these. The lists are exact: a module more is a decision.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ratchet import statedir

# Prints what was imported since the interpreter stood, also when the process becomes a plugin.
PROBE = """
import atexit, os, sys
before = set(sys.modules)
def tell(*args):
    names = sorted(set(sys.modules) - before - {"json.__probe__"})
    os.write(int(os.environ["PROBE_FD"]), "\\n".join(names).encode())
sys.addaudithook(lambda event, args: tell() if event == "os.exec" else None)
atexit.register(tell)
from ratchet.main import main
sys.exit(main())
"""

PASS_THROUGH = {
    "__future__", "_json", "_socket", "select",
    "ratchet", "ratchet.main", "ratchet.plugin", "ratchet.config", "ratchet.config_values",
    "ratchet.delegate", "ratchet.errors", "ratchet.log", "ratchet.names", "ratchet.pods",
    "ratchet.statedir",
    "ratchet.cni", "ratchet.cni.codec", "ratchet.cni.config", "ratchet.cni.errors",
    "ratchet.cni.invoke", "ratchet.cni.skel", "ratchet.cni.version",
}  # fmt: skip
NEVER = ("etcd", "pyroute2", "asyncio", "ratchet_child", "ratchetctl", "subprocess", "logging")
THIRD_PARTY = ("requests", "urllib3", "yaml", "etcd", "pyroute2", "prometheus_client")


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "plugin").symlink_to("/bin/true")
    (tmp_path / "state").mkdir(mode=0o700)
    statedir.mark_at_rest(str(tmp_path / "state"))
    return {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "ratchet",
        "state_dir": str(tmp_path / "state"),
        "docker_socket": str(tmp_path / "none"),
        "delegate": {"type": "plugin"},
    }


def imported(command: str, config: dict[str, Any], tmp_path: Path, args: str = "") -> set[str]:
    reading, writing = os.pipe()
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PROBE_FD": str(writing),
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/proc/self/ns/uts",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(tmp_path),
        "CNI_ARGS": args,
    }
    with os.fdopen(reading) as file:
        subprocess.run(
            [sys.executable, "-c", PROBE],
            input=json.dumps(config).encode(),
            env=environ,
            pass_fds=[writing],
            stderr=subprocess.DEVNULL,
            timeout=30,
        )
        os.close(writing)
        return set(file.read().splitlines())


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_a_pass_through_imports_this_and_nothing_else(
    config: dict[str, Any], tmp_path: Path, command: str
) -> None:
    # A delegate that is new, or has been replaced, is asked for its versions.
    asking = {
        "_operator",
        "ratchet.plugin_versions",
        "ratchet.books",
        "ratchet.cni.ip",
        "ratchet.cni.dataclasses",
    }
    assert imported(command, config, tmp_path) == PASS_THROUGH | asking
    assert imported(command, config, tmp_path) == PASS_THROUGH


def test_runtime_labels_and_a_chain_import_no_more(config: dict[str, Any], tmp_path: Path) -> None:
    imported("ADD", config, tmp_path)  # the delegate's program is known from now on
    config["args"] = {"cni": {"labels": {"app": "x"}}}
    assert imported("ADD", config, tmp_path) == PASS_THROUGH
    del config["delegate"]
    config["prevResult"] = {"cniVersion": "1.1.0"}
    assert imported("ADD", config, tmp_path) == PASS_THROUGH


@pytest.mark.parametrize("command", ["VERSION", "STATUS"])
def test_version_and_status_import_no_more(
    config: dict[str, Any], tmp_path: Path, command: str
) -> None:
    config["use_labels"] = False
    imported(command, config, tmp_path)
    # The state directory keeps how often STATUS has failed.
    assert imported(command, config, tmp_path) <= PASS_THROUGH | {"ratchet.repeated"}


def test_no_operation_ever_imports_the_childs_libraries(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["boot_network"] = {"type": "plugin"}
    config["args"] = {"cni": {"labels": {"ratchet": "true", "ratchet.pod_name": "a"}}}
    config["cni.dev/valid-attachments"] = []
    found = set()
    for command in ("ADD", "DEL", "GC"):
        found |= imported(command, config, tmp_path)
    assert {"ratchet.eligible", "ratchet.labels"} <= found
    # 20 ms for every eligible pod (ratchet.cni.dataclasses), and 3 ms more (ratchet.cni.ip).
    assert not found & {"dataclasses", "inspect", "re", "typing", "json", "contextlib", "enum"}
    assert not found & {"ipaddress", "functools", "collections"}
    for name in found:
        assert name.split(".")[0] not in (*NEVER, *THIRD_PARTY)
