"""Renders the kustomizations in deploy/ without kustomize, for `make dist` and for the tests.

    kustomize.py FOLDER    prints the objects that `kubectl kustomize FOLDER` prints

It knows what deploy/ uses and refuses the rest by name: resources (files and folders), images with
newTag, configMapGenerator with files and without a hash in the name, patches in JSON (RFC 6902:
add, replace and remove), and patches that name an object and replace its data. Where kubectl is
installed, a test compares both.
"""

from __future__ import annotations

import copy
import os
import sys
from typing import Any

import yaml

FILE = "kustomization.yaml"
KNOWN = {
    "apiVersion",
    "kind",
    "resources",
    "images",
    "configMapGenerator",
    "generatorOptions",
    "patches",
}
# In this order kustomize writes them, and `kubectl apply` makes them: what others need comes first.
ORDER = (
    "Namespace",
    "ResourceQuota",
    "ServiceAccount",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Service",
    "StatefulSet",
    "PodDisruptionBudget",
    "Job",
    "CronJob",
    "DaemonSet",
)
Object = dict[str, Any]


class UnknownError(Exception):
    """A kustomization uses what this renderer does not know."""


def render(folder: str) -> list[Object]:
    """Return the objects of a kustomization, in the order in which they are applied."""
    objects = _render(folder)
    seen = set()
    for one in objects:
        identity = (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
        if identity in seen:
            raise UnknownError(f"{folder}: {identity} is there twice")
        seen.add(identity)
    return sorted(objects, key=lambda one: ORDER.index(one["kind"]))


def text(objects: list[Object]) -> str:
    """Return objects as one YAML file."""
    return "---\n".join(yaml.safe_dump(one, sort_keys=False, width=1000) for one in objects)


def _render(folder: str) -> list[Object]:
    path = os.path.join(folder, FILE)
    (found,) = _documents(path)
    unknown = found.keys() - KNOWN
    if unknown:
        raise UnknownError(f"{path}: {', '.join(sorted(unknown))}")
    objects: list[Object] = []
    for name in found.get("resources", ()):
        other = os.path.normpath(os.path.join(folder, name))
        objects += _render(other) if os.path.isdir(other) else _documents(other)
    objects += [_config_map(folder, one, found) for one in found.get("configMapGenerator", ())]
    for patch in found.get("patches", ()):
        _patch(folder, objects, patch)
    for image in found.get("images", ()):
        for one in objects:
            _set_image(one, image)
    return objects


def _documents(path: str) -> list[Object]:
    with open(path, encoding="utf-8") as file:
        # A copy of its own for each place that an anchor stands for.
        return [copy.deepcopy(_unshared(one)) for one in yaml.safe_load_all(file) if one]


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _config_map(folder: str, wanted: Object, found: Object) -> Object:
    unknown = wanted.keys() - {"name", "namespace", "files"}
    if unknown or found.get("generatorOptions") != {"disableNameSuffixHash": True}:
        raise UnknownError(f"{folder}: configMapGenerator {wanted['name']}")
    data = {}
    for name in wanted["files"]:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            data[os.path.basename(name)] = file.read()
    metadata = {"name": wanted["name"], "namespace": wanted["namespace"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _patch(folder: str, objects: list[Object], patch: Object) -> None:
    if patch.keys() == {"path"}:
        (change,) = _documents(os.path.join(folder, patch["path"]))
        if change.keys() != {"apiVersion", "kind", "metadata", "data"}:
            raise UnknownError(f"{folder}: a patch of more than data: {patch['path']}")
        target = {"kind": change["kind"], "name": change["metadata"]["name"]}
        _only(folder, objects, target)["data"] |= change["data"]
        return
    if patch.keys() != {"target", "patch"} or patch["target"].keys() != {"kind", "name"}:
        raise UnknownError(f"{folder}: patch {sorted(patch)}")
    changed = _only(folder, objects, patch["target"])
    for operation in yaml.safe_load(patch["patch"]):
        _apply(changed, operation)


def _only(folder: str, objects: list[Object], target: Object) -> Object:
    found = [
        one
        for one in objects
        if one["kind"] == target["kind"] and one["metadata"]["name"] == target["name"]
    ]
    if len(found) != 1:
        raise UnknownError(f"{folder}: {target} names {len(found)} objects")
    return found[0]


def _apply(changed: Object, operation: Object) -> None:
    """Carry out one operation of RFC 6902."""
    *folders, last = operation["path"].lstrip("/").split("/")
    inner: Any = changed
    for part in folders:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    kind = operation["op"]
    if kind == "remove":
        del inner[int(last) if isinstance(inner, list) else last]
    elif kind == "replace":
        key = int(last) if isinstance(inner, list) else last
        inner[key]  # what is replaced has to be there
        inner[key] = operation["value"]
    elif kind == "add" and isinstance(inner, list):
        inner.insert(len(inner) if last == "-" else int(last), operation["value"])
    elif kind == "add":
        inner[last] = operation["value"]
    else:
        raise UnknownError(f"the operation {kind}")


def _set_image(one: Any, image: Object) -> None:
    if image.keys() != {"name", "newTag"}:
        raise UnknownError(f"images: {sorted(image)}")
    if isinstance(one, list):
        for inner in one:
            _set_image(inner, image)
    elif isinstance(one, dict):
        own = one.get("image")
        if isinstance(own, str) and (own == image["name"] or own.startswith(image["name"] + ":")):
            one["image"] = f"{image['name']}:{image['newTag']}"
        for inner in one.values():
            _set_image(inner, image)


if __name__ == "__main__":
    sys.stdout.write(text(render(sys.argv[1])))
