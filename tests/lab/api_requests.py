"""Requests to the stand-in of the API server: which right each needs, and what it is answered."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.lab import api_exec, api_kinds
from tests.lab.api_objects import REVIEW, Objects, StatusError, check

if TYPE_CHECKING:
    from tests.lab.api_server import Handler

RIGHTS = (
    "get pods",
    "list pods",
    "watch pods",
    "patch pods/status",
    "create events.k8s.io/events",
    "patch events.k8s.io/events",
)
# What `ratchetctl topo` needs besides, as docs/topologies.md has it.
OPERATOR_RIGHTS = (
    *(
        f"{verb} {what}"
        for what in ("pods", "configmaps", "services")
        for verb in ("get", "list", "create", "patch", "delete")
    ),
    "watch pods",
    "list events.k8s.io/events",
)
# Of the resources, kubectl has to know those by which `exec` names a pod.
_DISCOVERY: dict[str, Any] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {
                "name": "pods",
                "singularName": "pod",
                "namespaced": True,
                "kind": "Pod",
                "verbs": ["get", "list", "watch", "patch", "delete"],
                "shortNames": ["po"],
            }
        ],
    },
}
METADATA_ONLY = "as=PartialObjectMetadata"
_EVENTS = ["", "apis", "events.k8s.io", "v1"]
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class Asked:
    """What a path and its query name: `resource` is as RBAC here has it."""

    resource: str
    namespace: str | None
    name: str | None
    sub: str | None
    query: dict[str, str]

    @property
    def plural(self) -> str:
        return self.resource.rpartition("/")[2]

    def takes(self, obj: Any) -> bool:
        query = self.query
        return api_kinds.selects(
            obj, self.namespace, query.get("labelSelector"), query.get("fieldSelector")
        )


def respond(handler: Handler, method: str, body: Any) -> None:
    """Answer a request of somebody who is known."""
    url = urlsplit(handler.path)
    query = {key: values[0] for key, values in parse_qs(url.query).items()}
    try:
        if (method, url.path) == ("POST", _REVIEWS):
            _review(handler, body)
            return
        other = handler.server.api.others.get((method, url.path))
        if other is not None:
            handler.answer(*other())
            return
        if url.path in _DISCOVERY:
            handler.answer(200, _DISCOVERY[url.path])
            return
        asked = _asked(url.path.split("/"), query)
        if asked.resource == "events.k8s.io/events":
            _event(handler, method, asked, body)
        elif asked.name is None and method == "GET":
            if query.get("watch") == "true" and asked.plural == "pods":
                _require(handler, "watch pods", asked)
                _watch(handler, asked)
            else:
                _require(handler, f"list {asked.resource}", asked)
                _list(handler, asked)
        elif asked.name is not None and asked.sub is None:
            _object(handler, method, asked, body)
        elif asked.resource == "pods" and asked.sub == "exec":
            # kubectl begins with GET and goes on with POST. A GET is authorized as one and, in
            # newer Kubernetes, as a POST as well.
            _require(handler, "get pods/exec", asked)
            _require(handler, "create pods/exec", asked)
            api_exec.serve(
                handler, asked.namespace or "", asked.name or "", handler.server.api.containers
            )
        elif (method, asked.resource, asked.sub) == ("PATCH", "pods", "status"):
            _require(handler, "patch pods/status", asked)
            # Of what the agents and kubectl ratchet write, both kinds of patches make the same.
            _require_type(handler, "application/strategic-merge-patch+json", _MERGE)
            objects = handler.server.api.objects
            handler.answer(200, objects.patch_status(asked.namespace or "", asked.name or "", body))
        else:
            raise StatusError(405, "MethodNotAllowed", "the server does not allow this method")
    except StatusError as error:
        handler.status(error.code, str(error), reason=error.reason, causes=error.causes)


def _asked(parts: list[str], query: dict[str, str]) -> Asked:
    """Take a path apart. Raises StatusError for one that the API does not have."""
    if parts[:4] == _EVENTS:
        group, rest = "events.k8s.io/", parts[4:]
    elif parts[:3] == ["", "api", "v1"]:
        group, rest = "", parts[3:]
    else:
        raise StatusError(404, "NotFound", "the server could not find the requested resource")
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = unquote(rest[1]), rest[2:]
    plural, name, sub = (*map(unquote, rest), *[None] * 3)[:3]
    if plural not in (*api_kinds.KINDS, "events"):
        raise StatusError(404, "NotFound", "the server could not find the requested resource")
    return Asked(f"{group}{plural}", namespace, name, sub, query)


def _object(handler: Handler, method: str, asked: Asked, body: Any) -> None:
    objects = handler.server.api.objects
    namespace, name, query = asked.namespace or "", asked.name or "", asked.query
    if method == "GET":
        _require(handler, f"get {asked.resource}", asked)
        found = api_kinds.get(objects, asked.plural, namespace, name)
        if METADATA_ONLY in handler.headers.get("Accept", ""):
            meta = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
            found = {**meta, "metadata": found["metadata"]}
        handler.answer(200, found)
    elif method == "PATCH" and handler.headers["Content-Type"] == _APPLY:
        _require(handler, f"patch {asked.resource}", asked)
        if not any(key == (namespace, name) for key in _keys(objects, asked.plural)):
            _require(handler, f"create {asked.resource}", asked)
        handler.answer(*api_kinds.apply(objects, asked.plural, namespace, name, body, query))
    elif method == "PATCH":
        _require(handler, f"patch {asked.resource}", asked)
        _require_type(handler, _MERGE)
        handler.answer(200, api_kinds.merge(objects, asked.plural, namespace, name, body, query))
    elif method == "DELETE":
        _require(handler, f"delete {asked.resource}", asked)
        handler.answer(200, api_kinds.delete(objects, asked.plural, namespace, name, body, query))
    else:
        raise StatusError(405, "MethodNotAllowed", "the server does not allow this method")


def _keys(objects: Objects, plural: str) -> list[tuple[str, str]]:
    if plural == "pods":
        return list(objects.pods)
    return [key[1:] for key in objects.others if key[0] == plural]


def _event(handler: Handler, method: str, asked: Asked, body: Any) -> None:
    objects = handler.server.api.objects
    if method == "POST" and asked.namespace and asked.name is None:
        _require(handler, "create events.k8s.io/events", asked)
        handler.answer(201, objects.create_event(asked.namespace, body))
    elif method == "PATCH" and asked.namespace and asked.name:
        _require(handler, "patch events.k8s.io/events", asked)
        _require_type(handler, "application/strategic-merge-patch+json")
        handler.answer(200, objects.patch_event(asked.namespace, asked.name, body))
    elif method == "GET" and asked.name is None:
        _require(handler, "list events.k8s.io/events", asked)
        with objects.changed:
            found = [one for one in objects.events.values() if asked.takes(one)]
        head = {"kind": "EventList", "apiVersion": "events.k8s.io/v1"}
        handler.answer(200, {**head, "metadata": {"resourceVersion": "1"}, "items": found})
    else:
        raise StatusError(405, "MethodNotAllowed", "the server does not allow this method")


def _require(handler: Handler, right: str, asked: Asked) -> None:
    api = handler.server.api
    if not api.allowed or right not in api.rights:
        verb, resource = right.split(" ")
        group, slash, plural = resource.partition("/")
        if not slash or "." not in group:  # "pods/status" is a part of pods
            group, plural = "", resource
        where = (
            f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
        )
        raise StatusError(
            403,
            "Forbidden",
            f'{plural} is forbidden: User "node" cannot {verb} resource "{plural}" in API group'
            f' "{group}"{where}',
        )


def _require_type(handler: Handler, *wanted: str) -> None:
    if handler.headers["Content-Type"] not in wanted:
        raise StatusError(415, "UnsupportedMediaType", "the body was in an unknown format")


def _review(handler: Handler, body: Any) -> None:
    check(REVIEW, body)
    api, asked = handler.server.api, body["spec"]["resourceAttributes"]
    resource = asked["resource"]
    if asked.get("group"):
        resource = f"{asked['group']}/{resource}"
    if asked.get("subresource"):
        resource = f"{resource}/{asked['subresource']}"
    allowed = api.allowed and f"{asked['verb']} {resource}" in api.rights
    answer = {**body, "status": {"allowed": allowed}}
    check(REVIEW, answer)
    handler.answer(201, answer)


def _list(handler: Handler, asked: Asked) -> None:
    objects, query = handler.server.api.objects, asked.query
    with objects.changed:
        if int(query.get("resourceVersion") or 0) > objects.version:
            raise StatusError(504, "Timeout", "Too large resource version")
        items = api_kinds.listed(
            objects,
            asked.plural,
            asked.namespace,
            query.get("labelSelector"),
            query.get("fieldSelector"),
        )
        head = {"kind": f"{api_kinds.KINDS[asked.plural]}List", "apiVersion": "v1"}
        metadata = {"resourceVersion": str(objects.version)}
    start, limit = int(query.get("continue") or 0), int(query.get("limit") or len(items) or 1)
    if start + limit < len(items):
        metadata["continue"] = str(start + limit)
    items = items[start : start + limit]
    for item in items:  # those of a list have neither
        item.pop("kind", None)
        item.pop("apiVersion", None)
    handler.answer(200, {**head, "metadata": metadata, "items": items})


def _watch(handler: Handler, asked: Asked) -> None:
    api, query = handler.server.api, asked.query
    objects = api.objects
    version = int(query["resourceVersion"])
    lasts_s = float(query["timeoutSeconds"])
    if api.watch_s is not None:
        lasts_s = min(lasts_s, api.watch_s)
    ends = time.monotonic() + lasts_s
    if not api.says_410_by_event:
        with objects.changed:
            list(objects.since(version, asked.takes))
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    bookmark_at = time.monotonic() + api.bookmark_s
    while not api.stopping.is_set() and time.monotonic() < ends:
        with objects.changed:
            try:
                news = copy.deepcopy(list(objects.since(version, asked.takes)))
            except StatusError as error:
                status = {"kind": "Status", "code": error.code, "reason": error.reason}
                _say(handler, "ERROR", {**status, "message": str(error)})
                break
            latest = objects.version
            if not news:
                objects.changed.wait(max(min(bookmark_at, ends) - time.monotonic(), 0.001))
        for at, kind, obj in news:
            _say(handler, kind, obj)
            version = at
        if time.monotonic() >= bookmark_at:
            bookmark_at = time.monotonic() + api.bookmark_s
            if query.get("allowWatchBookmarks") == "true" and not news:
                version = latest
                metadata = {"resourceVersion": str(latest)}
                _say(handler, "BOOKMARK", {"kind": "Pod", "apiVersion": "v1", "metadata": metadata})
    handler.wfile.write(b"0\r\n\r\n")


def _say(handler: Handler, kind: str, obj: dict[str, Any]) -> None:
    line = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
    handler.wfile.flush()
