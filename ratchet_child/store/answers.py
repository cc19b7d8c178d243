"""What etcd's answers say, once python-etcd has taken them apart: entries, indices, errors.

An answer may come from something that is no etcd, or from one without the v2 API, so nothing in it
is believed unchecked: what does not have the form of etcd's own answers becomes a StoreError. The
only request that is made here asks an etcd without the v2 API for its version. python-etcd is not
imported: ``etcd_v2`` alone does that.
"""

from __future__ import annotations

import json
from typing import Any

from ratchet.errors import StoreError
from ratchet_child.store.api import Entry
from ratchet_child.store.pipeline import Answered
from ratchet_child.store.transport import Transport

# What python-etcd, or a reader of what it returns, makes of an answer that is not etcd's.
NONSENSE = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)

_KEY_NOT_FOUND = 100
_WITHOUT_V2 = (3, 6)


def result(client: Any, answered: Answered) -> Any:
    """Return what an answer says, as python-etcd's client reads it. Raises as that does."""
    told = client._handle_server_response(answered)  # noqa: SLF001 - raises etcd's errors
    return client._result_from_response(told)  # noqa: SLF001 - there is no other


def entries(result: Any, below: str) -> dict[str, Entry]:
    """Return what a listing holds, one leaf at a time: python-etcd's take ten times as much."""
    found = {}
    try:
        for leaf in result.leaves:
            if not leaf.dir and str(leaf.key).startswith(below):
                found[leaf.key[len(below) :]] = entry(leaf)
    except NONSENSE as error:
        raise StoreError("read a directory", "it holds no keys; is this an etcd?") from error
    return found


def entry(result: Any) -> Entry:
    """Return a key's value and indices. *Raises* StoreError when they are none of etcd's."""
    value = result.value or ""
    if not isinstance(value, str) or not isinstance(result.key, str):
        raise StoreError("read a key", "its value is not text; is this an etcd?")
    return Entry(
        value=value,
        modified=number(result.modifiedIndex),
        created=number(result.createdIndex),
    )


def number(value: object) -> int:
    """Return one of etcd's indices."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise StoreError("read an index", "it is not a number; is this an etcd?")
    return value


def not_found(error: Exception, what: str) -> dict[str, Any]:
    """Return etcd's words for "no such key". *Raises* StoreError for somebody else's 404."""
    payload = getattr(error, "payload", None)
    if not isinstance(payload, dict) or payload.get("errorCode") != _KEY_NOT_FOUND:
        raise StoreError(what, f"is this an etcd with the v2 API? {error}") from error
    return payload


def why_no_v2(http: Transport, timeout_s: float) -> str:
    """Why there is nothing at the paths of the v2 API: an etcd says which version it is."""
    try:
        version = json.loads(http.get("/version", timeout_s))["etcdserver"]
        major, minor = (int(part) for part in version.split(".")[:2])
    except (OSError, *NONSENSE):
        return "not an etcd with the v2 API? It has nothing at /v2/keys"
    if (major, minor) >= _WITHOUT_V2:
        return (
            f"it is etcd {version}, which has no v2 API: use etcd 3.4 or 3.5 with --enable-v2=true"
        )
    return f"it is etcd {version}, whose v2 API is off: start it with --enable-v2=true"


def innermost(error: BaseException) -> OSError | None:
    """Return the system's error that lies beneath python-etcd's."""
    found: OSError | None = None
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        if isinstance(cause, OSError):
            found = cause
        waiting += [getattr(cause, "cause", None), getattr(cause, "reason", None), *cause.args]
        waiting += [cause.__cause__, cause.__context__]
    return found
