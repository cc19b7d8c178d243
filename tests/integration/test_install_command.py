"""The containers of the DaemonSet: the commands as processes, with what a kubelet tells them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.test_install_cluster import Api
from tests.lab.polling import wait_for
from tests.unit.ratchetctl.install.folders import CALICO_LIST, FLANNEL_LIST
from tests.unit.ratchetctl.install.nodes import Tree, tree
from tests.unit.test_deploy import container, one, pod_of

pytestmark = pytest.mark.root

# A mount namespace in which the service account lies where the kubelet mounts it.
INSIDE = (
    "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io && "
    'cp -r "$0" /run/secrets/kubernetes.io/serviceaccount && exec "$@"'
)
USUAL, OURS = "10-flannel.conflist", "00-ratchet.json"


class Node:
    """A node's folders, and containers of the DaemonSet on it."""

    def __init__(self, folder: Path, api: Api, undo: ExitStack) -> None:
        self.folder, self.api, self._undo = folder, api, undo
        for name in ("net.d", "bin", "programs", "settings", "etcd"):
            (folder / name).mkdir()
        for name in ("ratchet", "ratchet-child", "ratchetctl"):
            (folder / "programs" / name).write_text("#!/bin/sh\n")
            (folder / "programs" / name).chmod(0o755)
        for name in ("ca.crt", "tls.crt", "tls.key"):
            (folder / "etcd" / name).write_text(name)
        (folder / "settings" / "settings.json").write_text('{"wait": "present"}')

    @property
    def net_d(self) -> Path:
        return self.folder / "net.d"

    def write(self, configuration: object) -> None:
        (self.net_d / USUAL).write_text(json.dumps(configuration))

    def start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        """Start a container's command with its environment, but for addresses and folders."""
        spec = container(pod_of(one(".", "DaemonSet")), name)
        told = {each["name"]: each.get("value", "192.168.7.1") for each in spec["env"]}
        moved = {
            "RATCHET_CONF_DIR": str(self.net_d),
            "RATCHET_BIN_DIR": str(self.folder / "bin"),
            "RATCHET_SETTINGS": str(self.folder / "settings" / "settings.json"),
            "RATCHET_ETCD_CERTIFICATES": str(self.folder / "etcd"),
        }
        assert moved.keys() < told.keys()
        # A machine of the tests may not be allowed to enter /proc/1/root.
        moved["RATCHET_HOST_ROOT"] = "/"
        host, _, port = self.api.url.removeprefix("https://").partition(":")
        environ = {
            **told,
            **moved,
            "PATH": os.environ["PATH"],
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "RATCHET_ETCD_SERVICE_HOST": "10.96.7.7",
            "RATCHET_ETCD_SERVICE_PORT": "2379",
        }
        command = [sys.executable, "-m", "ratchetctl", *spec["command"][1:], *more]
        account = str(self.api.account_folder)
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", INSIDE, account, *command],
            env=environ,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._undo.callback(process.wait)
        self._undo.callback(process.kill)
        return process

    def install(self, *more: str) -> subprocess.Popen[bytes]:
        return self.start("install", "--programs", str(self.folder / "programs"), *more)

    def ours(self) -> object:
        """Return the delegate of Ratchet's configuration; None where there is none."""
        path = self.net_d / OURS
        return json.loads(path.read_text())["delegate"] if path.exists() else None

    def both(self) -> tuple[Tree, Tree]:
        return tree(self.net_d), tree(self.folder / "bin")


def finish(process: subprocess.Popen[bytes], timeout_s: float = 40.0) -> str:
    """Return what a process has said that succeeds."""
    _, said = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    (tmp_path / "api").mkdir()
    served = Api(tmp_path / "api")
    yield served
    served.close()


@pytest.fixture
def node(tmp_path: Path, api: Api) -> Iterator[Node]:
    with ExitStack() as undo:
        yield Node(tmp_path, api, undo)


def test_programs_that_do_not_run_on_the_node_change_nothing(node: Node, api: Api) -> None:
    """As programs that were built on a newer distribution."""
    api.gives()
    node.write(FLANNEL_LIST)
    before = node.both()
    program = node.folder / "programs" / "ratchet-child"
    program.write_text("#!/bin/sh\necho 'version `GLIBC_2.36 not found' >&2\nexit 1\n")
    process = node.install()
    _, said = process.communicate(timeout=40)
    assert process.returncode == 1
    assert b"does not run on this node: version `GLIBC_2.36 not found: build" in said
    assert node.both() == before
    program.write_text("#!/bin/sh\n")
    finish(node.install())
    installed = node.both()
    program.write_text("#!/bin/sh\nexit 1\n")
    process = node.install()
    process.communicate(timeout=40)
    assert process.returncode == 1
    assert node.both() == installed, "the build before goes on"


def test_the_programs_are_tried_in_the_nodes_root(node: Node, api: Api) -> None:
    """The container's own C library says nothing about the node's."""
    api.gives()
    node.write(FLANNEL_LIST)
    process = node.install("--host-root", str(node.folder))  # where there is no shell
    _, said = process.communicate(timeout=40)
    assert process.returncode == 1
    assert b"does not run on this node" in said
    assert not (node.folder / "bin" / "ratchet").exists()


def test_a_root_that_cannot_be_entered_is_a_warning(node: Node, api: Api) -> None:
    api.gives()
    node.write(FLANNEL_LIST)
    said = finish(node.install("--host-root", "/nonexistent"))
    assert "the programs are not tried on this node" in said
    assert node.ours() == FLANNEL_LIST


def test_it_waits_for_the_clusters_plugin_and_then_installs(node: Node, api: Api) -> None:
    given = api.gives()
    process = node.install()
    assert process.stderr is not None
    said = iter(process.stderr.readline, b"")
    assert any(b"holds no network configuration" in line for line in said)
    assert (node.folder / "bin" / "ratchet").exists()
    node.write(FLANNEL_LIST)
    finish(process)
    assert node.ours() == FLANNEL_LIST
    found = json.loads((node.net_d / OURS).read_text())
    assert found["parent_address"] == "192.168.7.1"
    assert found["etcd_host"] == "10.96.7.7"
    assert (node.net_d / "ratchet.node" / "token").read_text() == given


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leaves", "answer"),
    [
        (False, lambda api: api.says(200)),  # a pod that is replaced
        (False, lambda api: api.says(500)),
        (True, lambda api: api.says(404)),
        (True, lambda api: api.says(401)),
    ],
    ids=["replaced", "not known", "the DaemonSet is gone", "the service account is gone"],
)
def test_it_follows_and_leaves_only_with_the_daemonset(
    node: Node, api: Api, leaves: bool, answer: Callable[[Api], None]
) -> None:
    api.gives()
    node.write(FLANNEL_LIST)
    before = node.both()
    finish(node.install())
    process = node.start("installer")
    node.write(CALICO_LIST)
    wait_for("the change", lambda: node.ours() == CALICO_LIST, timeout_s=30)
    before[0][USUAL] = tree(node.net_d)[USUAL]
    answer(api)
    process.send_signal(signal.SIGTERM)
    said = finish(process)
    assert "Traceback" not in said
    if leaves:
        assert node.both() == before
    else:
        assert node.ours() == CALICO_LIST
        assert (node.folder / "bin" / "ratchet").exists()
