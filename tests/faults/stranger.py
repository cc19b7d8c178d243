"""Another tenant's pods beside the cluster, which do all the harm that a pod can do.

Their author has no rights but those over his own namespace of Kubernetes, and NET_ADMIN in his
pods: he declares as many links as a pod may have, inside a node and between two, and never
stops changing what is in his namespaces. Nothing is asked of his own links. All that is asked of
everybody else's is what is asked without him.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.kernel import MARK, interfaces
from tests.faults.members import Key
from tests.faults.nodes import CALL_TIMEOUT_S
from tests.faults.runtimes import GIVE_UP_S, RETRY_S, Sandbox, make_sandbox
from tests.faults.topology import PodId
from tests.faults.world import World
from tests.lab.runtime import PAIR, primary

NAMESPACE = "stranger"
MANY = PodId(NAMESPACE, "many")
NEAR, FAR = PodId(NAMESPACE, "near"), PodId(NAMESPACE, "far")
MOVES_AFTER = 10  # steps
MAX_LINKS = 256  # of one pod, as the documentation has it
# Of a child that has its links, and twenty other pods: a tenth of the 837 MB of an earlier child.
LARGEST_BYTES = 128 << 20
# So many that a round takes a second or two: all attacks have their turn.
OWN_INTERFACES = 40
FLIPS = 500
FORGOTTEN_S = 90.0  # the kernel takes 20 to 50 ms for each end, the machine being busy
DELETED = 16


@dataclass(frozen=True)
class _Former:
    """A container that has gone. What it leaves is taken away behind what others need."""

    node: int
    container: str
    inode: int
    until: float  # monotonic: nothing of it is left


class Stranger:
    """Three pods, two of them on one node, and one thread that never stops."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._rng = random.Random(f"{seed}/stranger")
        self._nodes = itertools.cycle(sorted(world.nodes))
        self._where = (next(self._nodes), next(self._nodes))
        self._there: dict[PodId, Sandbox] = {}
        self._former: list[_Former] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._rage, name="stranger")
        self.done: Counter[str] = Counter()  # what he has done, how often
        self.most_ends = 0  # that one of his pods had

    def start(self) -> None:
        """Attach the pods and begin."""
        self.tend(1)
        self._thread.start()

    def close(self) -> None:
        """Stop, and remove the namespaces. Safe to call twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for pod in list(self._there):
            self._lose(pod)

    # What its runtime does

    def tend(self, step: int) -> None:
        """Attach what is not there; move everything to other nodes once in a while."""
        if step % MOVES_AFTER == 0:
            for sandbox in list(self._there.values()):
                self._detach(sandbox)
            self._where = (self._where[1], next(self._nodes))
        for pod, node in ((NEAR, 0), (FAR, 1), (MANY, 0)):
            if pod not in self._there:
                self._attach(pod, self._where[node])

    def node_lost(self, node: int) -> None:
        """Take note that a node was rebooted."""
        for pod, sandbox in list(self._there.items()):
            if sandbox.node == node:
                self._lose(pod)

    def _attach(self, pod: PodId, number: int) -> None:
        node, end = self._world.nodes[number], time.monotonic() + GIVE_UP_S
        while True:
            sandbox = make_sandbox(pod, number)
            labels = _links() if pod == MANY else PAIR
            call = node.start_add(sandbox.pod, {}, labels, config=node.config(wait="none"))
            try:
                outcome = call.finish(CALL_TIMEOUT_S)
            finally:
                node.calls.remove(call)
            with self._lock:
                self._there[pod] = sandbox
            if outcome.exit == 0:
                return
            self._detach(sandbox)
            assert time.monotonic() < end, f"ADD of {sandbox} fails: {outcome!r}"
            time.sleep(RETRY_S)

    def _detach(self, sandbox: Sandbox) -> None:
        node, end = self._world.nodes[sandbox.node], time.monotonic() + GIVE_UP_S
        while True:
            call = node.start_delete(sandbox.pod)
            try:
                outcome = call.finish(CALL_TIMEOUT_S)
            finally:
                node.calls.remove(call)
            if outcome.exit == 0:
                break
            assert time.monotonic() < end, f"DEL of {sandbox} fails: {outcome!r}"
            time.sleep(RETRY_S)
        self._lose(sandbox.id)

    def _lose(self, pod: PodId) -> None:
        with self._lock:
            sandbox = self._there.pop(pod)
            inode = sandbox.pod.netns.inode if sandbox.pod.netns.exists else 0
            now = time.monotonic()
            self._former = [one for one in self._former if one.until > now]
            former = _Former(sandbox.node, sandbox.pod.container_id, inode, now + FORGOTTEN_S)
            self._former.append(former)
        self._world.nodes[sandbox.node].attachments.pop((sandbox.pod.container_id, "eth0"), None)
        sandbox.pod.netns.remove()

    # What it does

    def _rage(self) -> None:
        for name, attack in itertools.cycle(
            (
                ("its own interfaces", self._own_interfaces),
                ("flood", self._flood),
                ("ends deleted", self._delete_ends),
                ("ends renamed", self._rename_ends),
            )
        ):
            if self._stopping.is_set():
                return
            with self._lock:
                there = list(self._there.values())
            if not there:
                time.sleep(0.1)
                continue
            victim = self._rng.choice(there)
            found = interfaces([victim.pod.netns.path])[victim.pod.netns.path] or {}
            self.most_ends = max(self.most_ends, sum(one.group == MARK for one in found.values()))
            victim.pod.netns.try_batch(attack(victim.id), timeout_s=60)
            self.done[name] += 1

    @staticmethod
    def _own_interfaces(_pod: PodId) -> Iterator[str]:
        for number in range(OWN_INTERFACES):
            yield f"link add own{number} type veth peer name other{number}"
            yield f"address add 10.66.{number}.1/24 dev own{number}"
        for number in range(OWN_INTERFACES):
            yield f"link delete own{number}"

    def _flood(self, pod: PodId) -> Iterator[str]:
        ifname = self._rng.choice(_ends(pod))
        for _ in range(FLIPS):
            yield f"link set {ifname} mtu 1400"
            yield f"link set {ifname} mtu 1300"

    def _delete_ends(self, pod: PodId) -> Iterator[str]:
        for ifname in self._rng.sample(_ends(pod), DELETED):
            yield f"link delete {ifname}"

    def _rename_ends(self, pod: PodId) -> Iterator[str]:
        for ifname in self._rng.sample(_ends(pod), DELETED):
            yield f"link set {ifname} name was{ifname}"
            yield f"link set was{ifname} name {ifname}"

    # What is his, so that it is nobody else's

    def is_his_record(self, name: str) -> bool:
        """Tell whether a file of a state directory is of one of the containers."""
        return any(name.startswith(f"attachments/{one}.") for one in self._containers())

    def _containers(self) -> set[str]:
        """Return the containers that are there, and those that have gone a moment ago."""
        with self._lock:
            there = {one.pod.container_id for one in self._there.values()}
            return there | {one.container for one in self._lately_gone()}

    def _lately_gone(self) -> list[_Former]:
        now = time.monotonic()
        return [one for one in self._former if one.until > now]

    def may_leave_legs(self, node: int) -> bool:
        """Tell whether one of his pods has left a node a moment ago, and another has not yet."""
        return any(one.node == node for one in self._lately_gone())

    def is_his_key(self, key: str, entry: Key, prefix: str) -> bool:
        """Tell whether a key is of one of the pods that are there, or goes by itself."""
        value = entry.value or ""
        containers = self._containers()
        if key.startswith(f"{prefix}/vni/"):
            holder, _, link = value.partition(" ")
            is_his = link.startswith(f"association/{NAMESPACE}:")
            return holder in containers or (is_his and entry.expires)
        if key.startswith(f"{prefix}/machines/"):
            node = self._world.nodes
            there = {one.node for one in self._there.values()}
            there |= {one.node for one in self._lately_gone()}
            mine = {a for n in there for a in (node[n].first_address, node[n].second_address)}
            return key.split("/")[-1].partition("@")[0] in mine
        if key.startswith(f"{prefix}/association/{NAMESPACE}:"):
            return True
        return f"/pods/{NAMESPACE}:" in key and any(one in value for one in containers)

    def inodes(self, node: int) -> set[int]:
        """Return the namespaces of his that a node's child may have open."""
        with self._lock:
            here = [one for one in self._there.values() if one.node == node]
            gone = {one.inode for one in self._lately_gone() if one.node == node}
        return gone | {one.pod.netns.inode for one in here if one.pod.netns.exists}

    def summary(self) -> str:
        times = ", ".join(f"{what} {times} times" for what, times in sorted(self.done.items()))
        return f"the stranger had up to {self.most_ends} ends in a pod; {times}"

    def harm(self) -> Iterator[str]:
        """Tell what nobody may be made to pay for him."""
        for number, node in self._world.nodes.items():
            pid = node.running_child()
            if pid is not None and (bytes_ := _resident(pid)) > LARGEST_BYTES:
                yield f"the child of node {number} has {bytes_ >> 20} MiB"


def _ends(pod: PodId) -> list[str]:
    half = MAX_LINKS // 2
    near = [f"n{number}" for number in range(half)]
    far = [f"f{number}" for number in range(half)]
    return {MANY: near + far, NEAR: near, FAR: far}[pod]


def _links() -> dict[str, str]:
    """Return annotations with as many links as one pod may have."""
    labels: dict[str, str] = {}
    for number, ifname in enumerate(_ends(MANY), 1):
        pair = NEAR if ifname in _ends(NEAR) else FAR
        labels |= primary(ifname, None, pair.name, ifname, None, number=number)
    return labels


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
    return 0
