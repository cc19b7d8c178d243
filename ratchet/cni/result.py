"""Results of every version: read from any of them, written in any of them.

Apart from the rest of ``ratchet.cni`` because a pass-through never looks into a result.

What is read is taken by its shape and not by its ``cniVersion``. Plugins err there: the reference
loopback plugin of 2022 answers a 0.1.0 configuration with ``interfaces`` and ``ips``, and a 0.3.1
one with ``ips`` that have no ``version``.
"""

from __future__ import annotations

import binascii

from ratchet.cni import version
from ratchet.cni.dataclasses import dataclass, field, replace
from ratchet.cni.ip import Address, Host
from ratchet.cni.version import at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

# What CNI spec 1.1.0 added to interfaces and routes.
_INTERFACE_ADDITIONS = ("mtu", "socketPath", "pciID")
_ROUTE_ADDITIONS = ("mtu", "advmss", "priority", "table", "scope")


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    mac: str | None = None
    sandbox: str | None = None
    """The path of the container's namespace; None for an interface of the node."""
    additions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IP:
    address: Address
    gateway: Host | None = None
    interface: int | None = None
    """An index into the result's interfaces; None when the plugin does not say."""


@dataclass(frozen=True, slots=True)
class Route:
    dst: Address
    gw: Host | None = None
    additions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IP, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)

    def ips_of(self, ifname: str) -> tuple[IP, ...]:
        """Return the addresses that a runtime takes for the pod's, under this interface name.

        Runtimes give an address without an interface to the interface that they asked for; one of
        the loopback range is no pod's address.
        """
        return tuple(ip for ip in self.ips if self._is_on(ip, ifname))

    def _is_on(self, ip: IP, ifname: str) -> bool:
        if ip.interface is None:
            return not ip.address.ip.is_loopback
        interface = self.interfaces[ip.interface]
        # A result may name the node's end of a veth pair like the container's.
        return interface.name == ifname and bool(interface.sandbox or not self._in_sandbox(ifname))

    def _in_sandbox(self, ifname: str) -> bool:
        return any(each.name == ifname and each.sandbox for each in self.interfaces)

    def with_pod_address(self, ifname: str, netns: str, address: Address) -> Result:
        """Return the result with an address for the interface; unchanged when it has one.

        Addresses of which the result does not say where they are (loopback ones, then) are put on
        ``lo``, so that no runtime takes one for the pod's.
        """
        if self.ips_of(ifname):
            return self
        interfaces = list(self.interfaces)
        ips = list(self.ips)
        for number, ip in enumerate(ips):
            if ip.interface is None:
                ips[number] = replace(ip, interface=_index(interfaces, "lo", netns))
        ips.append(IP(address, interface=_index(interfaces, ifname, netns)))
        return replace(self, interfaces=tuple(interfaces), ips=tuple(ips))


def parse(obj: Any) -> Result:
    """Read a result of any version. Raises ValueError."""
    if not isinstance(obj, dict):
        raise ValueError("a result is an object")
    if "ips" in obj or "interfaces" in obj or not ("ip4" in obj or "ip6" in obj):
        result = _parse_current(obj)
    else:
        result = _parse_020(obj)
    for ip in result.ips:
        if ip.interface is not None and not 0 <= ip.interface < len(result.interfaces):
            raise ValueError(f"{ip.address} is on interface {ip.interface}, which is not there")
    return result


def serialise(result: Result, to_version: str, ifname: str | None = None) -> dict[str, Any]:
    """Return the result as an object of this version ("" means 0.1.0).

    0.1.0 and 0.2.0 have room for one address of each family: that is the first one of ``ifname``,
    where it is given.
    """
    to_version = to_version or version.UNSTATED
    if at_least(to_version, "0.3.0"):
        return _serialise_current(result, to_version)
    return _serialise_020(result, to_version, ifname)


def convert(obj: Any, to_version: str, ifname: str | None = None) -> dict[str, Any]:
    """Return a result in this version; the object itself when it has it. Raises ValueError."""
    result = parse(obj)
    return obj if is_of(obj, to_version) else serialise(result, to_version, ifname)


def is_of(obj: dict[str, Any], to_version: str) -> bool:
    """Tell whether a result has this version, by what it says and by its shape."""
    to_version = to_version or version.UNSTATED
    if obj.get("cniVersion") != to_version:
        return False
    if not at_least(to_version, "0.3.0"):
        return "ips" not in obj and "interfaces" not in obj
    if "ip4" in obj or "ip6" in obj:
        return False
    return at_least(to_version, "1.0.0") or all("version" in ip for ip in obj.get("ips") or ())


_CLOUDS = (169, 170)


def link_local(seed: str) -> Address:
    """Return an address of 169.254/16 that is always the same for the same seed.

    RFC 3927 §2.1: the first and the last 256 addresses are reserved. At 169.254.169.0/24 and
    169.254.170.0/24 clouds have services for every machine, their credentials among them.
    """
    number = 256 + binascii.crc32(seed.encode()) % (0x10000 - 512)
    if number >> 8 in _CLOUDS:
        number += len(_CLOUDS) << 8
    return Address(Host(b"\xa9\xfe" + number.to_bytes(2, "big")), 16)


def _index(interfaces: list[Interface], name: str, netns: str) -> int:
    """Return the index of the container's interface, appended if it is not there."""
    for number, interface in enumerate(interfaces):
        if interface.name == name and interface.sandbox:
            return number
    # The loopback plugin's address for "none": podman refuses an interface with IPs and no MAC.
    interfaces.append(Interface(name, mac="00:00:00:00:00:00", sandbox=netns))
    return len(interfaces) - 1


# Versions 0.3.0 to 1.1.0 -------------------------------------------------------------------------


def _parse_current(obj: dict[str, Any]) -> Result:
    return Result(
        interfaces=tuple(_parse_interface(each) for each in _objects(obj, "interfaces")),
        ips=tuple(_parse_ip(each) for each in _objects(obj, "ips")),
        routes=tuple(_parse_route(each) for each in _objects(obj, "routes")),
        dns=_dns(obj),
    )


def _parse_interface(obj: dict[str, Any]) -> Interface:
    name = _string(obj, "name")
    if not name:
        raise ValueError("an interface without name")
    return Interface(
        name,
        _string(obj, "mac"),
        _string(obj, "sandbox"),
        {key: obj[key] for key in _INTERFACE_ADDITIONS if key in obj},
    )


def _parse_ip(obj: dict[str, Any]) -> IP:
    interface = obj.get("interface")
    if interface is not None and type(interface) is not int:
        raise ValueError(f"interface {interface!r} is not an index")
    return IP(_address(obj, "address"), _host(obj, "gateway"), interface)


def _parse_route(obj: dict[str, Any]) -> Route:
    dst = _string(obj, "dst")
    if dst is None:
        raise ValueError("a route without dst")
    additions = {key: obj[key] for key in _ROUTE_ADDITIONS if key in obj}
    return Route(Address.parse(dst).network, _host(obj, "gw"), additions)


def _serialise_current(result: Result, to_version: str) -> dict[str, Any]:
    with_additions = at_least(to_version, "1.1.0")
    obj: dict[str, Any] = {"cniVersion": to_version}
    if result.interfaces:
        obj["interfaces"] = [
            _without_none(name=each.name, mac=each.mac, sandbox=each.sandbox)
            | (dict(each.additions) if with_additions else {})
            for each in result.interfaces
        ]
    if result.ips:
        obj["ips"] = [
            # CNI spec 1.0.0 dropped "version".
            ({} if at_least(to_version, "1.0.0") else {"version": str(ip.address.version)})
            | _without_none(
                interface=ip.interface, address=str(ip.address), gateway=_text(ip.gateway)
            )
            for ip in result.ips
        ]
    if result.routes:
        obj["routes"] = [
            _route(each) | (dict(each.additions) if with_additions else {})
            for each in result.routes
        ]
    if result.dns:
        obj["dns"] = dict(result.dns)
    return obj


# Versions 0.1.0 and 0.2.0 ------------------------------------------------------------------------


def _parse_020(obj: dict[str, Any]) -> Result:
    ips = []
    routes = []
    for key, family in (("ip4", 4), ("ip6", 6)):
        part = obj.get(key)
        if part is None:
            continue
        if not isinstance(part, dict):
            raise ValueError(f"{key} is not an object")
        ip = IP(_address(part, "ip"), _host(part, "gateway"))
        if ip.address.version != family:
            raise ValueError(f"{key} is {ip.address}")
        ips.append(ip)
        routes += [_parse_route(each) for each in _objects(part, "routes")]
    return Result((), tuple(ips), tuple(routes), _dns(obj))


def _serialise_020(result: Result, to_version: str, ifname: str | None) -> dict[str, Any]:
    obj: dict[str, Any] = {"cniVersion": to_version}
    ips = result.ips if ifname is None else result.ips_of(ifname)
    for key, family in (("ip4", 4), ("ip6", 6)):
        ip = next((ip for ip in ips if ip.address.version == family), None)
        if ip is None:
            continue
        routes = [_route(each) for each in result.routes if each.dst.version == family]
        obj[key] = _without_none(
            ip=str(ip.address), gateway=_text(ip.gateway), routes=routes or None
        )
    if result.dns:
        obj["dns"] = dict(result.dns)
    return obj


# Parts -------------------------------------------------------------------------------------------


def _objects(obj: dict[str, Any], key: str) -> Iterable[dict[str, Any]]:
    values = obj.get(key)
    if values is None:  # Go writes an empty list as null
        return []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{key} is not a list of objects")
    return values


def _string(obj: dict[str, Any], key: str) -> str | None:
    value = obj.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"{key} is {value!r}, not a string")
    return value


def _address(obj: dict[str, Any], key: str) -> Address:
    text = _string(obj, key)
    if text is None:
        raise ValueError(f"an address without {key}")
    return Address.parse(text)


def _host(obj: dict[str, Any], key: str) -> Host | None:
    text = _string(obj, key)
    return None if text is None else Host.parse(text)


def _dns(obj: dict[str, Any]) -> dict[str, Any]:
    dns = obj.get("dns")
    if dns is None:
        return {}
    if not isinstance(dns, dict):
        raise ValueError("dns is not an object")
    return dns


def _route(route: Route) -> dict[str, Any]:
    return _without_none(dst=str(route.dst), gw=_text(route.gw))


def _text(host: Host | None) -> str | None:
    return None if host is None else str(host)


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
