"""Ratchet's own keys of the network configuration, checked and named.

``Config.parse`` reads the plugin configuration once; nobody else knows how a key is spelt. A key is
one row of ``Config``, from which all that is to be known of it follows. It is on the path of every
pod, so there is no dataclass, regular expression or ``ipaddress`` in here (they cost more than the
rest of the path), and ``_socket`` stands for ``socket``, whose enums take 5 ms.

Keys that we do not know are ignored, as CNI asks, but one that is plainly a misspelt key of ours is
an error that names the right one.
"""

from __future__ import annotations

import _socket

from ratchet.errors import ConfigError, shown
from ratchet.names import EXISTING_IFNAME, is_identifier, is_ifname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Concatenate, ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")
    _Object = Mapping[str, Any]

LABEL_SOURCES = ("auto", "runtime", "kubernetes", "docker")
WAITS = ("present", "all", "none")
GUARDS = ("auto", "off")
ATTACHERS = ("plugin", "agent")
LOG_LEVELS = ("debug", "info", "warning", "error")
DEFAULT_ETCD_PORT = 2379
DEFAULT_VXLAN_PORT = 4789  # RFC 7348 §8
DEFAULT_MAX_LINKS = 256
LONGEST_WAIT_S = 100.0  # a runtime gives an ADD 60 to 120 seconds

# Keys that others put into our object; none of them is a misspelt key of ours.
OTHERS = (
    "cniVersion", "type", "args", "capabilities", "cniDir", "dns", "ipMasq", "ipam", "masterplugin",
    "prevResult", "runtimeConfig",
)  # fmt: skip


def _text(obj: _Object, key: str) -> str | None:
    """Return a string; None when it is absent, null or empty."""
    value = obj.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isprintable():
        raise ConfigError(key, value, "a string without control characters")
    return value


def _user(obj: _Object, key: str) -> str | None:
    value = _text(obj, key)
    if value is not None and ":" in value:  # RFC 7617 §2
        raise ConfigError(key, value, "a name without ':'")
    return value


def _name(obj: _Object, key: str) -> str:
    name = _text(obj, key)
    if name is None or not is_identifier(name):  # it becomes a part of state_dir
        raise ConfigError(key, obj.get(key), "letters, digits, '-', '.' and '_'")
    return name


def _flag(obj: _Object, key: str, default: bool) -> bool:
    value = obj.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(key, shown(value), "true or false, without quotes")
    return value


def _choice(obj: _Object, key: str, allowed: tuple[str, ...], default: str) -> str:
    value = obj.get(key)
    if value is None or value == "":
        return default
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(key, value, "one of " + ", ".join(allowed))
    return value


def _number(obj: _Object, key: str, least: int, most: int, default: int) -> int:
    """Return a whole number, written as a number or as a string."""
    value = _optional_number(obj, key, least, most)
    return default if value is None else value


def _optional_number(obj: _Object, key: str, least: int, most: int) -> int | None:
    """Return a whole number as `_number` does; None when it is absent."""
    value = obj.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(key, obj[key], f"a number from {least} to {most}")
    return value


def _seconds(obj: _Object, key: str, default: float) -> float:
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


def _path(obj: _Object, key: str) -> str | None:
    value = _text(obj, key)
    if value is not None and not value.startswith("/"):
        # A plugin's working directory is whatever the runtime's happens to be.
        raise ConfigError(key, value, "an absolute path")
    return value


def _path_or(obj: _Object, key: str, default: str) -> str:
    return _path(obj, key) or default


def _path_with(obj: _Object, key: str, other: str) -> str | None:
    """Return a path that is of use only together with another key."""
    value = _path(obj, key)
    if (value is None) != (_text(obj, other) is None):
        missing, there = (key, other) if value is None else (other, key)
        allowed = f"one, because {there} and {missing} go together"
        raise ConfigError(missing, obj.get(missing), allowed)
    return value


def _state_dir(obj: _Object, key: str) -> str:
    return _path(obj, key) or "/run/ratchet/" + _name(obj, "name")


def _child_path(obj: _Object, key: str) -> str | None:
    value = _text(obj, key)
    if value is not None and "/" in value and not value.startswith("/"):
        raise ConfigError(key, value, "an absolute path, or a program's name")
    return value


def _interface(obj: _Object, key: str) -> str | None:
    value = obj.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not is_ifname(value):
        raise ConfigError(key, value, EXISTING_IFNAME)
    return value


def _address(obj: _Object, key: str) -> str | None:
    value = _text(obj, key)
    if value is None:
        return None
    packed = _packed(value)
    is_multicast = packed is not None and packed[0] >= (0xFF if len(packed) == 16 else 224)
    if packed is None or not any(packed) or is_multicast:
        raise ConfigError(key, value, "an IPv4 or IPv6 address of this node, without prefix")
    return value


def _networks(obj: _Object, key: str) -> tuple[str, ...] | None:
    value = obj.get(key)
    if value is not None and not (isinstance(value, list) and all(map(_is_network, value))):
        raise ConfigError(key, value, 'a list of networks, such as ["10.0.0.0/8", "fd00::/8"]')
    return None if value is None else tuple(value)


def _is_network(value: object) -> bool:
    host, slash, length = value.partition("/") if isinstance(value, str) else ("", "", "")
    packed = _packed(host)
    if packed is None or not slash:
        return packed is not None
    is_number = length.isascii() and length.isdigit() and len(length) <= 3
    return is_number and int(length) <= len(packed) * 8


def _prefix(obj: _Object, key: str) -> str:
    value = _text(obj, key)
    if value is None:
        return "/ratchet"
    trimmed = value.rstrip("/")
    parts = trimmed.split("/")
    if parts[0] != "" or len(parts) < 2 or not all(_is_key_part(part) for part in parts[1:]):
        characters = "letters, digits, '-', '.' and '_' (not at the start of a part)"
        allowed = f"a path such as /ratchet, of {characters}"
        raise ConfigError(key, value, allowed)
    return trimmed


def _is_key_part(text: str) -> bool:
    # etcd's v2 API hides keys that begin with an underscore from listings.
    return _is_word(text) and text not in (".", "..") and not text.startswith("_")


def _etcd_hosts(obj: _Object, key: str) -> str:
    port = _number(obj, "etcd_port", 1, 65535, DEFAULT_ETCD_PORT)
    value = _text(obj, key)
    if value is None:
        return _joined("127.0.0.1", port)
    found: dict[str, None] = {}
    for entry in value.split(","):
        endpoint = _endpoint(entry.strip(), port)
        if endpoint is None:
            allowed = "a host, or several host[:port] separated by commas, without http://"
            raise ConfigError(key, value, allowed)
        found[_joined(*endpoint)] = None
    return ",".join(found)


def _endpoint(text: str, default_port: int | None) -> tuple[str, int] | None:
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


def _metrics_address(obj: _Object, key: str) -> str | None:
    value = _text(obj, key)
    if value is None:
        return None
    # ":9100" is what other exporters take for "every address".
    if _endpoint(value if not value.startswith(":") else "0.0.0.0" + value, None) is None:
        raise ConfigError(key, value, "host:port")
    return value


def _delegate(obj: _Object, key: str) -> dict[str, Any] | None:
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
    for number, plugin in enumerate(plugins):
        _require_type(f"{key}.plugins[{number}]", plugin)
    return value


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


# The keys ---------------------------------------------------------------------------------------


class _Key:
    """A row of `Config`: a key, how its value is read, and whether the child has it from us."""

    __slots__ = ("args", "parse", "passed_on")

    def __init__(self, parse: Any, args: tuple[object, ...], passed_on: bool) -> None:
        self.parse = parse
        self.args = args
        self.passed_on = passed_on


if TYPE_CHECKING:
    # To type checkers a key is what its parser returns.
    _Parser = Callable[Concatenate[_Object, str, P], T]

    def _passed_on(parse: _Parser[P, T], *args: P.args, **none: P.kwargs) -> T: ...
    def _parents(parse: _Parser[P, T], *args: P.args, **none: P.kwargs) -> T: ...
else:

    def _passed_on(parse, *args):
        """Have a key that parent and child use."""
        return _Key(parse, args, passed_on=True)

    def _parents(parse, *args):
        """Have a key that only the parent uses."""
        return _Key(parse, args, passed_on=False)


class Config:
    """The plugin configuration's keys of ours, each checked, and None where it has no default.

    A key is one row: its name, its parser, what the parser needs to know and, last, its default.
    """

    name = _passed_on(_name)
    delegate = _parents(_delegate)
    boot_network = _parents(_delegate)
    etcd_host = _passed_on(_etcd_hosts)  # every member as host:port, with commas between them
    etcd_port = _parents(_number, 1, 65535, DEFAULT_ETCD_PORT)
    etcd_prefix = _passed_on(_prefix)
    etcd_ca_cert = _passed_on(_path)
    etcd_cert = _passed_on(_path)
    etcd_key = _passed_on(_path_with, "etcd_cert")
    etcd_username = _passed_on(_user)
    etcd_password_file = _passed_on(_path_with, "etcd_username")
    child_path = _passed_on(_child_path)  # None: beside the running program, else in CNI_PATH
    parent_interface = _passed_on(_interface)
    parent_address = _passed_on(_address)
    use_labels = _passed_on(_flag, True)
    label_source = _passed_on(_choice, LABEL_SOURCES, "auto")
    kubeconfig = _passed_on(_path)
    docker_socket = _passed_on(_path_or, "/var/run/docker.sock")
    state_dir = _passed_on(_state_dir)
    log_file = _passed_on(_path)
    log_level = _passed_on(_choice, LOG_LEVELS, "info")
    public_ip_networks = _parents(_networks)  # None: of every network
    attach = _passed_on(_choice, ATTACHERS, "plugin")
    wait = _passed_on(_choice, WAITS, "present")
    wait_seconds = _passed_on(_seconds, 5.0)
    vxlan_port = _passed_on(_number, 1, 65535, DEFAULT_VXLAN_PORT)
    guard = _passed_on(_choice, GUARDS, "auto")
    mtu = _passed_on(_optional_number, 68, 65535)
    max_links = _passed_on(_number, 1, 65535, DEFAULT_MAX_LINKS)  # of one pod
    metrics_address = _passed_on(_metrics_address)

    cni_version: str
    """CNI's key and not ours: "" when the configuration has none, which means 0.1.0."""
    replaceable: str | None = None
    """No key either: the part of state_dir's path that others than root could replace."""

    @classmethod
    def parse(cls, obj: _Object) -> Config:
        """Read our keys. Raises ConfigError, which names the key, its value and what is allowed."""
        unknown = [key for key in obj if key not in _KNOWN and "/" not in key and "." not in key]
        if unknown:
            from ratchet import misspelling  # noqa: PLC0415 - only for keys that nobody knows

            misspelling.refuse(unknown, OURS)
        self = cls.__new__(cls)
        values = self.__dict__
        for name, key in _ROWS:
            values[name] = key.parse(obj, name, *key.args)
        self.cni_version = _text(obj, "cniVersion") or ""
        return self

    @property
    def etcd_endpoints(self) -> tuple[tuple[str, int], ...]:
        """Return host and port of every member."""
        found = [_endpoint(entry, None) for entry in self.etcd_host.split(",")]
        return tuple(endpoint for endpoint in found if endpoint is not None)

    @property
    def etcd_tls(self) -> bool:
        """Tell whether etcd is spoken to over TLS."""
        return self.etcd_ca_cert is not None or self.etcd_cert is not None

    def settings(self) -> dict[str, Any]:
        """Return what the child needs, as JSON-able values that ``from_settings`` reads."""
        return {name: self.__dict__[name] for name in SETTINGS}

    @classmethod
    def from_settings(cls, settings: _Object) -> Config:
        """Read what ``settings`` returned. Raises ConfigError."""
        return cls.parse(settings)


_ROWS: tuple[tuple[str, _Key], ...] = tuple(
    (name, row) for name, row in vars(Config).items() if type(row) is _Key
)
OURS = tuple(name for name, _ in _ROWS)
SETTINGS = tuple(name for name, row in _ROWS if row.passed_on)
_KNOWN = frozenset((*OURS, *OTHERS))
