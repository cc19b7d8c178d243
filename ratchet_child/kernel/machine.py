"""Which machine this is: the same after a reboot, another one on a clone.

Clones share their disk: host name, machine-id, whatever was written to it, and often the address.
They do not share their hardware, so its identity counts where there is one, and nothing is ever
written down: docs/decisions/0013-machine-identity.md.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable

from ratchet_child.kernel import rtnetlink
from ratchet_child.kernel.devices import RTM_GETLINK
from ratchet_child.kernel.netns import Netlink

_DMI = "/sys/class/dmi/id"
_DMI_NAMES = ("product_uuid", "product_serial", "board_serial")
_DEVICE_TREE_SERIAL = "/sys/firmware/devicetree/base/serial-number"
# The host's, also for a child in a container that sees the host's processes.
_MACHINE_IDS = ("/proc/1/root/etc/machine-id", "/etc/machine-id")
_OWN_NAMESPACE, _HOSTS_NAMESPACE = "/proc/self/ns/net", "/proc/1/ns/net"
# What manufacturers write where they should have written something of their own.
_PLACEHOLDERS = ("", "none", "default string", "not specified", "to be filled by o.e.m.", "0")
_BOGUS_UUID = "03000200-0400-0500-0006-000700080009"
_IFLA_PERM_ADDRESS = 54
_HEADER_AND_IFINFO_BYTES = 32
_DIGITS = 16


@functools.lru_cache(maxsize=1)
def identity() -> str:
    """Return this machine's identity, the same for as long as the process lives."""
    facts = [*_facts(), *_laboratory()]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:_DIGITS]


def _facts() -> Iterable[str]:
    """Return the first of what can tell this machine from others."""
    for found in (_dmi(), [_read(_DEVICE_TREE_SERIAL)], _permanent_addresses()):
        if any(found):
            return found
    return [next((text for path in _MACHINE_IDS if (text := _read(path))), "")]


def _dmi() -> list[str]:
    found = [_read(f"{_DMI}/{name}") for name in _DMI_NAMES]
    is_own = [text not in _PLACEHOLDERS and not _is_bogus_uuid(text) for text in found]
    return found if any(is_own) else []


def _is_bogus_uuid(text: str) -> bool:
    return text == _BOGUS_UUID or set(text) <= set("0-") or set(text) <= set("f-")


def _permanent_addresses() -> list[str]:
    """Return the MAC addresses that the network cards were made with."""
    netlink = Netlink()
    try:
        answers = netlink.dump(RTM_GETLINK, rtnetlink.every_link())
    finally:
        netlink.close()
    found = {
        rtnetlink.attributes(answer, _HEADER_AND_IFINFO_BYTES).get(_IFLA_PERM_ADDRESS, b"").hex()
        for answer in answers
        if rtnetlink.read_link(answer).kind is None
    }
    return sorted(found - {"", "0" * 12})


def _laboratory() -> Iterable[str]:
    """Return what tells apart nodes that are namespaces of one machine."""
    own = os.stat(_OWN_NAMESPACE).st_ino
    try:
        is_hosts = own == os.stat(_HOSTS_NAMESPACE).st_ino
    except OSError:  # it is kept from us: then the one with the network cards is the host's
        is_hosts = bool(_permanent_addresses())
    return [] if is_hosts else [str(own)]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(256).strip("\0 \n").lower()
    except OSError:
        return ""
