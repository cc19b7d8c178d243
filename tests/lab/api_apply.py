"""Server-side apply as the API server does it: who manages which field, and who is in the way.

Fields are written as `managedFields` has them (`f:name`, `k:{"name":"node"}` for an item of a list
that is a map by its keys). Lists without keys are one value. Kubernetes documents the rules under
"Server-Side Apply", and which lists are maps in OpenAPI (x-kubernetes-list-map-keys).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

Obj = dict[str, Any]
Path = tuple[str, ...]

# Of pods, Services and ConfigMaps: where a list stands, and what its items are known by.
KEYS = {
    ("spec", "containers"): ("name",),
    ("spec", "initContainers"): ("name",),
    ("spec", "volumes"): ("name",),
    ("env",): ("name",),
    ("volumeMounts",): ("mountPath",),
    ("spec", "ports"): ("port", "protocol"),
}
_NOT_MANAGED = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata", "f:name"),
    ("f:metadata", "f:namespace"),
}


class ConflictsError(Exception):
    """Other managers have fields that were asked to be something else."""

    def __init__(self, found: list[tuple[str, Path]]) -> None:
        super().__init__(f"Apply failed with {len(found)} conflicts")
        self.found = found


def apply(live: Obj | None, wanted: Obj, manager: str, force: bool) -> Obj:
    """Return what an object becomes. Raises ConflictsError."""
    made = copy.deepcopy(live) if live else {}
    made.setdefault("metadata", {})
    owners = managed(made)
    asked = {path: value for path, value in leaves(wanted) if path[:2] not in _NOT_MANAGED}
    asked = {path: value for path, value in asked.items() if path not in _NOT_MANAGED}
    others = [(name, fields) for name, fields in owners.items() if name != manager]
    in_the_way = [
        (name, path)
        for path, value in asked.items()
        for name, fields in others
        if path in fields and get(made, path) != value
    ]
    if in_the_way and not force:
        raise ConflictsError(in_the_way)
    for name, path in in_the_way:
        owners[name].discard(path)
    dropped = owners.get(manager, set()) - set(asked)
    for path in sorted(dropped, key=len):
        if not any(path in fields for _, fields in others):
            remove(made, path)
    for path, value in asked.items():
        put(made, path, value)
    for key in ("apiVersion", "kind"):
        made[key] = wanted[key]
    for key in ("name", "namespace"):
        if key in wanted["metadata"]:
            made["metadata"][key] = wanted["metadata"][key]
    owners[manager] = set(asked)
    write(made, owners, applied_by=manager)
    return made


def take(obj: Obj, manager: str, paths: set[Path]) -> None:
    """Have a manager own these fields, and nobody else, as after an update."""
    owners = managed(obj)
    for fields in owners.values():
        fields.difference_update(paths)
    owners.setdefault(manager, set()).update(paths)
    write(obj, owners)


def leaves(value: Any, path: Path = (), where: tuple[str, ...] = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every field of an object that somebody can manage, with its value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, f"f:{key}"), (*where, key))
        return
    keys = _keys(where, value)
    if keys:
        for item in value:
            name = "k:" + json.dumps({key: _keyed(item, key) for key in keys}, sort_keys=True)
            yield (*path, name, "."), None
            yield from leaves(item, (*path, name), where)
        return
    yield path, value


def _keyed(item: Obj, key: str) -> Any:
    return item.get(key, "TCP" if key == "protocol" else None)


def _keys(where: tuple[str, ...], value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return ()
    return KEYS.get(where[-2:]) or KEYS.get(where[-1:]) or ()


def get(obj: Obj, path: Path) -> Any:
    at: Any = obj
    for part in path:
        if part == ".":
            return None
        at = _step(at, part)
        if at is None:
            return None
    return at


def put(obj: Obj, path: Path, value: Any) -> None:
    at: Any = obj
    for number, part in enumerate(path):
        if part == ".":
            return
        after = path[number + 1] if number + 1 < len(path) else None
        if after is None:
            at[part[2:]] = copy.deepcopy(value)
            return
        inner = _step(at, part)
        if inner is None:
            inner = [] if after.startswith("k:") else {}
            if part.startswith("k:"):
                inner = json.loads(part[2:])
                at.append(inner)
            else:
                at[part[2:]] = inner
        at = inner


def remove(obj: Obj, path: Path) -> None:
    at: Any = obj
    steps = path[:-2] if path[-1] == "." else path[:-1]
    for part in steps:
        at = _step(at, part)
        if at is None:
            return
    if path[-1] == ".":
        item = _step(at, path[-2])
        if item is not None:
            at.remove(item)
    else:
        at.pop(path[-1][2:], None)


def _step(at: Any, part: str) -> Any:
    if part.startswith("f:"):
        return at.get(part[2:]) if isinstance(at, dict) else None
    wanted = json.loads(part[2:])
    for item in at if isinstance(at, list) else ():
        if all(_keyed(item, key) == value for key, value in wanted.items()):
            return item
    return None


def managed(obj: Obj) -> dict[str, set[Path]]:
    """Return which fields each manager has."""
    return {
        entry["manager"]: set(_paths(entry["fieldsV1"], ()))
        for entry in obj["metadata"].get("managedFields", ())
    }


def _paths(fields: Obj, path: Path) -> Iterator[Path]:
    for part, inner in fields.items():
        if inner:
            yield from _paths(inner, (*path, part))
        else:
            yield (*path, part)


def write(obj: Obj, owners: dict[str, set[Path]], applied_by: str | None = None) -> None:
    before = {
        entry["manager"]: entry["operation"] for entry in obj["metadata"].get("managedFields", ())
    }
    entries = []
    for manager, paths in owners.items():
        tree: Obj = {}
        for path in paths:
            at = tree
            for part in path:
                at = at.setdefault(part, {})
        if tree:
            entries.append(
                {
                    "manager": manager,
                    "operation": "Apply"
                    if manager == applied_by
                    else before.get(manager, "Update"),
                    "apiVersion": "v1",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": tree,
                }
            )
    obj["metadata"]["managedFields"] = entries


def shown(path: Path) -> str:
    """Return a field as messages have it: .spec.containers[name="node"].image."""
    text = ""
    for part in path:
        if part.startswith("k:"):
            keys = json.loads(part[2:]).items()
            text += f"[{','.join(f'{key}={json.dumps(value)}' for key, value in keys)}]"
        elif part != ".":
            text += f".{part[2:]}"
    return text
