"""gobgp.conf: sessions only, because GoBGP neither reads nor writes the kernel's routes. Pure."""

from __future__ import annotations

from ratchetctl.topo.routing.router import BGP, HOLD_S, KEEPALIVE_S, Router

SPEAKS = (BGP,)


def configuration(router: Router) -> str:
    """Return the whole file, in TOML."""
    lines = [f"# {router.name}", "[global.config]", f"  as = {router.as_number}"]
    lines.append(f'  router-id = "{router.router_id}"')
    for port in router.ports:
        if port.peer_address is None:
            continue
        lines += [
            "[[neighbors]]",
            "  [neighbors.config]",
            f'    neighbor-address = "{port.peer_address.ip}"',
            f"    peer-as = {port.peer_as}",
            "  [neighbors.timers.config]",
            f"    hold-time = {HOLD_S}",
            f"    keepalive-interval = {KEEPALIVE_S}",
            "    connect-retry = 1",
        ]
    return "\n".join([*lines, ""])
