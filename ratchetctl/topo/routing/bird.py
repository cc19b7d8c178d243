"""bird.conf for OSPF and BGP over IPv4. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ratchetctl.topo.routing.router import (
    BGP,
    DEAD_S,
    HELLO_S,
    HOLD_S,
    KEEPALIVE_S,
    OSPF,
    RETRANSMIT_S,
    Router,
)

SPEAKS = (OSPF, BGP)
_KERNEL = """\
protocol device { }
protocol kernel {
  merge paths on;
  ipv4 { import none; export where source != RTS_DEVICE; };
}"""


def configuration(router: Router) -> str:
    """Return the whole file."""
    lines = [f"# {router.name}", f"router id {router.router_id};", _KERNEL]
    lines += _ospf(router) if router.protocol == OSPF else _bgp(router)
    return "\n".join([*lines, ""])


def _ospf(router: Router) -> Iterator[str]:
    yield "protocol ospf v2 {"
    yield "  ipv4 { import all; export none; };"
    yield "  area 0 {"
    yield '    interface "lo" { stub yes; };'
    # One second is what BIRD refuses.
    timers = f"hello {HELLO_S}; dead {DEAD_S}; retransmit {RETRANSMIT_S + 1};"
    for port in router.ports:
        if port.address is None:
            continue
        if port.is_passive:
            yield f'    interface "{port.ifname}" {{ stub yes; }};'
        else:
            yield f'    interface "{port.ifname}" {{ type ptp; {timers} }};'
    yield from ("  };", "}")


def _bgp(router: Router) -> Iterator[str]:
    names = ", ".join(f'"{one}"' for one in ("lo", *(port.ifname for port in router.ports)))
    yield f"protocol direct {{ ipv4; interface {names}; }}"
    for number, port in enumerate(router.ports, start=1):
        if port.address is None or port.peer_address is None:
            continue
        yield f"protocol bgp session{number} {{"
        yield f'  description "{port.peer} over {port.ifname}";'
        yield f"  local {port.address.ip} as {router.as_number};"
        yield f"  neighbor {port.peer_address.ip} as {port.peer_as};"
        yield f"  hold time {HOLD_S}; keepalive time {KEEPALIVE_S};"
        yield "  connect delay time 1; connect retry time 1; error wait time 1, 5;"
        yield "  ipv4 { import all; export where source ~ [RTS_DEVICE, RTS_BGP]; };"
        yield "}"
