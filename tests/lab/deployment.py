"""The manifests in deploy/, as `kubectl kustomize` renders them."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from types import ModuleType
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEPLOY = os.path.join(ROOT, "deploy")
OVERLAYS = sorted(os.listdir(os.path.join(DEPLOY, "overlays")))
FOLDERS = (".", *(os.path.join("overlays", name) for name in OVERLAYS))
Object = dict[str, Any]


def _load() -> ModuleType:
    path = os.path.join(ROOT, "packaging", "kustomize.py")
    spec = importlib.util.spec_from_file_location("kustomize", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kustomize = _load()


@functools.cache
def _rendered(folder: str) -> str:
    return json.dumps(kustomize.render(os.path.join(DEPLOY, folder)))


def rendered(folder: str) -> list[Object]:
    """Return the objects of a folder below deploy/, which the caller may change."""
    found: list[Object] = json.loads(_rendered(folder))
    return found


def agent(folder: str) -> Object:
    """Return what the DaemonSet says of its pods."""
    sets = [one for one in rendered(folder) if one["kind"] == "DaemonSet"]
    assert len(sets) == 1
    template: Object = sets[0]["spec"]["template"]
    return template
