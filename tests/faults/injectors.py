"""The faults: each a context manager that breaks something and, at its end, stops breaking it.

None of them repairs what it broke: that is what Ratchet is there for. What an administrator or the
machine does (starting etcd again, plugging a cable back in, emptying a disk) they do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from tests.faults.kernel import MARK, interfaces
from tests.faults.nodes import FaultNode
from tests.faults.observed import cables
from tests.faults.plan import Fault
from tests.faults.runtimes import Pulled
from tests.faults.topology import Link
from tests.faults.world import World
from tests.lab.namespaces import Namespace, random_name, run
from tests.lab.polling import wait_for
from tests.lab.simulation import ratchetctl

HISTORY_EVENTS = 1100  # etcd remembers 1,000
DAY_S = 24 * 60 * 60
CLOCK_JUMPS_S = (-30 * DAY_S, -5400, -5, 5, 5400, 400 * DAY_S, 0)

Injector = Callable[[World, Fault], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def nothing(_world: World, _fault: Fault) -> Iterator[None]:
    """A day on which nothing breaks; also for parents, which are killed by the operations."""
    yield


@contextlib.contextmanager
def child_killed(world: World, fault: Fault) -> Iterator[None]:
    # Its supervisor starts it again, unless it has died, too.
    world.nodes[fault.node].kill_child(alone=fault.choice < 0.5)
    yield


@contextlib.contextmanager
def child_killed_at_a_step(world: World, fault: Fault) -> Iterator[None]:
    """The next child of the node dies between two requests to etcd or the kernel."""
    node = world.nodes[fault.node]
    node.kill_at_step(fault.number)
    node.kill_child()
    node.call()
    node.doomed = node.running_child()
    yield
    # It goes on by itself until it comes to the step; a child that never does is spared.
    end = time.monotonic() + 0.5
    while (
        node.doomed is not None and node.running_child() == node.doomed and time.monotonic() < end
    ):
        time.sleep(0.05)
    world.killed["children at a step"] += node.spare()


@contextlib.contextmanager
def child_paused(world: World, fault: Fault) -> Iterator[None]:
    with _stopped(world, fault):
        yield


@contextlib.contextmanager
def etcd_stopped(world: World, _fault: Fault) -> Iterator[None]:
    world.etcd.stop()
    yield
    world.etcd.start()


@contextlib.contextmanager
def etcd_paused(world: World, _fault: Fault) -> Iterator[None]:
    world.etcd.pause()
    yield
    world.etcd.resume()


@contextlib.contextmanager
def leader_killed(world: World, fault: Fault) -> Iterator[None]:
    """A majority stays and elects another leader; later the old one comes back."""
    world.etcd.kill(world.etcd.leader() or world.etcd.addresses[0])
    time.sleep(fault.choice * 2)
    yield
    world.etcd.start()


@contextlib.contextmanager
def member_paused(world: World, fault: Fault) -> Iterator[None]:
    addresses = world.etcd.addresses
    world.etcd.pause_one(addresses[int(fault.choice * len(addresses))])
    yield
    world.etcd.resume()


@contextlib.contextmanager
def history_lost(world: World, fault: Fault) -> Iterator[None]:
    """More happens in etcd than it remembers while a child does not listen.

    First of all its bell is rung: what answers the watch that stands. The next one then begins
    behind what is remembered (error 401); a watch that has heard nothing would simply go on.
    """
    with _stopped(world, fault):
        world.etcd.ring(world.nodes[fault.node].address)
        world.etcd.make_noise(HISTORY_EVENTS)
        yield


@contextlib.contextmanager
def keys_wiped(world: World, _fault: Fault) -> Iterator[None]:
    """Somebody's clean-up removes everything."""
    world.etcd.delete("/ratchet")
    world.pulled.clear()  # it stood there
    yield


@contextlib.contextmanager
def node_cut_off(world: World, fault: Fault) -> Iterator[None]:
    """The node reaches neither etcd nor other nodes."""
    port = world.nodes[fault.node].port
    world.underlay.ip("link", "set", port, "down")
    yield
    world.underlay.ip("link", "set", port, "up")


@contextlib.contextmanager
def node_rebooted(world: World, fault: Fault) -> Iterator[None]:
    world.reboot(world.nodes[fault.node], fault.lasts_s)
    yield


@contextlib.contextmanager
def interface_deleted(world: World, fault: Fault) -> Iterator[None]:
    """In a pod, or at a node, where the ends of host links are."""
    nodes = [node.namespace for _, node in sorted(world.nodes.items())]
    chosen = _chosen(world, fault, nodes)
    if chosen is not None:
        run("ip", "-n", chosen[0], "link", "delete", chosen[1], check=False)
    yield


@contextlib.contextmanager
def interface_down(world: World, fault: Fault) -> Iterator[None]:
    """The pod's own doing: it stays down until the pod brings it up again."""
    chosen = _by_hand(
        world, fault, lambda namespace, ifname: f"-n {namespace} link set {ifname} down"
    )
    yield
    _again(chosen, "link set {} up")


@contextlib.contextmanager
def interface_flaps(world: World, fault: Fault) -> Iterator[None]:
    """Down and up in one breath; IPv6 addresses must outlive it."""
    chosen = _by_hand(
        world, fault, lambda namespace, ifname: f"-n {namespace} link set {ifname} down"
    )
    _again(chosen, "link set {} up")
    yield


@contextlib.contextmanager
def interface_renamed(world: World, fault: Fault) -> Iterator[None]:
    """By the pod, for a while: it is the same end all the time."""
    chosen = _by_hand(
        world, fault, lambda namespace, ifname: f"-n {namespace} link set {ifname} name renamed"
    )
    yield
    if chosen is not None:
        run("ip", "-n", chosen[0], "link", "set", "renamed", "name", chosen[1], check=False)


@contextlib.contextmanager
def interface_moved(world: World, fault: Fault) -> Iterator[None]:
    """By the pod, into a namespace of its own, which then goes: the end is gone with it."""
    inner = Namespace(random_name("inner"))
    inner.create()
    _by_hand(
        world,
        fault,
        lambda namespace, ifname: f"-n {namespace} link set {ifname} netns {inner.name}",
    )
    yield
    inner.remove()


@contextlib.contextmanager
def cable_pulled_out(world: World, fault: Fault) -> Iterator[None]:
    """By an operator: it stays out until it is plugged in, or until its primary is created anew."""
    twice = {one.seen_from_pair() for one in world.topology.links}
    free = [one for one in cables(world) if one.link not in twice and not world.is_out(one.link)]
    if free:
        cable = free[int(fault.choice * len(free))]
        end = fault.number % 2
        _say_of_link(world, cable.link, end, "down")
        world.pulled[cable.link] = Pulled(cable.near.pod.container_id, is_out=True)
    yield


@contextlib.contextmanager
def cables_plugged_in(world: World, fault: Fault) -> Iterator[None]:
    """By the same operator, who takes back all that he has said, or says that it is so no more."""
    for link in list(world.pulled):
        said = world.said_of(link)
        if said is not None:
            end = fault.number % 2 if link.pair in world.attached else 0
            _say_of_link(world, link, end, "up" if fault.choice < 0.5 else "reset")
        if said is not None and fault.choice < 0.5:
            world.pulled[link] = Pulled(said.container, is_out=False)
        else:
            del world.pulled[link]
    yield


@contextlib.contextmanager
def parent_address_shared(world: World, fault: Fault) -> Iterator[None]:
    """An administrator gives a node the address of another one, and sees that he was wrong."""
    node = world.nodes[fault.node]
    others = [one for one in world.nodes.values() if one is not node]
    right, wrong = node.address, others[int(fault.choice * len(others))].address
    node.use_address(wrong)
    node.call()
    yield
    time.sleep(1)  # no administrator changes his mind faster
    node.namespace.ip("addr", "del", f"{wrong}/24", "dev", "eth0")
    node.use_address(right)
    node.call()


@contextlib.contextmanager
def parent_address_changed(world: World, fault: Fault) -> Iterator[None]:
    node = world.nodes[fault.node]
    time.sleep(1)  # no administrator changes his mind faster
    first = node.address == node.first_address
    node.use_address(node.second_address if first else node.first_address)
    node.call()
    yield


@contextlib.contextmanager
def state_directory_full(world: World, fault: Fault) -> Iterator[None]:
    filler = os.path.join(world.nodes[fault.node].state_dir, "filler")
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    with contextlib.suppress(FileNotFoundError):
        os.unlink(filler)


@contextlib.contextmanager
def state_directory_read_only(world: World, fault: Fault) -> Iterator[None]:
    """A second, read-only mount over the first: the child's lock keeps that one writable."""
    state_dir = world.nodes[fault.node].state_dir

    def remounted() -> bool:
        with contextlib.suppress(AssertionError):  # busy: somebody is writing a file
            run("mount", "-o", "remount,bind,ro", state_dir)
            return True
        return False

    run("mount", "--bind", state_dir, state_dir)
    wait_for("a moment at which nobody writes", remounted)
    yield
    run("umount", "--lazy", state_dir)


@contextlib.contextmanager
def clock_jumped(world: World, fault: Fault) -> Iterator[None]:
    """The wall clock of a node's programs jumps; the machine's own is never touched."""
    node = world.nodes[fault.node]
    with open(node.clock_file, "w", encoding="utf-8") as file:
        file.write(f"{CLOCK_JUMPS_S[int(fault.choice * len(CLOCK_JUMPS_S))]}")
    yield


INJECTORS: dict[str, Injector] = {
    "nothing": nothing,
    "child killed": child_killed,
    "child killed at a step": child_killed_at_a_step,
    "parent killed": nothing,
    "child paused": child_paused,
    "etcd stopped": etcd_stopped,
    "etcd restarted": etcd_stopped,
    "etcd paused": etcd_paused,
    "history lost": history_lost,
    "node cut off": node_cut_off,
    "node rebooted": node_rebooted,
    "interface deleted": interface_deleted,
    "interface down": interface_down,
    "interface flaps": interface_flaps,
    "interface renamed": interface_renamed,
    "interface moved": interface_moved,
    "parent_address shared": parent_address_shared,
    "parent_address changed": parent_address_changed,
    "state directory full": state_directory_full,
    "state directory read-only": state_directory_read_only,
    "clock jumped": clock_jumped,
    "keys wiped": keys_wiped,
    "cable pulled out": cable_pulled_out,
    "cables plugged in": cables_plugged_in,
    "leader killed": leader_killed,
    "member paused": member_paused,
}


@contextlib.contextmanager
def _stopped(world: World, fault: Fault) -> Iterator[None]:
    pid = world.nodes[fault.node].running_child()
    _signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pid, signal.SIGCONT)


def _say_of_link(world: World, link: Link, end: int, command: str) -> None:
    """Run `ratchetctl link` at the node of one of a link's ends, which must succeed."""
    pod, ifname = ((link.primary, link.ifname), (link.pair, link.pair_ifname))[end]
    node = world.nodes[world.attached[pod].node]
    interface = f"{pod.namespace}/{pod.name}:{ifname}"
    done = ratchetctl("link", command, interface, "--state-dir", node.state_dir)
    assert done.returncode == 0, f"link {command} {interface}: {done.stderr}"


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _again(chosen: tuple[str, str] | None, command: str) -> None:
    """Do something to the interface that was chosen, if it is there yet."""
    if chosen is not None:
        namespace, ifname = chosen
        run("ip", "-n", namespace, *command.format(ifname).split(), check=False)


def _by_hand(
    world: World, fault: Fault, command: Callable[[str, str], str]
) -> tuple[str, str] | None:
    """Do something to one of Ratchet's interfaces in pods.

    Return its namespace and name, None when there is none.
    """
    chosen = _chosen(world, fault)
    if chosen is not None:
        run("ip", *command(*chosen).split(), check=False)
    return chosen


def _chosen(
    world: World, fault: Fault, besides: Sequence[Namespace] = ()
) -> tuple[str, str] | None:
    """Return one of Ratchet's interfaces, which one being the fault's choice."""
    pods = [sandbox.pod.netns for _, sandbox in sorted(world.attached.items())]
    names = []
    found = interfaces(namespace.path for namespace in (*pods, *besides))
    for namespace in (*pods, *besides):
        for ifname, one in sorted((found.get(namespace.path) or {}).items()):
            if one.group == MARK:
                names.append((namespace.name, ifname))
    return names[int(fault.choice * len(names))] if names else None


def node_of(world: World, fault: Fault) -> FaultNode | None:
    """The node that a fault is about, None for one that is about no node."""
    return world.nodes.get(fault.node)
