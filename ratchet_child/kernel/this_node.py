"""This node's end of all tunnels: as configured, or found out from the kernel.

Done once, when an engine is made; a node whose address changes later needs a new engine.
"""

from __future__ import annotations

import ipaddress
import socket

from ratchet import log
from ratchet.cni.ip import Host
from ratchet.config import Config
from ratchet_child.kernel import rtnetlink
from ratchet_child.kernel.devices import RTM_GETADDR, RTM_GETLINK, index_of
from ratchet_child.kernel.netns import Netlink
from ratchet_child.kernel.rtnetlink import AddressMessage
from ratchet_child.model.local import Node

_RTM_GETROUTE = 26


def this_node(config: Config, netlink: Netlink) -> Node:
    """Return this node as its keys and tunnels show it. `netlink` is in the node's namespace."""
    interface, address = config.parent_interface, config.parent_address
    if interface is None:
        interface = _interface_of(netlink, address) if address else _default_interface(netlink)
    if address is None and interface is not None:
        address = _first_address(netlink, interface)
    if address is None:
        # Links inside the node work without; v0.1.0 compared empty strings here.
        address = socket.gethostname()
        log.warning("no parent_address: links to other nodes cannot be made", node=address)
    return Node(address, interface or "", config.state_dir, config.mtu)


def _first_address(netlink: Netlink, ifname: str) -> str | None:
    """Return the interface's first global address, IPv4 before IPv6; None when it has none."""
    index = index_of(netlink, ifname)
    found = [
        one.address.ip
        for one in _addresses(netlink)
        if one.index == index and _is_global(one.address.ip)
    ]
    found.sort(key=lambda ip: ip.version)  # stable: the kernel's order within a family
    return str(found[0]) if found else None


def _is_global(host: Host) -> bool:
    ip = ipaddress.ip_address(str(host))
    return not (ip.is_link_local or ip.is_loopback)


def _interface_of(netlink: Netlink, address: str) -> str | None:
    """Return the node's interface that has an address; None when none has."""
    wanted = Host.parse(address)
    for one in _addresses(netlink):
        if one.address.ip == wanted:
            return _name(netlink, one.index)
    return None


def _default_interface(netlink: Netlink) -> str | None:
    """Return the interface of the node's default route, IPv4 before IPv6; None without one."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in netlink.dump(_RTM_GETROUTE, rtnetlink.every_route(family)):
            index = rtnetlink.default_route_index(answer)
            if index is not None:
                return _name(netlink, index)
    return None


def _addresses(netlink: Netlink) -> list[AddressMessage]:
    answers = netlink.dump(RTM_GETADDR, rtnetlink.every_address())
    return [one for answer in answers if (one := rtnetlink.read_address(answer)) is not None]


def _name(netlink: Netlink, index: int) -> str | None:
    try:
        answers = netlink.get(RTM_GETLINK, rtnetlink.interface(index))
    except OSError:
        return None
    return rtnetlink.read_link(answers[0]).ifname if answers else None
