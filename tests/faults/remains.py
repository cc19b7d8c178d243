"""What a node has of Ratchet beside interfaces: files, processes, descriptors."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from tests.faults.kernel import descriptors
from tests.faults.nodes import FaultNode
from tests.faults.observed import Observed
from tests.faults.runtimes import Sandbox
from tests.faults.world import World

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


def records(world: World, seen: Observed) -> Iterator[str]:
    for node in world.nodes.values():
        attached = [one for one in world.attached.values() if one.node == node.number]
        late = [one for one, _ in world.late if one.node == node.number]
        wanted = {f"attachments/{one.pod.container_id}.eth0.json" for one in (*attached, *late)}
        there = seen.records[node.number]
        for name in sorted(wanted - there):
            yield f"record {name} is missing on node {node.number}"
        for name in sorted(there - wanted - STATE_FILES):
            yield f"a file of nobody on node {node.number}: {name}"


def processes(world: World, seen: Observed) -> Iterator[str]:
    homes = {node.namespace.inode: node for node in world.nodes.values()}
    pods = {
        sandbox.pod.netns.inode: sandbox
        for sandbox in world.sandboxes()
        if sandbox.pod.netns.exists
    }
    for node in world.nodes.values():
        here = [one for one in seen.processes if homes.get(one.netns) is node]
        child = node.running_child(here)
        for one in here:
            if one.pid not in (child, node.supervising(here)):
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
