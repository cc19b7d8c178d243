"""A tunnel's part of rtnetlink(7) messages: a vxlan device with one far end (RFC 7348). Pure."""

from __future__ import annotations

import struct

from ratchet.cni.ip import Host
from ratchet_child.kernel import rtnetlink

_IFLA_VXLAN_ID, _IFLA_VXLAN_GROUP, _IFLA_VXLAN_LINK, _IFLA_VXLAN_LEARNING = 1, 2, 3, 7
_IFLA_VXLAN_PORT, _IFLA_VXLAN_GROUP6 = 15, 16
_IFLA_VXLAN_LOCAL, _IFLA_VXLAN_LOCAL6 = 4, 17
_IFLA_VXLAN_PORT_RANGE, _IFLA_VXLAN_LOCALBYPASS = 10, 31


def remote(index: int, to: Host) -> bytes:
    """Return a tunnel's end with another far end.

    The port is left out: the kernel refuses a change that names it.
    """
    return rtnetlink.interface(index) + rtnetlink.kind_of(
        "vxlan", rtnetlink.attribute(_vxlan_remote(to), to.packed)
    )


def local(index: int, sender: Host) -> bytes:
    """Have a tunnel's end send from another address, the unspecified one for the kernel's."""
    return rtnetlink.interface(index) + rtnetlink.kind_of(
        "vxlan", rtnetlink.attribute(_vxlan_local(sender), sender.packed)
    )


def new(
    vni: int,
    remote: Host,
    lower_index: int | None,
    port: int,
    sender: Host | None = None,
    source_ports: tuple[int, int] | None = None,
) -> bytes:
    """Return what makes a new interface a vxlan end with one far end.

    Without a lower device the node's routes lead it. `sender` is the address that it sends from,
    `source_ports` are the first and the last of the ports. What goes to the node itself is sent as
    well, where the kernel can do without its short cut to the tunnel's other end (Linux 6.5).
    """
    lower = (
        b""
        if lower_index is None
        else rtnetlink.attribute(_IFLA_VXLAN_LINK, rtnetlink.u32(lower_index))
    )
    own = b"" if sender is None else rtnetlink.attribute(_vxlan_local(sender), sender.packed)
    range_ = struct.pack("!HH", *(source_ports or (0, 0)))  # zeros for the kernel's choice
    return rtnetlink.kind_of(
        "vxlan",
        rtnetlink.attribute(_IFLA_VXLAN_ID, rtnetlink.u32(vni))
        + rtnetlink.attribute(_vxlan_remote(remote), remote.packed)
        + lower
        + own
        + rtnetlink.attribute(_IFLA_VXLAN_PORT_RANGE, range_)
        + rtnetlink.attribute(_IFLA_VXLAN_LOCALBYPASS, b"\0")
        + rtnetlink.attribute(_IFLA_VXLAN_PORT, struct.pack("!H", port))
        # There is one far end: nothing to learn (RFC 7348 §4.1).
        + rtnetlink.attribute(_IFLA_VXLAN_LEARNING, b"\0"),
    )


def read(
    data: rtnetlink.Attributes,
) -> tuple[int | None, Host | None, int | None, int | None, Host | None, tuple[int, int] | None]:
    """Return a tunnel's VNI, remote, port and lower device, and its own address and ports."""
    port = data.get(_IFLA_VXLAN_PORT)
    ports = data.get(_IFLA_VXLAN_PORT_RANGE, bytes(4))
    first, last = struct.unpack("!HH", ports)
    return (
        rtnetlink.number(data.get(_IFLA_VXLAN_ID)),
        rtnetlink.host(data.get(_IFLA_VXLAN_GROUP) or data.get(_IFLA_VXLAN_GROUP6)),
        None if port is None else int.from_bytes(port, "big"),
        rtnetlink.number(data.get(_IFLA_VXLAN_LINK)),
        rtnetlink.host(data.get(_IFLA_VXLAN_LOCAL) or data.get(_IFLA_VXLAN_LOCAL6)),
        (first, last) if last else None,
    )


def _vxlan_remote(address: Host) -> int:
    return _IFLA_VXLAN_GROUP if address.version == 4 else _IFLA_VXLAN_GROUP6


def _vxlan_local(address: Host) -> int:
    return _IFLA_VXLAN_LOCAL if address.version == 4 else _IFLA_VXLAN_LOCAL6
