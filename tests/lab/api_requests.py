"""Requests to the stand-in of the API server: which right each needs, and what it is answered."""

from __future__ import annotations

import copy
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.lab.api_objects import REVIEW, StatusError, check

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
METADATA_ONLY = "as=PartialObjectMetadata"
_EVENTS = ["", "apis", "events.k8s.io", "v1", "namespaces"]
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def respond(handler: Handler, method: str, body: Any) -> None:
    """Answer a request of somebody who is known."""
    url = urlsplit(handler.path)
    query = {key: values[0] for key, values in parse_qs(url.query).items()}
    parts = url.path.split("/")
    try:
        if (method, url.path) == ("GET", "/api/v1/pods"):
            if query.get("watch") == "true":
                _require(handler, "watch pods")
                _watch(handler, query)
            else:
                _require(handler, "list pods")
                _list(handler, query)
        elif (method, url.path) == ("POST", _REVIEWS):
            _review(handler, body)
        elif parts[:5] == _EVENTS and len(parts) == 7 and method == "POST":
            _require(handler, "create events.k8s.io/events")
            handler.answer(201, handler.server.api.objects.create_event(parts[5], body))
        elif parts[:5] == _EVENTS and len(parts) == 8 and method == "PATCH":
            _require(handler, "patch events.k8s.io/events")
            _require_merge(handler)
            changed = handler.server.api.objects.patch_event(parts[5], parts[7], body)
            handler.answer(200, changed)
        elif parts[:4] == ["", "api", "v1", "namespaces"] and parts[5:6] == ["pods"]:
            _pod(handler, method, parts, body)
        else:
            raise StatusError(404, "NotFound", f'pods "{parts[-1]}" not found')
    except StatusError as error:
        handler.status(error.code, str(error), reason=error.reason)


def _pod(handler: Handler, method: str, parts: list[str], body: Any) -> None:
    objects = handler.server.api.objects
    if method == "GET" and len(parts) == 7:
        _require(handler, "get pods")
        pod = objects.pods.get((parts[4], parts[6]))
        if pod is None:
            raise StatusError(404, "NotFound", f'pods "{parts[-1]}" not found')
        if METADATA_ONLY in handler.headers.get("Accept", ""):
            meta = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
            handler.answer(200, {**meta, "metadata": pod["metadata"]})
        else:
            handler.answer(200, pod)
    elif method == "PATCH" and len(parts) == 8 and parts[7] == "status":
        _require(handler, "patch pods/status")
        _require_merge(handler)
        handler.answer(200, objects.patch_status(parts[4], parts[6], body))
    else:
        raise StatusError(405, "MethodNotAllowed", "the server does not allow this method")


def _require(handler: Handler, right: str) -> None:
    api = handler.server.api
    if not api.allowed or right not in api.rights:
        verb, resource = right.split(" ")
        raise StatusError(
            403,
            "Forbidden",
            f'{resource} is forbidden: User "node" cannot {verb} resource "{resource}"',
        )


def _require_merge(handler: Handler) -> None:
    if handler.headers["Content-Type"] != "application/strategic-merge-patch+json":
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


def _list(handler: Handler, query: dict[str, str]) -> None:
    objects = handler.server.api.objects
    with objects.changed:
        if int(query.get("resourceVersion") or 0) > objects.version:
            raise StatusError(504, "Timeout", "Too large resource version")
        items = objects.matching(query.get("fieldSelector"))
        head = {"kind": "PodList", "apiVersion": "v1"}
        metadata = {"resourceVersion": str(objects.version)}
    for item in items:  # those of a list have neither
        del item["kind"], item["apiVersion"]
    handler.answer(200, {**head, "metadata": metadata, "items": items})


def _watch(handler: Handler, query: dict[str, str]) -> None:
    api = handler.server.api
    objects, selector = api.objects, query.get("fieldSelector")
    version = int(query["resourceVersion"])
    lasts_s = float(query["timeoutSeconds"])
    if api.watch_s is not None:
        lasts_s = min(lasts_s, api.watch_s)
    ends = time.monotonic() + lasts_s
    if not api.says_410_by_event:
        with objects.changed:
            list(objects.since(version, selector))
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    bookmark_at = time.monotonic() + api.bookmark_s
    while not api.stopping.is_set() and time.monotonic() < ends:
        with objects.changed:
            try:
                news = copy.deepcopy(list(objects.since(version, selector)))
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
