"""A child that dies is started again, and nobody who asks it or is linked by it notices."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet_child.supervision import cgroup
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import (
    CNI_IFNAME,
    PAIR,
    SUPERVISOR,
    Attachment,
    Node,
    command_name,
    in1_in2,
    plugin_dir,
    request_config,
)

pytestmark = pytest.mark.root

AT_ONCE_S = 1.0
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def wait_for_another(node: Node, killed: int) -> int:
    """Wait for a child that has its own name: until then it passes for a supervisor without one."""
    found = wait_for(
        "another child",
        lambda: [pid for pid in node.children() if command_name(pid) != SUPERVISOR],
        until=lambda pids: bool(pids) and killed not in pids,
    )
    return found[0]


def said(node: Node, message: str) -> int:
    return node.log().count(f'msg="{message}"')


# Deaths -----------------------------------------------------------------------------------------


def test_the_next_child_works_with_the_configuration_that_the_last_one_had(
    cluster: Cluster, node: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR, vxlan_port=4788).succeeded()
    assert said(node, "the configuration has changed") == 1
    child = node.wait_child()
    kill(child)
    wait_for_another(node, child)
    node.add(cluster.pod("c"), PAIR, vxlan_port=4788).succeeded()
    assert said(node, "the configuration has changed") == 1


def test_a_killed_child_is_back_within_a_second_and_links_stay(
    cluster: Cluster, node: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    with left.netns.watch("in1") as in1:
        child, supervisors = node.wait_child(), node.supervisors()
        kill(child)
        killed_at = time.monotonic()
        wait_for_another(node, child)
        assert node.check(left).succeeded()
        assert time.monotonic() - killed_at < 2 * AT_ONCE_S
        assert node.supervisors() == supervisors
        assert in1.flaps() == []
    assert said(node, "the child has died") == 1


def test_a_pair_whose_nodes_child_was_killed_is_linked_when_its_primary_comes_back_elsewhere(
    cluster: Cluster, node: Node, far: Node
) -> None:
    """Nobody calls the plugin on the pair's node any more: what is heard there is the bell."""
    primary, pair = cluster.pod("a"), cluster.pod("b")
    node.add(primary, in1_in2("b")).succeeded()
    far.add(pair, PAIR).succeeded()
    pair.netns.wait_ping("192.168.2.100")
    kill(far.wait_child())
    node.delete(primary).succeeded()
    again = cluster.pod("a")
    third = cluster.nodes[2]
    third.add(again, in1_in2("b")).succeeded()
    started = time.monotonic()
    pair.netns.wait_ping("192.168.2.100")
    assert time.monotonic() - started < 3


def test_a_killed_supervisor_is_replaced_by_the_child(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    node.add(pod, in1_in2("b")).succeeded()
    child = node.wait_child()
    (killed,) = node.supervisors()
    kill(killed)
    (another,) = wait_for(
        "another supervisor",
        node.supervisors,
        until=lambda pids: bool(pids) and killed not in pids,
    )
    assert node.children() == [child]
    # It is as good as the first one.
    kill(child)
    child = wait_for_another(node, child)
    kill(another)
    wait_for("a third", node.supervisors, until=lambda pids: bool(pids) and another not in pids)
    assert node.children() == [child]
    node.check(pod)


def test_when_both_are_killed_an_unlabelled_pod_starts_them(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    node.kill_all()
    right.netns.ip("link", "delete", "in2")
    node.add(cluster.pod("plain"), {}).succeeded()
    left.netns.wait_ping("192.168.2.101")
    assert len(node.children()) == len(node.supervisors()) == 1


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_when_both_are_killed_any_call_starts_them(
    cluster: Cluster, node: Node, command: str
) -> None:
    plain = cluster.pod("plain")
    if command in ("DEL", "CHECK"):
        node.add(plain, {}).succeeded()
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    node.kill_all()
    valid = [(each.pod, each.ifname) for each in node.attachments.values()]
    match command:
        case "ADD":
            node.add(plain, {}).succeeded()
        case "DEL":
            node.delete(plain).succeeded()
        case "CHECK":
            node.check(plain).succeeded()
        case "GC":
            node.gc(valid).succeeded()
        case "STATUS":
            node.status().succeeded()
    assert node.wait_child()


def test_no_request_is_lost_while_children_are_killed(cluster: Cluster, node: Node) -> None:
    """Parents wait in the socket's backlog for the next child."""
    ends = threading.Event()

    def murder() -> None:
        while not ends.wait(0.4):
            for pid in node.children():
                with contextlib.suppress(ProcessLookupError):
                    kill(pid)
            if said(node, "the child has died") > 3:
                return

    murderer = threading.Thread(target=murder)
    node.add(cluster.pod("first"), in1_in2("x")).succeeded()
    murderer.start()
    try:
        pods = [cluster.pod(f"p{number}") for number in range(8)]
        for pod in pods:
            assert node.add(pod, in1_in2(f"x{pod.name}"), wait="all", wait_seconds=0.1).error
        for pod in pods:
            outcome = node.add(cluster.pod(f"again-{pod.name}"), in1_in2(f"y{pod.name}"))
            outcome.succeeded()
            assert b"does not serve" not in outcome.stderr, outcome.stderr
    finally:
        ends.set()
        murderer.join()
    assert said(node, "the child has died") > 1


def test_a_child_that_dies_again_and_again_is_given_up(cluster: Cluster, node: Node) -> None:
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    deadline = time.monotonic() + 30
    while node.supervisors() and time.monotonic() < deadline:
        for pid in node.children():
            with contextlib.suppress(ProcessLookupError):
                kill(pid)
        time.sleep(0.02)
    assert node.supervisors() == node.children() == []
    assert said(node, "the child dies again and again and is not started any more") == 1
    node.add(cluster.pod("plain"), {}).succeeded()
    assert node.children() == []
    # Who has work for it starts it all the same.
    node.add(cluster.pod("c"), in1_in2("d")).succeeded()
    assert node.wait_child()


def test_sigterm_to_the_supervisor_ends_both(cluster: Cluster, node: Node) -> None:
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    (supervisor,) = node.supervisors()
    os.kill(supervisor, signal.SIGTERM)
    wait_for("the end", node.namespace.processes, until=lambda pids: not pids)
    assert said(node, "the child has died") == 0


def test_the_supervisor_is_small(cluster: Cluster, node: Node) -> None:
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    (supervisor,) = node.supervisors()
    status = Path(f"/proc/{supervisor}/status").read_text()
    (resident_kb,) = [
        int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")
    ]
    assert resident_kb < 13_000


# The cgroup of the runtime ----------------------------------------------------------------------


@pytest.fixture
def runtimes_cgroup() -> Iterator[Path]:
    """Make a cgroup whose processes can be killed at once (cgroup v2, since Linux 5.14)."""
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("systemd would be asked")
    for parent in CGROUPS:
        path = Path(parent) / f"ratchet-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            path.mkdir()
            if (path / "cgroup.kill").exists():
                break
            path.rmdir()
    else:
        pytest.skip("no cgroup v2 in which a cgroup can be made")
    yield path
    (path / "cgroup.kill").write_text("1")
    wait_for("its processes to go", (path / "cgroup.procs").read_text, until=lambda text: not text)
    path.rmdir()


def test_the_child_outlives_the_runtimes_cgroup(
    cluster: Cluster, node: Node, tmp_path: Path, runtimes_cgroup: Path
) -> None:
    pod = cluster.pod("a")
    inside = tmp_path / "inside"
    plugin = os.path.join(plugin_dir(), "ratchet")
    inside.write_text(f"#!/bin/sh\necho $$ >{runtimes_cgroup}/cgroup.procs\nexec {plugin}\n")
    inside.chmod(0o755)
    request = request_config(node.config(), in1_in2("b"), None)
    node.attachments[pod.container_id, CNI_IFNAME] = Attachment(pod, CNI_IFNAME, request)
    node.execute(request, node.environ("ADD", pod), str(inside)).finish().succeeded()
    child, supervisors = node.wait_child(), node.supervisors()
    assert (runtimes_cgroup / "cgroup.procs").read_text().split() == []
    (runtimes_cgroup / "cgroup.kill").write_text("1")
    time.sleep(0.2)
    assert node.children() == [child]
    assert node.supervisors() == supervisors


def test_systemd_is_asked_for_a_scope_with_the_two_processes(tmp_path: Path) -> None:
    """A bus without systemd, on which one hears what is asked (org.freedesktop.systemd1(5))."""
    for needed in ("dbus-daemon", "dbus-monitor", "busctl"):
        if shutil.which(needed) is None:
            pytest.skip(f"no {needed}")
    address = f"unix:path={tmp_path}/bus"
    with contextlib.ExitStack() as undo:

        def start(*words: str) -> subprocess.Popen[str]:
            process = undo.enter_context(
                subprocess.Popen(
                    words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
            )
            undo.callback(process.terminate)
            return process

        start("dbus-daemon", "--session", "--nofork", f"--address={address}")
        wait_for("the bus", (tmp_path / "bus").exists)
        process = start(
            "dbus-monitor", "--address", address, "destination='org.freedesktop.systemd1'"
        )
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        asked = cgroup.scope_command(str(shutil.which("busctl")), (123, 456), "ratchet-child-123")
        subprocess.run(
            asked, env={"DBUS_SYSTEM_BUS_ADDRESS": address}, capture_output=True, timeout=20
        )
        process.terminate()
        heard = process.stdout.read()
    _, _, call = heard.partition("member=StartTransientUnit")
    said_words = call.split()
    assert '"ratchet-child-123.scope"' in said_words
    pids = said_words[said_words.index("uint32") :][:4]
    assert pids == ["uint32", "123", "uint32", "456"]


# After a boot -----------------------------------------------------------------------------------


def test_the_first_call_after_a_boot_takes_back_what_the_node_had(
    cluster: Cluster, node: Node, far: Node
) -> None:
    pod, pair = cluster.pod("a"), cluster.pod("b")
    node.add(pod, in1_in2("b")).succeeded()
    far.add(pair, PAIR).succeeded()
    pair.netns.wait_ping("192.168.2.100")
    # The power fails: nobody says DEL, and /run is empty afterwards.
    node.kill_all()
    pod.netns.remove()
    node.attachments.clear()
    node.boot()
    node.add(cluster.pod("plain"), {}).succeeded()
    wait_for("its keys to go", lambda: cluster.etcd.keys("/ratchet/association/a"), until=_none)
    wait_for("all", lambda: cluster.etcd.keys(f"/ratchet/nodes/{node.address}"), until=_none)


def test_a_node_without_labelled_pods_starts_one_child_a_boot_that_ends_once_etcd_has_answered(
    cluster: Cluster, node: Node, far: Node
) -> None:
    for one in (node, far):
        one.boot()
    for number in range(5):
        node.add(cluster.pod(f"plain{number}"), {}).succeeded()
    far.add(cluster.pod("plain"), {}, etcd_port=1).succeeded()
    child, waiting = node.wait_child(), far.wait_child()
    assert node.children() == [child]
    wait_for("it to end", node.namespace.processes, until=_none, timeout_s=45)
    assert node.is_at_rest
    assert said(node, "nothing left to do") == 1
    node.add(cluster.pod("again"), {}).succeeded()
    assert node.namespace.processes() == set()
    assert said(node, "started") == 1
    # What the other one had published before its boot may still stand in its etcd.
    before = _cpu_ticks(waiting)
    time.sleep(5)
    assert far.children() == [waiting]
    assert not far.is_at_rest
    assert _cpu_ticks(waiting) - before <= 10  # of 500


def _none(found: object) -> bool:
    return not found


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# Handing over -----------------------------------------------------------------------------------


@pytest.fixture
def staying(cluster: Cluster, node: Node, tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Give a list for children that are to stay: they end with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.terminate()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()


def stay(node: Node, tmp_path: Path, started: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    path = tmp_path / "10-ratchet.conf"
    path.write_text(json.dumps(node.config()))
    program = os.path.join(plugin_dir(), "ratchet-child")
    process = subprocess.Popen(
        node.namespace.command(program, "--config", str(path), "--stay"),
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    return process


def test_a_child_with_stay_takes_over_and_gives_back(
    cluster: Cluster, node: Node, tmp_path: Path, staying: list[subprocess.Popen[str]]
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    before = node.wait_child()
    with left.netns.watch("in1") as in1:
        process = stay(node, tmp_path, staying)
        wait_for("it to take over", node.supervisors, until=[process.pid].__eq__)
        wait_for_another(node, before)
        node.check(left).succeeded()
        third = cluster.pod("c")
        node.add(third, in1_in2("d")).succeeded()

        process.terminate()
        assert process.wait(10) == 0
        assert node.supervisors() == node.children() == []
        node.add(cluster.pod("d"), PAIR).succeeded()
        third.netns.wait_ping("192.168.2.101")
        assert node.wait_child()
        assert in1.flaps() == []
    assert said(node, "another process has taken over") == 1


def test_of_two_children_that_are_to_stay_one_waits(
    cluster: Cluster, node: Node, tmp_path: Path, staying: list[subprocess.Popen[str]]
) -> None:
    first = stay(node, tmp_path, staying)
    child = node.wait_child()
    second = stay(node, tmp_path, staying)
    time.sleep(3)
    assert first.poll() is second.poll() is None
    assert node.children() == [child]
    first.terminate()
    first.wait(10)
    wait_for("the other one to serve", node.supervisors, until=[second.pid].__eq__)
    wait_for_another(node, child)


# Updates ----------------------------------------------------------------------------------------


def test_a_program_that_was_replaced_is_taken_up_without_losing_a_request(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    program = installed(tmp_path)
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), child_path=str(program)).succeeded()
    node.add(right, PAIR, child_path=str(program)).succeeded()
    left.netns.wait_ping("192.168.2.101")
    child, supervisors = node.wait_child(), node.supervisors()
    lock = Path(node.state_dir, "child.lock").stat()
    with left.netns.watch("in1") as in1:
        replace(program)
        deadline = time.monotonic() + 20
        while child in node.children() and time.monotonic() < deadline:
            node.check(left).succeeded()
        wait_for_another(node, child)
        node.check(left).succeeded()
        assert in1.flaps() == []
    assert node.supervisors() == supervisors
    assert Path(node.state_dir, "child.lock").stat().st_ino == lock.st_ino
    assert said(node, "becoming the program that was installed") == 1


def test_a_program_that_does_not_run_is_not_taken_up(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    program = installed(tmp_path)
    pod = cluster.pod("a")
    node.add(pod, in1_in2("b"), child_path=str(program)).succeeded()
    child = node.wait_child()
    broken = program.with_name("broken")
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    broken.rename(program)
    wait_for("a word", lambda: said(node, "the program that was installed does not run"))
    time.sleep(3)
    assert node.children() == [child]
    assert said(node, "the program that was installed does not run") == 1


def installed(folder: Path) -> Path:
    """Return a program that starts the child, and can be replaced."""
    program = folder / "ratchet-child"
    libraries = os.path.join(plugin_dir(), "lib")
    if os.path.isdir(libraries):  # a built program has them beside it
        (folder / "lib").symlink_to(libraries)
    replace(program)
    return program


def replace(program: Path) -> None:
    """Put another file in the place of the program, as an installation does."""
    new = program.with_name("new")
    shutil.copy2(os.path.join(plugin_dir(), "ratchet-child"), new)
    new.rename(program)
