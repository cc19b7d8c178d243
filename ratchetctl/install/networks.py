"""Network configurations as a runtime finds them in its folder, and what is in them.

Pure: the folder's files come as bytes. A runtime takes the first file by name that ends in `.conf`,
`.conflist` or `.json` and is valid (libcni, go-cni and ocicni alike; go-cni stops at a broken one,
which is the reason why broken ones are named here and never lost).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet import names
from ratchet.cni import version

SUFFIXES = (".conf", ".conflist", ".json")
LIST_SUFFIX = ".conflist"
# The key of our own object by which a file is known as one that the installer has written.
MARK = "ratchet/installed"
TYPE = "ratchet"
MULTUS = ("multus", "multus-shim")


class NotANetworkError(ValueError):
    """A file is no network configuration that a runtime would take; the text says why."""


@dataclass(frozen=True, slots=True)
class Network:
    """A valid network configuration: a list of plugins, or one plugin."""

    file: str
    found: Mapping[str, Any]
    is_list: bool

    @property
    def name(self) -> str:
        """The network's name, under which host-local keeps its books."""
        return str(self.found["name"])

    @property
    def plugins(self) -> list[dict[str, Any]]:
        """The plugins in ADD's order."""
        return list(self.found["plugins"]) if self.is_list else [dict(self.found)]

    @property
    def cni_version(self) -> str | None:
        """The version that the configuration states; None where it states none (0.1.0)."""
        stated = self.found.get("cniVersion")
        if stated:
            return str(stated)
        offered = self.found.get("cniVersions")
        known = [one for one in offered or () if one in version.SUPPORTED]
        return max(known, key=version.SUPPORTED.index) if known else None

    @property
    def is_ours(self) -> bool:
        """Whether the installer has written it."""
        return any(MARK in plugin for plugin in self.plugins)

    @property
    def is_multus(self) -> bool:
        """Whether it is Multus's, which reads other files of the folder."""
        return any(plugin["type"] in MULTUS for plugin in self.plugins)

    @property
    def own_ratchet(self) -> dict[str, Any] | None:
        """Ratchet's plugin configuration anywhere inside, with a name; None where there is none."""
        for plugin, name in _plugins_within(self.found, self.name):
            if plugin.get("type") == TYPE:
                return {"name": name, **plugin}
        return None


def _plugins_within(found: Mapping[str, Any], name: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield every object that may be a plugin's: lists hold `plugins`, Multus's `delegates`."""
    own = found.get("name")
    name = own if isinstance(own, str) and own else name
    yield found, name
    for key in ("plugins", "delegates"):
        inner = found.get(key)
        for one in inner if isinstance(inner, list) else ():
            if isinstance(one, Mapping):
                yield from _plugins_within(one, name)


def is_candidate(file: str) -> bool:
    """Tell whether a runtime looks at a file of this name."""
    return file.endswith(SUFFIXES)


def parse(file: str, data: bytes) -> Network:
    """Read a network configuration. Raises NotANetworkError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, too
        raise NotANetworkError(f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise NotANetworkError("is not a JSON object")
    is_list = file.endswith(LIST_SUFFIX)
    if is_list:
        plugins = found.get("plugins")
        if not isinstance(plugins, list) or not plugins:
            raise NotANetworkError("has no plugins")
    else:
        plugins = [found]
    for plugin in plugins:
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind:
            raise NotANetworkError("has a plugin without a type")
    name = found.get("name")
    if not isinstance(name, str) or not names.is_identifier(name):
        raise NotANetworkError("has no name that a network may have")
    return Network(file, found, is_list)
