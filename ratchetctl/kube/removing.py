"""`clean --stale`: looks twice for keys that nobody owns, and removes them by compare-and-delete.

What a pod has left is taken back by the child's own code (`Pairing.withdraw`), so that its peers'
nodes are rung and a VNI stays reserved as after any DEL. Only modules of the child that need
neither root nor a node are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ratchet.config import Config
from ratchet.errors import ConfigError, StoreError
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import PodKey
from ratchet_child.model.local import Node
from ratchet_child.pairing.protocol import Pairing
from ratchet_child.store.api import Store
from ratchet_child.store.etcd_v2 import EtcdV2Store
from ratchetctl.api.client import ALL, Client
from ratchetctl.api.resources import PODS
from ratchetctl.errors import EtcdError
from ratchetctl.kube import stale
from ratchetctl.kube.reading import read_pod
from ratchetctl.kube.stale import Key, Living, Snapshot, Stale

__all__ = ["Living", "living_pods", "look_twice", "remove", "shown", "store_of"]
_DIRECTORIES = ("nodes", "association", "vni", "machines")


def store_of(settings: dict[str, object]) -> Store:
    """Return etcd by keys of the network configuration. *Raises* EtcdError."""
    try:
        return EtcdV2Store(Config.parse({"name": "clean", **settings}))
    except ConfigError as error:
        raise EtcdError(f"{error.msg}: {error.details}") from error


def living_pods(client: Client) -> frozenset[PodKey]:
    """Return every name that a pod of the cluster may have to others. *Raises* ClusterError.

    Also pods that do not ask for Ratchet now: they may have, and v0.1.0 took any label value.
    """
    found: set[PodKey] = set()
    for page in client.pages(PODS, ALL):
        for obj in page.items:
            metadata = obj["metadata"]
            namespace = metadata["namespace"]
            names = {metadata["name"]}
            for words in (metadata.get("labels") or {}, metadata.get("annotations") or {}):
                names |= {words[key] for key in ("ratchet.pod_name",) if key in words}
            pod = read_pod(obj)
            if pod is not None:
                names.add(pod.known_as)
            found |= {PodKey(namespace, name) for name in names}
    return frozenset(found)


def look(store: Store, living: Callable[[], Living]) -> Stale:
    """Look once: at etcd first, so that a pod that comes meanwhile counts. *Raises* EtcdError."""
    try:
        trees = {name: store.tree(name, recursive=True)[0] for name in _DIRECTORIES}
    except StoreError as error:
        raise EtcdError(str(error)) from error
    return stale.find(Snapshot(**trees), living())


def look_twice(
    store: Store, living: Callable[[], Living], pause_s: float, wait: Callable[[float], None]
) -> Stale:
    """Return what nobody owned both times."""
    first = look(store, living)
    if not first:
        return first
    wait(pause_s)
    return stale.twice(first, look(store, living))


def shown(found: Stale) -> Iterator[str]:
    """Yield what is found, a line each."""
    yield from sorted(map(str, found.pods))
    yield from sorted(f"declaration {key}" for key, _ in found.declarations)
    yield from sorted(f"claim {key}" for key, _ in found.claims)
    yield from sorted(f"pod {pod} of v0.1.0" for pod in found.old)


def remove(store: Store, found: Stale, *, with_old: bool) -> int:
    """Remove what was found, and nothing that has changed since; how many keys and pods.

    *Raises* EtcdError, after which the rest is found by the next run.
    """
    try:
        return sum(1 for done in _removed(store, found, with_old=with_old) if done)
    except StoreError as error:
        raise EtcdError(str(error)) from error


def _removed(store: Store, found: Stale, *, with_old: bool) -> Iterator[bool]:
    pairing = Pairing(
        store,
        Node("", ""),
        is_local=lambda _: False,
        claimed_earlier=lambda _: None,
        clock=SystemClock(),
    )
    for one in sorted(found.pods, key=str):
        # A node that has come back meanwhile knows better.
        if _is_heard(store, one.node):
            yield False
            continue
        pairing.withdraw(one.pod, one.published, one.node)
        yield True
    for address in sorted({one.node for one in found.pods}):
        if not _is_heard(store, address):
            pairing.leave(address)
    yield from _unchanged(store, found.declarations)
    yield from _unchanged(store, found.claims)
    if with_old:
        for values in found.old.values():
            # `primaryname` first and the ID last, as whoever reads them in between expects.
            yield from _unchanged(store, sorted(values, key=_order))
    for key in {key for key, _ in found.declarations} | _of_old(found):
        pair = key.split("/")[1]
        store.prune(f"association/{pair}/links")
        store.prune(f"association/{pair}")


def _of_old(found: Stale) -> set[str]:
    return {key for values in found.old.values() for key, _ in values}


def _unchanged(store: Store, found: Iterable[Key]) -> Iterator[bool]:
    for key, modified in found:
        yield store.remove(key, modified)


def _order(found: Key) -> tuple[bool, bool]:
    return found[0].endswith("/id"), not found[0].endswith("/primaryname")


def _is_heard(store: Store, address: str) -> bool:
    machines, _ = store.tree("machines")
    return any(name.partition("@")[0] == address for name in machines)
