"""`ratchetctl capture`: frames of a pod's interface, from a node and from a simulation."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2
from tests.lab.simulation import ratchetctl

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

HEADER_BYTES = 24


def frames(data: bytes) -> list[bytes]:
    assert struct.unpack_from("=I", data)[0] == 0xA1B23C4D
    found, offset = [], HEADER_BYTES
    while offset < len(data):
        _, nanoseconds, kept, _ = struct.unpack_from("=IIII", data, offset)
        assert nanoseconds < 10**9
        found.append(data[offset + 16 : offset + 16 + kept])
        offset += 16 + kept
    return found


def start(node: Node, *arguments: str) -> subprocess.Popen[bytes]:
    program = (sys.executable, "-m", "ratchetctl", "capture", "--state-dir", node.state_dir)
    return subprocess.Popen((*program, *arguments), stdout=subprocess.PIPE)


def test_what_goes_over_a_link_is_streamed(cluster: Cluster, node: Node, far: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    with start(node, "a:in1", "-c", "4") as listener:
        assert listener.stdout is not None
        beginning = listener.stdout.read(HEADER_BYTES)
        pattern = ("-p", "cafe", "-s", "100")
        for _ in range(2):
            assert left.netns.pings("192.168.2.101", *pattern)
        seen = frames(beginning + listener.stdout.read())
        assert listener.wait(10) == 0
    echoes = [one for one in seen if b"\xca\xfe\xca\xfe\xca\xfe" in one]
    kinds = [one[34] for one in echoes if one[12:14] == b"\x08\x00"]
    assert {8, 0} == set(kinds)  # ICMP: echo and its reply, so both directions


def test_a_capture_ends_when_its_interface_goes(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    node.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    path = tmp_path / "x.pcap"
    with start(node, "default/a:in1", "-w", str(path)) as listener:
        wait_for("it to listen", lambda: path.exists() and path.stat().st_size >= HEADER_BYTES)
        assert left.netns.pings("192.168.2.101")
        wait_for("the frames", lambda: len(frames(path.read_bytes())) >= 2)
        node.delete(left).succeeded()
        left.netns.ip("link", "del", "in1", check=False)
        try:
            assert listener.wait(10) == 0
        finally:
            listener.kill()


@pytest.mark.parametrize(
    ("interface", "why"),
    [
        ("a:nope", "a:nope cannot be listened to: No such device"),
        ("b:in1", "no labelled pod 'b' on this node"),
        ("in1", "'in1' is no interface of a pod: write POD:IFNAME"),
    ],
)
def test_what_is_not_there_is_said(cluster: Cluster, node: Node, interface: str, why: str) -> None:
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    done = ratchetctl("capture", interface, "--state-dir", node.state_dir)
    assert done.returncode == 1
    assert why in done.stderr
