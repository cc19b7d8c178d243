"""`make install` over a child that runs: the built programs take over from each other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_build import PROGRAMS, install
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import (
    CNI_IFNAME,
    PAIR,
    REFERENCE_PLUGINS,
    Attachment,
    Node,
    Pod,
    in1_in2,
    request_config,
)

pytestmark = pytest.mark.root

BUILDS = 3
# Three quarters of that are the files of the program, which it shares with the child.
MOST_SUPERVISOR_KB = 12_000
MOST_OWN_KB = 4_000


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(nodes=1)
    yield made
    made.close()


@pytest.fixture
def builds(tmp_path: Path) -> list[Path]:
    """Return builds that differ, as those of different versions do."""
    made = []
    for number in range(BUILDS):
        build = tmp_path / f"build{number}"
        shutil.copytree(PROGRAMS, build, symlinks=True)
        (build / "lib" / "BUILD").write_text(str(number))
        made.append(build)
    return made


def call(node: Node, plugins: Path, command: str, pod: Pod, labels: dict[str, str]) -> None:
    """Call the installed plugin, which finds the child beside it."""
    request = request_config(node.config(child_path=None), labels, None)
    node.attachments[pod.container_id, CNI_IFNAME] = Attachment(pod, CNI_IFNAME, request)
    environ = node.environ(command, pod, changes={"CNI_PATH": f"{plugins}:{REFERENCE_PLUGINS}"})
    node.execute(request, environ, str(plugins / "ratchet")).finish().succeeded()


def build_of(pid: int) -> str:
    """Return the folder of the build that a process runs."""
    return os.path.basename(os.path.dirname(os.readlink(f"/proc/{pid}/exe")))


def test_the_child_becomes_what_is_installed_and_no_request_is_lost(
    cluster: Cluster, builds: list[Path], tmp_path: Path
) -> None:
    (node,) = cluster.nodes
    plugins = install(tmp_path / "node", builds[0])
    left, right = cluster.pod("a"), cluster.pod("b")
    call(node, plugins, "ADD", left, in1_in2("b"))
    call(node, plugins, "ADD", right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    (supervisor,) = node.supervisors()
    with left.netns.watch("in1") as in1:
        for number, build in enumerate(builds[1:]):
            install(tmp_path / "node", build)
            # Of the two builds before it only one is still there.
            wanted = os.readlink(plugins / "ratchet-child").split("/")[1]

            def is_new(wanted: str = wanted) -> bool:
                call(node, plugins, "CHECK", left, in1_in2("b"))
                children = node.children()
                return bool(children) and {build_of(supervisor), *map(build_of, children)} == {
                    wanted
                }

            wait_for("the new build", is_new, timeout_s=20)
            call(node, plugins, "ADD", cluster.pod(f"more{number}"), in1_in2("none"))
        assert in1.flaps() == []
    assert node.supervisors() == [supervisor]
    assert node.log().count('msg="becoming the program that was installed"') == BUILDS - 1
    assert left.netns.pings("192.168.2.101")


def test_the_supervisor_is_small(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    call(node, PROGRAMS, "ADD", cluster.pod("a"), in1_in2("b"))
    (supervisor,) = node.supervisors()
    memory = Path(f"/proc/{supervisor}/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.split(":")[0]: int(line.split()[1]) for line in memory}
    assert kb["Rss"] < MOST_SUPERVISOR_KB
    assert kb["Private_Dirty"] + kb["Private_Clean"] < MOST_OWN_KB
