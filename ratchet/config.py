"""Ratchet's own keys of the network configuration, checked and named.

``Config.parse`` reads the plugin configuration once; nobody else knows how a key is spelt. It is
on the path of every pod, so there is no dataclass, regular expression or ``ipaddress`` in here
(they cost more than the rest of the path), and ``_socket`` stands for ``socket``, whose enums
take 5 ms. The child reads the same keys from ``Config.settings()``.

Keys that we do not know are ignored, as CNI asks, but one that is plainly a misspelt key of ours is
an error that names the right one.
"""

from __future__ import annotations

import _socket

from ratchet.errors import ConfigError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LABEL_SOURCES = ("auto", "runtime", "kubernetes", "docker")
WAITS = ("present", "all", "none")
LOG_LEVELS = ("debug", "info", "warning", "error")
DEFAULT_ETCD_PORT = 2379
DEFAULT_VXLAN_PORT = 4789  # RFC 7348 §8
LONGEST_WAIT_S = 100.0  # a runtime gives an ADD 60 to 120 seconds

SETTINGS = (
    "name",
    "etcd_host",
    "etcd_prefix",
    "etcd_ca_cert",
    "etcd_cert",
    "etcd_key",
    "etcd_username",
    "etcd_password_file",
    "child_path",
    "parent_interface",
    "parent_address",
    "use_labels",
    "label_source",
    "kubeconfig",
    "docker_socket",
    "state_dir",
    "log_file",
    "log_level",
    "wait",
    "wait_seconds",
    "vxlan_port",
    "mtu",
    "metrics_address",
)
OURS = (*SETTINGS, "etcd_port", "delegate", "boot_network")
# Keys that others put into our object; none of them is a misspelt key of ours.
OTHERS = frozenset(
    (
        "cniVersion",
        "type",
        "args",
        "capabilities",
        "cniDir",
        "dns",
        "ipMasq",
        "ipam",
        "masterplugin",
        "prevResult",
        "runtimeConfig",
    )
)


class Config:
    """The plugin configuration's keys of ours, each checked."""

    __slots__ = (
        "boot_network",
        "child_path",
        "cni_version",
        "delegate",
        "docker_socket",
        "etcd_ca_cert",
        "etcd_cert",
        "etcd_endpoints",
        "etcd_key",
        "etcd_password_file",
        "etcd_prefix",
        "etcd_username",
        "kubeconfig",
        "label_source",
        "log_file",
        "log_level",
        "metrics_address",
        "mtu",
        "name",
        "parent_address",
        "parent_interface",
        "state_dir",
        "use_labels",
        "vxlan_port",
        "wait",
        "wait_seconds",
    )

    name: str
    cni_version: str  # "" when the configuration has none, which means 0.1.0
    delegate: dict[str, Any] | None
    boot_network: dict[str, Any] | None
    etcd_endpoints: tuple[tuple[str, int], ...]
    etcd_prefix: str
    etcd_ca_cert: str | None
    etcd_cert: str | None
    etcd_key: str | None
    etcd_username: str | None
    etcd_password_file: str | None
    child_path: str | None  # None: beside the running program, else in CNI_PATH
    parent_interface: str | None
    parent_address: str | None
    use_labels: bool
    label_source: str
    kubeconfig: str | None
    docker_socket: str
    state_dir: str
    log_file: str | None
    log_level: str
    wait: str
    wait_seconds: float
    vxlan_port: int
    mtu: int | None
    metrics_address: str | None

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Config:
        """Read our keys. Raises ConfigError, which names the key, its value and what is allowed."""
        _refuse_misspelt(obj)
        self = cls.__new__(cls)
        self.name = _name(obj)
        self.cni_version = _text(obj, "cniVersion") or ""
        self.delegate = _delegate(obj, "delegate")
        self.boot_network = _delegate(obj, "boot_network")
        self.etcd_endpoints = _endpoints(obj)
        self.etcd_prefix = _prefix(obj)
        self.etcd_ca_cert = _path(obj, "etcd_ca_cert")
        self.etcd_cert = _path(obj, "etcd_cert")
        self.etcd_key = _path(obj, "etcd_key")
        self.etcd_username = _user(obj)
        self.etcd_password_file = _path(obj, "etcd_password_file")
        _both_or_neither(obj, "etcd_cert", "etcd_key")
        _both_or_neither(obj, "etcd_username", "etcd_password_file")
        self.child_path = _child_path(obj)
        self.parent_interface = _interface(obj, "parent_interface")
        self.parent_address = _address(obj, "parent_address")
        self.use_labels = _flag(obj, "use_labels", True)
        self.label_source = _choice(obj, "label_source", LABEL_SOURCES, "auto")
        self.kubeconfig = _path(obj, "kubeconfig")
        self.docker_socket = _path(obj, "docker_socket") or "/var/run/docker.sock"
        self.state_dir = _path(obj, "state_dir") or "/run/ratchet/" + self.name
        self.log_file = _path(obj, "log_file")
        self.log_level = _choice(obj, "log_level", LOG_LEVELS, "info")
        self.wait = _choice(obj, "wait", WAITS, "present")
        self.wait_seconds = _seconds(obj, "wait_seconds", 5.0)
        self.vxlan_port = _number(obj, "vxlan_port", 1, 65535) or DEFAULT_VXLAN_PORT
        self.mtu = _number(obj, "mtu", 68, 65535)
        self.metrics_address = _metrics_address(obj)
        return self

    @property
    def etcd_tls(self) -> bool:
        """Tell whether etcd is spoken to over TLS."""
        return self.etcd_ca_cert is not None or self.etcd_cert is not None

    def settings(self) -> dict[str, Any]:
        """Return what the child needs, as JSON-able values that ``from_settings`` reads."""
        values = {key: getattr(self, key) for key in SETTINGS if key != "etcd_host"}
        values["etcd_host"] = ",".join(_joined(host, port) for host, port in self.etcd_endpoints)
        return values

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Config:
        """Read what ``settings`` returned. Raises ConfigError."""
        return cls.parse(settings)


def is_ifname(text: str) -> bool:
    """Tell whether the kernel takes this as a name (dev_valid_name in net/core/dev.c)."""
    return (
        # As many bytes at the least; a lone surrogate, which JSON can write, has none.
        0 < len(text) <= 15
        and not any("\ud800" <= char <= "\udfff" for char in text)
        and len(text.encode()) <= 15
        and text not in (".", "..")
        and not any(char in "/:" or char.isspace() or char == "\0" for char in text)
    )


def _refuse_misspelt(obj: Mapping[str, Any]) -> None:
    for key in obj:
        if key in OURS or key in OTHERS or "/" in key or "." in key:
            continue
        meant = _meant(key)
        if meant is not None:
            raise ConfigError.misspelt(key, meant)


def _meant(key: str) -> str | None:
    """Return the key of ours that ``key`` is a misspelling of."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for keys that nobody knows

    squeezed = {ours.replace("_", ""): ours for ours in OURS}
    wanted = key.lower().replace("_", "").replace("-", "")
    close = get_close_matches(wanted, squeezed, n=1, cutoff=0.85)
    return squeezed[close[0]] if close else None


def _text(obj: Mapping[str, Any], key: str) -> str | None:
    """Return a string; None when it is absent, null or empty."""
    value = obj.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isprintable():
        raise ConfigError(key, value, "a string without control characters")
    return value


def _user(obj: Mapping[str, Any]) -> str | None:
    value = _text(obj, "etcd_username")
    if value is not None and ":" in value:  # RFC 7617 §2
        raise ConfigError("etcd_username", value, "a name without ':'")
    return value


def _name(obj: Mapping[str, Any]) -> str:
    name = _text(obj, "name")
    if name is None or not name[0].isalnum() or not _is_word(name, "-._"):
        # CNI spec 1.1.0 §1; it becomes a part of state_dir.
        raise ConfigError("name", obj.get("name"), "letters, digits, '-', '.' and '_'")
    return name


def _flag(obj: Mapping[str, Any], key: str, default: bool) -> bool:
    value = obj.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(key, shown(value), "true or false, without quotes")
    return value


def _choice(obj: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: str) -> str:
    value = obj.get(key)
    if value is None or value == "":
        return default
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(key, value, "one of " + ", ".join(allowed))
    return value


def _number(obj: Mapping[str, Any], key: str, least: int, most: int) -> int | None:
    """Return a whole number, written as a number or as a string; None when it is absent."""
    value = obj.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(key, obj[key], f"a number from {least} to {most}")
    return value


def _seconds(obj: Mapping[str, Any], key: str, default: float) -> float:
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


def _path(obj: Mapping[str, Any], key: str) -> str | None:
    value = _text(obj, key)
    if value is not None and not value.startswith("/"):
        # A plugin's working directory is whatever the runtime's happens to be.
        raise ConfigError(key, value, "an absolute path")
    return value


def _child_path(obj: Mapping[str, Any]) -> str | None:
    value = _text(obj, "child_path")
    if value is not None and "/" in value and not value.startswith("/"):
        raise ConfigError("child_path", value, "an absolute path, or a program's name")
    return value


def _interface(obj: Mapping[str, Any], key: str) -> str | None:
    value = _text(obj, key)
    if value is not None and not is_ifname(value):
        raise ConfigError(key, value, "an interface's name")
    return value


def _address(obj: Mapping[str, Any], key: str) -> str | None:
    value = _text(obj, key)
    if value is None:
        return None
    packed = _packed(value)
    if packed is None or not any(packed) or _is_multicast(packed):
        raise ConfigError(key, value, "an IPv4 or IPv6 address of this node, without prefix")
    return value


def _packed(text: str) -> bytes | None:
    """Return an address as bytes, None when it is none."""
    try:
        return _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def _is_multicast(packed: bytes) -> bool:
    return packed[0] == 0xFF if len(packed) == 16 else packed[0] >= 224


def _prefix(obj: Mapping[str, Any]) -> str:
    value = _text(obj, "etcd_prefix")
    if value is None:
        return "/ratchet"
    trimmed = value.rstrip("/")
    parts = trimmed.split("/")
    if parts[0] != "" or len(parts) < 2 or not all(_is_key_part(part) for part in parts[1:]):
        characters = "letters, digits, '-', '.' and '_' (not at the start of a part)"
        allowed = f"a path such as /ratchet, of {characters}"
        raise ConfigError("etcd_prefix", value, allowed)
    return trimmed


def _is_key_part(text: str) -> bool:
    # etcd's v2 API hides keys that begin with an underscore from listings.
    return _is_word(text, "-._") and text not in (".", "..") and not text.startswith("_")


def _is_word(text: str, others: str) -> bool:
    return text != "" and all((c.isascii() and c.isalnum()) or c in others for c in text)


def _endpoints(obj: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    port = _number(obj, "etcd_port", 1, 65535) or DEFAULT_ETCD_PORT
    value = _text(obj, "etcd_host")
    if value is None:
        return (("127.0.0.1", port),)
    found = []
    for entry in value.split(","):
        endpoint = _endpoint(entry.strip(), port)
        if endpoint is None:
            allowed = "a host, or several host[:port] separated by commas, without http://"
            raise ConfigError("etcd_host", value, allowed)
        if endpoint not in found:
            found.append(endpoint)
    return tuple(found)


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
    elif not _is_word(host, "-._") or host.startswith(("-", ".")):
        return None
    if port_text is None:
        return None if default_port is None else (host, default_port)
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        return None
    port = int(port_text)
    return (host, port) if 0 < port <= 65535 else None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _metrics_address(obj: Mapping[str, Any]) -> str | None:
    value = _text(obj, "metrics_address")
    if value is None:
        return None
    # ":9100" is what other exporters take for "every address".
    if _endpoint(value if not value.startswith(":") else "0.0.0.0" + value, None) is None:
        raise ConfigError("metrics_address", value, "host:port")
    return value


def _both_or_neither(obj: Mapping[str, Any], one: str, other: str) -> None:
    if (_text(obj, one) is None) != (_text(obj, other) is None):
        missing = other if _text(obj, one) is not None else one
        raise ConfigError(missing, obj.get(missing), f"one, because {one} and {other} go together")


def _delegate(obj: Mapping[str, Any], key: str) -> dict[str, Any] | None:
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
