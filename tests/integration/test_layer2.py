"""Links are cables: frames that every bridge swallows pass, and systems in VMs can talk TCP."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from functools import partial

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.namespaces import is_up
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, primary

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

SIOCETHTOOL = 0x8946
ETHTOOL_GTXCSUM = 0x16

# IEEE 802.1AX: slow protocols, subtype 1 (LACP), version 1.
LACP = ("01:80:c2:00:00:02", 0x8809, bytes([0x01, 0x01, 0x01, 0x14]) + bytes(106))
# IEEE 802.1AB: chassis ID, port ID, time to live, end.
LLDP = (
    "01:80:c2:00:00:0e",
    0x88CC,
    bytes.fromhex("0207 04 0200000000aa 0403 0561 31 0602 0078 0000"),
)
STP = ("01:80:c2:00:00:00", 0x0026, bytes.fromhex("424203000000000000") + bytes(29))

PLACES = [pytest.param(0, id="veth"), pytest.param(1, id="vxlan")]


def frame(kind: tuple[str, int, bytes]) -> bytes:
    destination, ethertype, body = kind
    to = bytes.fromhex(destination.replace(":", ""))
    return (to + bytes.fromhex("0200000000aa") + struct.pack("!H", ethertype) + body).ljust(
        60, b"\0"
    )


def linked(cluster: Cluster, place: int) -> tuple[Pod, Pod]:
    """Return two pods joined by a link x1-y1 without addresses."""
    left, right = cluster.pod("a"), cluster.pod("b")
    cluster.nodes[0].add(left, primary("x1", None, "b", "y1", None)).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_link("x1", "vxlan" if place else "veth")
    right.netns.wait_link("y1", "vxlan" if place else "veth")
    return left, right


@each_of("place", PLACES)
@each_of(
    "kind",
    [pytest.param(LACP, id="LACP"), pytest.param(LLDP, id="LLDP"), pytest.param(STP, id="STP")],
)
def test_link_carries_frames_of_reserved_addresses_both_ways(
    cluster: Cluster, place: int, kind: tuple[str, int, bytes]
) -> None:
    left, right = linked(cluster, place)
    sent = frame(kind)
    for sender, out, receiver, into in ((left, "x1", right, "y1"), (right, "y1", left, "x1")):
        with receiver.netns.packets(into) as listening, sender.netns.packets(out) as sending:
            listening.setblocking(False)
            sending.send(sent)

            def arrived(listening: socket.socket = listening) -> bool:
                try:
                    return listening.recv(2048) == sent
                except BlockingIOError:
                    return False

            wait_for(f"the frame on {into}", arrived)


@each_of("place", PLACES)
def test_both_ends_compute_checksums_in_software(cluster: Cluster, place: int) -> None:
    left, right = linked(cluster, place)
    for pod, ifname in ((left, "x1"), (right, "y1")):
        # What its pod can use is complete; before, it can be seen.
        wait_for(f"{ifname} to be up", partial(pod.netns.wait_link, ifname), until=is_up)
        assert not transmit_checksum_offload(pod, ifname)


def transmit_checksum_offload(pod: Pod, ifname: str) -> bool:
    """Ask as ethtool(8) does."""
    value = array.array("B", struct.pack("=II", ETHTOOL_GTXCSUM, 0))
    request = struct.pack("16sP8x", ifname.encode(), value.buffer_info()[0])
    with pod.netns.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as opened:
        fcntl.ioctl(opened, SIOCETHTOOL, request)
    return bool(struct.unpack("=II", value.tobytes())[1])


@each_of("place", PLACES)
def test_link_carries_tcp(cluster: Cluster, place: int) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    cluster.nodes[0].add(left, primary("x1", "10.1.1.1", "b", "y1", "10.1.1.2")).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_ping("10.1.1.2")

    sent = bytes(range(256)) * 4096
    with right.netns.do(lambda: socket.create_server(("10.1.1.2", 7000))) as server:
        server.settimeout(10)
        with left.netns.do(lambda: socket.create_connection(("10.1.1.2", 7000), 10)) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(10)
                received = bytearray()
                view = memoryview(sent)
                while len(received) < len(sent):
                    if view:
                        view = view[client.send(view[:65536]) :]
                    received += accepted.recv(1 << 20)
    assert bytes(received) == sent


def test_node_sees_no_frame_of_a_link_on_its_own_interfaces_but_the_tunnel(
    cluster: Cluster, node: Node
) -> None:
    left, right = linked(cluster, 0)
    with node.namespace.packets("eth0") as listening, left.netns.packets("x1") as sending:
        with right.netns.packets("y1") as far_end:
            far_end.settimeout(10)
            sending.send(frame(LLDP))
            while far_end.recv(2048) != frame(LLDP):
                pass
        listening.setblocking(False)
        seen = []
        while True:
            try:
                seen.append(listening.recv(65536))
            except BlockingIOError:
                break
    assert frame(LLDP) not in seen
