"""How the value of one of our configuration keys is read: a function for each kind of value.

A reader takes the plugin configuration and the key, and returns the checked value, or raises
ConfigError, which names the key, its value and what is allowed. Which keys there are is none of its
business (``ratchet.config``). Like that module it is on the path of every pod, so there is no
regular expression or ``ipaddress`` in here, and ``_socket`` stands for ``socket``, whose enums take
5 ms.
"""

from __future__ import annotations

import _socket

from ratchet.errors import ConfigError, shown
from ratchet.names import EXISTING_IFNAME, is_identifier, is_ifname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Object = Mapping[str, Any]

DEFAULT_ETCD_PORT = 2379
LONGEST_WAIT_S = 100.0  # a runtime gives an ADD 60 to 120 seconds


def text(obj: Object, key: str) -> str | None:
    """Return a string; None when it is absent, null or empty."""
    value = obj.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isprintable():
        raise ConfigError(key, value, "a string without control characters")
    return value


def user(obj: Object, key: str) -> str | None:
    """Return a user's name; None when it is absent."""
    value = text(obj, key)
    if value is not None and ":" in value:  # RFC 7617 §2
        raise ConfigError(key, value, "a name without ':'")
    return value


def name(obj: Object, key: str) -> str:
    """Return the network's name, which must be there."""
    value = text(obj, key)
    if value is None or not is_identifier(value):  # it becomes a part of state_dir
        raise ConfigError(key, obj.get(key), "letters, digits, '-', '.' and '_'")
    return value


def flag(obj: Object, key: str, default: bool) -> bool:
    """Return true or false, which no string stands for."""
    value = obj.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(key, shown(value), "true or false, without quotes")
    return value


def choice(obj: Object, key: str, allowed: tuple[str, ...], default: str) -> str:
    """Return one of a few words."""
    value = obj.get(key)
    if value is None or value == "":
        return default
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(key, value, "one of " + ", ".join(allowed))
    return value


def number(obj: Object, key: str, least: int, most: int, default: int) -> int:
    """Return a whole number, written as a number or as a string."""
    value = optional_number(obj, key, least, most)
    return default if value is None else value


def optional_number(obj: Object, key: str, least: int, most: int) -> int | None:
    """Return a whole number as `number` does; None when it is absent."""
    value = obj.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(key, obj[key], f"a number from {least} to {most}")
    return value


def seconds(obj: Object, key: str, default: float) -> float:
    """Return seconds, written as a number or as a string, up to LONGEST_WAIT_S."""
    value = obj.get(key)
    if value is None or value == "":
        return default
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value <= LONGEST_WAIT_S  # also false for NaN
    ):
        raise ConfigError(key, obj[key], f"seconds, from 0 to {LONGEST_WAIT_S:g}")
    return float(value)


def path(obj: Object, key: str) -> str | None:
    """Return an absolute path; None when it is absent."""
    value = text(obj, key)
    if value is not None and not value.startswith("/"):
        # A plugin's working directory is whatever the runtime's happens to be.
        raise ConfigError(key, value, "an absolute path")
    return value


def path_or(obj: Object, key: str, default: str) -> str:
    """Return an absolute path."""
    return path(obj, key) or default


def path_with(obj: Object, key: str, other: str) -> str | None:
    """Return a path that is of use only together with another key."""
    value = path(obj, key)
    if (value is None) != (text(obj, other) is None):
        missing, there = (key, other) if value is None else (other, key)
        allowed = f"one, because {there} and {missing} go together"
        raise ConfigError(missing, obj.get(missing), allowed)
    return value


def state_dir(obj: Object, key: str) -> str:
    """Return the state directory, which has the network's name unless it is stated."""
    return path(obj, key) or "/run/ratchet/" + name(obj, "name")


def child_path(obj: Object, key: str) -> str | None:
    """Return an absolute path or a program's name; None when it is absent."""
    value = text(obj, key)
    if value is not None and "/" in value and not value.startswith("/"):
        raise ConfigError(key, value, "an absolute path, or a program's name")
    return value


def interface(obj: Object, key: str) -> str | None:
    """Return an interface's name; None when it is absent."""
    value = obj.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not is_ifname(value):
        raise ConfigError(key, value, EXISTING_IFNAME)
    return value


def address(obj: Object, key: str) -> str | None:
    """Return an address that a node can have; None when it is absent."""
    value = text(obj, key)
    if value is None:
        return None
    packed = _packed(value)
    is_multicast = packed is not None and packed[0] >= (0xFF if len(packed) == 16 else 224)
    if packed is None or not any(packed) or is_multicast:
        raise ConfigError(key, value, "an IPv4 or IPv6 address of this node, without prefix")
    return value


def networks(obj: Object, key: str) -> tuple[str, ...] | None:
    """Return networks or addresses; None when they are absent."""
    value = obj.get(key)
    if value is not None and not (isinstance(value, list) and all(map(_is_network, value))):
        raise ConfigError(key, value, 'a list of networks, such as ["10.0.0.0/8", "fd00::/8"]')
    return None if value is None else tuple(value)


def prefix(obj: Object, key: str) -> str:
    """Return the path below which etcd's keys are, without a slash at its end."""
    value = text(obj, key)
    if value is None:
        return "/ratchet"
    trimmed = value.rstrip("/")
    parts = trimmed.split("/")
    if parts[0] != "" or len(parts) < 2 or not all(_is_key_part(part) for part in parts[1:]):
        characters = "letters, digits, '-', '.' and '_' (not at the start of a part)"
        allowed = f"a path such as /ratchet, of {characters}"
        raise ConfigError(key, value, allowed)
    return trimmed


def etcd_hosts(obj: Object, key: str) -> str:
    """Return every member of etcd once, as host:port, with commas between them."""
    port = number(obj, "etcd_port", 1, 65535, DEFAULT_ETCD_PORT)
    value = text(obj, key)
    if value is None:
        return _joined("127.0.0.1", port)
    found: dict[str, None] = {}
    for entry in value.split(","):
        member = endpoint(entry.strip(), port)
        if member is None:
            allowed = "a host, or several host[:port] separated by commas, without http://"
            raise ConfigError(key, value, allowed)
        found[_joined(*member)] = None
    return ",".join(found)


def endpoint(text: str, default_port: int | None) -> tuple[str, int] | None:
    """Return host and port of host, host:port, [v6], [v6]:port or a bare IPv6 address."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            return None
        port_text = rest[1:] if rest else None
    elif text.count(":") > 1:
        host, port_text = text, None
    else:
        host, colon, rest = text.partition(":")
        port_text = rest if colon else None
    if ":" in host:
        if _packed(host) is None:
            return None
    elif not _is_word(host) or host.startswith(("-", ".")):
        return None
    if port_text is None:
        return None if default_port is None else (host, default_port)
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        return None
    port = int(port_text)
    return (host, port) if 0 < port <= 65535 else None


def metrics_address(obj: Object, key: str) -> str | None:
    """Return host:port, or :port for every address; None when it is absent."""
    value = text(obj, key)
    if value is None:
        return None
    # ":9100" is what other exporters take for "every address".
    if endpoint(value if not value.startswith(":") else "0.0.0.0" + value, None) is None:
        raise ConfigError(key, value, "host:port")
    return value


def delegate(obj: Object, key: str) -> dict[str, Any] | None:
    """Return a delegate's configuration: one plugin's, or a list of them under ``plugins``."""
    value = obj.get(key)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ConfigError(key, value, "a plugin's configuration (an object)")
    if "plugins" not in value:
        _require_type(key, value)
        return value
    plugins = value["plugins"]
    if not isinstance(plugins, list) or not plugins:
        raise ConfigError(key + ".plugins", plugins, "a list of plugins' configurations")
    _require_texts(key, value)
    for place, plugin in enumerate(plugins):
        _require_type(f"{key}.plugins[{place}]", plugin)
    return value


def _is_network(value: object) -> bool:
    host, slash, length = value.partition("/") if isinstance(value, str) else ("", "", "")
    packed = _packed(host)
    if packed is None or not slash:
        return packed is not None
    is_number = length.isascii() and length.isdigit() and len(length) <= 3
    return is_number and int(length) <= len(packed) * 8


def _is_key_part(text: str) -> bool:
    # etcd's v2 API hides keys that begin with an underscore from listings.
    return _is_word(text) and text not in (".", "..") and not text.startswith("_")


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _packed(text: str) -> bytes | None:
    """Return an address as bytes, None when it is none."""
    try:
        return _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def _is_word(text: str) -> bool:
    return text != "" and all((c.isascii() and c.isalnum()) or c in "-._" for c in text)


def _require_type(key: str, plugin: object) -> None:
    if not isinstance(plugin, dict):
        raise ConfigError(key, plugin, "a plugin's configuration (an object)")
    kind = plugin.get("type")
    if not isinstance(kind, str) or not kind or "/" in kind or "\0" in kind or kind in (".", ".."):
        raise ConfigError(key + ".type", kind, "a plugin's name, without '/'")
    _require_texts(key, plugin)


def _require_texts(key: str, plugin: Mapping[str, Any]) -> None:
    for text_key in ("name", "cniVersion"):
        if not isinstance(plugin.get(text_key), (str, type(None))):
            raise ConfigError(f"{key}.{text_key}", plugin[text_key], "a string")
