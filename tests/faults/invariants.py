"""What is true of a cluster that is quiet: computed in full from which containers there are.

The world knows the containers and the topology; from these follow every interface, every key and
every record. Nothing is read from Ratchet's programs themselves, and nothing is "at least": what is
there and not expected is as wrong as what is expected and not there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from tests.faults.kernel import (
    MARK,
    Interface,
    Probe,
    Process,
    deaf,
    descriptors,
    interfaces,
    processes,
)
from tests.faults.members import Key
from tests.faults.plan import Link, PodId
from tests.faults.stranger import Stranger
from tests.faults.world import FaultNode, Sandbox, World

PREFIX = "/ratchet"
FIRST_VNI = 11
# Of a child: standard streams, listener, lock, epoll, pipe, log, the node's netlink, and for each
# of its ten threads a connection; as many again while a new configuration replaces an old one.
DESCRIPTORS = 60
DESCRIPTORS_PER_POD = 3
STATE_FILES = {
    "child.lock",
    "child.sock",
    "settings.json",
    "addresses.json",
    "at-rest",
    "versions/loopback",  # of the one plugin that the nodes' configuration names
    "child.failed.json",  # goes with the next call that succeeds
}


@dataclass
class Observed:
    """The cluster at one moment."""

    keys: dict[str, Key]
    links: dict[str, dict[str, Interface] | None]  # by namespace path
    processes: list[Process]
    records: dict[int, set[str]] = field(default_factory=dict)  # by node, paths in the state dir
    strangers: set[str] = field(default_factory=set)  # keys and directories


@dataclass(frozen=True)
class Cable:
    """A link whose two pods are attached, by the declaration that counts."""

    link: Link
    near: Sandbox
    far: Sandbox

    def __str__(self) -> str:
        link = self.link
        return f"{link.primary}:{link.ifname}={link.pair}:{link.pair_ifname}"


def look(world: World) -> Observed:
    seen = Observed(
        keys=world.etcd.everything(),
        links=interfaces(
            [world.underlay.path]
            + [node.namespace.path for node in world.nodes.values()]
            + [sandbox.pod.netns.path for sandbox in world.sandboxes()]
        ),
        processes=processes(),
    )
    for node in world.nodes.values():
        seen.records[node.number] = set(_files(node.state_dir))
    if world.stranger is not None:
        _leave_out(world.stranger, seen)
    return seen


def _leave_out(stranger: Stranger, seen: Observed) -> None:
    """Take what is the stranger's from what is looked at."""
    for number, names in seen.records.items():
        seen.records[number] = {one for one in names if not stranger.is_his_record(one)}
    seen.strangers = {
        key for key, entry in seen.keys.items() if stranger.is_his_key(key, entry, PREFIX)
    }


def violations(world: World, *, carry: bool = True) -> list[str]:
    """Everything that is not as it should be, in words. Links are tried when all else is well."""
    try:
        seen = look(world)
    except (OSError, AssertionError) as error:
        return [f"the cluster cannot be looked at: {error!r}"]
    found = [
        *_records(world, seen),
        *_keys(world, seen),
        *_interfaces(world, seen),
        *_processes(world, seen),
        *(() if world.stranger is None else world.stranger.harm()),
    ]
    if carry and not found:
        found += _carrying(world)
    return found


# Links


def cables(world: World) -> list[Cable]:
    """Each cable once. Of two declarations of one, that of the pod whose name is first counts."""
    by_ends: dict[frozenset[tuple[PodId, str]], Cable] = {}
    for link in world.topology.links:
        near, far = world.attached.get(link.primary), world.attached.get(link.pair)
        if near is None or far is None:
            continue
        ends = frozenset(((link.primary, link.ifname), (link.pair, link.pair_ifname)))
        other = by_ends.get(ends)
        if other is None or (link.primary, link.ifname) < (other.link.primary, other.link.ifname):
            by_ends[ends] = Cable(link, near, far)
    return list(by_ends.values())


def _interfaces(world: World, seen: Observed) -> Iterator[str]:
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
            if address is not None and _with_prefix(address) not in one.addresses:
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
    declared = _declaration(seen, cable.link)
    vni = None if declared is None else declared.get("vni")
    if not a.vni == b.vni == vni:
        yield f"link {cable}: VNIs {a.vni} and {b.vni}, declared is {vni}"
    if a.vni is not None:
        vnis[a.vni] += 1
    remotes = world.nodes[far.node].address, world.nodes[near.node].address
    if (a.remote, b.remote) != remotes:
        yield f"link {cable}: remotes {(a.remote, b.remote)}, not {remotes}"


def _carrying(world: World) -> list[str]:
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


def _with_prefix(address: str) -> str:
    return str(ipaddress.ip_interface(address if "/" in address else f"{address}/24"))


def _name(world: World, path: str) -> str:
    for sandbox in world.sandboxes():
        if sandbox.pod.netns.path == path:
            return repr(sandbox)
    return path


# Keys


def _keys(world: World, seen: Observed) -> Iterator[str]:
    expected: set[str] = set()
    optional: set[str] = set()
    vnis: dict[int, str] = {}
    for sandbox, _ in world.late:
        optional |= _published_late(world, seen, sandbox).keys()
    machines = _machines(world, seen)
    superseded = {sandbox.pod.container_id for sandbox, _ in world.late}
    # What a child that was killed had claimed for one of these, it gives back at the DEL.
    optional |= {
        key
        for key, entry in seen.keys.items()
        if key.startswith(f"{PREFIX}/vni/") and (entry.value or "").split(" ")[0] in superseded
    }
    for pod, sandbox in world.attached.items():
        node = world.nodes[sandbox.node]
        for name, value in (
            ("id", sandbox.pod.container_id),
            ("parentiface", "eth0"),
            ("parentaddr", node.address),
        ):
            key = f"{PREFIX}/association/{pod}/{name}"
            expected.add(key)
            yield from _must_be(seen, key, value)
        links = world.topology.declared_by(pod)
        key = f"{PREFIX}/nodes/{node.address}/pods/{pod}"
        expected.add(key)
        wanted: dict[str, object] = {
            "state_dir": node.state_dir,
            "container": sandbox.pod.container_id,
            "declared": [[link.pair.name, link.ifname] for link in links],
            "machine": machines.get(node.number),
        }
        if (published := _sorted(_json(seen, key))) != _sorted(wanted):
            yield f"key {key}: {published}, not {wanted}"
        for link in links:
            yield from _declared(seen, sandbox, link, expected, vnis)
    optional |= yield from _machine_keys(world, seen, machines)
    optional |= _reserved(world, seen)
    yield from _legacy(world, seen, expected)
    if f"{PREFIX}/vxlanid" in seen.keys:
        expected.add(f"{PREFIX}/vxlanid")
    elif vnis:
        yield "key vxlanid is gone"
    there = {key for key, entry in seen.keys.items() if entry.value is not None}
    bells = {key for key in there if "/bell/" in key and seen.keys[key].expires}
    for key in sorted(there - expected - optional - bells - seen.strangers):
        yield f"a key of nobody: {key} = {seen.keys[key].value}"
    yield from _directories(seen, expected | optional | bells | seen.strangers)


def _machines(world: World, seen: Observed) -> dict[int, str]:
    """Return which machine each node with published containers is, by what it has published.

    All of its entries and its own key must then name the same one. A container that lost its name
    to a newer one stays published until its DEL, below the address that its node had.
    """
    found: dict[int, str] = {}
    for pod, sandbox in sorted(world.attached.items()):
        published = _json(seen, f"{PREFIX}/nodes/{world.nodes[sandbox.node].address}/pods/{pod}")
        machine = (published or {}).get("machine")
        if isinstance(machine, str) and machine:
            found.setdefault(sandbox.node, machine)
    for sandbox, _ in world.late:
        for published in _published_late(world, seen, sandbox).values():
            machine = published.get("machine")
            if isinstance(machine, str) and machine:
                found.setdefault(sandbox.node, machine)
    return found


def _published_late(world: World, seen: Observed, sandbox: Sandbox) -> dict[str, dict[str, object]]:
    """Return the entries, by key, of a container whose DEL is still to come.

    One below a former address of its node tells how old the container is.
    """
    node = world.nodes[sandbox.node]
    found = {}
    for address in (node.first_address, node.second_address):
        key = f"{PREFIX}/nodes/{address}/pods/{sandbox.id}"
        published = _json(seen, key)
        if published is not None and published.get("container") == sandbox.pod.container_id:
            found[key] = published
    return found


def _machine_keys(
    world: World, seen: Observed, machines: dict[int, str]
) -> Generator[str, None, set[str]]:
    """Return the keys with which the nodes that have published pods tell that they are there.

    One may be missing: a key that somebody removes is written again when it is renewed the next
    time, up to 20 s later, and a child that is stopped renews none.
    """
    for machine, times in Counter(machines.values()).items():
        if times > 1:
            yield f"{times} nodes say that they are machine {machine}"
    keys = set()
    for number, machine in machines.items():
        # A request that was on its way when the address changed: that key is not renewed.
        keys |= {
            old
            for old, entry in seen.keys.items()
            if old.startswith(f"{PREFIX}/machines/")
            and old.endswith(f"@{machine}")
            and entry.expires
        }
        key = f"{PREFIX}/machines/{world.nodes[number].address}@{machine}"
        keys.add(key)
        if key in seen.keys and not seen.keys[key].expires:
            yield f"key {key} does not expire"
        if key in seen.keys and set(_json(seen, key) or {}) != {"host", "since"}:
            yield f"key {key}: {seen.keys[key].value}"
    return keys


def _reserved(world: World, seen: Observed) -> set[str]:
    """Return the keys that keep the VNI of a link for its primary, which has gone, for a while."""
    kept = set()
    for link in world.topology.links:
        if link.primary in world.attached or link.pair not in world.attached:
            continue
        key = _declaration_key(link)
        declaration = _declaration(seen, link) or {}
        claim = f"{PREFIX}/vni/{declaration.get('vni')}"
        if declaration.get("gone") is True and seen.keys[key].expires:
            kept.add(key)
            if claim in seen.keys and seen.keys[claim].expires:
                kept.add(claim)
    return kept


def _declared(
    seen: Observed, sandbox: Sandbox, link: Link, expected: set[str], vnis: dict[int, str]
) -> Iterator[str]:
    key = _declaration_key(link)
    expected.add(key)
    found = _declaration(seen, link)
    if found is None:
        yield f"key {key} is missing"
        return
    vni = found.get("vni")
    if not isinstance(vni, int):
        yield f"key {key} has no VNI: {found}"
        return
    wanted = {
        "container": sandbox.pod.container_id,
        "vni": vni,
        "ifname": link.ifname,
        "address": link.address and _with_prefix(link.address),
        "pair_ifname": link.pair_ifname,
        "pair_address": link.pair_address and _with_prefix(link.pair_address),
    }
    if found != wanted:
        yield f"key {key}: {found}, not {wanted}"
    if vni in vnis:
        yield f"VNI {vni} is declared twice: {key} and {vnis[vni]}"
    vnis[vni] = key
    claim = f"{PREFIX}/vni/{vni}"
    expected.add(claim)
    relative = key.removeprefix(f"{PREFIX}/")
    yield from _must_be(seen, claim, f"{sandbox.pod.container_id} {relative}")


def _legacy(world: World, seen: Observed, expected: set[str]) -> Iterator[str]:
    """The keys of v0.1.0 tell of one link that is declared, of all of it, or are not there.

    They have to be there while a pod has one possible primary and that one is attached: of
    several, the one that wrote last may have gone and taken them with it.
    """
    for pair in world.topology.pods:
        base = f"{PREFIX}/association/{pair}"
        names = ("vxlanid", "pairip", "pairifname", "primaryname")
        there = {
            name: seen.keys[f"{base}/{name}"].value
            for name in names
            if f"{base}/{name}" in seen.keys
        }
        links = [link for link in world.topology.links if link.pair == pair]
        present = [link for link in links if link.primary in world.attached]
        if not there:
            if present and len({link.primary for link in links}) == 1:
                yield f"the keys of v0.1.0 on {pair} are missing"
            continue
        expected |= {f"{base}/{name}" for name in there}
        right = []
        first: set[PodId] = set()
        for link in present:
            if link.primary in first:
                continue
            first.add(link.primary)
            declared = _declaration(seen, link) or {}
            address = link.pair_address or ""
            right.append(
                {
                    "vxlanid": str(declared.get("vni")),
                    "pairip": address.split("/")[0],
                    "pairifname": link.pair_ifname,
                    "primaryname": link.primary.name,
                }
            )
        if there not in right:
            yield f"the keys of v0.1.0 on {pair} are {there}, none of {right}"


def _directories(seen: Observed, keys: set[str]) -> Iterator[str]:
    allowed = {f"{PREFIX}/"}
    for key in keys:
        parts = key.split("/")
        allowed |= {"/".join(parts[:n]) + "/" for n in range(2, len(parts))}
        if "/pods/" in key:  # the bells of a node that has pods have expired
            allowed.add(key.split("/pods/")[0] + "/bell/")
    for key, entry in seen.keys.items():
        if entry.value is None and key not in allowed:
            yield f"an empty directory: {key}"


def _declaration_key(link: Link) -> str:
    return f"{PREFIX}/association/{link.pair}/links/{link.primary.name}:{link.ifname}"


def _declaration(seen: Observed, link: Link) -> dict[str, object] | None:
    return _json(seen, _declaration_key(link))


def _json(seen: Observed, key: str) -> dict[str, object] | None:
    entry = seen.keys.get(key)
    with contextlib.suppress(ValueError):
        decoded = json.loads((entry.value if entry else None) or "")
        if isinstance(decoded, dict):
            return decoded
    return None


def _sorted(published: dict[str, object] | None) -> dict[str, object] | None:
    if published is None or not isinstance(declared := published.get("declared"), list):
        return published
    return {**published, "declared": sorted(declared)}


def _must_be(seen: Observed, key: str, value: str) -> Iterator[str]:
    entry = seen.keys.get(key)
    if entry is None:
        yield f"key {key} is missing"
    elif entry.value != value:
        yield f"key {key} is {entry.value}, not {value}"


# Records and processes


def _records(world: World, seen: Observed) -> Iterator[str]:
    for node in world.nodes.values():
        attached = [one for one in world.attached.values() if one.node == node.number]
        late = [one for one, _ in world.late if one.node == node.number]
        wanted = {f"attachments/{one.pod.container_id}.eth0.json" for one in (*attached, *late)}
        there = seen.records[node.number]
        for name in sorted(wanted - there):
            yield f"record {name} is missing on node {node.number}"
        for name in sorted(there - wanted - STATE_FILES):
            yield f"a file of nobody on node {node.number}: {name}"


def _files(directory: str) -> Iterator[str]:
    for folder, _, names in os.walk(directory):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), directory)


def _processes(world: World, seen: Observed) -> Iterator[str]:
    homes = {node.namespace.inode: node for node in world.nodes.values()}
    pods = {
        sandbox.pod.netns.inode: sandbox
        for sandbox in world.sandboxes()
        if sandbox.pod.netns.exists
    }
    for node in world.nodes.values():
        here = [one for one in seen.processes if homes.get(one.netns) is node]
        child = world.child(node, here)
        for one in here:
            if one.pid not in (child, world.supervisor(node, here)):
                yield f"a stray process on node {node.number}: {one.pid} {one.command}"
        if child is not None:
            yield from _descriptors(world, node, child, pods)
    for one in seen.processes:
        if one.netns in pods:
            yield f"a stray process in {pods[one.netns]}: {one.pid} {one.command}"
        elif (
            world.directory in one.command
            and one.netns not in homes
            and one.pid not in world.etcd.pids
            and one.pid != os.getpid()
        ):
            yield f"a stray process: {one.pid} {one.command}"


def _leg_may_wait(world: World, node: FaultNode, here: list[Sandbox]) -> bool:
    """Tell whether a namespace may be open in which the leg of a pod of this node waits."""
    if world.stranger is not None and world.stranger.may_leave_legs(node.number):
        return True
    pods = {pod for pod, sandbox in world.attached.items() if sandbox in here}
    return any(
        {link.primary, link.pair} & pods and {link.primary, link.pair} - world.attached.keys()
        for link in world.topology.links
    )


def _descriptors(
    world: World, node: FaultNode, child: int, pods: dict[int, Sandbox]
) -> Iterator[str]:
    """A namespace that the child keeps open lives on, with all its interfaces, unseen."""
    opened = descriptors(child)
    here = [one for one in world.attached.values() if one.node == node.number]
    here += [one for one, _ in world.late if one.node == node.number]
    strangers = set() if world.stranger is None else world.stranger.inodes(node.number)
    for inode, times in Counter(opened.namespaces).items():
        if inode == node.namespace.inode:  # known from others by its descriptor
            continue
        if inode in strangers:
            continue
        if inode not in pods and _leg_may_wait(world, node, here):
            continue
        if pods.get(inode) not in here:
            whose = pods.get(inode, "no container that there is")
            yield f"the child of node {node.number} keeps the namespace of {whose} open"
        elif times > 1:
            yield f"the child of node {node.number} has {pods[inode]} open {times} times"
    most = DESCRIPTORS + DESCRIPTORS_PER_POD * (len(here) + len(strangers))
    if opened.count > most:
        yield f"the child of node {node.number} has {opened.count} descriptors, {most} is most"
