"""`make install` over a child that runs: the built programs take over from each other."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path

import pytest

from tests.e2e import before
from tests.e2e.before import NoHistoryError
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
    primary,
    request_config,
)

pytestmark = pytest.mark.root

BUILDS = 3
# Three quarters of that are the files of the program, which it shares with the child.
MOST_SUPERVISOR_KB = 12_000
MOST_OWN_KB = 4_000
LINKS = 40
EACH_S = 0.2  # from one frame to the next


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(nodes=2)
    yield made
    made.close()


@pytest.fixture
def builds(tmp_path: Path) -> list[Path]:
    """Return builds that differ, as those of different versions do."""
    return [another_build(tmp_path / f"build{number}") for number in range(BUILDS)]


def another_build(folder: Path) -> Path:
    """Return the programs under test as a build that differs from them."""
    shutil.copytree(PROGRAMS, folder, symlinks=True)
    (folder / "lib" / "BUILD").write_text(folder.name)
    return folder


def call(node: Node, plugins: Path, command: str, pod: Pod, labels: dict[str, str]) -> None:
    """Call the installed plugin, which finds the child beside it."""
    request = request_config(node.config(child_path=None), labels, None)
    node.attachments[pod.container_id, CNI_IFNAME] = Attachment(pod, CNI_IFNAME, request)
    environ = node.environ(command, pod, changes={"CNI_PATH": f"{plugins}:{REFERENCE_PLUGINS}"})
    node.execute(request, environ, str(plugins / "ratchet")).finish().succeeded()


def take_up(node: Node, plugins: Path, build: Path, pod: Pod) -> None:
    """Install a build, and wait until the child and its supervisor are of it."""
    install(plugins.parents[2], build)
    wanted = os.readlink(plugins / "ratchet-child").split("/")[1]

    def is_new() -> bool:
        call(node, plugins, "CHECK", pod, {})
        children = node.children()
        found = {build_of(pid) for pid in (*node.supervisors(), *children)}
        return bool(children) and found == {wanted}

    wait_for("the new build", is_new, timeout_s=20)


def build_of(pid: int) -> str:
    """Return the folder of the build that a process runs; "" when the process has gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return os.path.basename(os.path.dirname(os.readlink(f"/proc/{pid}/exe")))
    return ""


def test_the_child_becomes_what_is_installed_and_no_request_is_lost(
    cluster: Cluster, builds: list[Path], tmp_path: Path
) -> None:
    node = cluster.nodes[0]
    plugins = install(tmp_path / "node", builds[0])
    left, right = cluster.pod("a"), cluster.pod("b")
    call(node, plugins, "ADD", left, in1_in2("b"))
    call(node, plugins, "ADD", right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    (supervisor,) = node.supervisors()
    with left.netns.watch("in1") as in1:
        for number, build in enumerate(builds[1:]):
            # Of the two builds before it only one is still there.
            take_up(node, plugins, build, left)
            call(node, plugins, "ADD", cluster.pod(f"more{number}"), in1_in2("none"))
        assert in1.flaps() == []
    assert node.supervisors() == [supervisor]
    assert node.log().count('msg="becoming the program that was installed"') == BUILDS - 1
    assert left.netns.pings("192.168.2.101")


@pytest.fixture
def build_before(tmp_path: Path) -> Iterator[Path]:
    """Give the programs of the commit before.

    Where git has none, they are those under test in another folder, and the report says so.
    """
    try:
        yield before.programs()
    except NoHistoryError as error:
        yield another_build(tmp_path / "before")
        pytest.skip(f"passed with two builds of the same sources, for want of others: {error}")


@pytest.mark.slow
def test_forty_links_stay_while_nodes_go_from_the_commit_before_to_this_one_and_back(
    cluster: Cluster, build_before: Path, tmp_path: Path
) -> None:
    """Half of them inside a node, half to the other one."""
    here, there = cluster.nodes
    left, near, far = (cluster.pod(name) for name in ("left", "near", "far"))
    labels: dict[str, str] = {}
    for n in range(1, LINKS + 1):
        pair = ("near", "far")[n % 2]
        labels |= primary(f"to{n}", f"10.50.{n}.1", pair, f"from{n}", f"10.50.{n}.2", n)
    on_here, on_there = (
        install(tmp_path / f"node{node.number}", build_before) for node in (here, there)
    )
    call(here, on_here, "ADD", left, labels)
    call(here, on_here, "ADD", near, PAIR)
    call(there, on_there, "ADD", far, PAIR)
    for n in range(1, LINKS + 1):
        left.netns.wait_ping(f"10.50.{n}.2")
    ends = {pod.name: indices(pod) for pod in (left, near, far)}
    assert {name: len(found) for name, found in ends.items()} == {"left": 40, "near": 20, "far": 20}
    with frames(left, [f"10.50.{n}.2" for n in range(1, LINKS + 1)]) as lost:
        steps = product((PROGRAMS, build_before), ((here, on_here, left), (there, on_there, far)))
        for number, (build, (node, plugins, pod)) in enumerate(steps):
            take_up(node, plugins, build, pod)
            # Whichever build each node has now, they understand each other.
            one, other = cluster.pod(f"one{number}"), cluster.pod(f"other{number}")
            call(here, on_here, "ADD", one, in1_in2(other.name))
            call(there, on_there, "ADD", other, PAIR)
            one.netns.wait_ping("192.168.2.101")
    assert len(lost) == LINKS
    assert max(lost) * EACH_S < 1.0
    assert {pod.name: indices(pod) for pod in (left, near, far)} == ends


def indices(pod: Pod) -> dict[str, int]:
    """Return what tells a pod's ends from ends that were made anew."""
    links = pod.netns.links()
    return {
        name: link["ifindex"] for name, link in links.items() if name.startswith(("to", "from"))
    }


@contextmanager
def frames(pod: Pod, addresses: list[str]) -> Iterator[list[int]]:
    """Send frames all the time; the list has how many were lost to each address, after the end."""
    lost: list[int] = []
    with ExitStack() as undo:
        pings = []
        for address in addresses:
            command = pod.netns.command("ping", "-q", "-i", str(EACH_S), address)
            ping = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            pings.append(undo.enter_context(ping))
            undo.callback(ping.kill)
        yield lost
        for ping in pings:
            ping.send_signal(signal.SIGINT)
        for ping in pings:
            told = re.search(r"(\d+) packets transmitted, (\d+) received", ping.communicate()[0])
            assert told is not None
            assert int(told[1]) > 10
            lost.append(int(told[1]) - int(told[2]))


def test_the_supervisor_is_small(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    call(node, PROGRAMS, "ADD", cluster.pod("a"), in1_in2("b"))
    (supervisor,) = node.supervisors()
    memory = Path(f"/proc/{supervisor}/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.split(":")[0]: int(line.split()[1]) for line in memory}
    assert kb["Rss"] < MOST_SUPERVISOR_KB
    assert kb["Private_Dirty"] + kb["Private_Clean"] < MOST_OWN_KB
