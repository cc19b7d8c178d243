"""What has to happen for a cluster to have what a topology says: exactly the difference. Pure.

A topology's objects are those with its label in the namespace, but for what a controller made. What
of a running pod may change is changed in place, so that its links that stay do not blink; a pod
whose other fields changed is made anew, and the plan says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchetctl.errors import TopologyError
from ratchetctl.topo import fields, render
from ratchetctl.topo.fields import Path

Obj = Mapping[str, Any]
Key = tuple[str, str]  # kind and name

MANAGER = "ratchetctl"  # what server-side apply knows us by
ORDER = ("ConfigMap", "Service", "Pod")
MOST_NAMED = 5
_OWN_KEYS = ("labels", "annotations")
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Change:
    """An object that is changed in place: `before` is what is there, `paths` what differs.

    `contested` are fields that have to go and that others manage.
    """

    obj: Obj
    before: Obj
    paths: tuple[Path, ...]
    contested: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Remake:
    """A pod that is deleted and made again."""

    obj: Obj
    before: Obj
    why: str


@dataclass(slots=True)
class Plan:
    """What to make, change, make anew and remove, each in the order of the file."""

    created: list[Obj] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    remade: list[Remake] = field(default_factory=list)
    removed: list[Obj] = field(default_factory=list)
    unchanged: list[Obj] = field(default_factory=list)
    going: list[Obj] = field(default_factory=list)  # pods on their way out, to be waited for
    stale_files: list[str] = field(default_factory=list)  # pods that run with older files

    def __bool__(self) -> bool:
        return any((self.created, self.changed, self.remade, self.removed))

    def lines(self) -> list[str]:
        """Return a line for each difference: + made, ~ changed, ! made anew, - removed."""
        return [
            *(f"- {named(one)}" for one in self.removed),
            *(f"! {named(one.obj)} is made anew: {one.why}" for one in self.remade),
            *(f"+ {named(one)}" for one in self.created),
            *(f"~ {named(one.obj)}: {_difference(one)}" for one in self.changed),
        ]

    def counted(self) -> str:
        """Return how many objects have which fate, in one line."""
        counts = (
            ("made", self.created),
            ("changed in place", self.changed),
            ("made anew", self.remade),
            ("removed", self.removed),
            ("unchanged", self.unchanged),
        )
        said = [f"{len(items)} {what}" for what, items in counts if items]
        return ", ".join(said) or "nothing to do"


def plan(topology: str, objects: Iterable[Obj], live: Iterable[Obj], restart: bool = False) -> Plan:
    """Compare what a topology renders to with a namespace's objects.

    With `restart` pods whose files changed are made anew. Raises TopologyError where an object that
    is not the topology's has a name that it needs.
    """
    there = {key(one): one for one in live}
    asked = {key(one): one for one in objects}
    foreign = [there[name] for name in asked if name in there and not is_of(there[name], topology)]
    if foreign:
        raise TopologyError("\n".join(_strangers(foreign)))
    made = Plan()
    filed: set[str] = set()  # nodes whose files changed
    for name, obj in sorted(asked.items(), key=lambda one: ORDER.index(one[0][0])):
        before = there.get(name)
        if before is None or before["metadata"].get("deletionTimestamp"):
            made.created.append(obj)
            if before is not None:
                made.going.append(before)
            continue
        change = _change(obj, before)
        node = obj["metadata"]["labels"][render.NODE]
        if obj["kind"] == "ConfigMap" and any(path[0] == "data" for path in change.paths):
            filed.add(node)
        why = _why_anew(before, change.paths) if obj["kind"] == "Pod" else ""
        if not why and obj["kind"] == "Pod" and node in filed:
            if restart:
                why = "its files changed"
            else:
                made.stale_files.append(node)
        if why:
            made.remade.append(Remake(obj, before, why))
        elif change.paths:
            made.changed.append(change)
        else:
            made.unchanged.append(obj)
    for name, before in there.items():
        if name not in asked and is_of(before, topology):
            if before["metadata"].get("deletionTimestamp"):
                made.going.append(before)
            else:
                made.removed.append(before)
    return made


def key(obj: Obj) -> Key:
    return obj["kind"], obj["metadata"]["name"]


def named(obj: Obj) -> str:
    """Return an object as messages name it: pod r1."""
    kind = {"Pod": "pod", "Service": "service"}.get(obj["kind"], obj["kind"])
    return f"{kind} {obj['metadata']['name']}"


def is_of(obj: Obj, topology: str) -> bool:
    """Say whether an object is a topology's: it has the label, and no controller made it."""
    metadata = obj["metadata"]
    labelled = (metadata.get("labels") or {}).get(render.TOPOLOGY)
    controlled = any(one.get("controller") for one in metadata.get("ownerReferences") or ())
    return labelled == render.label_value(topology) and not controlled


def _strangers(found: Sequence[Obj]) -> Iterator[str]:
    for one in found[:MOST_NAMED]:
        labelled = (one["metadata"].get("labels") or {}).get(render.TOPOLOGY)
        whose = f"it is of the topology {labelled}" if labelled else "no topology made it"
        yield (
            f"{named(one)} is in the namespace {one['metadata'].get('namespace', '')} already, and"
            f" {whose}; use another --namespace, or rename the node"
        )
    if len(found) > MOST_NAMED:
        yield f"and {len(found) - MOST_NAMED} more"


def _change(obj: Obj, before: Obj) -> Change:
    asked = fields.wanted(obj)
    owners = fields.owners(before)
    gone = [
        path
        for path in dict(fields.leaves(before))
        if path not in asked
        and path not in fields.IDENTITY
        and (MANAGER in fields.owners_of(path, owners) or _is_ratchets(path))
    ]
    contested = [
        (path, ", ".join(sorted(others)))
        for path in gone
        if (others := (fields.owners_of(path, owners) or {"somebody"}) - {MANAGER})
    ]
    paths = (*fields.differing(asked, before), *gone)
    return Change(obj, before, paths, tuple(contested))


def _is_ratchets(path: Path) -> bool:
    """Say whether a label or annotation means a link to Ratchet, whoever has set it."""
    if len(path) != 3 or path[0] != "metadata" or path[1] not in _OWN_KEYS:
        return False
    return path[2] == "ratchet" or path[2].startswith(("ratchet.", render.OWN))


def _why_anew(before: Obj, paths: Sequence[Path]) -> str:
    """Return why a pod cannot be changed in place; "" where it can."""
    phase = (before.get("status") or {}).get("phase")
    if phase in _ENDED:
        reason = (before.get("status") or {}).get("reason")
        return f"it has ended ({reason or phase})"
    fixed = [path for path in paths if path[0] == "spec" and path[-1] != "image"]
    # Ratchet's agents take a pod's name in the network from its first labels (docs/agent.md).
    fixed += [
        path
        for path in paths
        if path[0] == "metadata" and path[-1] in ("ratchet", "ratchet.pod_name")
    ]
    if not fixed:
        return ""
    shown = ", ".join(map(fields.shown, fixed[:MOST_NAMED]))
    more = f" and {len(fixed) - MOST_NAMED} more" if len(fixed) > MOST_NAMED else ""
    return f"{shown}{more} cannot change while it runs"


def _difference(change: Change) -> str:
    before = dict(fields.leaves(change.before))
    after = fields.wanted(change.obj)
    told = []
    for path in change.paths:
        name = fields.shown(path)
        if path[0] == "data":
            told.append(name)
        elif path not in after:
            told.append(f"without {name}")
        elif path in before:
            told.append(f"{name} {before[path]} -> {after[path]}")
        else:
            told.append(f"{name} {after[path]}")
    return ", ".join(told)
