"""Which address and which device of this node its tunnels have. Pure.

What the kernel has is handed in; `choose` says what is taken of it, and why nothing can be. The
choice depends on what is there now and on nothing else, so that a restarted child comes to the same
one. docs/configuration.md has it as a table.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from ratchet.cni.dataclasses import dataclass, field
from ratchet.cni.ip import Host

_HOST_BITS = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True)
class Device:
    """An interface of the node. `is_virtual`: it bears addresses, and no frame leaves by it."""

    index: int
    ifname: str
    is_virtual: bool = False


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An address of the node. `created` orders addresses by age; the unit does not matter."""

    index: int
    host: Host
    prefix_len: int
    is_usable: bool = True  # not tentative, and not found to be somebody else's as well
    is_deprecated: bool = False
    is_temporary: bool = False
    created: int = 0


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A default route: the devices of its next hops in order, and the address it prefers."""

    version: int
    metric: int
    indices: tuple[int, ...]
    source: Host | None = None


@dataclass(frozen=True, slots=True)
class Underlay:
    """What the node's own namespace has. `device` and `named` find an interface, if it is there."""

    device: Callable[[int], Device | None]
    named: Callable[[str], Device | None]
    addresses: tuple[OwnAddress, ...] = ()
    routes: tuple[DefaultRoute, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Choice:
    """This node's end of its tunnels.

    `address` is None when there is none, and `why` says so. `index` is the lower device's, None
    when the tunnels have none (`is_routed`: the node's routes lead them) or it is not there.
    """

    address: str | None
    interface: str
    index: int | None = None
    is_routed: bool = False
    why: str = ""


def choose(underlay: Underlay, interface: str | None, address: str | None) -> Choice:
    """Return the node's end. `interface` and `address` are those of the configuration."""
    if interface is not None:
        device = underlay.named(interface)
        if address is not None:
            return _end(address, device, interface)
        if device is None:
            return Choice(None, interface, why=f"there is no interface {interface}")
        best = _best(underlay, device.index)
        if best is None:
            why = f"{interface} has no usable address"
            return Choice(None, interface, device.index, device.is_virtual, why)
        return _end(str(best.host), device, interface)
    if address is not None:
        return _of_address(underlay, address)
    return _of_default_routes(underlay)


def _of_address(underlay: Underlay, address: str) -> Choice:
    wanted = Host.parse(address)
    for one in underlay.addresses:
        if one.host == wanted:
            device = underlay.device(one.index)
            if device is not None:
                return _end(address, device, device.ifname)
    # Translated on its way to the node (1:1 NAT): it leaves where everything else does.
    for device in _default_devices(underlay, _in_order(underlay, first=wanted.version)):
        return _end(address, device, device.ifname)
    why = f"parent_address {address} is on no interface, and there is no default route"
    return Choice(None, "", why=why)


def _of_default_routes(underlay: Underlay) -> Choice:
    without: Device | None = None
    for route in _in_order(underlay):
        if route.source is not None:
            for one in underlay.addresses:
                if one.host == route.source and one.is_usable and _is_global(one.host):
                    device = underlay.device(one.index)
                    if device is not None:
                        return _end(str(one.host), device, device.ifname)
        for device in _default_devices(underlay, [route]):
            best = _best(underlay, device.index)
            if best is not None:
                return _end(str(best.host), device, device.ifname)
            without = without or device
    if without is None:
        return Choice(None, "", why="there is no default route")
    why = f"{without.ifname}, which has the default route, has no usable address"
    return Choice(None, without.ifname, without.index, without.is_virtual, why)


def _end(address: str, device: Device | None, ifname: str) -> Choice:
    if device is None:
        return Choice(address, ifname)
    if device.is_virtual:
        return Choice(address, ifname, is_routed=True)
    return Choice(address, ifname, device.index)


def _in_order(underlay: Underlay, first: int = 4) -> list[DefaultRoute]:
    """Return the default routes as the kernel prefers them, one family before the other."""
    return sorted(underlay.routes, key=lambda one: (one.version != first, one.metric))


def _default_devices(underlay: Underlay, routes: Iterable[DefaultRoute]) -> list[Device]:
    found = [underlay.device(index) for route in routes for index in route.indices]
    return [device for device in found if device is not None]


def _best(underlay: Underlay, index: int) -> OwnAddress | None:
    """Return the address that other nodes are told of an interface's; None without a usable one."""
    own = [one for one in underlay.addresses if one.index == index and _can_be_told(one)]
    return min(own, key=_order, default=None)  # the first of equals: the kernel's order


def _can_be_told(one: OwnAddress) -> bool:
    # Load balancers and failover daemons add their addresses as deprecated single ones.
    is_floating = one.is_deprecated and _is_single(one)
    return one.is_usable and _is_global(one.host) and not is_floating


def _order(one: OwnAddress) -> tuple[bool, bool, bool, bool, int]:
    # DHCPv6, and DHCP in some clouds, give a single address as well, which then is the only one.
    is_new = one.created if one.host.version == 6 else 0
    is_v6 = one.host.version == 6
    return one.is_deprecated, is_v6, _is_single(one), one.is_temporary, is_new


def _is_single(one: OwnAddress) -> bool:
    return one.prefix_len == _HOST_BITS[one.host.version]


def _is_global(host: Host) -> bool:
    ip = ipaddress.ip_address(str(host))
    return not (ip.is_link_local or ip.is_loopback)
