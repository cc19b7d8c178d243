"""What a runtime starts in an agent's container, as `kubectl exec` has it: it is on the node.

The agent becomes a program of the node (`--on-host`), and takes its container along: the runtime
starts further programs in the namespaces that the container's first process has by then. That is
where `ratchetctl capture --cluster` finds the node's programs, so a real runtime shows it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2, plugin_dir

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("runc") is None, reason="no runc"),
    pytest.mark.skipif(
        not os.path.isdir(os.path.join(plugin_dir(), "lib"))
        and os.environ.get("RATCHET_REQUIRE_ROOT") != "1",
        reason=f"no built programs in {plugin_dir()}: make build",
    ),
]

CONTAINED = "/opt/ratchet"  # where an image has the programs
SHARED = ("/usr", "/bin", "/lib", "/lib64", "/proc", "/dev")
CAPABILITIES = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE"]


class Container:
    """A container on a node, in whose mounts there is little of the node."""

    def __init__(self, node: Node, folder: Path) -> None:
        self._node = node
        self.folder = folder
        self._name = f"rt-{secrets.token_hex(4)}"
        self._first = subprocess.Popen(node.namespace.command("sleep", "300"))

    def start(self, *command: str) -> None:
        mounts = [*((path, path) for path in SHARED), (plugin_dir(), CONTAINED)]
        mounts.append((str(self.folder), str(self.folder)))
        (self.folder / "rootfs").mkdir()
        spec: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {
                "args": list(command),
                "cwd": "/",
                "env": ["PATH=/usr/bin:/bin"],
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
            },
            "linux": {"namespaces": [{"type": "mount"}]},
            "mounts": [
                {"destination": there, "source": here, "type": "bind", "options": ["rbind"]}
                for here, there in mounts
                if os.path.isdir(here)
            ],
        }
        (self.folder / "config.json").write_text(json.dumps(spec))
        with open(self.folder / "output", "wb") as output:
            # What runs on must not hold a pipe of ours.
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            bundle = ("--bundle", str(self.folder))
            self._run("run", "--detach", *bundle, self._name, check=True, **streams)

    @property
    def proc(self) -> str:
        """The node's /proc as the agent takes it: its first process is the node's."""
        made = self.folder / "proc" / "1" / "ns"
        made.mkdir(parents=True)
        (made / "mnt").symlink_to(f"/proc/{self._first.pid}/ns/mnt")
        return str(self.folder / "proc")

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self._run("exec", self._name, *command, capture_output=True, text=True)

    def close(self) -> None:
        self._run("delete", "--force", self._name, capture_output=True)
        self._first.kill()
        self._first.wait()

    def _run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        runc = ("runc", "--root", str(self.folder / "runc"), *arguments)
        command = self._node.namespace.command(*runc)
        return subprocess.run(command, timeout=60, **options)


@pytest.fixture
def container(node: Node) -> Iterator[Container]:
    folder = Path("/dev/shm") / f"rt-{secrets.token_hex(4)}"
    folder.mkdir()
    made = Container(node, folder)
    yield made
    made.close()
    shutil.rmtree(folder)


def test_what_is_started_beside_an_agent_that_is_on_the_host_is_there_as_well(
    cluster: Cluster, node: Node, container: Container
) -> None:
    configuration = str(container.folder / "ratchet.conf")
    Path(configuration).write_text(json.dumps(node.config()))
    container.start(
        f"{CONTAINED}/ratchet-child",
        *("--on-host", f"{plugin_dir()}/ratchet-child", "--proc", container.proc),
        *("--config", configuration, "--stay"),
    )
    node.wait_child()
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    # The container's own path leads nowhere, and the node's to the program beside the agent's.
    assert container.exec(f"{CONTAINED}/ratchetctl", "version").returncode != 0
    program = os.path.join(plugin_dir(), "ratchetctl")
    done = container.exec(program, "link", "down", "a:in1", "--config", configuration)
    assert done.returncode == 0, done.stderr
    wait_for("no carrier", lambda: "NO-CARRIER" in right.netns.links()["in2"]["flags"])
