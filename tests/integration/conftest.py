"""Fixtures of the integration tests: one cluster a session, swept clean after every test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator

import pytest

from tests.integration.two_minutes import TwoMinutes
from tests.lab import programs
from tests.lab.cluster import Cluster
from tests.lab.runtime import FRONT, INSTALLED, PARENT, REFERENCE_PLUGINS, Node, plugin_dir

NEEDED_PROGRAMS = ("ip", "ping", "nsenter", "etcd")
NEEDED_PLUGINS = ("bridge", "host-local", "loopback", "ptp")

# Modules whose tests run through the parent and through the front. The others use what is
# installed: the front where there is a compiler, with the children that the tests happen to have.
BOTH_WAYS = ("test_passthrough", "test_check_gc_status")

_failed = pytest.StashKey[bool]()


def missing_for_root_tests() -> str | None:
    """Say what this machine lacks for tests in namespaces, None when nothing."""
    if os.geteuid() != 0:
        return "not root"
    for program in NEEDED_PROGRAMS:
        if shutil.which(program) is None:
            return f"no program {program}"
    for plugin in NEEDED_PLUGINS:
        if not os.access(os.path.join(REFERENCE_PLUGINS, plugin), os.X_OK):
            return f"no plugin {plugin} in {REFERENCE_PLUGINS}"
    return None


_made = pytest.StashKey[str | None]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_made] = programs.prepare()


def pytest_sessionfinish(session: pytest.Session) -> None:
    programs.remove(session.config.stash.get(_made, None))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip root tests where they cannot run; fail them where they have to."""
    if item.get_closest_marker("root") is None:
        return
    missing = missing_for_root_tests()
    if missing is not None and os.environ.get("RATCHET_REQUIRE_ROOT") == "1":
        pytest.fail(f"root tests are required here: {missing}", pytrace=False)
    if missing is not None:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def two_minutes() -> Iterator[TwoMinutes]:
    own = Cluster(nodes=2)
    try:
        yield TwoMinutes(own)
    finally:
        own.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note failures, and show with them what the nodes logged and what etcd holds."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
        shared = getattr(item, "funcargs", {}).get("cluster")
        if isinstance(shared, Cluster):
            # By the end of the fixtures the cluster has been swept, or is not there any more.
            report.sections.extend(shared.last_words if call.when == "teardown" else shared.words())
    return report


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[Cluster]:
    program = os.path.join(plugin_dir(), "ratchet")
    assert os.access(program, os.X_OK), f"nothing to test: no {program}"
    shared = Cluster(nodes=3)
    yield shared
    shared.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what says how the operations behave through the parent and through the front."""
    if metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS and "way" in metafunc.fixturenames:
        ways = [PARENT, FRONT] if programs.has_front() else [PARENT]
        metafunc.parametrize("way", ways, indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """Give the way in which nodes reach the operations."""
    return getattr(request, "param", INSTALLED)


@pytest.fixture
def cluster(
    session_cluster: Cluster, way: str, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """Give three nodes without pods, and leave nothing on them.

    Nothing has happened on them yet, unless the test is marked `nodes("used")`: then their children
    may be those of the test before.
    """
    marker = request.node.get_closest_marker("nodes")
    may_be_used = marker is not None and marker.args == ("used",)
    problems = [] if may_be_used or session_cluster.is_fresh else session_cluster.end_test()
    assert not problems, "left behind by the tests before:\n" + "\n".join(problems)
    session_cluster.last_words = []
    for node in session_cluster.nodes:
        node.way = way
    yield session_cluster
    # What a failed test leaves behind says nothing.
    has_failed = request.node.stash.get(_failed, False)
    if not has_failed:
        problems += session_cluster.problems_after_test()
    if may_be_used and not has_failed and not problems:
        session_cluster.forget_test()
    else:
        problems += session_cluster.end_test()
    assert not problems, "left behind:\n" + "\n".join(problems)


@pytest.fixture
def node(cluster: Cluster) -> Node:
    """Give the first node of the cluster."""
    return cluster.nodes[0]


@pytest.fixture
def far(cluster: Cluster) -> Node:
    """Give the second node of the cluster."""
    return cluster.nodes[1]
