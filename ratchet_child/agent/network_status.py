"""The annotation `k8s.v1.cni.cncf.io/network-status`, as dashboards read it. Pure.

The Network Plumbing Working Group's specification (Kubernetes Network Custom Resource Definition
De-facto Standard, section 4.2) has one list for all networks of a pod, and no owner for its
entries. Multus writes the list as a whole. Ours are the entries whose name begins with `ratchet/`;
all others stay as they are, in their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ratchet_child.agent.views import End

OURS = "ratchet/"


def merged(present: str | None, ends: Iterable[End]) -> str | None:
    """Return the annotation with these ends; None when it is right, or is none of the standard."""
    try:
        entries = json.loads(present) if present else []
    except (ValueError, RecursionError):
        return None
    if not isinstance(entries, list):
        return None
    wanted = [entry for entry in entries if not _is_ours(entry)]
    wanted += [_entry(end) for end in ends]
    return None if wanted == entries else json.dumps(wanted)


def _is_ours(entry: object) -> bool:
    name = entry.get("name") if isinstance(entry, dict) else None
    return isinstance(name, str) and name.startswith(OURS)


def _entry(end: End) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": OURS + end.link, "interface": end.ifname}
    if end.address is not None:
        entry["ips"] = [end.address.partition("/")[0]]
    entry["mac"] = end.mac
    if end.mtu_bytes is not None:
        entry["mtu"] = end.mtu_bytes
    return {**entry, "dns": {}}
