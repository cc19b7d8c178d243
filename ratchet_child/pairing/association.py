"""Reading what stands below `association/<pod>`: where the pod is, and a link declared on it.

Nothing is written in here. etcd is shared, so what makes no sense counts as not being there and
must not bring a node down. Apart because all pieces of the pairing read these keys, and must take
the same for nonsense.
"""

from __future__ import annotations

from collections.abc import Collection

from ratchet import log
from ratchet.names import is_container_id
from ratchet_child.model import keys
from ratchet_child.model.keys import Declaration, PodKey
from ratchet_child.model.links import DeclaredLink, Place
from ratchet_child.store.api import Entry, Store, Tree


def value_of(there: dict[str, Entry], name: str) -> str | None:
    entry = there.get(name)
    return None if entry is None else entry.value


def place_of(there: dict[str, Entry]) -> Place | None:
    """Return where a pod is; None if it is absent or half published (v0.1.0: the ID first)."""
    container, address = value_of(there, "id"), value_of(there, "parentaddr")
    if container is None or not is_container_id(container):
        return None
    if address is None or "parentiface" not in there:
        return None
    return Place(container, address)


def is_node(address: str) -> bool:
    """Say whether a published address can be a node's: none leads out of the nodes' directory."""
    return bool(address) and "/" not in address and address not in (".", "..")


def note_places(store: Store, peers: Collection[PodKey], places: dict[PodKey, Place]) -> None:
    """Read pods' keys, and take down where they are, if they are anywhere."""
    read = store.together(*(Tree(keys.association(peer)) for peer in peers))
    for peer, (there, _) in zip(peers, read, strict=True):
        take_down(peer, there, places)


def take_down(peer: PodKey, there: dict[str, Entry], places: dict[PodKey, Place]) -> None:
    """Take down where a pod is by its keys, if it is anywhere."""
    place = place_of(there)
    if place is not None:
        places[peer] = place


def readable(pod: PodKey, key: str, entry: Entry | None, pair: str) -> Declaration | None:
    """Read a declaration on `pair`; None, and a line in the log, for anything else."""
    if entry is None:
        return None
    try:
        return Declaration.loads(entry.value, pair)
    except ValueError as error:
        log.warning("a declaration cannot be read", pod=pod, key=key, error=str(error))
        return None


def declared_by(primary: PodKey, declaration: Declaration, entry: Entry) -> DeclaredLink:
    return DeclaredLink(
        primary,
        declaration.link,
        declaration.vni,
        entry.created,
        declaration.refused,
        override=declaration.override,
    )
