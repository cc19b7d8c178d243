"""A node with its pairing over the in-memory etcd; two pods, one with a link to the other."""

from __future__ import annotations

from ratchet.cni.ip import Address
from ratchet.links import Link
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.local import LocalPod, Memory, Node
from ratchet_child.pairing.protocol import Pairing
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore

A, B, C = (PodKey("default", name) for name in "abc")
LINK = Link(
    "in1",
    Address.parse("192.168.2.100/24"),
    "b",
    "in2",
    Address.parse("192.168.2.101/24"),
)


class Host:
    """A node with its pairing; `log` has the requests that it has made."""

    def __init__(self, etcd: MemoryEtcd, address: str) -> None:
        self.etcd = etcd
        self.address = address
        self.local: set[PodKey] = set()
        self.earlier: dict[PodKey, tuple[str, int]] = {}
        self.log: list[tuple[str, str]] = []
        self.restart()

    def restart(self) -> None:
        store = MemoryStore(self.etcd, lambda name, key: self.log.append((name, key)))
        self.pairing = Pairing(
            store,
            Node(self.address, "eth1"),
            is_local=self.local.__contains__,
            claimed_earlier=self.earlier.get,
            clock=SystemClock(),
        )

    def attach(self, pod: LocalPod) -> Memory:
        """Publish, look, ring."""
        memory = Memory()
        self.local.add(pod.key)
        self.again(pod, memory)
        return memory

    def again(self, pod: LocalPod, memory: Memory) -> None:
        self.pairing.publish(pod, memory)
        while not self.pairing.look(pod, memory, None):
            self.pairing.publish(pod, memory)
        self.pairing.ring(pod, memory)

    def detach(self, pod: LocalPod) -> None:
        self.local.discard(pod.key)
        declared = tuple((link.pair, link.ifname) for link in pod.links)
        self.pairing.withdraw(pod.key, Published(pod.container, declared), self.address)

    def written(self) -> list[str]:
        return [key for name, key in self.log if name in ("set", "create", "swap")]


def primary(container: str = "a1", *links: Link) -> LocalPod:
    return LocalPod(A, container, links or (LINK,))


def pair(container: str = "b1") -> LocalPod:
    return LocalPod(B, container, ())
