"""A child that starts in a container serves as a program of the node: in the node's mounts."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.polling import wait_for
from tests.lab.runtime import plugin_dir

pytestmark = pytest.mark.root

CONTAINED = ["unshare", "--mount", "--propagation", "private"]


@pytest.fixture
def proc(tmp_path: Path) -> Iterator[Path]:
    """Give a node's /proc as a container sees it: its first process is one of this test's."""
    first = subprocess.Popen([*CONTAINED, "sleep", "300"])
    wait_for(
        "the node's first process",
        lambda: os.readlink(f"/proc/{first.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"),
    )
    (tmp_path / "1" / "ns").mkdir(parents=True)
    (tmp_path / "1" / "ns" / "mnt").symlink_to(f"/proc/{first.pid}/ns/mnt")
    yield tmp_path
    first.send_signal(signal.SIGKILL)
    first.wait()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = os.path.join(plugin_dir(), "ratchet-child")
    return subprocess.run(
        [*CONTAINED, program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_child_becomes_the_nodes_program_in_the_nodes_mounts(
    proc: Path, tmp_path: Path
) -> None:
    program = script(tmp_path / "ratchet-child", 'readlink /proc/self/ns/mnt; echo "$@"; exit 7')
    done = start("--on-host", program, "--stay", "--proc", str(proc), "--config", "/nowhere")
    there = os.readlink(proc / "1" / "ns" / "mnt")
    assert done.stdout.splitlines() == [
        os.readlink(there),
        f"--stay --proc {proc} --config /nowhere",
    ]
    assert done.returncode == 7


def test_a_child_that_cannot_go_to_the_node_says_so_and_goes_on_in_its_container(
    proc: Path, tmp_path: Path
) -> None:
    done = start("--on-host=/no/program", "--proc", str(proc), "--config", str(tmp_path / "none"))
    assert "/no/program cannot be executed on the node" in done.stderr
    assert "this child stays in its container" in done.stderr
    assert f"{tmp_path}/none cannot be read" in done.stderr
    done = start("--on-host", "/bin/true", "--proc", "/none", "--config", str(tmp_path / "none"))
    assert "cannot be executed on the node" in done.stderr
