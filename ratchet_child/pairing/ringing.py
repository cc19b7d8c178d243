"""Ringing bells: having another node look at a pod's links again. `bells` is who hears them.

A bell is a key that expires, below the directory of the node that is to hear it. It carries no
order: whoever hears it computes anew what should be, so that bells may be lost, doubled and late.
None is ever left where nobody would remove it: at a node of v0.1.0, which has no ears, and at one
that has left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable

from ratchet import log
from ratchet.names import is_pod_name
from ratchet_child.model import keys
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import Place
from ratchet_child.pairing.association import is_node, place_of
from ratchet_child.store.api import Set, Store, Tree

BELL_TTL_S = 30


def targets(text: str) -> list[PodKey]:
    """Return the pods that a bell is for: they look at their links with the one that rang."""
    found = []
    for name in text.split(","):
        with contextlib.suppress(ValueError):
            found.append(PodKey.parse(name))
    return found


class Ringer:
    """Every method talks to etcd and raises StoreError when it cannot."""

    def __init__(self, store: Store, own_address: str) -> None:
        self._store = store
        self._own_address = own_address
        self._hearing: set[str] = set()  # nodes that listen for bells
        self._doubtful: frozenset[str] = frozenset()  # those that may do so no longer

    def ring(self, address: str, pod: PodKey, peers: Iterable[PodKey]) -> None:
        """Have a node's `peers` look at their links with `pod`."""
        if not self.is_heard_at(address):
            return  # nobody there would ever remove the bell's directory
        # The pod's own name, too: another container of that name may be there. It must not be in a
        # bell of its own, as a later bell takes the place of an earlier one that nobody has read.
        names = ",".join(sorted({str(pod), *map(str, peers)}))
        log.debug("bell rung", by=pod, node=address, peers=names)
        _, (published, _) = self._store.together(
            Set(keys.bell(address, pod), names, BELL_TTL_S), Tree(keys.node_pods(address))
        )
        if not published:  # it has left: nobody would remove the bell's directories
            self._store.remove_value(keys.bell(address, pod), names)
            for directory in (keys.bells(address), keys.node(address), "nodes"):
                self._store.prune(directory)

    def is_heard_at(self, address: str) -> bool:
        """Say whether a node hears bells, and rings them: one of v0.1.0 does neither."""
        if address not in self._hearing:
            if not is_node(address) or not self._store.tree(keys.node_pods(address))[0]:
                return False
            self._hearing.add(address)
        return True

    def doubt_but(self, alive: Collection[str]) -> frozenset[str]:
        """Doubt that nodes hear bells which are not known to be there; return these nodes.

        One may have been set back to v0.1.0, and then what it had published may stand for good.
        """
        self._doubtful = frozenset(self._hearing.difference(alive))
        self._hearing -= self._doubtful
        return self._doubtful

    def is_doubtful(self, address: str) -> bool:
        """Say whether a node may not hear bells any more, although it has published pods."""
        return address in self._doubtful

    def ring_places(self, pod: PodKey, places: dict[PodKey, Place]) -> None:
        """Have peers look at their links with `pod`: one bell for each other node."""
        peers_at: dict[str, list[PodKey]] = {}
        for peer, place in places.items():
            if place.address and place.address != self._own_address:
                peers_at.setdefault(place.address, []).append(peer)
        for address, peers in sorted(peers_at.items()):
            self.ring(address, pod, peers)

    def ring_holders(self, pod: PodKey) -> None:
        """Have other nodes that have published a pod look at it: its place was disturbed.

        Rarely needed: whose address has been written over is not known otherwise.
        """
        nodes, _ = self._store.tree("nodes", recursive=True)
        for name in nodes:
            address, _, key = name.partition("/")
            if key == f"pods/{pod}" and address != self._own_address:
                self.ring(address, pod, [pod])

    def ring_wherever(self, pod: PodKey, peer: PodKey) -> None:
        """Have a pod, on whatever node it is, look at its links with `peer`."""
        if not is_pod_name(pod.name):
            return
        place = place_of(self._store.tree(keys.association(pod))[0])
        if place is not None:
            self.ring(place.address, peer, [pod])
