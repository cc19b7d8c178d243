"""Fixtures of the tests with real runtimes: one cloud a session, swept clean after every test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.cloud import Cloud
from tests.e2e.containerd import Containerd
from tests.e2e.images import Images
from tests.lab.runtime import REFERENCE_PLUGINS

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = os.environ.get("RATCHET_PLUGIN_DIR") or str(ROOT / "dist" / "ratchet.d")
NEEDED_PROGRAMS = (
    *("ip", "ping", "nsenter", "unshare", "setpriv", "etcd", "openssl"),
    *("containerd", "ctr", "containerd-shim-runc-v2", "runc", "podman", "conmon"),
)
NEEDED_PLUGINS = ("bridge", "host-local", "loopback", "ptp", "portmap")

_failed = pytest.StashKey[bool]()


def missing() -> str | None:
    """Say what has to be installed or done here before these tests can run, None when nothing."""
    if os.geteuid() != 0:
        return "not root"
    for program in NEEDED_PROGRAMS:
        if shutil.which(program) is None and not os.path.exists(f"/usr/lib/podman/{program}"):
            return f"no program {program}"
    for plugin in NEEDED_PLUGINS:
        if not os.access(os.path.join(REFERENCE_PLUGINS, plugin), os.X_OK):
            return f"no plugin {plugin} in {REFERENCE_PLUGINS}"
    for program in ("ratchet", "ratchet-child"):
        if not os.access(os.path.join(PROGRAMS, program), os.X_OK):
            return f"no {program} in {PROGRAMS}: make build"
    return None


def missing_feature() -> str | None:
    """Say what this kernel, or the container that this is, does not allow a runtime to do."""
    spaces = ["unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc"]
    mounting = ["sh", "-c", "mount -t tmpfs tmpfs /run"]
    if subprocess.run([*spaces, *mounting], capture_output=True).returncode != 0:
        return "no network, PID and mount namespaces in which one can mount"
    if not os.access("/sys/fs/cgroup", os.W_OK) or not any(
        os.access(f"/sys/fs/cgroup/{name}", os.W_OK) for name in ("cgroup.procs", "memory")
    ):
        return "control groups cannot be made in /sys/fs/cgroup"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests where they cannot run; fail them where only a package or a build is missing."""
    if item.get_closest_marker("root") is None:
        return
    lacking = missing()
    if lacking is not None and os.environ.get("RATCHET_REQUIRE_ROOT") == "1":
        pytest.fail(f"tests with real runtimes are required here: {lacking}", pytrace=False)
    lacking = lacking or missing_feature()
    if lacking is not None:
        pytest.skip(lacking)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note failures, and show with them what the nodes logged and what etcd holds."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
        shared = getattr(item, "funcargs", {}).get("cloud")
        if isinstance(shared, Cloud):
            report.sections.extend(shared.last_words or shared.words())
    return report


@pytest.fixture(scope="session")
def session_cloud() -> Iterator[Cloud]:
    shared = Cloud(PROGRAMS)
    yield shared
    shared.close()


@pytest.fixture
def cloud(session_cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Give two nodes with containerd on which no pod is, and leave nothing on them."""
    session_cloud.last_words = []
    yield session_cloud
    problems = session_cloud.problems_after_test()
    if request.node.stash.get(_failed, False):
        problems.clear()  # what a failed test leaves behind says nothing
        session_cloud.wipe()
    if problems:
        session_cloud.last_words = session_cloud.words()
        session_cloud.wipe()
    problems += session_cloud.end_test()
    assert not problems, "left behind:\n" + "\n".join(problems)


@pytest.fixture
def containerd(cloud: Cloud) -> Containerd:
    """Give the first node's."""
    return cloud.nodes[0]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """Give a storage with an image of the programs, tagged `first`."""
    made = Images(tmp_path_factory.mktemp("images") / "storage")
    made.make("first")
    yield made
    made.podman("rmi", "--all", "--force")
