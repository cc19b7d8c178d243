"""Publish, look, ring: one node's side of the pairing protocol. No netlink in here.

A node first writes where its pod is and what it declares (publish), then reads where the pods at
the other ends are and what they declare (look), then tells their nodes to look again (ring). Of two
nodes that do this at the same moment at least one sees the other's keys, because each writes before
it reads; that one rings, and the other looks again. A bell carries no order: whoever hears it
computes anew what should be. So bells may be lost, doubled and late, and a crash between any two
steps is mended by doing them all again.

`Memory` is what this process knows about a pod from earlier looks. It only saves requests: with an
empty one everything is read again.

Whose pod is it, when two containers bear one name? The one whose node began to publish last, in
etcd's own order: a pod that comes back elsewhere takes over from a node that has not noticed. The
other is *superseded* until the name is free again.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from ratchet import log
from ratchet.config import is_ifname
from ratchet.errors import StoreError
from ratchet.labels import Link
from ratchet.pods import is_container_name
from ratchet_child import keys
from ratchet_child.keys import Declaration, PodKey, Published
from ratchet_child.plan import Declared, Place, first_at
from ratchet_child.store import Entry, Store
from ratchet_child.vni import Vnis

BELL_TTL_S = 30
_WITHDRAWN = 256
_UNTOLD = "?"  # the primary's interface, which v0.1.0 does not tell; no label can have that name

_LEGACY = ("primaryname", "pairip", "pairifname", "vxlanid")  # in the order of their removal


@dataclass(frozen=True, slots=True)
class Node:
    """This node's end of all tunnels."""

    address: str
    interface: str
    state_dir: str = ""


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod that is attached on this node."""

    key: PodKey
    container: str
    links: tuple[Link, ...]


@dataclass(slots=True)
class Memory:
    """What this process has written and read for one pod. See the module."""

    published: bool = False
    superseded: bool = False
    yields: bool = False  # it was superseded once, so there may be newer containers of that name
    declared: dict[str, Declared] = field(default_factory=dict)  # own links by ifname
    offered: list[Declared] = field(default_factory=list)  # links declared on the pod
    places: dict[PodKey, Place] = field(default_factory=dict)  # pods on other nodes
    rivals: dict[str, Declared] = field(default_factory=dict)  # who has the far end, by own ifname
    known: set[PodKey] = field(default_factory=set)  # peers that have been looked up
    beside: set[PodKey] = field(default_factory=set)  # peers that were on this node then
    unheard: bool = False  # something was written that peers have not been told

    def give_way(self) -> None:
        """Another container has the name."""
        self.superseded = self.yields = True


class Pairing:
    """Every method talks to etcd and raises StoreError when it cannot."""

    def __init__(
        self,
        store: Store,
        node: Node,
        *,
        is_local: Callable[[PodKey], bool],
        claimed_earlier: Callable[[PodKey], tuple[str, int] | None],
    ) -> None:
        """`is_local`: whether a pod is attached on this node (and not superseded).

        `claimed_earlier`: the container for which this node had begun to publish a pod before this
        process started, with etcd's index of that.
        """
        self._store = store
        self._vnis = Vnis(store)
        self._node = node
        self._is_local = is_local
        self._claimed_earlier = claimed_earlier
        # Held where the node's directory is written or removed: this process alone does either.
        self._node_lock = threading.Lock()
        # Containers all of whose claims have been made by this process: none can be a crash's.
        self._fresh: set[str] = set()
        self._withdrawn: deque[str] = deque(maxlen=_WITHDRAWN)  # containers, the latest
        self._hearing: set[str] = set()  # nodes that listen for bells
        self._wrong: dict[PodKey, tuple[int, str, str]] = {}  # declarations that are none, as told

    # Publish ------------------------------------------------------------------------------------

    def publish(self, pod: LocalPod, memory: Memory) -> None:
        """Write where the pod is and what it declares, unless that is known to be written."""
        if memory.superseded:
            return
        if not memory.published:
            stands = self._stands(pod)
            if stands is None or not (stands or self._write_place(pod, yields=memory.yields)):
                memory.give_way()
                return
            earlier = self._claimed_earlier(pod.key)
            if earlier is None or earlier[0] != pod.container:
                self._fresh.add(pod.container)
            memory.published = memory.unheard = True
        named: set[str] = set()
        for link in pod.links:
            if link.ifname not in memory.declared:
                try:
                    declared = self._declare(pod, link, write_legacy=link.pair not in named)
                except StoreError:
                    self._fresh.discard(pod.container)  # it may have been claimed all the same
                    raise
                if declared is None:
                    memory.give_way()
                    return
                memory.declared[link.ifname] = declared
                memory.unheard = True
            named.add(link.pair)

    def _stands(self, pod: LocalPod) -> bool | None:
        """Whether an earlier process of this node has published the pod already.

        None when another container has come after that.
        """
        earlier = self._claimed_earlier(pod.key)
        if earlier is None or earlier[0] != pod.container:
            return False
        there, _ = self._store.tree(keys.association(pod.key))
        current = there.get("id")
        if current is None:
            return False
        if current.value != pod.container:
            return None if current.modified > earlier[1] else False
        if not self._is_whole(pod, there):
            return False
        if current.created < earlier[1]:  # and perhaps nobody has told the one before
            self._ring_holders(pod.key)
        return True

    def _is_whole(self, pod: LocalPod, own: dict[str, Entry]) -> bool:
        return _place(own) == Place(pod.container, self._node.address) and (
            _text(own, "parentiface") == self._node.interface
        )

    def enlist(self, pod: LocalPod, *, again: bool = False) -> None:
        """Write what the node has published for a pod; `again`: unless there is something.

        The entry tells for good how old the container is.
        """
        declared = tuple((link.pair, link.ifname) for link in pod.links)
        published = Published(pod.container, declared, self._node.state_dir)
        with self._node_lock:
            write = self._store.create if again else self._store.set
            write(keys.node_pod(self._node.address, pod.key), published.dumps())

    def _write_place(self, pod: LocalPod, *, yields: bool) -> bool:
        """Write where the pod is; False when it `yields` to another container of that name."""
        # First of all, so that a crash leaves nothing that the node would not find again.
        self.enlist(pod, again=yields)
        self._store.set(keys.parent_interface(pod.key), self._node.interface)
        elsewhere = self._store.set(keys.parent_address(pod.key), self._node.address)
        was_free = self._take_name(pod, yields=yields)
        has_name = was_free or not yields
        if has_name:
            log.info("published", pod=pod.key, container=pod.container, node=self._node.address)
        if elsewhere and elsewhere != self._node.address:
            self._ring_node(elsewhere, pod.key, [pod.key])
        elif not was_free:
            self._ring_holders(pod.key)
        return has_name

    def _take_name(self, pod: LocalPod, *, yields: bool) -> bool:
        """Write the container's ID; whether the name was free. If it `yields`, only then.

        With conditions: etcd carries out a request whose answer was lost whenever it comes to it,
        and then it must not undo what came later. And the key stays as old as it is, which tells
        after a crash that it was taken over.
        """
        key = keys.container(pod.key)
        while self._store.create(key, pod.container) is None:
            there = self._store.get(key)
            if there is None:
                continue
            if there.value == pod.container:
                return yields
            if yields or self._store.swap(key, pod.container, there.modified) is not None:
                return False
        return True

    def _mend_place(self, pod: LocalPod) -> None:
        """Write again what another container of that name has written over or removed.

        Its ID is not touched: when yet another container has come meanwhile, that one mends.
        """
        self._store.set(keys.parent_interface(pod.key), self._node.interface)
        elsewhere = self._store.set(keys.parent_address(pod.key), self._node.address)
        log.info("published again", pod=pod.key, container=pod.container, node=self._node.address)
        if elsewhere and elsewhere != self._node.address:
            self._ring_node(elsewhere, pod.key, [pod.key])

    def _ring_holders(self, pod: PodKey) -> None:
        """Have other nodes that have published a pod look at it: its place was disturbed.

        Rarely needed: whose address has been written over is not known otherwise.
        """
        nodes, _ = self._store.tree("nodes", recursive=True)
        for name in nodes:
            address, _, key = name.partition("/")
            if key == f"pods/{pod}" and address != self._node.address:
                self._ring_node(address, pod, [pod])

    def _declare(self, pod: LocalPod, link: Link, *, write_legacy: bool) -> Declared | None:
        """Write a declaration, or take over one; None when the pod is superseded."""
        pair = pod.key.sibling(link.pair)
        key = keys.declaration(pair, pod.key.name, link.ifname)
        # After a restart, and when a request went unanswered, it may stand there already.
        again = pod.container not in self._fresh
        found = self._store.get(key) if again else None
        while True:
            if found is None:
                vni = self._vnis.take(pod.container, key, again=again)
                entry = self._store.create(key, Declaration(pod.container, vni, link).dumps())
                if entry is None:
                    self._vnis.release(vni, pod.container, key)
            elif self._is_heir(pod, key, found):
                vni, entry = self._adopt(pod, link, key, found)
            else:
                return None
            if entry is not None:
                break
            found = self._store.get(key)
        if write_legacy:
            self._write_legacy(pair, pod.key.name, Declaration(pod.container, vni, link))
        log.info("declared", pod=pod.key, container=pod.container, link=link.ifname, vni=vni)
        return Declared(pod.key, link, vni, entry.created)

    def _is_heir(self, pod: LocalPod, key: str, found: Entry) -> bool:
        """Whether a declaration is an earlier container's and not the one's that came after.

        Each container writes its ID before it declares, so the ID, read after the declaration, is
        that of the later one.
        """
        if _readable(pod.key, key, found, "") is None:
            return True
        current = self._store.get(keys.container(pod.key))
        return current is None or current.value == pod.container

    def _adopt(self, pod: LocalPod, link: Link, key: str, found: Entry) -> tuple[int, Entry | None]:
        """Take over a declaration of the same link, with its VNI: no entry when it has changed."""
        old = _readable(pod.key, key, found, link.pair)
        if old is not None and self._vnis.claim_again(
            old.vni,
            pod.container,
            key,
            predecessor=None if old.container == pod.container else old.container,
        ):
            vni = old.vni
        else:
            vni = self._vnis.take(pod.container, key)
        is_same = old is not None and old.link == link
        new = Declaration(pod.container, vni, link, old.refused if old and is_same else "")
        if new == old:
            return vni, found
        if pod.container not in self._fresh:
            # It may have claimed another one before it found the declaration there.
            self._vnis.release_all(pod.container, lambda one: one == key, but=vni)
        entry = self._store.swap(key, new.dumps(), found.modified)
        if entry is None:
            self._vnis.release(vni, pod.container, key)
        return vni, entry

    def _write_legacy(self, pair: PodKey, primary: str, declaration: Declaration) -> None:
        """Write a link in v0.1.0's words.

        Of two primaries that do so at once the one whose `primaryname` comes last sees the other's
        and looks whether the keys are all its own.
        """
        while True:
            before: str | None = None
            for key, value in keys.legacy(pair, primary, declaration).items():
                before = self._store.set(key, value)
            if before in (None, primary):
                return
            there, _ = self._store.tree(keys.association(pair))
            if not _legacy_is_mixed(there, pair, primary, declaration):
                return

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
        own, _ = self._store.tree(keys.association(pod.key), recursive=True)
        current = own.get("id")
        if current is None:
            memory.published = memory.superseded = False
            memory.declared.clear()
            return False
        if current.value != pod.container and not self._takes_back(pod, current):
            if not memory.superseded:
                log.warning("superseded by another container", pod=pod.key, container=pod.container)
            memory.give_way()
            return True
        memory.superseded = False
        if not self._is_whole(pod, own):
            self._mend_place(pod)
            memory.unheard = True
        memory.offered = self._offers(pod.key, own)
        complete = True
        for peer in self._peers(pod, memory):
            if peer not in memory.known:
                complete = self._look_at(pod, memory, peer) and complete
                memory.known.add(peer)
        return complete

    def _takes_back(self, pod: LocalPod, current: Entry) -> bool:
        """Take a name back from a container of this node that is gone.

        etcd carries out a request whose answer was lost whenever it comes to it: what stands there
        was written for that container when it still lived.
        """
        if current.value not in self._withdrawn:
            return False
        log.warning("a late write is undone", pod=pod.key, container=pod.container)
        return (
            self._store.swap(keys.container(pod.key), pod.container, current.modified) is not None
        )

    def _peers(self, pod: LocalPod, memory: Memory) -> list[PodKey]:
        peers = {pod.key.sibling(link.pair) for link in pod.links}
        peers.update(offer.primary for offer in memory.offered)
        return sorted(peers)

    def _offers(self, pod: PodKey, own: dict[str, Entry]) -> list[Declared]:
        """The links that others declare on a pod, from the keys below its association."""
        offers = []
        wrong: dict[str, str] = {}
        for name, entry in own.items():
            if not name.startswith("links/"):
                continue
            primary, ifname = keys.split_declaration(name.removeprefix("links/"))
            try:
                declaration = Declaration.loads(entry.value, pod.name)
            except ValueError as error:
                wrong[name] = str(error)
                continue
            if declaration.link.ifname != ifname or not is_container_name(primary):
                wrong[name] = "it contradicts its key"
                continue
            offers.append(_declared(pod.sibling(primary), declaration, entry))
        self._tell_wrong(pod, wrong)
        legacy = _legacy_offer(pod, own)
        if legacy is not None and not any(offer.primary == legacy.primary for offer in offers):
            offers.append(legacy)
        return offers

    def _tell_wrong(self, pod: PodKey, wrong: dict[str, str]) -> None:
        """Log declarations that are none: once, and in one line, as there may be thousands."""
        first = next(iter(wrong.items()), None)
        news = None if first is None else (len(wrong), *first)
        if news == self._wrong.get(pod):
            return
        if news is None:
            del self._wrong[pod]
            return
        self._wrong[pod] = news
        count, key, error = news
        log.warning("declarations are not readable", pod=pod, count=count, key=key, error=error)

    def _look_at(self, pod: LocalPod, memory: Memory, peer: PodKey) -> bool:
        """Where a peer is, and whether the declarations on it still stand."""
        memory.places.pop(peer, None)
        if self._is_local(peer):
            memory.beside.add(peer)
            return True
        there, _ = self._store.tree(keys.association(peer), recursive=True)
        place = _place(there)
        if place is not None:
            memory.places[peer] = place
            if peer in memory.beside:
                # Nobody was rung for it: it was here, or what has taken its name was not noticed.
                memory.beside.discard(peer)
                memory.unheard = True
        complete = True
        offers = self._offers(peer, there)
        for position, link in enumerate(_links_with(pod, peer)):
            key = keys.declaration(peer, pod.key.name, link.ifname)
            entry = there.get(key.removeprefix(f"{keys.association(peer)}/"))
            written = _readable(pod.key, key, entry, peer.name) if entry else None
            if (
                entry is None
                or written is None
                or written.container != pod.container
                or link.ifname not in memory.declared
            ):
                memory.declared.pop(link.ifname, None)
                complete = False
                continue
            if memory.declared[link.ifname].vni != written.vni:  # the far node has renumbered it
                self._fresh.discard(pod.container)
                self._vnis.claim_again(written.vni, pod.container, key)
            memory.declared[link.ifname] = replace(_declared(pod.key, written, entry), link=link)
            memory.rivals.pop(link.ifname, None)
            holder = first_at(link.pair_ifname, offers)
            if holder is not None and holder.primary != pod.key:
                memory.rivals[link.ifname] = holder
            current = Declaration(pod.container, written.vni, link)
            while position == 0 and _legacy_is_mixed(there, peer, pod.key.name, current):
                self._write_legacy(peer, pod.key.name, current)
                there, _ = self._store.tree(keys.association(peer), recursive=True)
        return complete

    # Refuse -------------------------------------------------------------------------------------

    def refuse(self, pod: LocalPod, memory: Memory, refused: Collection[Declared]) -> None:
        """Tell primaries on other nodes which of their links the pod has no interface for.

        Its own links come first, and only this node knows of these. The refusal stands in the
        declaration, where the primary's node finds it when it looks.
        """
        for position, offer in enumerate(memory.offered):
            stands = offer.refused == pod.container
            if stands == (offer in refused) or self._is_local(offer.primary):
                continue
            if offer.link.ifname == _UNTOLD:
                continue
            key = keys.declaration(pod.key, offer.primary.name, offer.link.ifname)
            entry = self._store.get(key)
            written = _readable(pod.key, key, entry, pod.key.name) if entry else None
            if entry is None or written is None or written.link != offer.link:
                continue  # its primary's node has changed it, and will ring
            answer = replace(written, refused="" if stands else pod.container)
            if self._store.swap(key, answer.dumps(), entry.modified) is None:
                continue
            memory.offered[position] = replace(offer, refused=answer.refused)
            place = memory.places.get(offer.primary)
            if place is not None:
                self._ring_node(place.address, pod.key, [offer.primary])

    # Ring ---------------------------------------------------------------------------------------

    def ring(self, pod: LocalPod, memory: Memory) -> None:
        """Tell the nodes of the pod's peers to look again, if there is news for them."""
        if not memory.unheard or memory.superseded:
            return
        self._ring_places(pod.key, memory.places)
        memory.unheard = False

    def _ring_places(self, pod: PodKey, places: dict[PodKey, Place]) -> None:
        targets: dict[str, list[PodKey]] = {}
        for peer, place in places.items():
            if place.address and place.address != self._node.address:
                targets.setdefault(place.address, []).append(peer)
        for address, peers in sorted(targets.items()):
            self._ring_node(address, pod, peers)

    def _ring_node(self, address: str, pod: PodKey, peers: Iterable[PodKey]) -> None:
        if "/" in address or address in (".", ".."):
            return  # etcd is shared: no value in it leads out of the nodes' directory
        if address not in self._hearing:
            # v0.1.0 has no ears, and nobody there would ever remove the bell's directory.
            if not self._store.tree(keys.node_pods(address))[0]:
                return
            self._hearing.add(address)
        # The pod's own name, too: another container of that name may be there. It must not be in a
        # bell of its own, as a later bell takes the place of an earlier one that nobody has read.
        names = ",".join(sorted({str(pod), *map(str, peers)}))
        self._store.set(keys.bell(address, pod), names, ttl_s=BELL_TTL_S)
        published, _ = self._store.tree(keys.node_pods(address))
        if not published:  # it has left: nobody would remove the bell's directories
            self._store.remove_value(keys.bell(address, pod), names)
            for directory in (keys.bells(address), keys.node(address), "nodes"):
                self._store.prune(directory)

    def renumber(self, pod: LocalPod, memory: Memory, declared: Declared) -> None:
        """Give a link the next VNI: this node cannot use the one that it has.

        Either node may do so. The far node hears of it and follows.
        """
        key = keys.declaration(declared.pair, declared.primary.name, declared.link.ifname)
        entry = self._store.get(key)
        old = _readable(pod.key, key, entry, declared.pair.name) if entry else None
        if entry is None or old is None or old.vni != declared.vni:
            return  # the far node was first
        # Claimed in this container's name, so that it is found after a crash; the primary takes the
        # claim over when it looks.
        self._fresh.discard(pod.container)
        vni = self._vnis.take(pod.container, key)
        new = replace(old, vni=vni)
        if not self._store.swap(key, new.dumps(), entry.modified):
            self._vnis.release(vni, pod.container, key)
            return
        for container in {old.container, pod.container}:
            self._vnis.release(old.vni, container, key)
        there, _ = self._store.tree(keys.association(declared.pair))
        if _text(there, "primaryname") == declared.primary.name and _text(there, "vxlanid") == str(
            old.vni
        ):
            self._write_legacy(declared.pair, declared.primary.name, new)
        if self._store.get(key) is None:  # the primary has gone meanwhile
            self._vnis.release(vni, pod.container, key)
            for declaration in (old, new):
                there, _ = self._store.tree(keys.association(declared.pair))
                self._remove_legacy(declared.primary, declared.pair, declaration, there)
        log.warning(
            "the VNI is in use on this node by somebody else, took another",
            pod=pod.key,
            container=pod.container,
            link=declared,
            vni=old.vni,
            taken=vni,
        )
        memory.unheard = True

    # Withdraw -----------------------------------------------------------------------------------

    def withdraw(self, pod: PodKey, published: Published, node_address: str) -> None:
        """Take back all that was written for a container, and nothing of any other's.

        *Safe to call twice*, and after a crash in any place.
        """
        container = published.container
        self._withdrawn.append(container)
        places: dict[PodKey, Place] = {}
        self._remove_place(pod, container, node_address)
        # Read after that: who had not declared its link by then does not find the pod any more.
        own, _ = self._store.tree(keys.association(pod), recursive=True)
        for offer in self._offers(pod, own):
            self._note_place(offer.primary, places)
        for pair_name, ifname in published.declared:
            self._undeclare(pod, container, pod.sibling(pair_name), ifname, places)
        if container in self._fresh:
            self._fresh.discard(container)
        else:
            self._vnis.release_all(container, partial(keys.is_link_of, pod))
        self._store.prune(keys.association(pod))
        self._ring_places(pod, places)
        self.forget(pod, container, node_address)
        log.info("withdrawn", pod=pod, container=container, node=node_address)

    def undeclare(self, pod: LocalPod, declared: Iterable[tuple[str, str]]) -> None:
        """Take back declarations that a pod no longer makes: (pair, ifname) of each."""
        places: dict[PodKey, Place] = {}
        for pair_name, ifname in declared:
            pair = pod.key.sibling(pair_name)
            self._undeclare(pod.key, pod.container, pair, ifname, places)
            self._note_place(pair, places)  # it may have come while the declaration still stood
        self._ring_places(pod.key, places)

    def _remove_place(self, pod: PodKey, container: str, node_address: str) -> None:
        """Remove where a container is; the ID last, as it tells what is left to be removed.

        Another container of that name may be publishing at the same moment. What is removed from
        under it before its ID is there it mends when it looks; after that it is rung.
        """
        own, _ = self._store.tree(keys.association(pod))
        current = own.get("id")
        address = _text(own, "parentaddr")
        if current is not None and current.value != container:
            is_overwritten = address == node_address and not self._is_local(pod)
            if is_overwritten or _place(own) is None:
                self._ring_holders(pod)  # that was done to it before a crash
            return
        if address in (None, node_address):
            if current is None and self._is_local(pod):
                return
            for name in ("parentaddr", "parentiface"):
                if name in own:
                    self._store.remove(f"{keys.association(pod)}/{name}", own[name].modified)
        if current is None:
            own, _ = self._store.tree(keys.association(pod))
            if "id" in own and _place(own) is None:
                self._ring_holders(pod)
        elif not self._store.remove(keys.container(pod), current.modified):
            self._ring_holders(pod)

    def _undeclare(
        self,
        pod: PodKey,
        container: str,
        pair: PodKey,
        ifname: str,
        places: dict[PodKey, Place],
    ) -> None:
        there = self._note_place(pair, places)
        key = keys.declaration(pair, pod.name, ifname)
        while (entry := self._store.get(key)) is not None:
            declaration = _readable(pod, key, entry, pair.name)
            if declaration is None or declaration.container != container:
                return
            self._vnis.release(declaration.vni, container, key)
            self._remove_legacy(pod, pair, declaration, there)
            removed = self._store.remove(key, entry.modified)
            there, _ = self._store.tree(keys.association(pair))
            if removed:  # the far node may have written the v0.1.0 keys meanwhile: `renumber`
                self._remove_legacy(pod, pair, declaration, there)
                break
        if entry is None:
            self._remove_legacy_rest(pod, pair, there)
        if self._store.prune(keys.declarations(pair)) or entry is None:
            self._store.prune(keys.association(pair))

    def _remove_legacy(
        self, pod: PodKey, pair: PodKey, declaration: Declaration, there: dict[str, Entry]
    ) -> None:
        """Remove the v0.1.0 keys of a link that is being taken back.

        `vxlanid` is written first and removed last: it tells whose the others are, also after a
        crash. With two primaries at the same pair a crash can leave a mixture.
        """
        base, name = keys.association(pair), _text(there, "primaryname")
        is_its_vni = _text(there, "vxlanid") in (None, str(declaration.vni))
        if is_its_vni and name in (None, pod.name):
            doomed = list(_LEGACY)
        elif is_its_vni:
            doomed = ["vxlanid"]
        elif name == pod.name and not self._has_vni(pair, _text(there, "vxlanid"), pod.name):
            doomed = ["primaryname"]
        else:
            return
        removed = [
            self._store.remove(f"{base}/{one}", there[one].modified)
            for one in doomed
            if one in there
        ]
        if any(removed) and name not in (None, pod.name):
            self._ring_for(pod.sibling(str(name)), pair)

    def _remove_legacy_rest(self, pod: PodKey, pair: PodKey, there: dict[str, Entry]) -> None:
        """Remove v0.1.0 keys that etcd has written late, when their link had been taken back."""
        if not any(name in there for name in _LEGACY):
            return
        if _text(there, "primaryname") not in (None, pod.name):
            return
        if self._has_vni(pair, _text(there, "vxlanid")):
            return
        for name in _LEGACY:
            if name in there:
                self._store.remove(f"{keys.association(pair)}/{name}", there[name].modified)

    def _has_vni(self, pair: PodKey, vni: str | None, primary: str | None = None) -> bool:
        """Whether a link with that VNI is declared on a pair, by that primary or any."""
        declarations, _ = self._store.tree(keys.declarations(pair))
        for key, entry in declarations.items():
            if primary in (None, keys.split_declaration(key)[0]):
                declaration = _readable(pair, key, entry, pair.name)
                if declaration is not None and str(declaration.vni) == vni:
                    return True
        return False

    def _ring_for(self, pod: PodKey, peer: PodKey) -> None:
        """Have a pod, on whatever node it is, look at its links with `peer`."""
        if not is_container_name(pod.name):
            return
        place = _place(self._store.tree(keys.association(pod))[0])
        if place is not None:
            self._ring_node(place.address, peer, [pod])

    def _note_place(self, peer: PodKey, places: dict[PodKey, Place]) -> dict[str, Entry]:
        there, _ = self._store.tree(keys.association(peer))
        place = _place(there)
        if place is not None:
            places[peer] = place
        return there

    def forget(self, pod: PodKey, container: str, node_address: str) -> None:
        """The last step: after it the node no longer knows that it had published the pod."""
        key = keys.node_pod(node_address, pod)
        entry = self._store.get(key)
        if entry is None:
            return
        try:
            mine = Published.loads(entry.value).container == container
        except ValueError:
            mine = True
        if mine:
            self._store.remove(key, entry.modified)

    def leave(self, node_address: str) -> None:
        """Remove a node that has no pods any more, and the directories that this leaves empty.

        A bell that comes at the same moment is heard all the same: a watch tells of every change,
        also when the key is gone again.
        """
        with self._node_lock:
            if self._store.tree(keys.node_pods(node_address))[0]:
                return
            # Not all at once: another network's child may publish a pod at this moment.
            self._store.prune(keys.node_pods(node_address))
            self._store.remove_tree(keys.bells(node_address))
            self._store.prune(keys.node(node_address))
        for directory in ("nodes", "vni", "association"):
            self._store.prune(directory)

    # What this node hears -----------------------------------------------------------------------

    def node(self, node_address: str) -> NodeKeys:
        """What stands in etcd for a node: its bells, and the pods that this child has published."""
        entries, index = self._store.tree(keys.node(node_address), recursive=True)
        found = NodeKeys(index=index)
        for name, entry in entries.items():
            directory, _, pod = name.partition("/")
            if directory == "bell":
                with contextlib.suppress(ValueError):
                    found.bells.append((entry.modified, PodKey.parse(pod), targets(entry.value)))
            elif directory == "pods":
                try:
                    key, published = PodKey.parse(pod), Published.loads(entry.value)
                except ValueError as error:
                    log.warning("a published pod is not readable", key=name, error=str(error))
                    continue
                if published.state_dir in ("", self._node.state_dir):
                    found.published[key] = (published, entry.modified)
        return found


@dataclass(slots=True)
class NodeKeys:
    """What stands in etcd for a node, at one index."""

    index: int
    published: dict[PodKey, tuple[Published, int]] = field(default_factory=dict)
    bells: list[tuple[int, PodKey, list[PodKey]]] = field(default_factory=list)


def targets(text: str) -> list[PodKey]:
    """The pods that a bell is for: they are to look at their links with the one that rang."""
    found = []
    for name in text.split(","):
        with contextlib.suppress(ValueError):
            found.append(PodKey.parse(name))
    return found


def _links_with(pod: LocalPod, peer: PodKey) -> list[Link]:
    return [link for link in pod.links if link.pair == peer.name]


def _readable(pod: PodKey, key: str, entry: Entry, pair: str) -> Declaration | None:
    """A declaration; None, and a line in the log, when what stands there is something else."""
    try:
        return Declaration.loads(entry.value, pair)
    except ValueError as error:
        log.warning("a declaration is not readable", pod=pod, key=key, error=str(error))
        return None


def _declared(primary: PodKey, declaration: Declaration, entry: Entry) -> Declared:
    return Declared(primary, declaration.link, declaration.vni, entry.created, declaration.refused)


def _text(entries: dict[str, Entry], name: str) -> str | None:
    entry = entries.get(name)
    return None if entry is None else entry.value


def _place(there: dict[str, Entry]) -> Place | None:
    """Where a pod is; None when it is not there, or half published (v0.1.0 writes the ID first)."""
    container, address = _text(there, "id"), _text(there, "parentaddr")
    if not container or address is None or "parentiface" not in there:
        return None
    return Place(container, address)


def _legacy_offer(pod: PodKey, own: dict[str, Entry]) -> Declared | None:
    """The link that a primary of Ratchet CNI v0.1.0 has declared on a pod."""
    primary = _text(own, "primaryname")
    vni = _text(own, "vxlanid") or ""
    ifname = _text(own, "pairifname")
    if not primary or not ifname or not (vni.isascii() and vni.isdigit()):
        return None
    if not is_ifname(ifname) or "%" in ifname or not is_container_name(primary):
        return None
    if len(vni) > len(str(keys.LAST_VNI)) or not 0 < int(vni) <= keys.LAST_VNI:
        return None
    try:
        address = keys.legacy_address(_text(own, "pairip"))
    except ValueError:
        return None
    link = Link(
        ifname=_UNTOLD, address=None, pair=pod.name, pair_ifname=ifname, pair_address=address
    )
    return Declared(pod.sibling(primary), link, int(vni), own["primaryname"].created)


def _legacy_is_mixed(
    there: dict[str, Entry], pair: PodKey, primary: str, declaration: Declaration
) -> bool:
    """Whether two primaries wrote a pair's v0.1.0 keys at the same time, and this one was last."""
    if _text(there, "primaryname") != primary:
        return False
    right = keys.legacy(pair, primary, declaration)
    base = f"{keys.association(pair)}/"
    return any(_text(there, key.removeprefix(base)) != value for key, value in right.items())
