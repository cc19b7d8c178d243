"""What the stand-in of the API server keeps: pods and Events, with versions and a history.

Objects are checked by the schemas that Kubernetes publishes (`kubernetes_1_34.json`), and Events
also by the rules that the API server adds to them (pkg/apis/core/validation/events.go).
"""

from __future__ import annotations

import copy
import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema

Obj = dict[str, Any]

_SCHEMAS = os.path.join(os.path.dirname(__file__), "kubernetes_1_34.json")
POD = "io.k8s.api.core.v1.Pod"
EVENT = "io.k8s.api.events.v1.Event"
REVIEW = "io.k8s.api.authorization.v1.SelfSubjectAccessReview"
_QUALIFIED = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

with open(_SCHEMAS, encoding="utf-8") as _file:
    _DEFINITIONS = json.load(_file)["definitions"]


class StatusError(Exception):
    """What the server answers with a Status object."""

    def __init__(
        self, code: int, reason: str, message: str, causes: list[Obj] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.causes = causes or []


def check(kind: str, obj: Obj) -> None:
    """Check an object by its schema. Raises StatusError."""
    schema = {"$ref": f"#/definitions/{kind}", "definitions": _DEFINITIONS}
    for error in jsonschema.Draft7Validator(schema).iter_errors(obj):
        raise StatusError(422, "Invalid", f"{error.json_path}: {error.message}")


class Objects:
    """The cluster's pods and Events. Threads may share it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 1000
        self.pods: dict[tuple[str, str], Obj] = {}
        # What an operator uses besides: ConfigMaps, Services, Nodes, by plural, namespace and name.
        self.others: dict[tuple[str, str, str], Obj] = {}
        self.namespaces = {"default"}
        self.lingers = False  # a pod that is deleted stays until its kubelet has ended it
        self.events: dict[tuple[str, str], Obj] = {}
        self._history: list[tuple[int, str, Obj]] = []
        self.oldest = 0  # what is older than that has been compacted

    # Pods ---------------------------------------------------------------------------------------

    def put_pod(self, pod: Obj) -> Obj:
        """Make a pod, or take the place of the one that is there."""
        check(POD, pod)
        with self.changed:
            metadata = pod["metadata"]
            key = metadata["namespace"], metadata["name"]
            before = self.pods.get(key)
            if before is not None and before["metadata"]["uid"] != metadata["uid"]:
                self._note("DELETED", before)
            is_new = before is None or before["metadata"]["uid"] != metadata["uid"]
            self.pods[key] = pod
            self._note("ADDED" if is_new else "MODIFIED", pod)
            return pod

    def put_other(self, plural: str, obj: Obj) -> None:
        """Make an object that is no pod, or take the place of the one that is there."""
        with self.changed:
            metadata = obj["metadata"]
            self.version += 1
            metadata["resourceVersion"] = str(self.version)
            self.others[plural, metadata.get("namespace", ""), metadata["name"]] = obj

    def change_pod(self, namespace: str, name: str, change: Callable[[Obj], object]) -> None:
        """Have a pod changed as somebody else's request does."""
        with self.changed:
            pod = copy.deepcopy(self.pods[namespace, name])
            change(pod)
            self.put_pod(pod)

    def delete_pod(self, namespace: str, name: str) -> None:
        with self.changed:
            self._note("DELETED", self.pods.pop((namespace, name)))

    def patch_status(self, namespace: str, name: str, patch: Obj) -> Obj:
        """Do a strategic merge patch of a pod's status: of the rest, only metadata is taken."""
        with self.changed:
            pod = self.pods.get((namespace, name))
            if pod is None:
                raise StatusError(404, "NotFound", f'pods "{name}" not found')
            changed = copy.deepcopy(pod)
            wanted = patch.get("metadata", {})
            for key, what in (("uid", "UID"), ("resourceVersion", "resource version")):
                if key in wanted and wanted[key] != pod["metadata"][key]:
                    raise StatusError(409, "Conflict", f"Precondition failed: {what}")
            for key in ("annotations", "labels"):
                if key in wanted:
                    merged = {**pod["metadata"].get(key, {}), **wanted[key]}
                    changed["metadata"][key] = {k: v for k, v in merged.items() if v is not None}
            by_type = {one["type"]: one for one in pod.get("status", {}).get("conditions", [])}
            for one in patch.get("status", {}).get("conditions", []):
                by_type[one["type"]] = {**by_type.get(one["type"], {}), **one}
            changed.setdefault("status", {})["conditions"] = list(by_type.values())
            if changed == pod:
                return pod  # as the API server: nothing is written, and no version passes
            return self.put_pod(changed)

    # Watching -----------------------------------------------------------------------------------

    def compact(self) -> None:
        """Forget the history: who watches from an older version is told 410 Gone."""
        with self.changed:
            self.oldest = self.version
            self._history.clear()
            self.changed.notify_all()

    def since(self, version: int, takes: Callable[[Obj], bool]) -> Iterator[tuple[int, str, Obj]]:
        """Give what has happened since a version. Raises StatusError 410. Needs the lock."""
        if version < self.oldest:
            raise StatusError(
                410, "Expired", f"too old resource version: {version} ({self.oldest})"
            )
        for at, kind, obj in self._history:
            if at > version and takes(obj):
                yield at, kind, obj

    def _note(self, kind: str, obj: Obj) -> None:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._history.append((self.version, kind, copy.deepcopy(obj)))
        self.changed.notify_all()

    # Events -------------------------------------------------------------------------------------

    def create_event(self, namespace: str, event: Obj) -> Obj:
        """Make an Event. Raises StatusError."""
        check(EVENT, event)
        _check_event(namespace, event)
        with self.changed:
            key = namespace, event["metadata"]["name"]
            if key in self.events:
                raise StatusError(409, "AlreadyExists", f'events "{key[1]}" already exists')
            self.version += 1
            metadata = {"resourceVersion": str(self.version), "uid": str(uuid.uuid4())}
            event["metadata"] |= metadata
            self.events[key] = event
            self.changed.notify_all()
            return event

    def patch_event(self, namespace: str, name: str, patch: Obj) -> Obj:
        """Change an Event's series, which is all that may be changed. Raises StatusError."""
        with self.changed:
            event = self.events.get((namespace, name))
            if event is None:
                raise StatusError(404, "NotFound", f'events "{name}" not found')
            if set(patch) != {"series"}:
                raise StatusError(422, "Invalid", f"field is immutable: {sorted(patch)}")
            changed = {**event, "series": {**event.get("series", {}), **patch["series"]}}
            check(EVENT, changed)
            _check_event(namespace, changed)
            self.events[namespace, name] = changed
            self.changed.notify_all()
            return changed

    def events_about(self, name: str) -> list[Obj]:
        """Return the Events about a pod or a node, as they came."""
        with self.changed:
            return [one for one in self.events.values() if one["regarding"]["name"] == name]


def _check_event(namespace: str, event: Obj) -> None:
    """Check an Event as the API server does. Raises StatusError."""
    metadata, regarding = event["metadata"], event.get("regarding", {})
    series = event.get("series")
    wrong = {
        "metadata.name": not _NAME.fullmatch(metadata["name"]) or len(metadata["name"]) > 253,
        "metadata.namespace": metadata.get("namespace") != namespace,
        "regarding.namespace": regarding.get("namespace", "default") != namespace,
        "eventTime": not _MICRO_TIME.fullmatch(event.get("eventTime") or ""),
        "type": event.get("type") not in ("Normal", "Warning"),
        "reportingController": not _QUALIFIED.fullmatch(event.get("reportingController") or ""),
        "reportingInstance": not 0 < len(event.get("reportingInstance") or "") <= 128,
        "action": not 0 < len(event.get("action") or "") <= 128,
        "reason": not 0 < len(event.get("reason") or "") <= 128,
        "note": len((event.get("note") or "").encode()) > 1024,
        "series": series is not None
        and (
            series.get("count", 0) < 2 or not _MICRO_TIME.fullmatch(series.get("lastObservedTime"))
        ),
        "deprecated": any(key.startswith("deprecated") for key in event),
    }
    for field, is_wrong in wrong.items():
        if is_wrong:
            raise StatusError(422, "Invalid", f"{field}: Invalid value")
