"""How requests are said to etcd's v2 API. Its answers are read in `answers`."""

from __future__ import annotations

from ratchet_child.store.api import (
    Create,
    ExpireValue,
    Get,
    Prune,
    Remove,
    RemoveTree,
    RemoveValue,
    Request,
    Set,
    Swap,
    Tree,
)
from ratchet_child.store.pipeline import Sent

# As what requests are counted and told.
NAMES: dict[type[Request], str] = {
    Get: "get",
    Tree: "tree",
    Set: "set",
    Create: "create",
    Swap: "swap",
    ExpireValue: "swap",
    Remove: "remove",
    RemoveValue: "remove",
    Prune: "prune",
    RemoveTree: "remove_tree",
}


def told(request: Request) -> str:
    """Return a request as an error names it."""
    return f"{NAMES[type(request)]} {request.key}"


def sent(request: Request, path: str) -> Sent:
    """Return a request as it is sent; `path` is its key as it stands in a URL."""
    method, fields = _said(request)
    return Sent(method, f"/v2/keys{path}", fields)


def _said(request: Request) -> tuple[str, dict[str, str]]:
    match request:
        case Get():
            return "GET", {"quorum": "true"}
        case Tree():
            return "GET", {"quorum": "true", "recursive": "true" if request.recursive else "false"}
        case Set():
            return "PUT", {"value": request.value, **_expiring(request.ttl_s)}
        case Create():
            return "PUT", {"value": request.value, "prevExist": "false"}
        case Swap():
            condition = {"prevIndex": str(request.modified)}
            return "PUT", {"value": request.value, **_expiring(request.ttl_s), **condition}
        case ExpireValue():
            expiring = _expiring(request.ttl_s)
            return "PUT", {"value": request.value, **expiring, "prevValue": request.value}
        case Remove():
            return "DELETE", {"prevIndex": str(request.modified)}
        case RemoveValue():
            return "DELETE", {"prevValue": request.value}
        case Prune():
            return "DELETE", {"dir": "true"}
        case RemoveTree():
            return "DELETE", {"recursive": "true"}


def _expiring(ttl_s: int | None) -> dict[str, str]:
    return {} if ttl_s is None else {"ttl": str(ttl_s)}
