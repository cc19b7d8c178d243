"""The interfaces that follow from which containers there are, and what goes over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.faults.kernel import MARK, Interface, Probe, deaf
from tests.faults.keys import declaration
from tests.faults.observed import Cable, Observed, cables, uplinks, with_prefix
from tests.faults.topology import MACVLAN, OUTSIDE
from tests.faults.world import World
from tests.lab.underlay import BRIDGE

BRIDGE_MODE = 4  # MACVLAN_MODE_BRIDGE, if_link.h


def interfaces(world: World, seen: Observed) -> Iterator[str]:
    expected: set[tuple[str, str]] = set()
    vnis: Counter[int] = Counter()
    for cable in cables(world):
        link, near, far = cable.link, cable.near, cable.far
        said, is_out = link.properties, world.is_out(link)
        ends = []
        for sandbox, ifname, address, rate in (
            (near, link.ifname, link.address, said.rate_kbit),
            (far, link.pair_ifname, link.pair_address, said.pair_rate_kbit),
        ):
            path = sandbox.pod.netns.path
            expected.add((path, ifname))
            one = (seen.links.get(path) or {}).get(ifname)
            if one is None:
                yield f"link {cable}: no {ifname} in {sandbox}"
                continue
            ends.append(one)
            wrong = list(_wrong(one, address, said.mtu, is_running=not is_out))
            if not is_out:  # where no frame leaves, a rate may wait as well
                wrong += _wrong_rate(one, rate)
            yield from (f"link {cable}: {ifname} in {sandbox} {what}" for what in wrong)
        if len(ends) == 2:
            yield from _joined(world, seen, cable, ends[0], ends[1], vnis)
    yield from _uplinks(world, seen, expected)
    for path, links in seen.links.items():
        for ifname, one in (links or {}).items():
            if one.group == MARK and (path, ifname) not in expected:
                if _outlives_its_peer(world, path, one):
                    continue
                yield f"an interface of nobody: {one.kind} {ifname} in {_name(world, path)}"
    for vni, times in vnis.items():
        if times > 1:
            yield f"VNI {vni} is used by {times} links"


def _wrong(
    one: Interface, address: str | None, mtu: int | None, *, is_running: bool = True
) -> Iterator[str]:
    """Tell what of an interface is not as its link says."""
    if one.group != MARK:
        yield f"has group {one.group}"
    if not one.up:
        yield "is down"
    elif one.running != is_running:
        yield "has a carrier" if one.running else "has no carrier"
    if address is not None and with_prefix(address) not in one.addresses:
        yield f"lacks {address}: {one.addresses}"
    if mtu is not None and one.mtu != mtu:
        yield f"has the MTU {one.mtu}, not {mtu}"


def _wrong_rate(one: Interface, rate_kbit: int | None) -> Iterator[str]:
    rate = None if rate_kbit is None else rate_kbit * 1000
    if one.rate_bits != rate:
        yield f"sends {one.rate_bits} bits a second, not {rate}"


def _uplinks(world: World, seen: Observed, expected: set[tuple[str, str]]) -> Iterator[str]:
    for uplink, sandbox in uplinks(world):
        node = world.nodes[sandbox.node]
        at_node = seen.links.get(node.namespace.path) or {}
        path = sandbox.pod.netns.path
        expected.add((path, uplink.ifname))
        one = (seen.links.get(path) or {}).get(uplink.ifname)
        what = f"uplink {uplink.kind} {uplink.ifname} in {sandbox}"
        if one is None:
            yield f"{what}: it is not there"
            continue
        said = uplink.properties
        yield from (f"{what} {wrong}" for wrong in _wrong(one, uplink.address, said.mtu))
        yield from (f"{what} {wrong}" for wrong in _wrong_rate(one, said.rate_kbit))
        device = at_node.get(uplink.device)
        if device is None:
            yield f"{what}: no {uplink.device} at the node"
        elif uplink.kind == MACVLAN:
            if (one.kind, one.mode) != ("macvlan", BRIDGE_MODE):
                yield f"{what} is a {one.kind} of mode {one.mode}"
            if one.peer_index != device.index:
                yield f"{what} is on interface {one.peer_index}, not {device.index}"
        else:
            expected.add((node.namespace.path, uplink.device))
            wrong = _wrong(device, uplink.device_address, said.mtu)
            yield from (f"{what}: {uplink.device} at the node {one}" for one in wrong)
            if (one.peer_index, device.peer_index) != (device.index, one.index):
                yield f"{what} and {uplink.device} at the node are not of one veth pair"


def _outlives_its_peer(world: World, path: str, one: Interface) -> bool:
    """Tell whether an end is there because its own pod is, and the pod at the other end is not.

    Its label says which link it is an end of.
    """
    for pod, sandbox in world.attached.items():
        if sandbox.pod.netns.path != path:
            continue
        for link in world.topology.links:
            label = f" of {link.primary.name}:{link.ifname}"
            ends = {link.primary, link.pair}
            if one.alias.endswith(label) and pod in ends:
                (other,) = ends - {pod}
                return other not in world.attached
    return False


def _joined(
    world: World, seen: Observed, cable: Cable, a: Interface, b: Interface, vnis: Counter[int]
) -> Iterator[str]:
    near, far = cable.near, cable.far
    if near.node == far.node:
        if (a.kind, b.kind) != ("veth", "veth"):
            yield f"link {cable}: {a.kind} and {b.kind} inside a node"
        elif (a.peer_index, b.peer_index) != (b.index, a.index):
            yield f"link {cable}: the two ends are not of one veth pair"
        return
    if (a.kind, b.kind) != ("vxlan", "vxlan"):
        yield f"link {cable}: {a.kind} and {b.kind} between nodes"
        return
    declared = declaration(seen, cable.link)
    vni = None if declared is None else declared.get("vni")
    if not a.vni == b.vni == vni:
        yield f"link {cable}: VNIs {a.vni} and {b.vni}, declared is {vni}"
    if a.vni is not None:
        vnis[a.vni] += 1
    remotes = world.nodes[far.node].address, world.nodes[near.node].address
    if (a.remote, b.remote) != remotes:
        yield f"link {cable}: remotes {(a.remote, b.remote)}, not {remotes}"


def carrying(world: World) -> list[str]:
    """Tell of links over which nothing comes, and of those that are pulled out and carry."""
    plugged: list[Probe] = []
    out: list[Probe] = []
    for cable in cables(world):
        probe = Probe(
            f"link {cable}",
            cable.near.pod.netns.path,
            cable.link.ifname,
            cable.far.pod.netns.path,
            cable.link.pair_ifname,
            cable.link.pair_address and cable.link.pair_address.split("/")[0],
        )
        (out if world.is_out(cable.link) else plugged).append(probe)
    for uplink, sandbox in uplinks(world):
        is_out, node = uplink.kind == MACVLAN, world.nodes[sandbox.node].namespace.path
        plugged.append(
            Probe(
                f"uplink {uplink.kind} in {sandbox}",
                sandbox.pod.netns.path,
                uplink.ifname,
                world.underlay.path if is_out else node,
                BRIDGE if is_out else uplink.device,
                OUTSIDE if is_out else uplink.device_address,
            )
        )
    silent = deaf([*plugged, *out])
    heard = {one.name for one in out} - silent
    return [
        *(f"{one.name}: nothing comes over it" for one in plugged if one.name in silent),
        *(f"{name}: it is pulled out, and carries" for name in sorted(heard)),
    ]


def _name(world: World, path: str) -> str:
    for sandbox in world.sandboxes():
        if sandbox.pod.netns.path == path:
            return repr(sandbox)
    return path
