"""Which network namespace stands at a path: a path is not an identity.

Runtimes name a namespace by a path. Where that is `/proc/<pid>/ns/net`, the process may have ended
and its number may be another's by the time at which a DEL comes: another pod's, or the node's own.
So an attachment keeps what the kernel calls its namespace, a device and an inode (stat(2), of the
file system nsfs), and whatever else is at that path later counts as no namespace at all.

Nothing is opened or entered here. Numbers are given out again once a namespace is gone, so who
wants to be sure holds it open, as the child does for as long as a pod is attached.
"""

from __future__ import annotations

import os

from ratchet.cni.errors import INVALID_ENVIRONMENT, UNKNOWN_CONTAINER, CniError

Identity = tuple[int, int]

OWN = "/proc/self/ns/net"


def identity_at(path: str) -> Identity | None:
    """Return what stands at a path, a namespace or not; None where there is nothing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def own_identity() -> Identity:
    """Return the namespace of this process, which is the node's. Raises OSError."""
    status = os.stat(OWN)
    return status.st_dev, status.st_ino


def is_another(found: Identity, known: Identity | None, own: Identity) -> bool:
    """Tell whether what stands at an attachment's path is a namespace, and not the pod's.

    `known` is the pod's; None in a record of a version that did not keep it. A plain file, to which
    a path such as /run/netns/x leads where its mount is not seen, is no namespace.
    """
    if found == own:
        return True
    return known is not None and found != known and found[0] == own[0]


def require(path: str) -> Identity:
    """Return the namespace that a pod is to be attached in, or is attached in. Raises CniError.

    One that is not there, or that is the node's own, is refused, as by libcni's skeleton.
    """
    try:
        found = os.stat(path)
        own = os.stat(OWN)
    except (OSError, ValueError) as exc:
        raise CniError(
            UNKNOWN_CONTAINER, f"CNI_NETNS is {path!a}, which cannot be used", str(exc)
        ) from exc
    if found.st_dev != own.st_dev:  # namespaces are on a device of their own: ioctl_ns(2)
        raise CniError(UNKNOWN_CONTAINER, f"CNI_NETNS is {path!a}, which is not a namespace")
    if found.st_ino == own.st_ino:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_NETNS is {path!a}, the node's own namespace",
            "a pod's interfaces are never made there; pods with hostNetwork have no CNI plugin",
        )
    return found.st_dev, found.st_ino


def of_pod(path: str, known: Identity | None) -> str:
    """Return the path as a plugin's DEL may have it; "" where it leads to another namespace.

    CNI spec 1.1.0 §2, DEL: a plugin then releases what it can without the namespace.
    """
    found = identity_at(path) if path else None
    if found is None:
        return path
    return "" if is_another(found, known, own_identity()) else path
