"""host-local's books: which addresses it has given out, kept under the network's name.

A network that Ratchet takes over as its delegate, without the name that it had, begins new books:
host-local then gives out addresses a second time, and never releases the old ones. This module only
looks, so that it can be told.
"""

from __future__ import annotations

import os

from ratchet import log
from ratchet.cni.ip import Address, Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

DATA_DIR = "/var/lib/cni/networks"
FLANNEL_FILE = "/run/flannel/subnet.env"


def warn_of_others(plugin: dict[str, Any], network: str) -> None:
    """Log a warning if a plugin under our name shares a subnet with books under another name."""
    if plugin.get("name") != network:
        return
    ipam = plugin.get("ipam")
    data_dir = (ipam.get("dataDir") if isinstance(ipam, dict) else None) or DATA_DIR
    subnets = list(_subnets(plugin))
    if not subnets or not isinstance(data_dir, str):
        return
    for other in _listed(data_dir):
        taken = None if other == network else _taken(_listed(f"{data_dir}/{other}"), subnets)
        if taken is not None:
            log.warning(
                f"delegate {plugin['type']} has no name of its own, and host-local has given out"
                f" addresses of its subnet under the name {other}: two pods may get one address."
                f' Write "name": "{other}" into the delegate, if that is the name that the network'
                " had",
                address=taken,
                folder=f"{data_dir}/{other}",
            )
            return


def _subnets(plugin: dict[str, Any]) -> Iterator[Address]:
    ipam = plugin.get("ipam")
    texts: list[object] = []
    if isinstance(ipam, dict) and ipam.get("type") == "host-local":
        ranges = ipam.get("ranges")
        sets = [one for one in ranges if isinstance(one, list)] if isinstance(ranges, list) else []
        inside = [ipam, *(one for each in sets for one in each if isinstance(one, dict))]
        texts = [one.get("subnet") for one in inside]
    elif plugin.get("type") == "flannel":
        texts = [_flannels(plugin.get("subnetFile") or FLANNEL_FILE)]
    for text in texts:
        try:
            yield Address.parse(text if isinstance(text, str) else "")
        except ValueError:
            continue


def _flannels(path: object) -> str | None:
    """Return the subnet that flanneld has been given for this node."""
    try:
        with open(str(path), encoding="utf-8") as file:
            for line in file:
                key, _, value = line.strip().partition("=")
                if key == "FLANNEL_SUBNET":
                    return value
    except (OSError, ValueError):
        pass
    return None


def _taken(names: Iterable[str], subnets: list[Address]) -> str | None:
    """Return an address among file names that is in one of the subnets."""
    for name in names:
        try:
            found = Host.parse(name)
        except ValueError:
            continue
        if any(_is_in(found, subnet) for subnet in subnets):
            return name
    return None


def _is_in(host: Host, subnet: Address) -> bool:
    same_version = host.version == subnet.version
    return same_version and Address(host, subnet.prefix_len).network == subnet.network


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
