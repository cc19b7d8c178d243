"""The specification's versions, which of them we speak, and what each allows.

On the path of every pod: names and comparisons only. What results look like in each version is in
``ratchet.cni.result``.
"""

from __future__ import annotations

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = SUPPORTED[-1]
# A configuration without cniVersion means 0.1.0, as libcni reads it.
UNSTATED = "0.1.0"
# The version from which an operation exists (CNI spec 0.4.0 and 1.1.0, change logs).
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def is_supported(version: str) -> bool:
    return (version or UNSTATED) in SUPPORTED


def same(one: str | None, other: str | None) -> bool:
    """Tell whether these are one version, where none and "" mean 0.1.0."""
    return (one or UNSTATED) == (other or UNSTATED)


def at_least(version: str, least: str) -> bool:
    """Tell whether a version is not older than ``least``; an unknown one counts as newest."""
    known = version or UNSTATED
    return known not in SUPPORTED or SUPPORTED.index(known) >= SUPPORTED.index(least)


def allows(version: str, operation: str) -> bool:
    """Tell whether a configuration of this version allows the operation."""
    return at_least(version, SINCE.get(operation, UNSTATED))
