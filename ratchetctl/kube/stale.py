"""Which keys in etcd nobody owns any more: of nodes and pods that no longer exist. Pure.

A child takes back by itself what its node has published; what is looked for here is what no child
will take back. Everything errs to the side of keeping:

- What a node has published is nobody's only while the node is not heard of in etcd (`machines/`),
  and when Kubernetes has no pod of that name, or another node that is heard of has published the
  pod since. Without Kubernetes, a person has to name the node.
- A declaration or a claim is nobody's if no node has published its container.
- What v0.1.0 has written cannot be told from what it will go on using, so it is told apart, and
  nobody's only when Kubernetes has no pod of that name.

All of that has to be so in two looks with a pause, with nothing changed in between: `twice`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ratchet_child.model import keys
from ratchet_child.model.keys import Declaration, PodKey, Published
from ratchet_child.store.api import Entry

Tree = Mapping[str, Entry]
Key = tuple[str, int]
"""A key, and the index of its last change: another one is another value."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is in etcd, by key relative to each of these directories."""

    nodes: Tree
    association: Tree
    vni: Tree
    machines: Tree


@dataclass(frozen=True, slots=True)
class Living:
    """Who is there, and who a person says is not."""

    pods: frozenset[PodKey] | None
    """None when nobody can say."""
    named: frozenset[str] = frozenset()
    """Nodes that are gone, by their addresses."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a node has published for a container that no longer exists."""

    node: str
    pod: PodKey
    published: Published

    def __str__(self) -> str:
        return f"pod {self.pod} of node {self.node} (container {self.published.container[:12]})"


@dataclass(frozen=True, slots=True)
class Stale:
    """What nobody owns: `old` is v0.1.0's, by pod."""

    pods: frozenset[Leftover] = frozenset()
    declarations: frozenset[Key] = frozenset()
    claims: frozenset[Key] = frozenset()
    old: Mapping[PodKey, frozenset[Key]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.pods or self.declarations or self.claims or self.old)


def find(snapshot: Snapshot, living: Living) -> Stale:
    """Return what nobody seems to own at this moment."""
    heard = {name.partition("@")[0] for name in snapshot.machines}
    published = _published(snapshot.nodes)
    listed = {one.published.container for one in published}
    pods = {one for one in published if _is_left(one, snapshot, living, heard)}
    # What goes with a pod goes with it; here is only what nobody would find.
    return Stale(
        frozenset(pods),
        frozenset(_declarations(snapshot.association, living, listed)),
        frozenset(_claims(snapshot, listed)),
        _old(snapshot.association, living, published, heard),
    )


def twice(first: Stale, second: Stale) -> Stale:
    """Return what nobody owned both times, unchanged in between."""
    return Stale(
        first.pods & second.pods,
        first.declarations & second.declarations,
        first.claims & second.claims,
        {pod: found for pod, found in second.old.items() if first.old.get(pod) == found},
    )


def _published(nodes: Tree) -> list[Leftover]:
    found = []
    for name, entry in nodes.items():
        address, _, rest = name.partition("/")
        directory, _, pod = rest.partition("/")
        if directory != "pods":
            continue
        try:
            found.append(Leftover(address, PodKey.parse(pod), Published.loads(entry.value)))
        except ValueError:
            continue  # somebody else's, and left to them
    return found


def _is_left(one: Leftover, snapshot: Snapshot, living: Living, heard: Collection[str]) -> bool:
    if one.node in heard:
        return False
    if one.node in living.named:
        return True
    if living.pods is None:
        return False
    if one.pod not in living.pods:
        return True
    current = snapshot.association.get(f"{one.pod}/id")
    where = snapshot.association.get(f"{one.pod}/parentaddr")
    return (
        current is not None
        and current.value != one.published.container
        and where is not None
        and where.value != one.node
        and where.value in heard
    )


def _declarations(association: Tree, living: Living, listed: Collection[str]) -> list[Key]:
    """Return declarations whose container nobody has published."""
    found = []
    for name, entry in association.items():
        pair, _, declared = name.partition("/links/")
        if not declared:
            continue
        try:
            key = PodKey.parse(pair)
            declaration = Declaration.loads(entry.value, key.name)
        except ValueError:
            continue
        primary = key.sibling(keys.split_declaration(declared)[0])
        # One that is reserved expires by itself.
        if declaration.gone or declaration.container in listed:
            continue
        if living.pods is None or primary not in living.pods:
            found.append((f"association/{name}", entry.modified))
    return found


def _claims(snapshot: Snapshot, listed: Collection[str]) -> list[Key]:
    """Return claims on VNIs of containers that nobody has published, and without a declaration."""
    found = []
    for name, entry in snapshot.vni.items():
        container, _, declaration_key = entry.value.partition(" ")
        if not name.isdigit() or not declaration_key or container in listed:
            continue
        there = snapshot.association.get(declaration_key.removeprefix("association/"))
        if there is None or f'"{container}"' not in there.value:
            found.append((f"vni/{name}", entry.modified))
    return found


def _old(
    association: Tree, living: Living, published: Collection[Leftover], heard: Collection[str]
) -> dict[PodKey, frozenset[Key]]:
    """Return the keys that v0.1.0 has written for pods that no longer exist."""
    if living.pods is None:
        return {}
    ours = {(str(one.pod), one.published.container) for one in published}
    found: dict[PodKey, frozenset[Key]] = {}
    for name, entry in association.items():
        pod, _, field_name = name.partition("/")
        if field_name != "id" or (pod, entry.value) in ours:
            continue
        try:
            key = PodKey.parse(pod)
        except ValueError:
            continue
        where = association.get(f"{pod}/parentaddr")
        # A node of ours that is heard of writes what is missing of its pods again.
        if key in living.pods or (where is not None and where.value in heard):
            continue
        if key.namespace == "default":  # v0.1.0 knows no other
            found[key] = frozenset(_old_keys(key, association))
    return found


def _old_keys(pod: PodKey, association: Tree) -> list[Key]:
    """Return where v0.1.0 has said that a pod is, and which links the pod declares."""
    found = [
        (name, association[name].modified)
        for name in (f"{pod}/{one}" for one in ("parentaddr", "parentiface", "id"))
        if name in association
    ]
    for name, entry in association.items():
        pair, _, field_name = name.partition("/")
        if field_name != "primaryname" or entry.value != pod.name:
            continue
        if any(one.startswith(f"{pair}/links/{pod.name}:") for one in association):
            continue  # a link of ours, with its copy for v0.1.0
        words = ("primaryname", "pairifname", "pairip", "vxlanid")
        found += [
            (f"{pair}/{one}", association[f"{pair}/{one}"].modified)
            for one in words
            if f"{pair}/{one}" in association
        ]
    return [(f"association/{name}", modified) for name, modified in found]
