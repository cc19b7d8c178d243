"""The client: `get`, `list`, `apply`, `patch`, `delete`, `watch` and `follow`, of plain objects.

    client = connect(kubeconfig, context, namespace)
    for pod in client.list(PODS, labels="app=router").items: ...

Objects are dictionaries as JSON has them. `namespace` is the context's where none is given, and
`ALL` means every namespace. All of it raises `ClusterError`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ratchetctl.api import resources, settings
from ratchetctl.api.connection import Connection, Request
from ratchetctl.api.errors import (
    AwayError,
    ExpiredError,
    ForbiddenError,
    MissingError,
    RefusedError,
)
from ratchetctl.api.resources import Obj, Resource
from ratchetctl.api.settings import Settings
from ratchetctl.errors import ClusterError

ALL = "*"  # every namespace
PAGE = 500  # objects of a list at a time, as kubectl asks for them
WATCH_S = 240
_MARGIN_S = 20.0
_PAUSE_S = 1.0
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects, and the version from which what happens to them later can be watched."""

    items: tuple[Obj, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Event:
    """What a watch tells: `kind` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    object: Obj

    @property
    def version(self) -> str:
        return str(self.object["metadata"]["resourceVersion"])


def connect(
    kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None
) -> Client:
    """Return a client of the cluster that is meant; nothing is asked yet. Raises ConfigError."""
    return Client(settings.find(kubeconfig, context, namespace))


class Client:
    """One cluster as one identity. Threads may share it."""

    def __init__(self, found: Settings) -> None:
        self.settings = found
        self.namespace = found.namespace
        self._connection = Connection(found)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        self._connection.close()

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        """Return one object. Raises MissingError when it is not there."""
        return self._connection.ask(self._request("GET", "get", resource, namespace, name))

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
    ) -> Listing:
        """Return all objects that selectors such as "app=router" take."""
        items: list[Obj] = []
        version = ""
        for page in self.pages(resource, namespace, labels=labels, fields=fields):
            items += page.items
            version = page.version
        return Listing(tuple(items), version)

    def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
    ) -> Iterator[Listing]:
        """Yield the objects as they come, so that nobody has to hold all of a large cluster's."""
        query = _selecting(labels, fields) | {"limit": str(PAGE)}
        head = _head(resource)
        while True:
            page = self._connection.ask(
                self._request("GET", "list", resource, namespace, query=query)
            )
            metadata = page.get("metadata") or {}
            # Those of a list have neither kind nor version of their own.
            items = tuple({**head, **one} for one in page.get("items") or ())
            yield Listing(items, str(metadata.get("resourceVersion", "")))
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    def apply(
        self,
        obj: Mapping[str, Any],
        manager: str,
        *,
        namespace: str | None = None,
        force: bool = False,
        dry_run: bool = False,
    ) -> Obj:
        """Have an object be as given, by server-side apply; it is made if it is not there.

        What an earlier apply of this manager set and this one does not is removed. Raises
        ConflictError where others manage a field that differs, unless `force` takes it over.
        """
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        request = self._request(
            "PATCH",
            "patch",
            resources.of(obj),
            namespace or obj["metadata"].get("namespace"),
            obj["metadata"]["name"],
            query=query | _dry(dry_run),
            body=obj,
            content_type=_APPLY,
        )
        return self._connection.ask(request)

    def patch(
        self,
        resource: Resource,
        name: str,
        change: Mapping[str, Any],
        manager: str,
        namespace: str | None = None,
        *,
        subresource: str = "",
    ) -> Obj:
        """Change an object, or its `subresource` ("status"), by a merge patch (RFC 7386)."""
        query = {"fieldManager": manager}
        request = self._request(
            "PATCH",
            "patch",
            resource,
            namespace,
            name,
            query,
            change,
            content_type=_MERGE,
            subresource=subresource,
        )
        return self._connection.ask(request)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        dry_run: bool = False,
    ) -> bool:
        """Delete an object; False if it is not there. Safe to call twice.

        With a `uid` another object of the same name is left alone: ConflictError.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        query = _dry(dry_run)
        try:
            self._connection.ask(
                self._request("DELETE", "delete", resource, namespace, name, query, options)
            )
        except MissingError:
            return False
        return True

    def watch(
        self,
        resource: Resource,
        version: str,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        lasts_s: float = WATCH_S,
    ) -> Iterator[Event]:
        """Yield what happens after a listing's version, until the server ends it.

        Raises ExpiredError when the version has been forgotten: list again.
        """
        query = _selecting(labels, fields) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(lasts_s))),
        }
        request = self._request("GET", "watch", resource, namespace, None, query)
        with self._connection.lines(request, lasts_s + _MARGIN_S) as lines:
            for line in lines:
                yield _event(line)

    def follow(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        step_s: float = 5.0,
    ) -> Iterator[Mapping[tuple[str, str], Obj]]:
        """Yield all objects, by namespace and name: at once, at each change, every few seconds.

        Goes on when the server ends a watch, forgets a version or is away for a moment; it is the
        caller who stops. Raises what will not pass: a right or an object that is missing.
        """
        while True:
            found = self.list(resource, namespace, labels=labels, fields=fields)
            known = {_key(one): one for one in found.items}
            version = found.version
            yield known
            try:
                while True:
                    for event in self.watch(
                        resource, version, namespace, labels=labels, fields=fields, lasts_s=step_s
                    ):
                        version = event.version
                        if event.kind == "DELETED":
                            known.pop(_key(event.object), None)
                        elif event.kind != "BOOKMARK":
                            known[_key(event.object)] = event.object
                        yield known
                    yield known
            except (ForbiddenError, MissingError, RefusedError):
                raise
            except (AwayError, ExpiredError):
                time.sleep(_PAUSE_S)

    def _request(
        self,
        method: str,
        verb: str,
        resource: Resource,
        namespace: str | None,
        name: str | None = None,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        subresource: str = "",
    ) -> Request:
        within = None if namespace == ALL else namespace or self.namespace
        about = name or ""
        if resource.namespaced:
            where = f"in namespace {within}" if within else "in any namespace"
            about = f"{about} {where}".strip()
        return Request(
            method,
            resource.path(within, name) + (f"/{subresource}" if subresource else ""),
            f"{verb} {resource.named}" + (f"/{subresource}" if subresource else ""),
            about,
            query or {},
            None if body is None else json.dumps(body).encode(),
            content_type,
        )


def _event(line: dict[str, Any]) -> Event:
    """Return what a line of a watch tells. Raises ExpiredError, AwayError."""
    found = line.get("object")
    kind = line.get("type")
    if not isinstance(kind, str) or not isinstance(found, dict):
        raise AwayError("a watch tells something that is no event")
    if kind == "ERROR":
        said = f"the watch ended: {found.get('message')}"
        error: type[ClusterError] = ExpiredError if found.get("code") == 410 else AwayError
        raise error(said)
    return Event(kind, found)


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _head(resource: Resource) -> Obj:
    group = f"{resource.group}/" if resource.group else ""
    return {"apiVersion": f"{group}{resource.version}", "kind": resource.kind}


def _selecting(labels: str | None, fields: str | None) -> dict[str, str]:
    query = {}
    if labels:
        query["labelSelector"] = labels
    if fields:
        query["fieldSelector"] = fields
    return query


def _dry(is_dry: bool) -> dict[str, str]:
    return {"dryRun": "All"} if is_dry else {}
