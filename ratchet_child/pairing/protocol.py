"""Publish, look, ring: one node's side of the pairing protocol. No netlink in here.

A node first writes where its pod is and what it declares (publish), then reads where the pods at
the other ends are and what they declare (look), then tells their nodes to look again (ring). Of two
nodes that do this at the same moment at least one sees the other's keys, because each writes before
it reads; that one rings, and the other looks again. A bell carries no order: whoever hears it
computes anew what should be. So bells may be lost, doubled and late, and a crash between any two
steps is mended by doing them all again. Here is the order of the steps; each piece has a module:

    places          whose a pod's name is, and where it is
    declarations    the links of each primary
    v010            a link in the words of Ratchet CNI v0.1.0
    old_links       the links that these words have told of
    old_nodes       what these words tell of all links
    offers          what is declared on a pod
    node_keys       what a node knows of itself
    machines        which machine has which address, and which are there
    ringing         bells
    news            what nobody rings for
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any

from ratchet import log
from ratchet.cni.dataclasses import replace
from ratchet.links import Override
from ratchet_child.model import keys
from ratchet_child.model.clock import Clock
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.links import DeclaredLink, Place, first_at
from ratchet_child.model.local import LocalPod, Memory, Node
from ratchet_child.pairing import v010
from ratchet_child.pairing.association import is_node, note_places, place_of
from ratchet_child.pairing.declarations import Declarations
from ratchet_child.pairing.incoming import IncomingLinks
from ratchet_child.pairing.machines import Machines
from ratchet_child.pairing.news import Unrung
from ratchet_child.pairing.node_directory import NodeDirectory, NodeKeys
from ratchet_child.pairing.old_links import OldLinks
from ratchet_child.pairing.old_nodes import OldNodes
from ratchet_child.pairing.places import Places
from ratchet_child.pairing.ringing import Ringer
from ratchet_child.pairing.v010 import V010Keys
from ratchet_child.pairing.vni import Vnis
from ratchet_child.store.api import Entry, Store, Tree

_TOGETHER = 16  # answers that are read before the first one is looked at


class Pairing:
    """Every method talks to etcd and raises StoreError when it cannot."""

    def __init__(
        self,
        store: Store,
        node: Node,
        *,
        is_local: Callable[[PodKey], bool],
        claimed_earlier: Callable[[PodKey], tuple[str, int] | None],
        clock: Clock,
        new_lock: Callable[[], AbstractContextManager[Any]] = threading.Lock,
    ) -> None:
        """Join the parts; `is_local` says if a pod is attached here and not superseded.

        `claimed_earlier`: the container for which this node had begun to publish a pod before this
        process started, with etcd's index of that. `new_lock` makes the locks that are held over
        requests.
        """
        self._store = store
        self._is_local = is_local
        self._ringer = Ringer(store, node.address)
        self.machines = Machines(store, node, clock, new_lock())
        self._directory = NodeDirectory(store, node, new_lock())
        self._places = Places(
            store,
            node,
            self._directory,
            self._ringer,
            is_local=is_local,
            claimed_earlier=claimed_earlier,
        )
        self._v010_keys = V010Keys(store, self._ringer)
        self._old_nodes = OldNodes(store)
        self._vnis = Vnis(store, new_lock(), self._old_nodes)
        self.unrung = Unrung(self.machines, self._vnis, self._old_nodes, self._ringer)
        self._declarations = Declarations(
            store,
            self._v010_keys,
            self._vnis,
            claimed_earlier,
            is_ours=self._ringer.is_heard_at,
        )
        self._incoming = IncomingLinks()
        self._old_links = OldLinks(store, is_local)

    # Publish ------------------------------------------------------------------------------------

    def publish(self, pod: LocalPod, memory: Memory) -> None:
        """Write where the pod is and what it declares, unless that is known to be written."""
        if memory.superseded:
            return
        if not memory.published:
            if pod.stands_by and self._places.leaves_name(pod, self.machines):
                memory.stand_by()
                return
            if not self._places.publish(pod, yields=memory.yields):
                memory.give_way()
                return
            self._declarations.begin(pod)
            memory.published = memory.unheard = True
        told: set[str] = set()  # pairs: v0.1.0 hears of one link with each
        for link in pod.links:
            if link.ifname not in memory.own:
                declared = self._declarations.declare(pod, link, for_v010=link.pair not in told)
                if declared is None:
                    memory.give_way()
                    return
                memory.own[link.ifname] = declared
                memory.unheard = True
            told.add(link.pair)

    def enlist(self, pod: LocalPod) -> None:
        """Write again what the node has published for a pod."""
        self._directory.enlist(pod)

    # Look ---------------------------------------------------------------------------------------

    def look(self, pod: LocalPod, memory: Memory, peers: Iterable[PodKey] | None) -> bool:
        """Read what others have written about the pod's links with `peers`, None for all.

        False when keys of the pod itself were missing, which somebody must have removed: they are
        then to be published again, and nothing else that is missing means anything yet.
        """
        if peers is None:
            memory.known.clear()
        else:
            memory.known.difference_update(peers)
        # The pairs of its own links are known already, and are read at once.
        pairs = [pair for pair in _pairs(pod) if pair not in memory.known]
        read = self._read([pod.key, *self._far(pairs)[: _TOGETHER - 1]])
        own = read.pop(pod.key)
        current = own.get("id")
        stays_back = memory.stands_by and self._places.leaves_name(pod, self.machines)
        if current is None or memory.stands_by != stays_back:
            memory.come_forward()
            return False
        if stays_back:
            return True
        if current.value != pod.container and not self._places.takes_back(pod, current):
            if not memory.superseded:
                log.warning("superseded by another container", pod=pod.key, container=pod.container)
            memory.give_way()
            return True
        memory.superseded = False
        if not self._places.is_whole(pod, own):
            self._places.mend(pod)
            memory.unheard = True
        memory.incoming = self._old_links.standing(pod, own, self._incoming.on(pod.key, own))
        memory.reserved = self._incoming.reserved_on(pod.key, own) if pod.links else []
        complete = True
        unknown = [peer for peer in _peers(pod, memory) if peer not in memory.known]
        for first in range(0, len(unknown), _TOGETHER):
            some = unknown[first : first + _TOGETHER]
            read |= self._read([peer for peer in self._far(some) if peer not in read])
            for peer in some:
                complete = self._look_at(pod, memory, peer, read.pop(peer, None)) and complete
                memory.known.add(peer)
        now = _peers(pod, memory)
        memory.deaf.intersection_update(now)
        memory.known.intersection_update(now)  # a pod could name others without end
        return complete

    def is_declaring(self, primary: PodKey, ifname: str, pair: PodKey, memory: Memory) -> bool:
        """Say whether a primary that is on another node is going to declare a link with `pair`.

        `ifname` is the primary's. Its node may take a while from publishing a pod to declaring its
        links: etcd answers late, or has no leader.
        """
        place = memory.places.get(primary)
        if place is None or not is_node(place.address):
            return False
        link = (pair.name, ifname)
        return self._directory.declares(place.address, primary, place.container, link)

    def _far(self, peers: list[PodKey]) -> list[PodKey]:
        """Return those of some pods that are not on this node."""
        return [peer for peer in peers if not self._is_local(peer)]

    def _read(self, pods: list[PodKey]) -> dict[PodKey, dict[str, Entry]]:
        """Return what stands below the association of each of a few pods."""
        found = self._store.together(*(Tree(keys.association(pod), True) for pod in pods))
        return {pod: there for pod, (there, _) in zip(pods, found, strict=True)}

    def _look_at(
        self, pod: LocalPod, memory: Memory, peer: PodKey, there: dict[str, Entry] | None
    ) -> bool:
        """Note where a peer is, and whether the declarations on it still stand.

        `there` is what stands below its association, None for a peer of this node.
        """
        memory.places.pop(peer, None)
        memory.deaf.discard(peer)
        if there is None:
            memory.beside.add(peer)
            return True
        place = place_of(there)
        log.debug(
            "looked at a peer",
            pod=pod.key,
            container=pod.container,
            peer=peer,
            node=None if place is None else place.address,
            peer_container=None if place is None else place.container,
        )
        if place is not None:
            memory.places[peer] = place
            if self._is_deaf(peer, place, there, memory):
                memory.deaf.add(peer)
            if peer in memory.beside:
                # Nobody was rung for it: it was here, or what has taken its name was not noticed.
                memory.beside.discard(peer)
                memory.unheard = True
        complete = True
        offers = self._incoming.on(peer, there)
        links = pod.links_with(peer)
        no_far_ends = [""] * len(links)
        if links and place is not None and peer in memory.deaf:
            no_far_ends = self._old_nodes.no_far_ends(pod.key, links, peer, there)
        for position, link in enumerate(links):
            known = memory.own.get(link.ifname)
            stands = self._declarations.check(pod, link, there, known)
            if stands is None:
                memory.own.pop(link.ifname, None)
                complete = False
                continue
            declared, declaration = stands
            memory.own[link.ifname] = replace(declared, no_far_end=no_far_ends[position])
            memory.rivals.pop(link.ifname, None)
            holder = first_at(link.pair_ifname, offers)
            if holder is not None and holder.primary != pod.key:
                memory.rivals[link.ifname] = holder
            if position == 0:
                there = self._v010_keys.unmix(pod.key, peer, declaration, there)
        return complete

    def _is_deaf(self, peer: PodKey, place: Place, there: dict[str, Entry], memory: Memory) -> bool:
        """Say whether a peer's node rings no bells: one of v0.1.0."""
        tells = [one for one in memory.incoming if one.primary == peer]
        if tells:  # who has declared a link in our words is on a node of ours: nobody is asked
            return any(v010.is_v010_only(one) for one in tells)
        if not self._ringer.is_heard_at(place.address):
            return True
        return self._ringer.is_doubtful(place.address) and not v010.is_ours(
            self._store, peer, there
        )

    # Ring ---------------------------------------------------------------------------------------

    def ring(self, pod: LocalPod, memory: Memory) -> None:
        """Tell the nodes of the pod's peers to look again, if there is news for them."""
        if not memory.unheard or memory.superseded:
            return
        self._ringer.ring_places(pod.key, memory.places)
        memory.unheard = False

    # What the ends have shown -------------------------------------------------------------------

    def refuse(self, pod: LocalPod, memory: Memory, refused: Collection[DeclaredLink]) -> None:
        """Tell primaries on other nodes which of their links the pod has no interface for.

        Its own links come first, and only this node knows of these. The refusal stands in the
        declaration, where the primary's node finds it when it looks.
        """
        for position, offer in enumerate(memory.incoming):
            is_refused = offer in refused
            if is_refused == (offer.refused == pod.container) or self._is_local(offer.primary):
                continue
            answered = self._declarations.refuse(pod, offer, refused=is_refused)
            if answered is None:
                continue
            memory.incoming[position] = answered
            place = memory.places.get(offer.primary)
            if place is not None:
                self._ringer.ring(place.address, pod.key, [offer.primary])
            else:  # it has come back since it was looked for
                self._ringer.ring_wherever(offer.primary, pod.key)

    def override(self, pod: LocalPod, memory: Memory, ifname: str, change: Override | None) -> None:
        """Set something of the link at one of the pod's interfaces, as the pod says it."""
        for declared in (*memory.own.values(), *memory.incoming):
            is_own = declared.primary == pod.key
            here = declared.link.ifname if is_own else declared.link.pair_ifname
            if here != ifname or v010.is_v010_only(declared):
                continue
            said = change if change is None or is_own else change.seen_from_pair()
            changed = self._declarations.override(pod, declared, said)
            if is_own:  # of a link inside the node it would not be read again
                memory.own[ifname] = changed
            memory.unheard = True

    def renumber(self, pod: LocalPod, memory: Memory, declared: DeclaredLink) -> bool:
        """Give a link the next VNI: this node cannot use the one that it has.

        Either node may do so. The far node hears of it and follows. False when there is none to be
        given: a node of v0.1.0 does not follow.
        """
        if v010.is_v010_only(declared):
            return False
        if self._declarations.renumber(pod, declared):
            memory.unheard = True
        return True

    # Withdraw -----------------------------------------------------------------------------------

    def undeclare(self, pod: LocalPod, declared: Iterable[tuple[str, str]]) -> None:
        """Take back declarations that a pod no longer makes: (pair, ifname) of each."""
        places: dict[PodKey, Place] = {}
        for pair_name, ifname in declared:
            pair = pod.key.sibling(pair_name)
            self._declarations.undeclare(pod.key, pod.container, pair, ifname, places)
            # It may have come while the declaration still stood.
            note_places(self._store, [pair], places)
        self._ringer.ring_places(pod.key, places)

    def withdraw(self, pod: PodKey, published: Published, node_address: str) -> None:
        """Take back all that was written for a container, and nothing of any other's.

        *Safe to call twice*, and after a crash in any place.
        """
        container = published.container
        places: dict[PodKey, Place] = {}
        self._places.withdraw(pod, container, node_address)
        # Read after that: who had not declared its link by then does not find the pod any more.
        own, _ = self._store.tree(keys.association(pod), recursive=True)
        incoming = self._incoming.on(pod, own)
        note_places(self._store, [offer.primary for offer in incoming], places)
        self._declarations.give_back(pod, own)
        self._old_links.forget(pod, container, own)
        reserved: list[int] = []
        for pair_name, ifname in published.declared:
            vni = self._declarations.undeclare(
                pod, container, pod.sibling(pair_name), ifname, places, reserve=True
            )
            reserved += [] if vni is None else [vni]
        self._declarations.end(pod, container, reserved)
        if not self._store.prune(keys.association(pod)) and not incoming:
            # What was reserved on the pod was given back before a crash.
            self._store.prune(keys.declarations(pod))
            self._store.prune(keys.association(pod))
        self._ringer.ring_places(pod, places)
        self.forget(pod, published, node_address)

    def forget(self, pod: PodKey, published: Published, node_address: str) -> None:
        """Forget, at an address of this node, that it had published a container."""
        self._directory.forget(pod, published, node_address)

    def leave(self, node_address: str) -> None:
        """Remove an address of this node at which it has no pods any more."""
        self.machines.leave(node_address)
        self._directory.leave(node_address)

    # What this node hears -----------------------------------------------------------------------

    def node(self, node_address: str) -> NodeKeys:
        """Read what etcd has for an address of this node: its bells, and what it has published."""
        return self._directory.read(node_address)


def _pairs(pod: LocalPod) -> list[PodKey]:
    return sorted({pod.key.sibling(link.pair) for link in pod.links})


def _peers(pod: LocalPod, memory: Memory) -> list[PodKey]:
    primaries = {offer.primary for offer in memory.incoming}
    return sorted({*_pairs(pod), *primaries, *memory.kept})
