"""What the kernel says of names of interfaces, against what `ratchet.names` says of them."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from ratchet.names import is_ifname, is_new_ifname
from tests.lab.namespaces import Namespace, random_name, run

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]

# The name, whether an interface can be made by it, and whether we do.
MADE = "in1", "eth0.5", "é", "-", "Ω" * 7, "x" * 15, "..."
NOT_SHOWN = "a\x01b", "\x7f", "a\u3000b", "a\u200bb"  # the kernel makes them, we do not
NOT_MADE = "in%d", "%", "a%sb", "all", "default"  # names to dev_valid_name, and no devices'
NO_NAMES = "à", "a b", "a\tb", "a\nb", "a\xa0", "a/b", "a:b", ".", "..", "x" * 16, "Ω" * 8

RTM_NEWLINK, IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND = 16, 3, 18, 1
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400


@pytest.fixture
def netns() -> Iterator[Namespace]:
    found = Namespace(random_name("ifname"))
    try:
        found.create()
        yield found
    finally:
        found.remove()


def make_veth(netns: Namespace, name: str) -> int:
    """Ask the kernel for a veth of that name; errno. No tool's own idea of a name is in between."""
    kind = _attribute(IFLA_LINKINFO, _attribute(IFLA_INFO_KIND, b"veth\0"))
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, name.encode() + b"\0")
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE
    body += kind
    message = struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, flags, 1, 0) + body
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # a process of its own enters the namespace, and never comes back
        code = 255
        try:
            with open(netns.path) as file:
                _setns(file.fileno())
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
                netlink.send(message)
                code = -struct.unpack_from("=i", netlink.recv(65536), 16)[0]
        finally:
            os.write(writing, struct.pack("=i", code))
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        answer = file.read(4)
    os.waitpid(child, 0)
    return int(struct.unpack("=i", answer)[0])


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _setns(fd: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def made(netns: Namespace) -> set[str]:
    code = "import os; print(*(os.fsencode(n).hex() for n in os.listdir('/sys/class/net')))"
    # `ip netns exec` mounts the /sys of the namespace.
    shown = run("ip", "netns", "exec", netns.name, "python3", "-c", code)
    return {bytes.fromhex(one).decode() for one in shown.split()}


@pytest.mark.parametrize("name", [*MADE, *NOT_SHOWN], ids=ascii)
def test_the_kernel_makes_an_interface_by_what_is_a_name(netns: Namespace, name: str) -> None:
    assert make_veth(netns, name) == 0
    assert name in made(netns)
    assert is_ifname(name)
    assert is_new_ifname(name) == (name in MADE)


@pytest.mark.parametrize("name", NOT_MADE, ids=ascii)
def test_a_template_and_a_sysctl_name_never_become_an_interface(
    netns: Namespace, name: str
) -> None:
    make_veth(netns, name)
    assert name not in made(netns)
    assert is_ifname(name)
    assert not is_new_ifname(name)


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
def test_the_kernel_refuses_what_is_no_name(netns: Namespace, name: str) -> None:
    assert make_veth(netns, name) in (errno.EINVAL, errno.ERANGE)
    assert not is_ifname(name)
    assert not is_new_ifname(name)


def test_lo_is_a_name_that_every_namespace_has_given_away(netns: Namespace) -> None:
    assert make_veth(netns, "lo") == errno.EEXIST
    assert is_new_ifname("lo")
