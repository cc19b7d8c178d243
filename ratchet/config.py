"""Ratchet's own keys of the network configuration, checked and named.

``Config.parse`` reads the plugin configuration once; nobody else knows how a key is spelt. A key is
one row of ``Config``, from which all that is to be known of it follows; how a kind of value is read
is in ``ratchet.config_values``. It is on the path of every pod, so there is no dataclass in here,
which costs more than the rest of the path.

Keys that we do not know are ignored, as CNI asks, but one that is plainly a misspelt key of ours is
an error that names the right one.
"""

from __future__ import annotations

from ratchet import config_values as values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Concatenate, ParamSpec, TypeVar

    from ratchet.config_values import Object

    P = ParamSpec("P")
    T = TypeVar("T")

LABEL_SOURCES = ("auto", "runtime", "kubernetes", "docker")
WAITS = ("present", "all", "none")
GUARDS = ("auto", "off")
ATTACHERS = ("plugin", "agent")
LOG_LEVELS = ("debug", "info", "warning", "error")
DEFAULT_VXLAN_PORT = 4789  # RFC 7348 §8
DEFAULT_MAX_LINKS = 256

# Keys that others put into our object; none of them is a misspelt key of ours.
OTHERS = (
    "cniVersion", "type", "args", "capabilities", "cniDir", "dns", "ipMasq", "ipam", "masterplugin",
    "prevResult", "runtimeConfig",
)  # fmt: skip


class _Key:
    """A row of `Config`: a key, how its value is read, and whether the child has it from us."""

    __slots__ = ("args", "parse", "passed_on")

    def __init__(self, parse: Any, args: tuple[object, ...], passed_on: bool) -> None:
        self.parse = parse
        self.args = args
        self.passed_on = passed_on


if TYPE_CHECKING:
    # To type checkers a key is what its parser returns.
    _Parser = Callable[Concatenate[Object, str, P], T]

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

    name = _passed_on(values.name)
    delegate = _parents(values.delegate)
    boot_network = _parents(values.delegate)
    etcd_host = _passed_on(values.etcd_hosts)  # every member as host:port, with commas between them
    etcd_port = _parents(values.number, 1, 65535, values.DEFAULT_ETCD_PORT)
    etcd_prefix = _passed_on(values.prefix)
    etcd_ca_cert = _passed_on(values.path)
    etcd_cert = _passed_on(values.path)
    etcd_key = _passed_on(values.path_with, "etcd_cert")
    etcd_username = _passed_on(values.user)
    etcd_password_file = _passed_on(values.path_with, "etcd_username")
    child_path = _passed_on(values.child_path)  # None: beside the running program, else in CNI_PATH
    parent_interface = _passed_on(values.interface)
    parent_address = _passed_on(values.address)
    use_labels = _passed_on(values.flag, True)
    label_source = _passed_on(values.choice, LABEL_SOURCES, "auto")
    kubeconfig = _passed_on(values.path)
    docker_socket = _passed_on(values.path_or, "/var/run/docker.sock")
    state_dir = _passed_on(values.state_dir)
    log_file = _passed_on(values.path)
    log_level = _passed_on(values.choice, LOG_LEVELS, "info")
    public_ip_networks = _parents(values.networks)  # None: of every network
    attach = _passed_on(values.choice, ATTACHERS, "plugin")
    wait = _passed_on(values.choice, WAITS, "present")
    wait_seconds = _passed_on(values.seconds, 5.0)
    vxlan_port = _passed_on(values.number, 1, 65535, DEFAULT_VXLAN_PORT)
    guard = _passed_on(values.choice, GUARDS, "auto")
    mtu = _passed_on(values.optional_number, 68, 65535)
    max_links = _passed_on(values.number, 1, 65535, DEFAULT_MAX_LINKS)  # of one pod
    metrics_address = _passed_on(values.metrics_address)

    cni_version: str
    """CNI's key and not ours: "" when the configuration has none, which means 0.1.0."""
    replaceable: str | None = None
    """No key either: the part of state_dir's path that others than root could replace."""

    @classmethod
    def parse(cls, obj: Object) -> Config:
        """Read our keys. Raises ConfigError, which names the key, its value and what is allowed."""
        unknown = [key for key in obj if key not in _KNOWN and "/" not in key and "." not in key]
        if unknown:
            from ratchet import misspelling  # noqa: PLC0415 - only for keys that nobody knows

            misspelling.refuse(unknown, OURS)
        self = cls.__new__(cls)
        found = self.__dict__
        for name, key in _ROWS:
            found[name] = key.parse(obj, name, *key.args)
        self.cni_version = values.text(obj, "cniVersion") or ""
        return self

    @property
    def etcd_endpoints(self) -> tuple[tuple[str, int], ...]:
        """Return host and port of every member."""
        found = [values.endpoint(entry, None) for entry in self.etcd_host.split(",")]
        return tuple(endpoint for endpoint in found if endpoint is not None)

    @property
    def etcd_tls(self) -> bool:
        """Tell whether etcd is spoken to over TLS."""
        return self.etcd_ca_cert is not None or self.etcd_cert is not None

    def settings(self) -> dict[str, Any]:
        """Return what the child needs, as JSON-able values that ``from_settings`` reads."""
        return {name: self.__dict__[name] for name in SETTINGS}

    @classmethod
    def from_settings(cls, settings: Object) -> Config:
        """Read what ``settings`` returned. Raises ConfigError."""
        return cls.parse(settings)


_ROWS: tuple[tuple[str, _Key], ...] = tuple(
    (name, row) for name, row in vars(Config).items() if type(row) is _Key
)
OURS = tuple(name for name, _ in _ROWS)
SETTINGS = tuple(name for name, row in _ROWS if row.passed_on)
_KNOWN = frozenset((*OURS, *OTHERS))
