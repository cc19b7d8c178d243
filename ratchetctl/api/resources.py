"""Which path of the API a kind of object has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object: `plural` is what paths and RBAC call it, `group` is "" for the core."""

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def named(self) -> str:
        """The resource as RBAC names it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Return the path of one object, or of all; those of every namespace for None."""
        path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            path += f"/namespaces/{_escaped(namespace)}"
        path += f"/{self.plural}"
        return f"{path}/{_escaped(name)}" if name else path


PODS = Resource("Pod", "pods")
CONFIG_MAPS = Resource("ConfigMap", "configmaps")
SERVICES = Resource("Service", "services")
NODES = Resource("Node", "nodes", namespaced=False)
NAMESPACES = Resource("Namespace", "namespaces", namespaced=False)
EVENTS = Resource("Event", "events", "events.k8s.io")

BY_KIND = {one.kind: one for one in (PODS, CONFIG_MAPS, SERVICES, NODES, NAMESPACES, EVENTS)}


def of(obj: Mapping[str, Any]) -> Resource:
    """Return an object's resource. Raises KeyError for a kind that is not in the table."""
    return BY_KIND[obj["kind"]]


def _escaped(name: str) -> str:
    return quote(name, safe="")
