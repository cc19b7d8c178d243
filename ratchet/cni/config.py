"""The request configuration: what every plugin's configuration has, whatever the plugin.

Here are the keys of the specification and what a plugin hands on to a delegate. It knows none of
Ratchet's own keys (``ratchet.config``), and it is on the path of every pod.
"""

from __future__ import annotations

from ratchet import names
from ratchet.cni import codec, version
from ratchet.cni.errors import (
    INCOMPATIBLE_VERSION,
    INVALID_CONFIG,
    UNDECODABLE,
    CniError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# What the runtime adds to a plugin's configuration at each call (CNI spec 1.1.0 §3).
OF_THE_CALL = ("runtimeConfig", "args", "prevResult")
VALID_ATTACHMENTS = "cni.dev/valid-attachments"
# libcni sent this name before the specification settled, and still sends both.
ATTACHMENTS = "cni.dev/attachments"
_DISABLE = {"CHECK": "disableCheck", "GC": "disableGC"}


def decode(data: bytes) -> dict[str, Any]:
    """Read the request configuration from standard input. Raises CniError 6."""
    try:
        config = codec.decode(data)
    except ValueError as exc:  # UnicodeDecodeError, too
        raise CniError(
            UNDECODABLE, "the network configuration on standard input is not JSON", str(exc)
        ) from exc
    if not isinstance(config, dict):
        raise CniError(
            UNDECODABLE, "the network configuration on standard input is not a JSON object"
        )
    if config.get("cniVersion", "") is None:  # none, to libcni
        del config["cniVersion"]
    return config


def check(config: Mapping[str, Any]) -> None:
    """Check cniVersion and name. Raises CniError 1, 6 or 7."""
    stated = config.get("cniVersion", "")
    if not isinstance(stated, str):
        raise CniError(UNDECODABLE, "cniVersion is not a string", repr(stated))
    if not version.is_supported(stated):
        raise CniError(
            INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f"cniVersion is {stated!a}, supported are {', '.join(version.SUPPORTED)}",
        )
    name = config.get("name")
    if not isinstance(name, str) or name == "":
        raise CniError(INVALID_CONFIG, "the network configuration has no name")
    if not names.is_identifier(name):
        raise CniError(
            INVALID_CONFIG,
            f"the network's name is {name!a}",
            "it must begin with a letter or digit and hold only these, '_', '.' and '-'",
        )


def plugins_of(delegate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a delegate's plugins in ADD's order. A list's name and cniVersion apply to each."""
    if "plugins" not in delegate:
        return [dict(delegate)]
    common = {key: delegate[key] for key in ("name", "cniVersion") if delegate.get(key)}
    # CNI spec 1.1.0 §4, "Deriving request configuration": the list's values replace the plugin's.
    return [{**plugin, **common} for plugin in delegate["plugins"]]


def forbids(delegate: Mapping[str, Any], command: str) -> bool:
    """Tell whether a list says that it is not to be asked this (CNI spec 1.1.0 §1).

    It may be said with a string, as libcni reads it.
    """
    said = delegate.get(_DISABLE.get(command, "")) if "plugins" in delegate else None
    return said is True or (isinstance(said, str) and said.strip().lower() in ("true", "t", "1"))


def for_delegate(plugin: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return a delegate's request configuration: its own object, and of ours what it lacks.

    CNI spec 1.1.0 §4 has a delegate called with the configuration that the plugin hands on. A name
    or cniVersion of its own stays; what the runtime added to our object for this call is passed on.
    """
    config = dict(plugin)
    for key in ("name", "cniVersion"):
        if not config.get(key) and ours.get(key):
            config[key] = ours[key]
    for key in OF_THE_CALL:
        if ours.get(key) is not None:
            config[key] = _merged(config.get(key), ours[key]) if key != "prevResult" else ours[key]
    return config


def with_result(config: Mapping[str, Any], result: Any) -> dict[str, Any]:
    """Return a request configuration with this prevResult; without one when there is none."""
    changed = {key: value for key, value in config.items() if key != "prevResult"}
    if result is not None:
        changed["prevResult"] = result
    return changed


def valid_attachments(config: Mapping[str, Any]) -> set[tuple[str, str]] | None:
    """Return what GC must keep, as (container ID, ifname); None when nothing says so.

    CNI spec 1.1.0 §2, GC. libcni writes an empty list as null. Raises CniError 7.
    """
    found = [config[key] for key in (VALID_ATTACHMENTS, ATTACHMENTS) if key in config]
    if not found:
        return None
    valid = set()
    for entries in found:
        if entries is None:
            continue
        if not isinstance(entries, list):
            raise CniError(INVALID_CONFIG, f"{VALID_ATTACHMENTS} is not a list")
        for entry in entries:
            found_id = entry.get("containerID") if isinstance(entry, dict) else None
            ifname = entry.get("ifname") if isinstance(entry, dict) else None
            if not isinstance(found_id, str) or not isinstance(ifname, str):
                raise CniError(
                    INVALID_CONFIG,
                    f"{VALID_ATTACHMENTS} has an entry without containerID and ifname",
                    ascii(entry),
                )
            valid.add((found_id, ifname))
    return valid


def _merged(own: Any, added: Any) -> Any:
    """Return two objects as one; where both say something, what was added for this call wins."""
    if not isinstance(own, dict) or not isinstance(added, dict):
        return added
    merged = {**own, **added}
    for key in own.keys() & added.keys():
        merged[key] = _merged(own[key], added[key])
    return merged
