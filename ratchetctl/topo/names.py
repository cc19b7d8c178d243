"""Names that Kubernetes and the kernel take, made of those that a file has. Pure.

A name that is changed stays known: the topology shows the mapping and the pod carries it.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from ratchet.errors import LabelError
from ratchet.label_values import check_ifname
from ratchet.names import IFNAME_MAX_BYTES
from ratchetctl.manifest import DNS_LABEL
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.renaming import Renaming

CNI_IFNAME = "eth0"
LONGEST_POD_NAME = 63

# The long words that vendors begin interface names with, and what is left of them.
SHORT = (
    ("fourhundredgige", "fh"),
    ("hundredgigabitethernet", "hu"),
    ("hundredgige", "hu"),
    ("fortygige", "fo"),
    ("twentyfivegige", "tf"),
    ("tengigabitethernet", "te"),
    ("tengige", "te"),
    ("gigabitethernet", "gi"),
    ("fastethernet", "fa"),
    ("ethernet-", "e"),
    ("ethernet", "eth"),
)
_TEMPLATE = re.compile(r"\{\{|\}\}|\$\{|\$\(|%[ds]")
_NOT_KERNEL = re.compile(r"[^A-Za-z0-9_.]+")


def pod_name(title: str) -> str | None:
    """Return a pod's name for a node's, None where none can be made."""
    plain = unicodedata.normalize("NFKD", title.lower())
    letters = "".join(one for one in plain if not unicodedata.combining(one))
    name = re.sub(r"[^a-z0-9-]+", "-", letters).strip("-")[:LONGEST_POD_NAME].rstrip("-")
    return name if DNS_LABEL.match(name) else None


def is_template(name: str) -> bool:
    return bool(_TEMPLATE.search(name))


def interface(kind: str, title: str) -> str:
    """Return the kernel's name for an interface of a node of this kind.

    Raises ValueError, with the reason, where there is none.
    """
    return _interface(kind_of(kind).renames, title)


@functools.lru_cache(maxsize=4096)
def _interface(rules: tuple[Renaming, ...], title: str) -> str:
    if is_template(title):
        raise ValueError("is a template, which only the program that it was written for fills in")
    for rule in rules:
        made = rule.apply(title)
        if made is not None and _refused(made) is None:
            return made
    why = _refused(title)
    if why is None:
        return title
    if title in ("lo", CNI_IFNAME):
        raise ValueError(f"is not free: allowed is {why}")
    name = title
    for long, short in SHORT:
        if title.lower().startswith(long):
            name = short + title[len(long) :]
            break
    name = _NOT_KERNEL.sub("-", name).strip("-.")
    if len(name) > IFNAME_MAX_BYTES or _refused(name) is not None:
        raise ValueError(f"cannot be made an interface name of {IFNAME_MAX_BYTES} bytes")
    return name


def _refused(name: str) -> str | None:
    try:
        check_ifname("", name, cni_ifname=CNI_IFNAME)
    except LabelError as error:
        return str(error.msg).partition("allowed is ")[2]
    return None
