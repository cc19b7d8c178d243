"""Which ends a pod should have. Pure: no etcd, no netlink, no clock.

`wanted` says so from what the pod's own labels declare, what others have declared on it, and where
each far pod is. It is computed anew each time: a bell, a restart and a lost event all end here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ratchet.cni.dataclasses import dataclass
from ratchet.cni.ip import Host
from ratchet.links import MACVLAN, Uplink
from ratchet_child.model.interfaces import (
    HostVeth,
    Interface,
    Macvlan,
    Medium,
    Veth,
    Vxlan,
    hardware_address,
)
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import (
    DeclaredLink,
    DeclaredUplink,
    Place,
    Side,
    UplinkSide,
    in_order,
)
from ratchet_child.model.local import Node


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link, and the interface that it should be."""

    side: Side | UplinkSide
    interface: Interface

    @property
    def ifname(self) -> str:
        return self.side.ifname


@dataclass(frozen=True, slots=True)
class Waiting:
    """A link whose end cannot be made yet, or not at all: `error` then says why.

    `is_taken`: because the pod's own interface has another use. An end that is there stays,
    unplugged, while there is no error: its far pod is away.
    """

    side: Side | UplinkSide
    error: str | None = None
    is_taken: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """All links of a pod: those that have an end now, and those that wait."""

    ends: tuple[End, ...]
    waiting: tuple[Waiting, ...]


def wanted(
    pod: PodKey,
    node: Node,
    declared: Iterable[DeclaredLink],
    places: Mapping[PodKey, Place],
    rivals: Mapping[str, DeclaredLink],
    reserved: Collection[str] = (),
    uplinks: Iterable[Uplink] = (),
) -> Wanted:
    """Return the ends that `pod`, which is on this node, should have.

    `declared` are the links that it declares or that are declared on it; `places` the pods that
    are there; `rivals` the links that have the far end of the pod's own ones, by own ifname;
    `reserved` interfaces that no link may have, whoever declares it; `uplinks` the pod's own.
    """
    ends: list[End] = []
    waiting: list[Waiting] = []
    holders: dict[str, Side | UplinkSide] = {}
    for uplink in uplinks:
        own = UplinkSide(DeclaredUplink(pod, uplink))
        if len(holders) >= node.max_links:
            waiting.append(Waiting(own, _too_many(pod, node), is_taken=True))
            continue
        holders[uplink.ifname] = own
        ends.append(End(own, _interface(pod, node, own, _uplink_medium(uplink))))
    for side in in_order(pod, declared):
        refused = _refused(pod, side, holders, rivals, reserved)
        if refused is None and len(holders) >= node.max_links:
            refused = Waiting(side, _too_many(pod, node), is_taken=True)
        found = refused or _medium(node, side, places)
        if not _has_no_far_end(found):
            holders.setdefault(side.ifname, side)
        if isinstance(found, Waiting):
            waiting.append(found)
        else:
            ends.append(End(side, _interface(pod, node, side, found)))
    return Wanted(tuple(ends), tuple(waiting))


def _interface(pod: PodKey, node: Node, side: Side | UplinkSide, medium: Medium) -> Interface:
    return Interface(
        ifname=side.ifname,
        medium=medium,
        mac=side.mac or hardware_address(pod, side.ifname),
        address=side.address,
        mtu_bytes=side.mtu_bytes or node.mtu_bytes,
        link=side.declared.name,
        impairment=side.impairment,
        is_pulled=side.is_pulled,
    )


def _refused(
    pod: PodKey,
    side: Side,
    holders: Mapping[str, Side | UplinkSide],
    rivals: Mapping[str, DeclaredLink],
    reserved: Collection[str],
) -> Waiting | None:
    """Return why a link cannot have its interface at one of its ends, None when it can."""
    if side.ifname in reserved:
        why = f"interface {side.ifname} of {pod} is the runtime's"
        return Waiting(side, why, is_taken=True)
    holder = holders.get(side.ifname)
    if holder is not None:
        return Waiting(side, _taken(side.ifname, pod, holder.declared), is_taken=True)
    rival = rivals.get(side.ifname)
    if rival is not None and side.declared.primary == pod and rival.cable != side.declared.cable:
        return Waiting(side, _taken(side.peer_ifname, side.peer, rival))
    return None


def _uplink_medium(uplink: Uplink) -> Medium:
    if uplink.kind == MACVLAN:
        return Macvlan(uplink.device)
    return HostVeth(uplink.device, uplink.device_address)


def _medium(node: Node, side: Side, places: Mapping[PodKey, Place]) -> Medium | Waiting:
    """Return what carries a link's frames, by where its peer is."""
    place = places.get(side.peer)
    if place is None:
        return Waiting(side)
    if place.address == node.address:
        return Veth(side.peer, side.peer_ifname, side.peer_address)
    if side.declared.primary != side.peer and side.declared.refused == place.container:
        return Waiting(
            side,
            f"interface {side.peer_ifname} of {side.peer} is the end of a link of its own,"
            f" or the runtime's, or {side.peer} has as many links as its node allows (max_links)",
        )
    if side.declared.no_far_end:
        return Waiting(side, side.declared.no_far_end)
    if side.declared.vni is None:
        return Waiting(side)
    remote = _ip(place.address)
    if remote is None:
        return Waiting(
            side,
            f"the node of {side.peer} has published {place.address[:64]!a} as its"
            " parent_address, which is not an IP address of a node",
        )
    return Vxlan(side.declared.vni, remote)


def _too_many(pod: PodKey, node: Node) -> str:
    return f"{pod} has {node.max_links} links already, and max_links of its node allows no more"


def _has_no_far_end(found: Medium | Waiting) -> bool:
    """Say whether a link waits in vain, so that another one may have its interface."""
    if not (isinstance(found, Waiting) and isinstance(found.side, Side)):
        return False
    return found.error == found.side.declared.no_far_end


def _taken(ifname: str, pod: PodKey, holder: DeclaredLink | DeclaredUplink) -> str:
    return f"interface {ifname} of {pod} is the end of the link {holder} already"


def _ip(text: str) -> Host | None:
    """Return the address of one other node; None for anything else, which etcd may well hold."""
    try:
        found = Host.parse(text)
    except ValueError:
        return None
    strange = found.is_unspecified or found.is_multicast or found.is_loopback
    return None if strange or str(found) == "255.255.255.255" else found
