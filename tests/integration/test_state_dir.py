"""A state directory that somebody other than root could replace, and what that can be used for.

The attacker is the uid nobody; the witnesses are pods that are not Ratchet's, which such a
directory must not keep from starting, and pods with links in a directory that is root's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import Cluster
from tests.lab.namespaces import random_name
from tests.lab.runtime import PAIR, Node, in1_in2, plugin_dir

pytestmark = pytest.mark.root

NOBODY = 65534
PLAIN = {"app": "web"}


@pytest.fixture
def sticky() -> Iterator[Path]:
    """Give a folder like /tmp, in which anybody may make something."""
    folder = Path("/tmp", random_name("sticky"))
    folder.mkdir()
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def nothing(state: Path) -> None:
    """Leave the first part missing, for anybody to make."""


def of_nobody(state: Path) -> None:
    state.mkdir(parents=True)
    os.chown(state.parent, NOBODY, NOBODY)


def written_by_all(state: Path) -> None:
    state.mkdir(parents=True)
    state.chmod(0o777)


@pytest.mark.parametrize("prepare", [nothing, of_nobody, written_by_all])
def test_a_labelled_pod_is_refused_and_nothing_is_left(
    cluster: Cluster, node: Node, sticky: Path, prepare: Callable[[Path], None]
) -> None:
    state = sticky / "ratchet" / "net"
    prepare(state)
    before = sorted(sticky.rglob("*"))
    pod = cluster.pod("a")
    outcome = node.add(pod, PAIR, state_dir=str(state))
    assert outcome.error["code"] == 104
    assert "somebody other than root can write" in outcome.error_text
    assert str(sticky / "ratchet") in outcome.error_text
    assert sorted(sticky.rglob("*")) == before
    assert pod.netns.names() == {"lo"}
    node.attachments.clear()


@pytest.mark.parametrize("prepare", [nothing, of_nobody, written_by_all])
def test_an_unlabelled_pod_starts_and_ends_whatever_somebody_puts_there(
    cluster: Cluster, node: Node, sticky: Path, prepare: Callable[[Path], None]
) -> None:
    """Also with a record of its own name, and with somebody who answers in the child's place."""
    state = sticky / "ratchet" / "net"
    prepare(state)
    pod = cluster.pod("a")
    with contextlib.ExitStack() as stack:
        asked: list[bytes] = []
        if prepare is not nothing:
            (state / "attachments").mkdir()
            for folder in ("attachments", "boot"):
                (state / folder).mkdir(exist_ok=True)
                planted = state / folder / f"{pod.container_id}.eth0.json"
                planted.write_text("{}")
                os.chown(planted, NOBODY, NOBODY)
            stack.enter_context(answering(state / "child.sock", asked))
        config = node.config(state_dir=str(state), label_source="auto")
        node.add(pod, PLAIN, config=config).succeeded()
        assert "eth0" in pod.netns.names()
        node.delete(pod, config=config).succeeded()
        assert pod.netns.names() == {"lo"}
        assert asked == []


@contextlib.contextmanager
def answering(path: Path, asked: list[bytes]) -> Iterator[None]:
    """Answer at a socket that every pod is one of Ratchet's."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    asked.append(connection.recv(1 << 16))
                    connection.sendall(b'{"ok":true,"labels":{"ratchet":"true"}}\n')
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def test_nobody_who_is_faster_gets_a_record_obeyed(
    cluster: Cluster, node: Node, sticky: Path
) -> None:
    """The race between the look and the use: an attacker makes the folder again and again."""
    state = sticky / "ratchet" / "net"
    program = (
        "import os, sys\n"
        "while True:\n"
        "    try:\n"
        "        os.makedirs(sys.argv[1])\n"
        "    except OSError:\n"
        "        pass\n"
        "    try:\n"
        "        os.removedirs(sys.argv[1])\n"
        "    except OSError:\n"
        "        pass\n"
    )
    attacker = subprocess.Popen(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
         "/usr/bin/python3", "-c", program, str(state)]
    )  # fmt: skip
    try:
        for number in range(15):
            pod = cluster.pod(f"a{number}")
            assert node.add(pod, PAIR, state_dir=str(state)).error["code"] == 104
            plain = cluster.pod(f"p{number}")
            node.add(plain, PLAIN, state_dir=str(state)).succeeded()
            node.delete(plain).succeeded()
    finally:
        attacker.kill()
        attacker.wait()
    node.attachments.clear()
    assert [path for path in sticky.rglob("*") if path.is_file()] == []


def test_a_record_that_is_not_roots_is_passed_over(cluster: Cluster, node: Node) -> None:
    """The witnesses' links stay, and the namespace that the record names gets nothing."""
    left, right, victim = (cluster.pod(name) for name in "abc")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    records = Path(node.state_dir, "attachments")
    forged = json.loads((records / f"{left.container_id}.eth0.json").read_text())
    forged |= {"container_id": "forged", "pod": "forged", "netns": victim.netns.path}
    forged |= {"netns_identity": None, "boottime_s": forged["boottime_s"] + 1}
    planted = records / "forged.eth0.json"
    planted.with_name(".planted").write_text(json.dumps(forged))
    os.chown(planted.with_name(".planted"), NOBODY, NOBODY)
    planted.with_name(".planted").rename(planted)
    node.check(left).succeeded()
    node.add(cluster.pod("d"), PAIR).succeeded()  # has the child look at every record
    assert left.netns.pings("192.168.2.101")
    assert victim.netns.names() == {"lo"}
    assert cluster.etcd.get("/ratchet/association/forged/id") is None
    environ = {"CNI_CONTAINERID": "forged"}
    node.execute(node.config(), node.environ("DEL", victim, changes=environ)).finish().succeeded()
    assert planted.exists()  # it was taken for the delegate's pod
    assert "could have written it" in node.log()
    planted.unlink()


@pytest.mark.parametrize("prepare", [nothing, of_nobody, written_by_all])
def test_a_child_does_not_start_there(
    node: Node, sticky: Path, prepare: Callable[[Path], None]
) -> None:
    state = sticky / "ratchet" / "net"
    prepare(state)
    if prepare is not nothing:
        (state / "settings.json").write_text(json.dumps(node.config(state_dir=str(state))))
    before = sorted(sticky.rglob("*"))
    config = sticky / "net.conf"
    config.write_text(json.dumps(node.config(state_dir=str(state))))
    for source in (("--state-dir", str(state)), ("--config", str(config))):
        argv = node.namespace.command(os.path.join(plugin_dir(), "ratchet-child"), *source)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1, done
        assert "somebody other than root can write" in done.stderr
    config.unlink()
    assert sorted(sticky.rglob("*")) == before


def test_a_log_is_not_written_below_somebody_elses_folder(
    cluster: Cluster, node: Node, sticky: Path
) -> None:
    theirs = sticky / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    for log in (theirs / "ratchet.log", theirs / "sub/ratchet.log", sticky / "new/ratchet.log"):
        pod = cluster.pod("a")
        outcome = node.add(pod, PAIR, log_file=str(log)).succeeded()
        node.delete(pod).succeeded()
        assert b'msg="attached"' in outcome.stderr
    assert sorted(sticky.rglob("*")) == [theirs]
