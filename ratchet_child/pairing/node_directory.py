"""What stands below `nodes/<address>`: the pods that a node has published, and its bells.

The list of published pods is what a node knows of itself after a crash or a reboot, so an entry is
the first thing written for a pod and the last one removed. What it lists is written and removed
elsewhere. Apart because the directory is one node's own: others only ring in it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from ratchet import log
from ratchet.cni.dataclasses import dataclass, field, replace
from ratchet_child.model import keys
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.local import LocalPod, Node
from ratchet_child.pairing.ringing import targets
from ratchet_child.store.api import Create, Set, Store


@dataclass(slots=True)
class NodeKeys:
    """What stands in etcd for a node, at one index."""

    index: int
    published: dict[PodKey, tuple[Published, int]] = field(default_factory=dict)
    bells: list[tuple[int, PodKey, list[PodKey]]] = field(default_factory=list)


class NodeDirectory:
    """Every method talks to etcd and raises StoreError when it cannot.

    `node_address` is an earlier one of this node where an administrator has changed it.
    """

    def __init__(
        self, store: Store, node: Node, lock: AbstractContextManager[Any] | None = None
    ) -> None:
        self._store = store
        self._node = node
        # Held where the directory is written or removed: this process alone does either.
        self._lock = lock or threading.Lock()
        self._wrong: tuple[int, str, str] | None = None  # as told last

    @contextlib.contextmanager
    def entry(self, pod: LocalPod, *, again: bool = False) -> Iterator[Set | Create]:
        """Give the request that writes what the node has published for a pod, to be sent meanwhile.

        `again`: unless there is something. The entry tells for good how old the container is.
        """
        # In the order in which `forget` says it.
        declared = tuple(sorted((link.pair, link.ifname) for link in pod.links))
        published = Published(pod.container, declared, self._node.state_dir, self._node.machine)
        with self._lock:
            write = Create if again else Set
            yield write(keys.node_pod(self._node.address, pod.key), published.dumps())

    def enlist(self, pod: LocalPod) -> None:
        """Write what the node has published for a pod."""
        with self.entry(pod) as entry:
            entry.by(self._store)

    def forget(self, pod: PodKey, published: Published, node_address: str) -> None:
        """Forget, as the last step, that the node had published a pod's container."""
        key = keys.node_pod(node_address, pod)
        written = replace(
            published, state_dir=self._node.state_dir, machine=self._node.machine
        ).dumps()
        # Mostly this is what stands there, and needs not be read. If not, it may be an earlier
        # version's, or the container has come again with other links.
        if self._store.remove_value(key, written):
            return
        entry = self._store.get(key)
        if entry is None:
            return
        try:
            mine = Published.loads(entry.value).container == published.container
        except ValueError:
            mine = True
        if mine:
            self._store.remove(key, entry.modified)

    def declares(
        self, node_address: str, pod: PodKey, container: str, link: tuple[str, str]
    ) -> bool:
        """Say whether a node has written that a container of a pod declares a link.

        It does so before it declares the link. A node of v0.1.0 writes nothing of the kind.
        """
        entry = self._store.get(keys.node_pod(node_address, pod))
        if entry is None:
            return False
        try:
            published = Published.loads(entry.value)
        except ValueError:
            return False
        return published.container == container and link in published.declared

    def leave(self, node_address: str) -> None:
        """Remove a node that has no pods any more, and the directories that this leaves empty.

        A bell that comes at the same moment is heard all the same: a watch tells of every change,
        even if the key is gone again.
        """
        with self._lock:
            if self._store.tree(keys.node_pods(node_address))[0]:
                return
            # Not all at once: another network's child may publish a pod at this moment.
            self._store.prune(keys.node_pods(node_address))
            self._store.remove_tree(keys.bells(node_address))
            self._store.prune(keys.node(node_address))
        for directory in ("nodes", "vni", "association"):
            self._store.prune(directory)

    def read(self, node_address: str) -> NodeKeys:
        """Return a node's bells, and the pods that this child has published."""
        entries, index = self._store.tree(keys.node(node_address), recursive=True)
        found = NodeKeys(index=index)
        wrong: dict[str, str] = {}
        for name, entry in entries.items():
            directory, _, pod = name.partition("/")
            if directory == "bell":
                with contextlib.suppress(ValueError):
                    found.bells.append((entry.modified, PodKey.parse(pod), targets(entry.value)))
            elif directory == "pods":
                try:
                    key, published = PodKey.parse(pod), Published.loads(entry.value)
                except ValueError as error:
                    wrong[name] = str(error)
                    continue
                if published.is_of(self._node.state_dir, self._node.machine):
                    found.published[key] = (published, entry.modified)
        self._tell_wrong(wrong)
        return found

    def _tell_wrong(self, wrong: dict[str, str]) -> None:
        """Log entries that are none: in one line, and again only when it says something else."""
        first = next(iter(wrong.items()), None)
        news = None if first is None else (len(wrong), *first)
        if news is not None and news != self._wrong:
            count, key, error = news
            log.warning("published pods cannot be read", count=count, key=key, error=error)
        self._wrong = news
