"""What interfaces, pods, namespaces and containers can be called.

Configuration, environment, labels and whoever reads etcd ask here, so that a name which one of them
takes is a name to all of them. Pure, and below everything else: the CNI skeleton asks as well. On
the path of every pod: sets of characters stand for regular expressions.

An interface that exists is called what the kernel takes (`is_ifname`). One that we make is called
so as well, and is held to more (`is_new_ifname`): the second rule is the first one and some.
"""

from __future__ import annotations

IFNAME_MAX_BYTES = 15  # IFNAMSIZ - 1, linux/if.h
NAME_MAX = 253  # RFC 1123 subdomain, the longest name that Kubernetes gives a pod
NAMESPACE_MAX = 63  # RFC 1123 label
# 255 bytes (NAME_MAX) less an interface's name, a time and a suffix; runtimes' have 64 characters.
CONTAINER_ID_MAX = 200

# What ends or splits a name in dev_valid_name: '/', ':' and what the kernel's isspace() knows. That
# is ISO 8859-1, in which 0xa0 is a space, so that the UTF-8 of "à" is no name. "\0" ends a string.
_NOT_IN_IFNAMES = frozenset(b"/:\t\n\v\f\r \xa0\0")
# A device has a directory below /proc/sys/net/ipv4/conf, where these two are something else.
_SYSCTL_NAMES = ("all", "default")

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_ALPHANUMERIC = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_IDENTIFIER = _ALPHANUMERIC | frozenset("-_.")

EXISTING_IFNAME = (
    f"an interface name: 1 to {IFNAME_MAX_BYTES} bytes, without '/', ':' and white space, "
    "other than '.' and '..'"
)
NEW_IFNAME = (
    f"an interface name of 1 to {IFNAME_MAX_BYTES} bytes, without '/', ':', '%', white space "
    "and control characters, other than '.', '..', 'all' and 'default'"
)


def is_ifname(text: str) -> bool:
    """Tell whether the kernel takes this name (dev_valid_name in net/core/dev.c).

    A name that is not UTF-8 counts as none: neither a result nor a record could tell it.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON and an environment can hold
        return False
    return (
        0 < len(raw) <= IFNAME_MAX_BYTES
        and text not in (".", "..")
        and _NOT_IN_IFNAMES.isdisjoint(raw)
    )


def is_new_ifname(text: str) -> bool:
    """Tell whether an interface can be made by this name, and a terminal can show it."""
    return (
        is_ifname(text)
        # The kernel takes a name with "%d" for a template and gives the device another name.
        and "%" not in text
        and text not in _SYSCTL_NAMES
        and text.isprintable()
    )


def is_identifier(text: str) -> bool:
    """Tell whether this is a network's name or a container ID (CNI spec 1.1.0 §1 and §2)."""
    return text != "" and text[0] in _ALPHANUMERIC and _IDENTIFIER.issuperset(text)


def is_container_id(text: str) -> bool:
    """Tell whether this is a container ID by CNI's grammar that a record's name can hold."""
    return len(text) <= CONTAINER_ID_MAX and is_identifier(text)


def is_container_name(text: str) -> bool:
    """Tell whether engines allow this name: an identifier of at most 253 characters."""
    return len(text) <= NAME_MAX and is_identifier(text)


def is_pod_name(text: str) -> bool:
    """Tell whether other pods can refer to a pod by this name: it ends as a label's value must."""
    return is_container_name(text) and text[-1] in _ALPHANUMERIC


def is_kubernetes_name(text: str) -> bool:
    """Tell whether this can be a pod's name (RFC 1123 subdomain, bounded only as a whole)."""
    return len(text) <= NAME_MAX and all(map(_is_label, text.split(".")))


def is_namespace(text: str) -> bool:
    """Tell whether this can be a Kubernetes namespace (RFC 1123 label)."""
    return len(text) <= NAMESPACE_MAX and _is_label(text)


def _is_label(text: str) -> bool:
    return (
        text != ""
        and text[0] != "-"
        and text[-1] != "-"
        and _LOWER.issuperset(text.replace("-", ""))
    )
