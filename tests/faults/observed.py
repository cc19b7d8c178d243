"""The cluster of the fault suite as it is at one moment, and the cables that it should have."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.faults.kernel import Interface, Process, interfaces, processes
from tests.faults.members import Key
from tests.faults.runtimes import Sandbox
from tests.faults.stranger import Stranger
from tests.faults.topology import Link, PodId, Uplink
from tests.faults.world import World

PREFIX = "/ratchet"


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


def uplinks(world: World) -> list[tuple[Uplink, Sandbox]]:
    """Return the uplinks of the pods that are attached."""
    attached = world.attached
    return [(one, attached[one.pod]) for one in world.topology.uplinks if one.pod in attached]


def with_prefix(address: str) -> str:
    return str(ipaddress.ip_interface(address if "/" in address else f"{address}/24"))


def _files(directory: str) -> Iterator[str]:
    for folder, _, names in os.walk(directory):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), directory)
