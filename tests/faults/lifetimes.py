"""An end lives as long as its pod: its index never changes, but for the cases in docs/ends.md.

Looked at whenever the cluster has come to rest, and compared with the moment of rest before. What
happened in between may be one of those cases; then nothing is asked of the ends that it concerns.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tests.faults.kernel import MARK, interfaces
from tests.faults.plan import Step
from tests.faults.topology import PodId
from tests.faults.world import World

# The pod deletes an end, its namespace or its node goes, or the link's keys are removed.
# What ends an uplink, which is in no key. Its far end is noted as its own pod.
ENDING_UPLINKS = frozenset({"interface deleted", "interface moved", "node rebooted"})
ENDING = ENDING_UPLINKS | {"keys wiped"}


@dataclass(frozen=True)
class End:
    """An end at a moment of rest."""

    index: int
    kind: str | None
    vni: int | None
    pod: PodId
    far: tuple[PodId, str]  # and its container


class Lifetimes:
    """Remembers the ends of the last moment of rest, by container and label."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], End] = {}
        self._late: set[PodId] = set()  # pods with another container, whose DEL came in this step

    def check(self, world: World, step: Step) -> list[str]:
        """Return the ends that were made anew without need, and remember what is there now."""
        now = _ends(world)
        wrong = []
        for key, end in now.items():
            before = self._before.get(key)
            if before is None or before.index == end.index:
                continue
            is_same = (before.kind, before.vni) == (end.kind, end.vni)
            if is_same and must_stay(before, end, step, self._late):
                wrong.append(f"{key[1]!r} of {end.pod} was made anew: {before} and now {end}")
        self._before = now
        self._late = {sandbox.id for sandbox, _ in world.late}
        return wrong


def _uplinks(world: World, pod: PodId) -> set[str]:
    return {f" of {pod.name}:{one.ifname}" for one in world.topology.uplinks if one.pod == pod}


def must_stay(before: End, end: End, step: Step, late: Collection[PodId] = ()) -> bool:
    """Say whether an end that is the same but for its index should have kept that.

    `late` are the pods of which an older container was still there when the step began. When the
    newer one goes, its name is free, and the older one has it until its DEL: the far pod was there.
    """
    if step.fault.kind in (ENDING_UPLINKS if end.far[0] == end.pod else ENDING):
        return False
    pods = {end.pod, end.far[0]}
    concerned = [one for one in step.operations if one.pod in pods]
    if any(one.pod == end.pod or one.kind == "overlap" for one in concerned):
        # Its own container may have lost the name for a while, or the far pod was on two nodes.
        return False
    if any(one.pod in late for one in concerned):
        return False
    if end.kind == "vxlan" or before.far == end.far:
        return True
    # A leg waits for a pod that goes with a DEL, and before the next container comes.
    return "killed" not in step.fault.kind and all(
        one.del_when == "before" and not one.netns_gone and one.kill_del_s is None
        for one in concerned
    )


def _ends(world: World) -> dict[tuple[str, str], End]:
    found = interfaces(one.pod.netns.path for one in world.attached.values())
    ends = {}
    for pod, sandbox in world.attached.items():
        for one in (found.get(sandbox.pod.netns.path) or {}).values():
            if one.group != MARK or not one.alias:
                continue
            if any(one.alias.endswith(own) for own in _uplinks(world, pod)):
                itself = (pod, sandbox.pod.container_id)
                end = End(one.index, one.kind, one.vni, pod, itself)
                ends[sandbox.pod.container_id, one.alias] = end
            for link in world.topology.links:
                if pod not in (link.primary, link.pair):
                    continue
                far = link.pair if pod == link.primary else link.primary
                if far in world.attached and one.alias.endswith(
                    f" of {link.primary.name}:{link.ifname}"
                ):
                    container = world.attached[far].pod.container_id
                    ends[sandbox.pod.container_id, one.alias] = End(
                        one.index, one.kind, one.vni, pod, (far, container)
                    )
    return ends
