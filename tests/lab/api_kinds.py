"""Pods, ConfigMaps, Services and Nodes in the stand-in of the API server, as an operator uses them.

Objects are made and changed by server-side apply and by merge patches, get what the API server adds
by default, and are checked by Kubernetes' schemas and by the rules for what of a pod may change.
"""

from __future__ import annotations

import copy
import json
import re
import uuid
import warnings
from typing import Any

from tests.lab import api_apply
from tests.lab.api_objects import POD, Obj, Objects, StatusError, check

KINDS = {"pods": "Pod", "configmaps": "ConfigMap", "services": "Service", "nodes": "Node"}
WRITABLE = ("pods", "configmaps", "services")
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def get(objects: Objects, plural: str, namespace: str, name: str) -> Obj:
    with objects.changed:
        found = _all(objects, plural).get((namespace, name))
        if found is None:
            raise StatusError(404, "NotFound", f'{plural} "{name}" not found')
        return copy.deepcopy(found)


def listed(
    objects: Objects, plural: str, namespace: str | None, labels: str | None, fields: str | None
) -> list[Obj]:
    with objects.changed:
        return [
            copy.deepcopy(one)
            for (where, _), one in sorted(_all(objects, plural).items())
            if selects(one, namespace, labels, fields)
        ]


def selects(obj: Obj, namespace: str | None, labels: str | None, fields: str | None) -> bool:
    """Say whether a request's selectors take an object."""
    metadata = obj["metadata"]
    if namespace is not None and metadata.get("namespace") != namespace:
        return False
    for term in filter(None, (labels or "").split(",")):
        key, equals, value = term.partition("=")
        found = metadata.get("labels", {}).get(key)
        if found is None or (equals and found != value.removeprefix("=")):
            return False
    for term in filter(None, (fields or "").split(",")):
        key, _, value = term.partition("=")
        at: Any = obj
        for part in key.split("."):
            at = at.get(part, "") if isinstance(at, dict) else ""
        if at != value:
            return False
    return True


def apply(
    objects: Objects, plural: str, namespace: str, name: str, body: Obj, query: dict[str, str]
) -> tuple[int, Obj]:
    """Do a server-side apply; the status and the object. Raises StatusError."""
    manager = query.get("fieldManager")
    if not manager:
        raise StatusError(400, "BadRequest", "PatchOptions: fieldManager: Required value")
    with objects.changed:
        live = _all(objects, plural).get((namespace, name))
        if live is None and namespace not in objects.namespaces:
            raise StatusError(404, "NotFound", f'namespaces "{namespace}" not found')
        wanted = copy.deepcopy(body)
        wanted["metadata"]["namespace"] = namespace
        _validate(plural, wanted)
        try:
            made = api_apply.apply(live, wanted, manager, query.get("force") == "true")
        except api_apply.ConflictsError as error:
            raise _conflict(error) from error
        _store(objects, plural, live, made, query)
        return (200 if live else 201), copy.deepcopy(made)


def merge(
    objects: Objects, plural: str, namespace: str, name: str, patch: Obj, query: dict[str, str]
) -> Obj:
    """Do a merge patch (RFC 7386). Raises StatusError."""
    with objects.changed:
        live = get(objects, plural, namespace, name)
        made = _merged(live, patch)
        before, after = dict(api_apply.leaves(live)), dict(api_apply.leaves(made))
        changed = {path for path in after if before.get(path) != after[path]}
        api_apply.take(made, query.get("fieldManager", "unknown"), changed)
        _store(objects, plural, live, made, query)
        return copy.deepcopy(made)


def delete(
    objects: Objects, plural: str, namespace: str, name: str, options: Obj, query: dict[str, str]
) -> Obj:
    with objects.changed:
        live = get(objects, plural, namespace, name)
        uid = (options or {}).get("preconditions", {}).get("uid")
        if uid is not None and uid != live["metadata"]["uid"]:
            raise StatusError(409, "Conflict", "Precondition failed: UID in precondition")
        if query.get("dryRun"):
            return live
        if plural == "pods":
            if objects.lingers:  # until its kubelet says that it is gone
                live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                objects.put_pod(live)
            else:
                objects.delete_pod(namespace, name)
        else:
            del objects.others[plural, namespace, name]
        return live


def plain(obj: Obj) -> Obj:
    """Return an object as JSON has it."""
    return dict(json.loads(json.dumps(obj)))


def _all(objects: Objects, plural: str) -> dict[tuple[str, str], Obj]:
    if plural == "pods":
        return objects.pods
    return {key[1:]: one for key, one in objects.others.items() if key[0] == plural}


def _store(
    objects: Objects, plural: str, live: Obj | None, made: Obj, query: dict[str, str]
) -> None:
    metadata = made["metadata"]
    if live is None:
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z"}
    default(plural, made)
    _validate(plural, made)
    if plural == "pods" and live is not None and _fixed(live) != _fixed(made):
        raise StatusError(
            422,
            "Invalid",
            f'Pod "{metadata["name"]}" is invalid: spec: Forbidden: pod updates may not change'
            " fields other than `spec.containers[*].image`,`spec.tolerations`",
            causes=[{"reason": "FieldValueForbidden", "message": "Forbidden", "field": "spec"}],
        )
    if query.get("dryRun") or made == live:
        return
    if plural == "pods":
        objects.put_pod(made)
    else:
        objects.put_other(plural, made)


def _fixed(pod: Obj) -> Obj:
    """Return what of a pod may not change."""
    spec = copy.deepcopy(pod["spec"])
    for one in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        one.pop("image", None)
    spec.pop("tolerations", None)
    spec.pop("nodeName", None)  # the scheduler's
    return dict(spec)


def default(plural: str, obj: Obj) -> None:
    """Add what the API server adds."""
    spec = obj.get("spec", {})
    if plural == "pods":
        for key, value in (("restartPolicy", "Always"), ("dnsPolicy", "ClusterFirst")):
            spec.setdefault(key, value)
        spec.setdefault("serviceAccountName", "default")
        spec.setdefault(
            "tolerations", [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]
        )
        for one in (*spec.get("containers", ()), *spec.get("initContainers", ())):
            one.setdefault("imagePullPolicy", "IfNotPresent")
            one.setdefault("resources", {})
        for volume in spec.get("volumes", ()):
            if "configMap" in volume:
                volume["configMap"].setdefault("defaultMode", 420)
        obj.setdefault("status", {"phase": "Pending", "qosClass": "BestEffort"})
    if plural == "services":
        spec.setdefault("clusterIP", "10.96.0.10")
        spec.setdefault("sessionAffinity", "None")
        for number, port in enumerate(spec.get("ports", ())):
            port.setdefault("nodePort", 31000 + number)


def _validate(plural: str, obj: Obj) -> None:
    """Check an object as the API server does. Raises StatusError."""
    for key, value in obj["metadata"].get("labels", {}).items():
        if not _LABEL.fullmatch(value):
            raise StatusError(
                422, "Invalid", f"metadata.labels: Invalid value: {value!r}: of {key}"
            )
    if plural == "pods":
        check(POD, obj)
        return
    import kubernetes_validate

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kubernetes_validate.validate(obj, "1.31", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise StatusError(422, "Invalid", str(error)) from error


def _conflict(error: api_apply.ConflictsError) -> StatusError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}" using v1',
            "field": api_apply.shown(path),
        }
        for manager, path in error.found
    ]
    return StatusError(409, "Conflict", str(error), causes=causes)


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made
