"""A tunnel's end in a pod with NET_ADMIN is no door to the node's UDP socket.

Each test that something does not arrive has a twin in which it does: the same attack without the
guard.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_secrets import ask
from tests.lab import nftables
from tests.lab.cluster import Cluster, end_pids
from tests.lab.namespaces import vxlan_of
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2

pytestmark = pytest.mark.root

MARKER = b"an attacker was here"
VICTIM_MAC = "02:00:00:00:00:99"
PORT = 4789
PATIENCE_S = 1.0

FRAME = bytes.fromhex(VICTIM_MAC.replace(":", "")) + bytes.fromhex("020000000001 88b5") + MARKER


def linked(cluster: Cluster, here: Node, there: Node, name: str, **config: Any) -> list[Pod]:
    """Link two pods on two nodes; the configuration is the first node's."""
    left, right = cluster.pod(f"{name}-left"), cluster.pod(f"{name}-right")
    here.add(left, in1_in2(f"{name}-right"), **config).succeeded()
    there.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    return [left, right]


def vni_of(pod: Pod, ifname: str) -> int:
    link = pod.netns.link(ifname)
    assert link is not None
    return int(vxlan_of(link)["id"])


def aim(attacker: Pod, ifname: str, address: str, vni: int, port: int = PORT) -> None:
    """Have frames to the victim's MAC address sent there, as NET_ADMIN may."""
    entry = f"{VICTIM_MAC} dev {ifname} dst {address} vni {vni} port {port}"
    attacker.netns.command_output("bridge", "fdb", "replace", *entry.split())


def arrives(attacker: Pod, ifname: str, opened: socket.socket) -> bool:
    """Send frames and say whether one comes out of a socket within a second."""
    opened.setblocking(False)
    with attacker.netns.packets(ifname) as sender:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            sender.send(FRAME)
            time.sleep(0.05)
            with contextlib.suppress(BlockingIOError):
                while True:
                    if MARKER in opened.recv(65536):
                        return True
    return False


def reaches(attacker: Pod, ifname: str, victim: Pod, victim_ifname: str) -> bool:
    with victim.netns.packets(victim_ifname) as opened:
        return arrives(attacker, ifname, opened)


@contextlib.contextmanager
def udp(node: Node, address: str, port: int) -> Iterator[socket.socket]:
    def make() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.bind((address, port))
        return made

    with node.namespace.do(make) as opened:
        yield opened


def guard_of(node: Node) -> str:
    return str(json.loads(ask(node, "status"))["guard"])


@pytest.fixture(params=["IPv4", "IPv6"])
def address_of(request: pytest.FixtureRequest) -> Callable[[Node], str]:
    if request.param == "IPv4":
        return lambda node: node.address
    return lambda node: node.address6


@pytest.mark.parametrize("guard", ["auto", "off"])
def test_pod_sends_to_its_link_and_nowhere_else(
    cluster: Cluster, node: Node, far: Node, address_of: Callable[[Node], str], guard: str
) -> None:
    third = cluster.nodes[2]

    def config(one: Node) -> dict[str, Any]:
        return {"parent_address": address_of(one), "guard": guard if one is node else "off"}

    attacker, peer = cluster.pod("attacker"), cluster.pod("peer")
    node.add(attacker, in1_in2("peer"), **config(node)).succeeded()
    far.add(peer, PAIR, **config(far)).succeeded()
    attacker.netns.wait_ping("192.168.2.101")
    victim, other = cluster.pod("victim"), cluster.pod("other")
    third.add(victim, in1_in2("other"), **config(third)).succeeded()
    far.add(other, PAIR, **config(far)).succeeded()
    victim.netns.wait_ping("192.168.2.101")
    is_open = guard == "off"

    aim(attacker, "in1", address_of(third), vni_of(victim, "in1"))
    assert reaches(attacker, "in1", victim, "in1") == is_open
    aim(attacker, "in1", address_of(third), vni_of(attacker, "in1"), port=9999)
    with udp(third, address_of(third), 9999) as opened:
        assert arrives(attacker, "in1", opened) == is_open
    aim(attacker, "in1", address_of(node), vni_of(attacker, "in1"), port=9999)
    with udp(node, address_of(node), 9999) as opened:
        # With nothing at that port, Linux before 6.5 sends nothing to the node itself either.
        assert arrives(attacker, "in1", opened) == (is_open and not is_old())
    assert attacker.netns.pings("192.168.2.101")
    assert victim.netns.pings("192.168.2.101")
    assert guard_of(node) == ("on" if guard == "auto" else "off, as configured")


def is_old() -> bool:
    """Say whether the kernel takes a short cut from tunnel to tunnel on one node (before 6.5)."""
    major, minor = map(int, platform.release().split(".")[:2])
    return (major, minor) < (6, 5)


@pytest.mark.skipif(is_old(), reason="this kernel has no nolocalbypass")
@pytest.mark.parametrize("guard", ["auto", "off"])
def test_tunnels_that_begin_on_the_same_node_are_not_reached(
    cluster: Cluster, node: Node, far: Node, guard: str
) -> None:
    attacker, _ = linked(cluster, node, far, "attacker", guard=guard)
    victim, _ = linked(cluster, node, far, "victim", guard=guard)

    aim(attacker, "in1", node.address, vni_of(victim, "in1"))
    assert reaches(attacker, "in1", victim, "in1") == (guard == "off")


@pytest.mark.parametrize("guard", ["auto", "off"])
def test_frames_for_a_link_are_taken_from_its_far_node_alone(
    cluster: Cluster, node: Node, far: Node, guard: str
) -> None:
    third = cluster.nodes[2]
    victim, _ = linked(cluster, node, far, "victim", guard=guard)
    header = bytes.fromhex("08000000") + vni_of(victim, "in1").to_bytes(3, "big") + b"\0"

    with udp(third, third.address, 0) as sender, victim.netns.packets("in1") as opened:
        opened.settimeout(PATIENCE_S)
        for _ in range(3):
            sender.sendto(header + FRAME, (node.address, PORT))
        is_heard = False
        with contextlib.suppress(TimeoutError):
            while not is_heard:
                is_heard = MARKER in opened.recv(65536)
    assert is_heard == (guard == "off")


def test_guard_follows_the_far_pod_to_another_node(cluster: Cluster, node: Node, far: Node) -> None:
    third = cluster.nodes[2]
    left, right = linked(cluster, node, far, "moving")
    vni = vni_of(left, "in1")
    far.delete(right).succeeded()
    again = cluster.pod("moving-right")
    third.add(again, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")
    assert vni_of(left, "in1") == vni

    with far.namespace.packets("eth0") as opened:
        aim(left, "in1", far.address, vni)
        assert not arrives(left, "in1", opened)
    with third.namespace.packets("eth0") as opened:
        aim(left, "in1", third.address, vni)
        assert arrives(left, "in1", opened)
    assert left.netns.pings("192.168.2.101")


def test_guard_stands_while_no_child_runs_and_the_next_one_takes_it_up(
    cluster: Cluster, node: Node, far: Node
) -> None:
    third = cluster.nodes[2]
    attacker, peer = linked(cluster, node, far, "attacker")
    gone, _ = linked(cluster, node, far, "gone")
    gone_vni = vni_of(gone, "in1")
    victim, _ = linked(cluster, third, far, "victim", guard="off")
    aim(attacker, "in1", third.address, vni_of(victim, "in1"))

    end_pids(node.namespace, set(node.supervisors()))
    end_pids(node.namespace, set(node.children()))
    assert not reaches(attacker, "in1", victim, "in1")
    assert attacker.netns.pings("192.168.2.101")
    # Its tunnel dies with its namespace, and nobody hears of it.
    gone.netns.remove()

    late, _ = linked(cluster, node, far, "late")
    assert attacker.netns.pings("192.168.2.101")
    assert not reaches(attacker, "in1", victim, "in1")
    aim(attacker, "in1", far.address, gone_vni)
    with far.namespace.packets("eth0") as opened:
        wait_for("the gone tunnel to be forgotten", lambda: not arrives(attacker, "in1", opened))
    assert late.netns.pings("192.168.2.101")
    assert peer.netns.pings("192.168.2.100")


def test_emptied_nftables_are_filled_again(cluster: Cluster, node: Node, far: Node) -> None:
    third = cluster.nodes[2]
    attacker, _ = linked(cluster, node, far, "attacker")
    victim, _ = linked(cluster, third, far, "victim", guard="off")
    aim(attacker, "in1", third.address, vni_of(victim, "in1"))
    assert nftables.tables(node.namespace) == {"ratchet"}

    child = node.wait_child()
    os.kill(child, signal.SIGSTOP)  # it looks every two seconds, and the attack may take longer
    try:
        nftables.flush(node.namespace)
        assert reaches(attacker, "in1", victim, "in1"), "the attack itself works"
    finally:
        os.kill(child, signal.SIGCONT)
    wait_for("the guard to be back", lambda: nftables.tables(node.namespace) == {"ratchet"})
    assert not reaches(attacker, "in1", victim, "in1")
    assert attacker.netns.pings("192.168.2.101")

    nftables.flush(node.namespace)
    late, _ = linked(cluster, node, far, "late")  # the link's own change finds no table
    assert attacker.netns.pings("192.168.2.101")
    assert late.netns.pings("192.168.2.101")


def test_other_tunnels_and_programs_of_the_node_are_left_alone(
    cluster: Cluster, node: Node, far: Node
) -> None:
    linked(cluster, node, far, "ours")
    with contextlib.ExitStack() as undo:
        for here, there, address in ((node, far, "10.77.0.1"), (far, node, "10.77.0.2")):
            made = f"id 7000 remote {there.address} dev eth0 dstport {PORT}"
            here.namespace.ip("link", "add", "overlay", "type", "vxlan", *made.split())
            undo.callback(here.namespace.ip, "link", "delete", "overlay")
            here.namespace.ip("addr", "add", f"{address}/24", "dev", "overlay")
            here.namespace.ip("link", "set", "overlay", "up")
        node.namespace.wait_ping("10.77.0.2")

    # A program that sends from one of the tunnels' source ports, to whatever port.
    with udp(node, node.address, 61500) as sender, udp(far, far.address, 9999) as opened:
        opened.settimeout(PATIENCE_S)
        sender.sendto(MARKER, (far.address, 9999))
        assert opened.recv(100) == MARKER


def test_table_goes_with_the_last_tunnel(cluster: Cluster, node: Node, far: Node) -> None:
    left, right = linked(cluster, node, far, "short")
    assert nftables.tables(node.namespace) == {"ratchet"}
    node.delete(left).succeeded()
    far.delete(right).succeeded()
    for one in (node, far):
        wait_for("the table to go", lambda one=one: not nftables.tables(one.namespace))  # type: ignore[misc]


def test_without_nftables_links_work_and_status_says_what_is_missing(
    cluster: Cluster, node: Node, far: Node, tmp_path: Path
) -> None:
    child = without_nftables(tmp_path, str(node.config()["child_path"]))
    left, right = cluster.pod("left"), cluster.pod("right")
    node.add(left, in1_in2("right"), child_path=child).succeeded()
    far.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    assert guard_of(node).startswith("off: nftables does not work on this node")
    assert nftables.tables(node.namespace) == set()
    assert "the node has no guard" in node.log()


def without_nftables(folder: Path, child: str) -> str:
    """Write a program that is the child on a kernel without nftables: seccomp(2) refuses it."""
    path = folder / "ratchet-child"
    path.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent(
            f"""
            import ctypes, os, struct, sys
            # No socket(AF_NETLINK, *, NETLINK_NETFILTER): seccomp_data has the number of the call
            # at 0, and the arguments from 16 on.
            LOAD, JEQ, RET = 0x20, 0x15, 0x06
            ALLOW, ERRNO = 0x7FFF0000, 0x00050000 | {errno.EPROTONOSUPPORT}
            code = [
                (LOAD, 0, 0, 0), (JEQ, 0, 5, {41 if platform.machine() == "x86_64" else 198}),
                (LOAD, 0, 0, 16), (JEQ, 0, 3, 16),
                (LOAD, 0, 0, 32), (JEQ, 0, 1, 12),
                (RET, 0, 0, ERRNO), (RET, 0, 0, ALLOW),
            ]
            packed = b"".join(struct.pack("=HBBI", *one) for one in code)
            filter = ctypes.create_string_buffer(packed)
            program = struct.pack("=HxxxxxxQ", len(code), ctypes.addressof(filter))
            libc = ctypes.CDLL(None, use_errno=True)
            buffer = ctypes.create_string_buffer(program)
            assert libc.prctl(22, 2, buffer, 0, 0) == 0, ctypes.get_errno()
            os.execv({child!r}, [{child!r}, *sys.argv[1:]])
            """
        )
    )
    path.chmod(0o755)
    return str(path)
