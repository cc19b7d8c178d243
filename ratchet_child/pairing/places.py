"""Whose a pod's name is, and where that pod is: `association/<pod>/{id,parentiface,parentaddr}`.

Whose pod is it, when two containers bear one name? The one whose node began to publish last, in
etcd's own order: a pod that comes back elsewhere takes over from a node that has not noticed. The
other is *superseded* until the name is free again, and then *yields* to whoever has come meanwhile.
A container that *stands by* takes a name from nobody until its pod is ready (decision 21).

Only the keys of pods of this node are written here, and never what others have declared on them.
Apart because two nodes may write these keys at the same moment, which no other keys of a pod allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ratchet import log
from ratchet_child.model import keys
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import Place
from ratchet_child.model.local import LocalPod, Node
from ratchet_child.pairing.association import place_of, value_of
from ratchet_child.pairing.machines import Machines
from ratchet_child.pairing.node_directory import NodeDirectory
from ratchet_child.pairing.ringing import Ringer
from ratchet_child.store.api import Create, Entry, Remove, Set, Store, Tree

_WITHDRAWN = 256


class Places:
    """Every method that talks to etcd raises StoreError when it cannot."""

    def __init__(
        self,
        store: Store,
        node: Node,
        directory: NodeDirectory,
        ringer: Ringer,
        *,
        is_local: Callable[[PodKey], bool],
        claimed_earlier: Callable[[PodKey], tuple[str, int] | None],
    ) -> None:
        """Keep the callables, which are those of `Pairing`."""
        self._store = store
        self._node = node
        self._directory = directory
        self._ringer = ringer
        self._is_local = is_local
        self._claimed_earlier = claimed_earlier
        self._withdrawn: deque[str] = deque(maxlen=_WITHDRAWN)  # containers, the latest

    # Publish ------------------------------------------------------------------------------------

    def publish(self, pod: LocalPod, *, yields: bool) -> bool:
        """Write where the pod is, unless it stands there; False when another container's it is."""
        stands = self._stands(pod)
        if stands is None:
            return False
        return stands or self._write_place(pod, yields=yields)

    def _stands(self, pod: LocalPod) -> bool | None:
        """Say whether an earlier process of this node has published the pod already.

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
        if not self.is_whole(pod, there):
            return False
        if current.created < earlier[1]:  # and perhaps nobody has told the one before
            self._ringer.ring_holders(pod.key)
        return True

    def _write_place(self, pod: LocalPod, *, yields: bool) -> bool:
        """Write where the pod is; False when it `yields` to another container of that name."""
        # The entry first of all, so that a crash leaves nothing that the node would not find again.
        key = keys.container(pod.key)
        with self._directory.entry(pod, again=yields) as entry:
            _, _, before, taken = self._store.together(
                entry, *self._address_of(pod), Create(key, pod.container)
            )
        elsewhere = self._elsewhere(before)
        was_free = self._take_name(pod, taken, yields=yields)
        has_name = was_free or not yields
        if has_name:
            log.info("published", pod=pod.key, container=pod.container, node=self._node.address)
        if elsewhere is not None:
            self._ringer.ring(elsewhere, pod.key, [pod.key])
        elif not was_free:
            self._ringer.ring_holders(pod.key)
        return has_name

    def _write_address(self, pod: LocalPod) -> str | None:
        """Write the node's tunnel end; another node's address that stood there, None for none."""
        _, before = self._store.together(*self._address_of(pod))
        return self._elsewhere(before)

    def _address_of(self, pod: LocalPod) -> tuple[Set, Set]:
        return (
            Set(keys.parent_interface(pod.key), self._node.interface),
            Set(keys.parent_address(pod.key), self._node.address),
        )

    def _elsewhere(self, before: str | None) -> str | None:
        """Return the address that stood there, if it is another node's."""
        return before if before and before != self._node.address else None

    def _take_name(self, pod: LocalPod, taken: Entry | None, *, yields: bool) -> bool:
        """Write the container's ID, unless that is done; whether the name was free.

        If it `yields`, only then. With conditions: etcd carries out a request whose answer was lost
        whenever it comes to it, and then it must not undo what came later. And the key stays as old
        as it is, which tells after a crash that it was taken over.
        """
        key = keys.container(pod.key)
        while taken is None:
            there = self._store.get(key)
            if there is None:
                taken = self._store.create(key, pod.container)
                continue
            if there.value == pod.container:
                return yields
            if yields or self._store.swap(key, pod.container, there.modified) is not None:
                return False
        return True

    def holder(self, pod: LocalPod) -> Place | None:
        """Return where the container of another node is that has the pod's name, None for none.

        Which container of this node has it is not decided by etcd.
        """
        there, _ = self._store.tree(keys.association(pod.key))
        place = place_of(there)
        if place is None or place.container == pod.container:
            return None
        return None if place.address == self._node.address else place

    def leaves_name(self, pod: LocalPod, machines: Machines) -> bool:
        """Say whether a container has the pod's name whose node is there: it is left the name."""
        holder = self.holder(pod)
        return holder is not None and machines.has_key_at(holder.address)

    # Look ---------------------------------------------------------------------------------------

    def is_whole(self, pod: LocalPod, own: dict[str, Entry]) -> bool:
        """Say whether the keys of a pod's association say that it is this one, and here."""
        return place_of(own) == Place(pod.container, self._node.address) and (
            value_of(own, "parentiface") == self._node.interface
        )

    def mend(self, pod: LocalPod) -> None:
        """Write again what another container of that name has written over or removed.

        Its ID is not touched: when yet another container has come meanwhile, that one mends.
        """
        elsewhere = self._write_address(pod)
        log.info("published again", pod=pod.key, container=pod.container, node=self._node.address)
        if elsewhere is not None:
            self._ringer.ring(elsewhere, pod.key, [pod.key])

    def takes_back(self, pod: LocalPod, current: Entry) -> bool:
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

    # Withdraw -----------------------------------------------------------------------------------

    def withdraw(self, pod: PodKey, container: str, node_address: str) -> None:
        """Remove where a container is; the ID last, as it tells what is left to be removed.

        Another container of that name may be publishing at the same moment. What is removed from
        under it before its ID is there it mends when it looks; after that it is rung.
        """
        self._withdrawn.append(container)
        own, _ = self._store.tree(keys.association(pod))
        current = own.get("id")
        address = value_of(own, "parentaddr")
        if current is not None and current.value != container:
            is_overwritten = address == node_address and not self._is_local(pod)
            if is_overwritten or place_of(own) is None:
                self._ringer.ring_holders(pod)  # that was done to it before a crash
            return
        doomed: list[Remove] = []
        if address in (None, node_address):
            if current is None and self._is_local(pod):
                return
            doomed = [
                Remove(f"{keys.association(pod)}/{name}", own[name].modified)
                for name in ("parentaddr", "parentiface")
                if name in own
            ]
        if current is None:
            *_, (own, _) = self._store.together(*doomed, Tree(keys.association(pod)))
            if "id" in own and place_of(own) is None:
                self._ringer.ring_holders(pod)
            return
        *_, is_removed = self._store.together(
            *doomed, Remove(keys.container(pod), current.modified)
        )
        if not is_removed:
            self._ringer.ring_holders(pod)
