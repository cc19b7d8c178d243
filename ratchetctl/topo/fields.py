"""Which fields of Kubernetes objects differ, and who manages them. Pure.

An object at the API server has more than was asked for: defaults, a status, what others added. So
what is wanted is looked for in what is there. `managedFields` says what was asked for earlier and
no longer is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Obj = Mapping[str, Any]
Path = tuple[str, ...]

# Lists that are maps, by their own name; an item is known by these keys. All others are one value.
_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("port", "protocol"),
}
_DEFAULTS = {"protocol": "TCP"}
IDENTITY = (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"))


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every field that can be managed, with its value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
        return
    keys = _KEYS.get(path[-1]) if path and isinstance(value, list) else None
    if keys is None or not all(isinstance(item, dict) for item in value):
        yield path, value
        return
    for item in value:
        yield from leaves(item, (*path, _item([item.get(key, _DEFAULTS.get(key)) for key in keys])))


def wanted(obj: Obj) -> dict[Path, Any]:
    """Return the fields that an object asks for, without those that say which object it is."""
    plain = json.loads(json.dumps(obj))  # tuples are lists there
    return {path: value for path, value in leaves(plain) if path not in IDENTITY}


def differing(asked: Mapping[Path, Any], live: Obj) -> list[Path]:
    """Return the fields that are not there, or are something else."""
    there = dict(leaves(live))
    # An empty mapping or list that is asked for may be left out.
    return [
        path
        for path, value in asked.items()
        if (there.get(path) if path in there else _nothing(value)) != value
    ]


def owners(live: Obj) -> dict[Path, set[str]]:
    """Return who manages each field."""
    found: dict[Path, set[str]] = {}
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("subresource"):
            continue
        for path in _paths(entry.get("fieldsV1") or {}, ()):
            found.setdefault(path, set()).add(str(entry.get("manager", "")))
    return found


def owners_of(path: Path, owners: Mapping[Path, set[str]]) -> set[str]:
    """Return who manages a field, also where they manage the whole that it is a part of."""
    found: set[str] = set()
    for length in range(1, len(path) + 1):
        found |= owners.get(path[:length], set())
    return found


def shown(path: Path) -> str:
    """Return a field as a person writes it: spec.containers[node].image."""
    text = ""
    for part in path:
        if part.startswith("["):
            text += part
        elif "." in part or "/" in part:
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _nothing(value: Any) -> Any:
    return value if value in ({}, [], None, "") else object()


def _paths(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for part, inner in tree.items():
        if part == ".":
            continue
        kind, _, name = part.partition(":")
        at = (
            (*path, _item([value for _, value in sorted(json.loads(name).items())]))
            if (kind == "k")
            else (*path, name)
        )
        if inner and set(inner) != {"."}:
            yield from _paths(inner, at)
        else:
            yield at


def _item(values: list[Any]) -> str:
    return f"[{'/'.join(map(str, values))}]"
