"""frr.conf for OSPF (version 3 for IPv6), IS-IS and BGP. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ratchetctl.topo.routing.router import (
    BGP,
    DEAD_S,
    HELLO_S,
    HOLD_S,
    ISIS,
    KEEPALIVE_S,
    OSPF,
    RETRANSMIT_S,
    Port,
    Router,
)

SPEAKS = (OSPF, ISIS, BGP)


def configuration(router: Router) -> str:
    """Return the whole file."""
    lines = [f"hostname {router.name}", "ip forwarding", "ipv6 forwarding"]
    lines += _PROTOCOLS[router.protocol](router)
    return "\n".join([*lines, ""])


def _ospf(router: Router) -> Iterator[str]:
    yield from ("!", "interface lo")
    for version in _versions(router):
        yield f" {_OSPF[version]} area 0"
    for port in router.ports:
        command = _OSPF[port.version]
        if port.address is None or not router.has(port.version):
            continue
        yield from ("!", f"interface {port.ifname}", f" {command} area 0")
        if port.is_passive:
            yield f" {command} passive"
            continue
        yield f" {command} network point-to-point"
        yield f" {command} hello-interval {HELLO_S}"
        yield f" {command} dead-interval {DEAD_S}"
        yield f" {command} retransmit-interval {RETRANSMIT_S}"
    if router.has(4):
        yield from ("!", "router ospf", f" ospf router-id {router.router_id}")
        # A change is announced and reckoned with after parts of a second instead of five seconds.
        yield " timers throttle lsa all 200"
        yield " timers lsa min-arrival 100"
        yield f" {_SPF}"
    if router.has(6):
        yield from ("!", "router ospf6", f" ospf6 router-id {router.router_id}")
        yield " timers lsa min-arrival 100"
        yield f" {_SPF}"


_SPF = "timers throttle spf 50 200 2000"
_OSPF = {4: "ip ospf", 6: "ipv6 ospf6"}


def _isis(router: Router) -> Iterator[str]:
    yield from ("!", "interface lo")
    yield from _isis_versions(router)
    yield " isis passive"
    for port in router.ports:
        if port.address is None:
            continue
        yield from ("!", f"interface {port.ifname}")
        yield from _isis_versions(router)
        if port.is_passive:
            yield " isis passive"
            continue
        yield " isis network point-to-point"
        yield f" isis hello-interval {HELLO_S}"
        yield f" isis hello-multiplier {DEAD_S}"
    yield from ("!", "router isis 1", f" net {_net(router.router_id)}", " is-type level-2-only")
    yield from (" metric-style wide", " lsp-gen-interval 1")


def _isis_versions(router: Router) -> Iterator[str]:
    for version in _versions(router):
        yield f" {'ip' if version == 4 else 'ipv6'} router isis 1"


def _net(router_id: str) -> str:
    """Return the title that is customarily made of an address: twelve digits in three groups."""
    digits = "".join(f"{int(one):03}" for one in router_id.split("."))
    return f"49.0001.{digits[:4]}.{digits[4:8]}.{digits[8:]}.00"


def _bgp(router: Router) -> Iterator[str]:
    sessions = [port for port in router.ports if not port.is_passive]
    yield from ("!", f"router bgp {router.as_number}", f" bgp router-id {router.router_id}")
    # Which routes are let in and out, a lab's router does not choose (RFC 8212 would have it).
    yield " no bgp ebgp-requires-policy"
    yield " bgp bestpath as-path multipath-relax"
    yield f" timers bgp {KEEPALIVE_S} {HOLD_S}"
    for port in sessions:
        name = _session(port)
        if port.peer_address is None:
            yield f" neighbor {name} interface remote-as external"
        else:
            yield f" neighbor {name} remote-as {port.peer_as}"
        yield f" neighbor {name} timers connect 1"
        # Announcements are otherwise collected for as long as the whole of a lab may take to start.
        yield f" neighbor {name} advertisement-interval 0"
    for version in (4, 6):
        names = [_session(port) for port in sessions if _carries(port, version)]
        networks = list(router.networks(version))
        if version == 6 and not (names and networks):
            continue
        yield f" address-family ipv{version} unicast"
        yield from (f"  network {network}" for network in networks)
        if version == 6:
            yield from (f"  neighbor {name} activate" for name in names)
        yield " exit-address-family"


def _session(port: Port) -> str:
    return port.ifname if port.peer_address is None else str(port.peer_address.ip)


def _carries(port: Port, version: int) -> bool:
    """Say whether routes of this IP version go over a session: by its address, or any."""
    return port.peer_address is None or port.peer_address.version == version


def _versions(router: Router) -> list[int]:
    return [version for version in (4, 6) if router.has(version)]


_PROTOCOLS: Mapping[str, Callable[[Router], Iterator[str]]] = {
    OSPF: _ospf,
    ISIS: _isis,
    BGP: _bgp,
}
