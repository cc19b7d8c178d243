"""Why an end is not up, in words, from what its node's child says of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet import status
from ratchetctl.topo.graph.seen import DOWN, ERROR, FAULT, UNKNOWN, UP, WAITING

_BY_POD = {
    "down": "the pod has set its interface down",
    "moved": "the pod has moved its interface to another namespace",
}


def of(link: Mapping[str, Any], carrier: bool | None = None) -> tuple[str, str | None]:
    """Return the state of an end and why it is so; None where there is nothing to say.

    An end that is up, but passes nothing on, is shown as down: its cable is pulled out, its pod has
    set it down, or the far node is silent. `carrier` is what the kernel says, None if nothing.
    """
    state, far = link["state"], link.get("peer") or "the far pod"
    if state == status.ERROR:
        return ERROR, link.get("error") or "the child could not make the interface"
    if state == status.WAITING:
        return WAITING, link.get("error") or f"{far} is not there yet, or is not ready"
    if state != status.UP:
        return UNKNOWN, "no child answers on the pod's node; this is what its labels declare"
    if link.get("by_pod") is not None:
        return DOWN, _BY_POD.get(link["by_pod"], f"the pod has done this: {link['by_pod']}")
    if link.get("silent_since") is not None:
        node = link.get("peer_node") or "the far node"
        return DOWN, f"{node} has not been heard of: the link may lead nowhere"
    if carrier is False or str(link.get("fault")).startswith(status.PULLED):
        return DOWN, link.get("fault") or f"no carrier: {far} has gone, or has set its end down"
    if link.get("fault"):
        return FAULT, link["fault"]
    return UP, None
