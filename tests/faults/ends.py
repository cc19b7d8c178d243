"""The interfaces that follow from which containers there are, and what goes over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.faults.kernel import MARK, Interface, Probe, deaf
from tests.faults.keys import declaration
from tests.faults.observed import Cable, Observed, cables, with_prefix
from tests.faults.world import World


def interfaces(world: World, seen: Observed) -> Iterator[str]:
    expected: set[tuple[str, str]] = set()
    vnis: Counter[int] = Counter()
    for cable in cables(world):
        link, near, far = cable.link, cable.near, cable.far
        ends = []
        for sandbox, ifname, address in (
            (near, link.ifname, link.address),
            (far, link.pair_ifname, link.pair_address),
        ):
            expected.add((sandbox.pod.netns.path, ifname))
            one = (seen.links.get(sandbox.pod.netns.path) or {}).get(ifname)
            if one is None:
                yield f"link {cable}: no {ifname} in {sandbox}"
                continue
            ends.append(one)
            if one.group != MARK:
                yield f"link {cable}: {ifname} in {sandbox} has group {one.group}"
            if not one.up:
                yield f"link {cable}: {ifname} in {sandbox} is down"
            if address is not None and with_prefix(address) not in one.addresses:
                yield f"link {cable}: {ifname} in {sandbox} lacks {address}: {one.addresses}"
        if len(ends) == 2:
            yield from _joined(world, seen, cable, ends[0], ends[1], vnis)
    for path, links in seen.links.items():
        for ifname, one in (links or {}).items():
            if one.group == MARK and (path, ifname) not in expected:
                if _outlives_its_peer(world, path, one):
                    continue
                yield f"an interface of nobody: {one.kind} {ifname} in {_name(world, path)}"
    for vni, times in vnis.items():
        if times > 1:
            yield f"VNI {vni} is used by {times} links"


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
    probes = [
        Probe(
            str(cable),
            cable.near.pod.netns.path,
            cable.link.ifname,
            cable.far.pod.netns.path,
            cable.link.pair_ifname,
            cable.link.pair_address and cable.link.pair_address.split("/")[0],
        )
        for cable in cables(world)
    ]
    return [f"link {name}: nothing comes over it" for name in sorted(deaf(probes))]


def _name(world: World, path: str) -> str:
    for sandbox in world.sandboxes():
        if sandbox.pod.netns.path == path:
            return repr(sandbox)
    return path
