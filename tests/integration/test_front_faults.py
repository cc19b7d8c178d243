"""What becomes of a call when the child that serves it dies, hangs or comes too late.

The runtime must see what it would see of the parent: each plugin of the delegate runs once, or is
undone first, and whatever an ADD has left is gone after the DEL.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster import Cluster, end_processes
from tests.lab.polling import wait_for
from tests.lab.programs import compile_front, has_front
from tests.lab.runtime import (
    FRONT,
    PAIR,
    REFERENCE_PLUGINS,
    Node,
    Pod,
    in1_in2,
    mark_at_rest,
    plugin_dir,
    script,
)

# The patient front waits for so long for its first word; the one that is installed, for 0.1 s.
PATIENCE_S = 20.0
# Far more than the installed front waits, and far less than a stopped child, or a front with
# patience, would take.
HELD_S = 5.0

pytestmark = pytest.mark.root

TRY_AGAIN_LATER = 11
# Long enough for several kills in each state; by hand, RATCHET_FRONT_STEPS=10000 is the long run.
STEPS = int(os.environ.get("RATCHET_FRONT_STEPS") or 48)
WORKERS = 4
WAITS: dict[str, Any] = {"wait": "all", "wait_seconds": 20}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a front that waits for its first word for as long as a busy machine may take.

    With less it becomes the parent, to which nothing happens of what the tests do to the child.
    """
    if not has_front():
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("patient")
    compile_front(str(folder / "ratchet"), "release", f"-DFIRST_WORD_MS={PATIENCE_S * 1000:.0f}")
    (folder / "ratchet-parent").symlink_to(os.path.join(plugin_dir(), "ratchet-parent"))
    return str(folder / "ratchet")


@pytest.fixture
def served(cluster: Cluster, node: Node, patient: str) -> Iterator[Node]:
    """Give a node whose front is served."""
    node.way, node.front = FRONT, patient
    node.serve_front()
    yield node
    node.front = None
    for pid in node.children():
        os.kill(pid, signal.SIGCONT)


class Interrupting:
    """A plugin that does something to the child in the middle of one call, and notes its calls."""

    def __init__(self, folder: Path, plugin: str = "loopback") -> None:
        self.folder = folder
        text = (
            f"echo $CNI_COMMAND >> {folder}/calls; "
            f"if mv {folder}/$CNI_COMMAND {folder}/now 2>/dev/null; then . {folder}/now; fi; "
            f"exec {REFERENCE_PLUGINS}/{plugin}"
        )
        self.environ = script(folder, "interrupting", text)
        self.config = {"type": "interrupting"}

    def at(self, command: str, number: signal.Signals, node: Node) -> None:
        """Send the child a signal at the next call of this kind, and wait until it has come."""
        pid = node.wait_child()
        text = f"kill -{number.value} {pid}; sleep 0.1\n"
        (self.folder / command).write_text(text)

    def calls(self) -> list[str]:
        """Return the operations that it was called for, and forget them.

        That it is asked for its versions, once, changes nothing.
        """
        path = self.folder / "calls"
        found = path.read_text().split()
        path.unlink()
        return [operation for operation in found if operation != "VERSION"]


@pytest.fixture
def plugin(tmp_path: Path) -> Interrupting:
    return Interrupting(tmp_path)


def without_patience(node: Node) -> None:
    """Have the node use the front as it is installed, for a child that does not answer anyway."""
    node.front = None


def figures(node: Node, state_dir: str | None = None) -> dict[str, dict[str, int]]:
    """Return what the child, or that of another state directory, has counted of the front."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(os.path.join(state_dir or node.state_dir, "child.sock"))
        asking.sendall(b'{"op": "status"}\n')
        with asking.makefile("rb") as answer:
            found: dict[str, dict[str, int]] = json.loads(answer.readline())["front"]
    return found


def killed(node: Node, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for("the child to be gone", node.children, until=lambda pids: pid not in pids)


def assert_nothing_stays(cluster: Cluster, node: Node) -> None:
    wait_for("the records to go", node.records, until=lambda records: not records)
    boots = os.path.join(node.state_dir, "boot")
    assert not os.path.isdir(boots) or os.listdir(boots) == []
    wait_for(
        "the keys to go",
        lambda: set(cluster.etcd.tree()),
        until=lambda keys: keys <= {"/ratchet/", "/ratchet/vxlanid"},
    )


# The child dies


def test_killed_while_the_boot_network_is_attached_it_is_attached_again(
    cluster: Cluster, served: Node, plugin: Interrupting
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    plugin.at("ADD", signal.SIGKILL, served)
    outcome = served.add(left, in1_in2("b"), environ=plugin.environ, boot_network=plugin.config)
    assert outcome.succeeded().result["ips"]
    assert plugin.calls() == ["ADD", "DEL", "ADD"]
    served.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    served.delete(left, environ=plugin.environ).succeeded()
    assert plugin.calls() == ["DEL"]


def test_killed_while_the_boot_network_is_detached_it_is_detached_again(
    cluster: Cluster, served: Node, plugin: Interrupting
) -> None:
    pod = cluster.pod("a")
    served.add(pod, in1_in2("b"), environ=plugin.environ, boot_network=plugin.config).succeeded()
    plugin.at("DEL", signal.SIGKILL, served)
    served.delete(pod, environ=plugin.environ).succeeded()
    assert plugin.calls() == ["ADD", "DEL", "DEL"]
    served.serve_front()
    assert_nothing_stays(cluster, served)


def test_killed_between_a_delegates_plugins_the_runtime_is_to_try_again(
    cluster: Cluster, served: Node, plugin: Interrupting
) -> None:
    """The first plugin has run: a second ADD of it is only right after the runtime's DEL."""
    pod = cluster.pod("plain")
    delegate = {"plugins": [plugin.config, {"type": "loopback"}]}
    plugin.at("ADD", signal.SIGKILL, served)
    outcome = served.add(pod, {}, environ=plugin.environ, delegate=delegate)
    assert outcome.error["code"] == TRY_AGAIN_LATER
    assert outcome.error["cniVersion"] == "1.0.0"
    assert plugin.calls() == ["ADD"]
    served.delete(pod, environ=plugin.environ).succeeded()
    served.add(pod, {}, environ=plugin.environ, delegate=delegate).succeeded()
    assert plugin.calls() == ["DEL", "ADD"]
    served.delete(pod, environ=plugin.environ).succeeded()


def test_killed_between_a_delegates_plugins_a_del_goes_on(
    cluster: Cluster, served: Node, plugin: Interrupting
) -> None:
    pod = cluster.pod("plain")
    delegate = {"plugins": [{"type": "loopback"}, plugin.config]}
    served.add(pod, {}, environ=plugin.environ, delegate=delegate).succeeded()
    plugin.at("DEL", signal.SIGKILL, served)
    served.delete(pod, environ=plugin.environ).succeeded()
    assert plugin.calls() == ["ADD", "DEL", "DEL"]


def test_killed_before_the_first_word_nobody_notices(cluster: Cluster, served: Node) -> None:
    pod = cluster.pod("plain")
    child = served.wait_child()
    os.kill(child, signal.SIGSTOP)
    call = served.start_add(pod, {}, delegate={"type": "loopback"})
    time.sleep(0.03)
    killed(served, child)
    assert call.finish().succeeded().elapsed_s < HELD_S


def test_killed_while_links_are_waited_for_the_pod_waits_on(
    cluster: Cluster, served: Node, plugin: Interrupting
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    call = served.start_add(
        left,
        in1_in2("b"),
        environ=plugin.environ,
        boot_network=plugin.config,
        **WAITS,
    )
    wait_for("the link to wait", lambda: "link waiting" in served.log())
    killed(served, served.wait_child())
    served.way = "installed"
    served.add(right, PAIR, **WAITS).succeeded()
    call.finish().succeeded()
    assert plugin.calls() == ["ADD"]
    left.netns.wait_ping("192.168.2.101")


# The runtime has no patience


def _is_logged(node: Node, what: str, times: int) -> bool:
    return node.log().count(what) >= times


def test_front_that_is_killed_is_a_parent_that_is_killed(
    cluster: Cluster, served: Node, plugin: Interrupting
) -> None:
    for times in range(1, 6):
        pod = cluster.pod("a")
        call = served.start_add(
            pod,
            in1_in2("b"),
            environ=plugin.environ,
            boot_network=plugin.config,
            wait="all",
            wait_seconds=20,
        )
        wait_for(
            "the link to wait",
            functools.partial(_is_logged, served, "link waiting", times),
        )
        is_front = os.path.basename(os.readlink(f"/proc/{call.process.pid}/exe")) == "ratchet"
        call.kill()
        if is_front:
            break
        # On a busy machine the child's first word may come too late: then it was the parent's call.
        served.delete(pod, environ=plugin.environ).succeeded()
        plugin.calls()
    wait_for("the call to be given up", lambda: figures(served)["calls"]["abandoned"] == 1)
    served.delete(pod, environ=plugin.environ).succeeded()
    assert plugin.calls() == ["ADD", "DEL"]
    assert_nothing_stays(cluster, served)


# The child hangs


def test_stopped_child_holds_no_pod_up(cluster: Cluster, served: Node) -> None:
    without_patience(served)
    os.kill(served.wait_child(), signal.SIGSTOP)
    for number in range(3):
        pod = cluster.pod(f"plain{number}")
        add = served.add(pod, {}, delegate={"type": "loopback"})
        assert add.succeeded().elapsed_s < HELD_S
        assert served.delete(pod).succeeded().elapsed_s < HELD_S
    os.kill(served.wait_child(), signal.SIGCONT)
    # It sees six fronts that have gone.
    wait_for(
        "the calls to be counted",
        lambda: figures(served),
        until=lambda seen: seen["calls"]["abandoned"] >= 6,
    )


def test_stopped_between_a_delegates_plugins_the_runtime_is_to_try_again(
    cluster: Cluster, served: Node, plugin: Interrupting
) -> None:
    pod = cluster.pod("plain")
    delegate = {"plugins": [plugin.config, {"type": "loopback"}]}
    plugin.at("ADD", signal.SIGSTOP, served)
    outcome = served.add(pod, {}, environ=plugin.environ, delegate=delegate)
    assert outcome.error["code"] == TRY_AGAIN_LATER
    assert 4 < outcome.elapsed_s < 10
    assert plugin.calls() == ["ADD"]
    without_patience(served)
    served.delete(pod, environ=plugin.environ).succeeded()
    assert plugin.calls() == ["DEL"]


@pytest.mark.slow
def test_stopped_while_the_boot_network_is_attached_nothing_is_begun_beside_it(
    cluster: Cluster, served: Node, plugin: Interrupting
) -> None:
    """It may still be at work: so the ADD fails, and the DEL finds all that there is."""
    pod = cluster.pod("a")
    plugin.at("ADD", signal.SIGSTOP, served)
    outcome = served.add(pod, in1_in2("b"), environ=plugin.environ, boot_network=plugin.config)
    assert outcome.error["code"] == TRY_AGAIN_LATER
    assert plugin.calls() == ["ADD"]
    without_patience(served)
    served.delete(pod, environ=plugin.environ).succeeded()
    assert plugin.calls() == ["DEL"]
    os.kill(served.wait_child(), signal.SIGCONT)
    wait_for("the call to be given up", lambda: figures(served)["calls"]["abandoned"] >= 1)
    assert_nothing_stays(cluster, served)


# What the child counts, and who has the door


def test_every_operation_is_served_through_the_front(cluster: Cluster, served: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    for pod, labels in ((left, in1_in2("b")), (right, PAIR)):
        served.add(pod, labels, cniVersion="1.1.0").succeeded()
    served.check(left).succeeded()
    served.status().succeeded()
    served.gc([(left, "eth0"), (right, "eth0")]).succeeded()
    served.execute({"cniVersion": "1.0.0"}, {"CNI_COMMAND": "VERSION"}).finish().succeeded()
    plain = cluster.pod("plain")
    served.add(plain, {}, delegate={"type": "loopback"}).succeeded()
    for pod in (left, right, plain):
        served.delete(pod).succeeded()
    calls = figures(served)["calls"]
    # On a busy machine some may have been late.
    assert calls["answered"] >= 5
    assert calls["delegated"] >= 1
    assert sum(calls.values()) <= 10
    assert calls["parent"] == 0


def test_calls_of_another_network_are_the_parents(cluster: Cluster, served: Node) -> None:
    pod = cluster.pod("plain")
    other = f"{served.state_dir}-other"
    mark_at_rest(other)

    def counted() -> bool:
        # On a busy machine a front may be too early.
        served.add(pod, {}, delegate={"type": "loopback"}, state_dir=other).succeeded()
        found = figures(served)
        return found["calls"]["parent"] == found["fallbacks"]["state_dir"] > 0

    wait_for("a call to be counted", counted)
    # The parent has kept what the delegate's program knows.
    assert set(os.listdir(other)) <= {"at-rest", "versions"}


def test_calls_from_another_namespace_are_the_parents(
    cluster: Cluster, served: Node, far: Node
) -> None:
    pod = cluster.pod("plain")
    own = far.namespace.mounts
    far.namespace.mounts = served.namespace.mounts
    try:

        def counted() -> bool:
            far.add(pod, {}, delegate={"type": "loopback"}, state_dir=served.state_dir).succeeded()
            return figures(served)["fallbacks"]["namespace"] > 0

        wait_for("a call to be counted", counted)
    finally:
        far.namespace.mounts = own
        far.attachments.clear()


def test_parent_tells_why_the_front_could_not(cluster: Cluster, served: Node) -> None:
    pod = cluster.pod("a")
    served.wait_child()
    end_processes(served)  # the supervisor too, which would have another child there at once
    served.way = "installed"
    served.add(pod, in1_in2("b")).succeeded()
    assert figures(served)["fallbacks"]["no-child"] >= 1


def test_child_that_cannot_make_its_socket_serves_all_the_same(
    cluster: Cluster, node: Node
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    remount = ("mount", "-o", "remount,{}", "/run/ratchet")
    _in_mounts(node, *(word.format("ro") for word in remount))
    try:
        node.add(left, in1_in2("b")).succeeded()
        node.add(right, PAIR).succeeded()
        left.netns.wait_ping("192.168.2.101")
        assert "the front cannot be served" in node.log()
    finally:
        _in_mounts(node, *(word.format("rw") for word in remount))


def test_child_that_stays_takes_the_door_and_leaves_it(
    cluster: Cluster, served: Node, tmp_path: Path
) -> None:
    own, others = served.state_dir, str(tmp_path / "other")

    def calls(state_dir: str) -> int:
        return sum(figures(served, state_dir)["calls"].values())

    def counted(state_dir: str) -> bool:
        """Have STATUS asked, and say whether the child of that directory has counted it.

        On a busy machine the front may come too early, or not wait for the child's first word.
        """
        before = calls(state_dir)
        request = served.config(
            state_dir=state_dir, cniVersion="1.1.0", delegate=None, use_labels=False
        )
        served.execute(request, served.environ("STATUS")).finish().succeeded()
        return calls(state_dir) > before

    config = served.config(state_dir=others, name="other", log_file=None)
    path = tmp_path / "other.conf"
    path.write_text(json.dumps(config))
    program = os.path.join(os.environ["RATCHET_PLUGIN_DIR"], "ratchet-child")
    argv = served.namespace.command(program, "--config", str(path), "--stay")
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as other:
        assert other.stderr is not None
        assert any("the front is served" in line for line in other.stderr)
        before = calls(own)
        wait_for("the other to be asked", lambda: counted(others))
        wait_for("the first to notice", lambda: "another child serves" in served.log())
        assert not counted(own)
        assert calls(own) == before
        other.terminate()
        other.communicate()
    wait_for("the first to serve again", lambda: served.log().count("the front is served") == 2)
    wait_for("the first to be asked", lambda: counted(own))


def _in_mounts(node: Node, *argv: str) -> None:
    subprocess.run(node.namespace.command(*argv), check=True, timeout=10)


# Everything at once


@pytest.mark.slow
@pytest.mark.timeout(300 + STEPS)
def test_pods_come_and_go_while_the_child_is_killed(cluster: Cluster, served: Node) -> None:
    """Nothing is lost, nothing happens twice: host-local refuses to give a pod two addresses."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}, {STEPS} steps")
    served.way = "installed"
    done = threading.Event()
    errors: list[BaseException] = []
    counts = {"add": 0, "again": 0, "kills": 0}
    lock = threading.Lock()

    def pods_come_and_go(number: int) -> None:
        dice = random.Random(f"{seed} {number}")
        try:
            for step in range(STEPS // WORKERS):
                name = f"p{number}x{step}"
                with lock:
                    pod = cluster.pod(name)
                _attach_and_detach(served, pod, dice, counts)
                with lock:
                    pod.netns.remove()
                    cluster.pods.remove(pod)
        except BaseException as error:  # noqa: BLE001 - told to the test's thread
            errors.append(error)

    workers = [threading.Thread(target=pods_come_and_go, args=(n,)) for n in range(WORKERS)]
    killer = threading.Thread(target=_kill_children, args=(served, seed, done, counts))
    for thread in [*workers, killer]:
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    killer.join()
    print(counts)
    if errors:
        raise errors[0]
    assert counts["kills"] > STEPS // 40
    served.way = FRONT
    served.serve_front()
    assert_nothing_stays(cluster, served)
    leases = Path(served.bridge_config()["ipam"]["dataDir"]) / "ratchet-test"
    assert not list(leases.glob("10.*"))


def _attach_and_detach(node: Node, pod: Pod, dice: random.Random, counts: dict[str, int]) -> None:
    labels: dict[str, str] = dice.choice([{}, {}, in1_in2("nobody"), PAIR])
    more: dict[str, Any] = {}
    if labels:
        more = {"boot_network": node.bridge_config(), "wait_seconds": 1}
    elif dice.random() < 0.3:
        more = {"delegate": {"plugins": [node.bridge_config(), {"type": "loopback"}]}}
    for _ in range(20):
        outcome = node.add(pod, labels, **more)
        counts["add"] += 1
        if outcome.exit == 0:
            break
        assert outcome.error["code"] == TRY_AGAIN_LATER, outcome
        counts["again"] += 1
        node.delete(pod).succeeded()
    else:
        pytest.fail("twenty times in vain")
    if "delegate" not in more:
        addresses = [ip["address"] for ip in outcome.result["ips"]]
        assert addresses == pod.netns.addresses("eth0")
    for _ in range(dice.choice([1, 1, 2])):
        node.delete(pod).succeeded()
    assert pod.netns.names() == {"lo"}


def _kill_children(node: Node, seed: int, done: threading.Event, counts: dict[str, int]) -> None:
    dice = random.Random(f"{seed} killer")
    while not done.wait(dice.uniform(0.1, 0.6)):
        for pid in node.children():
            # A parent has the lock, too, while it starts the child.
            with contextlib.suppress(OSError):
                if "ratchet-child" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)
                    counts["kills"] += 1
