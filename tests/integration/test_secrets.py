"""Nothing secret leaves the files that hold it, and nobody but root reaches what Ratchet keeps."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import stat
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.api_server import Authority, kubeconfig, replace
from tests.lab.cluster import Cluster, end_pids
from tests.lab.namespaces import random_name, run
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2

pytestmark = pytest.mark.root

PASSWORD = "canary-of-the-password"
TOKEN = "canary-of-the-token"
METRICS = "127.0.0.1:9477"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def ask(node: Node, operation: str) -> str:
    """Ask the node's child over its socket, as `ratchetctl` does."""
    folder = os.open(node.state_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(f"/proc/self/fd/{folder}/child.sock")
            connection.sendall(json.dumps({"op": operation}).encode() + b"\n")
            with connection.makefile("rb") as answer:
                return answer.read().decode()
    finally:
        os.close(folder)


def metrics(node: Node) -> str:
    def read() -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{METRICS}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return node.namespace.do(read)


def everything_said(node: Node) -> Iterator[tuple[str, bytes]]:
    """Everything that leaves the programs, by where it was found."""
    for call in node.calls:
        outcome = call.finish()
        yield "standard output", outcome.stdout
        yield "standard error", outcome.stderr
    for operation in ("status", "health", "nonsense"):
        yield f"answer to {operation}", ask(node, operation).encode()
    yield "metrics", metrics(node).encode()
    for pid in node.namespace.processes():
        for what in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                yield f"{what} of {pid}", Path(f"/proc/{pid}/{what}").read_bytes()
    for folder, _, names in os.walk(os.path.dirname(node.state_dir)):
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                yield str(path), path.read_bytes()
    yield "etcd", json.dumps(node.etcd.keys()).encode()


def test_no_secret_is_said_whatever_fails(cluster: Cluster, node: Node, tmp_path: Path) -> None:
    """Every secret in a place where it is used, and fails: the log is at its most talkative."""
    authority = Authority(str(tmp_path / "ca"))
    cert, key = authority.issue("node")
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    access = kubeconfig(
        str(tmp_path / "kubeconfig"),
        {"server": "https://10.99.0.1:1", "certificate-authority": authority.ca},
        {"token": TOKEN},
    )
    tls = {"etcd_ca_cert": authority.ca, "etcd_cert": cert, "etcd_key": key}
    keys: dict[str, Any] = {
        "etcd_username": "node",
        "etcd_password_file": str(password),
        "kubeconfig": access,
        "metrics_address": METRICS,
    }
    left, right, unknown = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    # etcd refuses nobody here, so these are linked, and the password is sent with every request.
    node.add(left, in1_in2("b"), **keys).succeeded()
    node.add(right, PAIR, **keys).succeeded()
    assert left.netns.pings("192.168.2.101")
    # The API server is away: the child has tried, with the token.
    config = node.config(label_source="kubernetes", **keys)
    assert node.execute(config, node.environ("ADD", unknown)).finish().error["code"] == 11
    # Each secret where it does not belong or is not understood.
    broken = Path(key).read_text().replace("PRIVATE KEY", "PUBLIC KEY")
    status = node.config(cniVersion="1.1.0", **keys)
    for text in (PASSWORD + "\udcff", PASSWORD + "€\n" + PASSWORD):
        replace_bytes(str(password), text.encode("utf-8", "surrogateescape"))
        node.status(config=status)
    replace(access, f"token: [{TOKEN}\n  {PASSWORD}: {TOKEN}")
    node.execute(config, node.environ("ADD", unknown)).finish()

    # Another configuration is taken up after a second.
    def etcd(keys: dict[str, Any]) -> str:
        node.status(config={**status, **keys})
        return str(json.loads(ask(node, "status"))["etcd"])

    wait_for("TLS to be tried", lambda: etcd(tls), until=lambda said: "does not speak TLS" in said)
    node.etcd.stop()
    replace_bytes(key, broken.encode())
    wait_for("the key to be read", lambda: etcd(tls), until=lambda said: "etcd_key" in said)
    node.etcd.start()

    body = "".join(broken.splitlines()[1:-1])
    canaries = {
        "the password": PASSWORD,
        "the password as it is sent": base64.b64encode(f"node:{PASSWORD}".encode()).decode()[8:30],
        "the token": TOKEN,
        "the key": body[20:60],
        "a part of the key": broken.splitlines()[1][10:40],
    }
    places = list(everything_said(node))
    assert any("log" in place and b"etcd_key" in text for place, text in places)
    assert any(place.startswith("environ") for place, _ in places)
    found = [
        (place, what)
        for place, text in places
        for what, canary in canaries.items()
        if canary.encode() in text
    ]
    assert found == []
    # The child goes by what it was told last; with that, nothing could be taken back.
    wait_for("etcd to be reached", lambda: etcd({}), until=lambda said: said == "None")


def replace_bytes(path: str, data: bytes) -> None:
    with open(f"{path}.new", "wb") as file:
        file.write(data)
    os.rename(f"{path}.new", path)


# Who can reach what


def test_nobody_but_root_reaches_what_ratchet_keeps(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    before = os.umask(0)  # a runtime's, and so the plugin's
    try:
        node.add(left, in1_in2("b")).succeeded()
        node.add(right, PAIR).succeeded()
    finally:
        os.umask(before)
    modes = {node.log_file: stat.S_IMODE(os.stat(node.log_file).st_mode)}
    for folder, folders, names in os.walk(node.state_dir):
        for name in (*names, *folders, "."):
            path = os.path.normpath(os.path.join(folder, name))
            modes[path] = stat.S_IMODE(os.lstat(path).st_mode)
    assert os.path.join(node.state_dir, "child.sock") in modes
    assert len([path for path in modes if "/attachments/" in path]) == 2
    wrong = {
        path: oct(mode)
        for path, mode in modes.items()
        if mode != (0o700 if os.path.isdir(path) else 0o600)
    }
    assert wrong == {}


def test_socket_is_reached_by_root_alone(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    node.add(pod, PAIR).succeeded()
    # Each by itself keeps others out: take the one away, and the other is what is tested.
    os.chmod(cluster.directory, 0o755)
    os.chmod(node.state_dir, 0o711)
    program = (
        "import socket, sys; connection = socket.socket(socket.AF_UNIX);"
        "connection.connect(sys.argv[1]); print('reached')"
    )
    connect = ("/usr/bin/python3", "-c", program, f"{node.state_dir}/child.sock")
    assert run(*connect).strip() == "reached"
    assert "reached" not in run(*NOBODY, *connect, check=False)
    os.chmod(node.state_dir, 0o700)
    assert run(*NOBODY, "ls", node.state_dir, check=False) == ""
    assert run(*NOBODY, "cat", node.log_file, check=False) == ""


def test_the_front_is_heard_of_root_alone(cluster: Cluster, node: Node) -> None:
    """A call that says nothing yet: root's is waited for, and nobody's is ended at once."""
    node.add(cluster.pod("a"), PAIR).succeeded()
    wait_for("the front to be served", lambda: "the front is served" in node.log())
    path = "/run/ratchet/front.sock"
    program = (
        "import socket, sys; connection = socket.socket(socket.AF_UNIX);"
        "connection.settimeout(1); connection.connect(sys.argv[1]); print('reached');"
        "print(connection.recv(1) or 'ended')"
    )
    connect = ("/usr/bin/python3", "-c", program, path)
    # The folder and the socket keep others out: take both away, and the child is what is tested.
    assert "reached" not in run(*node.namespace.command(*NOBODY, *connect), check=False)
    run(*node.namespace.command("chmod", "711", "/run/ratchet"))
    run(*node.namespace.command("chmod", "666", path))
    assert run(*node.namespace.command(*connect), check=False).split() == ["reached"]
    assert run(*node.namespace.command(*NOBODY, *connect)).split() == ["reached", "ended"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder of root's in /tmp, by a random name."""
    folder = Path("/tmp", random_name("state"))
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


def written_by_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def written_by_a_group(path: Path) -> None:
    path.mkdir()
    os.chown(path, -1, 65534)
    path.chmod(0o770)


def of_nobody(path: Path) -> None:
    path.mkdir()
    os.chown(path, 65534, 0)


def in_a_directory_written_by_all(path: Path) -> None:
    path.parent.chmod(0o777)


def link_of_nobody(path: Path) -> None:
    path.symlink_to("/run")
    os.chown(path, 65534, 0, follow_symlinks=False)


def link_to_where_all_write(path: Path) -> None:
    written_by_all(path.parent / "open")
    path.symlink_to("open/state")


@pytest.mark.parametrize(
    "prepare",
    [
        written_by_all,
        written_by_a_group,
        of_nobody,
        in_a_directory_written_by_all,
        link_of_nobody,
        link_to_where_all_write,
    ],
)
def test_state_directory_that_others_can_write_is_refused(
    cluster: Cluster, node: Node, open_folder: Path, prepare: Callable[[Path], None]
) -> None:
    state = open_folder / "net"
    prepare(state)
    before = sorted(map(str, open_folder.rglob("*")))
    pod = cluster.pod("a")
    config = node.config(state_dir=str(state))
    for outcome in (
        node.add(pod, PAIR, config=config),
        node.status(config={**config, "cniVersion": "1.1.0"}),
    ):
        assert outcome.error["code"] == 104
        assert "somebody other than root can write" in outcome.error_text
        assert str(open_folder) in outcome.error_text
    # Without a record there is nothing to be afraid of, and a DEL that fails is repeated for ever.
    node.delete(pod, config=config).succeeded()
    assert sorted(map(str, open_folder.rglob("*"))) == before
    assert pod.netns.names() == {"lo"}
    node.attachments.clear()


def test_record_that_others_could_have_written_is_not_obeyed(
    cluster: Cluster, node: Node, open_folder: Path
) -> None:
    state = open_folder / "net"
    pod = cluster.pod("a")
    node.add(pod, PAIR, state_dir=str(state)).succeeded()
    open_folder.chmod(0o777)
    assert node.delete(pod).error["code"] == 104
    open_folder.chmod(0o755)
    node.delete(pod).succeeded()
    wait_for("the record to go", lambda: not list((state / "attachments").iterdir()))
    end_pids(node.namespace, node.namespace.processes())  # the cluster does not look there


def test_state_directory_behind_a_link_of_roots_is_used(
    cluster: Cluster, node: Node, open_folder: Path
) -> None:
    """As /var/run is one; and /tmp, which is sticky, does no harm."""
    (open_folder / "real").mkdir()
    (open_folder / "link").symlink_to("real")
    state = open_folder / "link" / "net"
    pod = cluster.pod("a")
    node.add(pod, PAIR, state_dir=str(state)).succeeded()
    assert len(list((open_folder / "real/net/attachments").iterdir())) == 1
    node.delete(pod).succeeded()
    wait_for("the record to go", lambda: not list((state / "attachments").iterdir()))
    # The cluster does not look for a child there.
    end_pids(node.namespace, node.namespace.processes())


@pytest.mark.parametrize("plant", ["link", "hard link", "file", "fifo"])
def test_what_others_plant_in_the_place_of_the_log_is_not_written(
    cluster: Cluster, node: Node, open_folder: Path, plant: str
) -> None:
    open_folder.chmod(0o1777)
    victim = open_folder / "victim"
    victim.write_text("")
    log = open_folder / "ratchet.log"
    if plant == "link":
        log.symlink_to(victim)
    elif plant == "hard link":  # to a file of root's, where the kernel lets anybody make one
        os.link(victim, log)
    elif plant == "file":
        log.write_text("")
    else:
        os.mkfifo(log)
    if plant != "hard link":
        os.chown(log, 65534, 65534, follow_symlinks=False)
    with contextlib.ExitStack() as stack:
        reader = -1
        if plant == "fifo":  # nobody may listen
            reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, reader)
        pod = cluster.pod("a")
        outcome = node.add(pod, PAIR, log_file=str(log)).succeeded()
        node.delete(pod).succeeded()
        assert b'msg="attached"' in outcome.stderr
        assert victim.read_text() == ""
        if reader >= 0:
            assert os.read(reader, 1 << 16) == b""  # and nobody has it open
        elif plant == "file":
            assert log.read_text() == ""
