"""What the kernel refuses is told in words that say what to mend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ratchet.errors import KernelError
from ratchet_child.kernel.netns import Namespaces
from tests.integration.test_secrets import ask
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, in1_in2

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]


def link_error(node: Node) -> str:
    """What the child says of the only link of the only pod."""
    (pod,) = json.loads(ask(node, "status"))["pods"]
    return pod["links"][0]["error"] or "" if pod["links"] else ""


@contextmanager
def overlay(node: Node, *flags: str, carrier: str = "up") -> Iterator[None]:
    """Another overlay's device on the node, which has the port."""
    node.namespace.ip("link", "add", "other", "type", "vxlan", "dstport", "4789", *flags)
    try:
        node.namespace.ip("link", "set", "other", carrier)
        yield
    finally:
        node.namespace.ip("link", "del", "other")


@pytest.mark.parametrize(
    "flags",
    [("external",), ("id", "99", "gbp", "dev", "eth0", "remote", "10.99.0.99")],
    ids=["collect metadata", "gbp"],
)
def test_a_port_that_another_overlay_holds_is_named(
    cluster: Cluster, node: Node, far: Node, flags: tuple[str, ...]
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    with overlay(node, *flags):
        node.add(left, in1_in2("b"), wait="none").succeeded()
        far.add(right, PAIR, wait="none").succeeded()
        said = wait_for("the error", lambda: link_error(node))
        assert "UDP port 4789" in said
        assert "vxlan_port" in said
    left.netns.wait_ping("192.168.2.101")


def test_an_mtu_that_ipv6_cannot_do_with_is_named(cluster: Cluster, node: Node, far: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    addresses = {"ratchet.local_ip": "fd00::1/64", "ratchet.pair_ip": "fd00::2/64"}
    labels = {key: value for key, value in in1_in2("b").items() if not key.endswith("_ip")}
    node.namespace.ip("link", "set", "eth0", "mtu", "1300")
    try:
        node.add(left, labels, annotations=addresses, wait="none").succeeded()
        far.add(right, PAIR, wait="none").succeeded()
        said = wait_for("the error", lambda: link_error(node))
        assert "MTU is 1250" in said
        assert "1280" in said
        assert "parent_interface" in said
    finally:
        node.namespace.ip("link", "set", "eth0", "mtu", "1500")
    left.netns.wait_ping("fd00::2")


@pytest.mark.parametrize("known", [None, (4, 1)], ids=["older record", "record"])
def test_a_namespace_that_is_not_mounted_here_is_told(
    tmp_path: Path, known: tuple[int, int] | None
) -> None:
    """What a child in a container without mount propagation sees."""
    path = tmp_path / "netns"
    path.touch()
    namespaces = Namespaces()
    assert namespaces.exist(str(path), known)  # it is not gone, and so the record stays
    with pytest.raises(KernelError, match="mountPropagation"):
        namespaces.open(str(path), known)
