"""The kinds of interface that Ratchet makes, a module each.

A kind answers three questions: is what was found the wanted interface (or does it have to be made
anew), how is it made, and what is to be done once it is up. Everything that all interfaces have in
common (name, addresses, MTU, removal) is in `devices`. A new kind is a module in here, a row in
`every_kind` and the documentation; a kind may import from `devices` and the rooms below.
"""

from __future__ import annotations

from ratchet.cni.ip import Host
from ratchet_child.kernel.devices import Devices
from ratchet_child.kernel.guard import Guard
from ratchet_child.kernel.kinds.api import Kind, Site, VniInUseError
from ratchet_child.kernel.kinds.host import HostKind
from ratchet_child.kernel.kinds.macvlan import MacvlanKind
from ratchet_child.kernel.kinds.veth import VethKind
from ratchet_child.kernel.kinds.vxlan import VxlanKind

__all__ = ["Kind", "Site", "VniInUseError", "every_kind"]


def every_kind(
    devices: Devices,
    *,
    port: int,
    parent_interface: str | None,
    sender: Host | None = None,
    guard: Guard | None = None,
) -> dict[str, Kind]:
    """Return the kinds by name. The rest is of this node's tunnels: see `VxlanKind`."""
    kinds: tuple[Kind, ...] = (
        VethKind(devices),
        VxlanKind(
            devices, port=port, parent_interface=parent_interface, sender=sender, guard=guard
        ),
        MacvlanKind(devices),
        HostKind(devices),
    )
    for kind in kinds:
        devices.readers[kind.name] = kind.read
    return {kind.name: kind for kind in kinds}
