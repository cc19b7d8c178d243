"""A link as its primary declares it, and the one way in which it is written as JSON.

Attachment records, declarations in etcd and labels all speak of the same link. What a link has is
one row of `FIELDS`: the name of the field, which is also its key in JSON, the label that gives it,
and how its value is read. The JSON is kept compatible in both directions: keys that are not known
are ignored, and a property that a link does not have is not written.

Pure. What is read back is checked as labels are, because etcd is shared.
"""

from __future__ import annotations

from ratchet import impairment
from ratchet.cni.dataclasses import dataclass, replace
from ratchet.cni.ip import Address
from ratchet.impairment import Impairment
from ratchet.names import is_ifname, is_new_ifname, is_pod_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


@dataclass(frozen=True, slots=True)
class Link:
    """A link that this pod declares as its primary.

    An address is None when the labels give that end none: without any, a link is plain layer 2.
    """

    ifname: str
    address: Address | None
    pair: str
    pair_ifname: str
    pair_address: Address | None
    mtu_bytes: int | None = None
    """Of both ends; None: the configuration's, or the kernel's choice."""
    mac: str | None = None
    pair_mac: str | None = None
    """None: one that is made of the pod's and the interface's names."""
    impairment: Impairment | None = None
    pair_impairment: Impairment | None = None
    """What each end does to the frames that it sends."""

    def seen_from_pair(self, primary: str) -> Link:
        """Return the same link as its pair would declare it."""
        return Link(
            ifname=self.pair_ifname,
            address=self.pair_address,
            pair=primary,
            pair_ifname=self.ifname,
            pair_address=self.address,
            mtu_bytes=self.mtu_bytes,
            mac=self.pair_mac,
            pair_mac=self.mac,
            impairment=self.pair_impairment,
            pair_impairment=self.impairment,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the link as `from_json` reads it."""
        return _written(self, FIELDS)

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Link:
        """Read what `to_json` wrote. Raises ValueError, which names the key."""
        return cls(**{field.name: field.from_json(obj) for field in FIELDS})


@dataclass(frozen=True, slots=True)
class Override:
    """What an operator has set of a link that is there; None: what the link says.

    An impairment without anything in it says that there is none.
    """

    mtu_bytes: int | None = None
    impairment: Impairment | None = None
    pair_impairment: Impairment | None = None
    is_down: bool | None = None
    """The cable is pulled out."""

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` reads it."""
        values = ((name, getattr(self, name)) for name in Override.__match_args__)
        return {name: _plain(value) for name, value in values if value is not None}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Override:
        """Read what `to_json` wrote. Raises ValueError, which names the key."""
        values: dict[str, Any] = {"mtu_bytes": _BY_NAME["mtu_bytes"].from_json(obj)}
        for name in ("impairment", "pair_impairment"):
            value = obj.get(name)
            if value is not None and not isinstance(value, dict):
                raise ValueError(f"{name} {value!r}")
            values[name] = None if value is None else Impairment.from_json(value)
        values["is_down"] = obj.get("is_down")
        if values["is_down"] not in (None, True, False):
            raise ValueError(f"is_down {values['is_down']!r}")
        return cls(**values)

    def seen_from_pair(self) -> Override:
        """Return the same as the pair of the link would say it."""
        return replace(self, impairment=self.pair_impairment, pair_impairment=self.impairment)

    def after(self, before: Override | None) -> Override:
        """Return what holds when this is set after something else."""
        values = {name: getattr(self, name) for name in Override.__match_args__}
        old = {name: getattr(before, name) for name in values} if before is not None else values
        return Override(**{name: old[name] if one is None else one for name, one in values.items()})

    def applied(self, link: Link) -> Link:
        """Return the link as it is with this."""
        values: dict[str, Any] = {}
        for name in ("mtu_bytes", "impairment", "pair_impairment"):
            value = getattr(self, name)
            if value is not None:
                values[name] = None if value == Impairment() else value
        return replace(link, **values)


@dataclass(frozen=True, slots=True)
class Uplink:
    """A link of one pod with its node, which nobody else has to know of.

    `device` is the node's interface below a macvlan, and the name of a host link's end at the node.
    """

    ifname: str
    kind: str
    """One of UPLINK_KINDS."""
    device: str
    address: Address | None = None
    device_address: Address | None = None
    """Of a host link's end at the node."""
    mtu_bytes: int | None = None
    mac: str | None = None
    impairment: Impairment | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the uplink as `from_json` reads it."""
        return _written(self, UPLINK_FIELDS)

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Uplink:
        """Read what `to_json` wrote. Raises ValueError, which names the key."""
        return cls(**{field.name: field.from_json(obj) for field in UPLINK_FIELDS})


@dataclass(frozen=True, slots=True)
class Field:
    """What a link has."""

    name: str
    label: str
    """Without ``ratchet.`` and the link's number; empty for what several labels give."""
    read: Callable[[Any], Any]
    """Reads the value from text, a label's as well as JSON's. Raises ValueError."""
    allowed: str = ""
    """Of a property, which a link need not have: what its label may be."""
    is_required: bool = False
    kind: type = str
    """What JSON has the value as."""

    @property
    def is_property(self) -> bool:
        """Tell whether the label grammar needs to know no more of it than this row."""
        return self.allowed != "" or self.label == ""

    def from_json(self, obj: Mapping[str, Any]) -> Any:
        value = obj.get(self.name)
        if value is None and not self.is_required:
            return None
        if type(value) is not self.kind:
            raise ValueError(f"{self.name} {value!r} is not of type {self.kind.__name__}")
        try:
            return self.read(value if self.kind is dict else str(value))
        except ValueError as exc:
            raise ValueError(f"{self.name} {value!r}: {exc}") from exc


def _ifname(text: str) -> str:
    if not is_new_ifname(text):
        raise ValueError("not an interface name")
    return text


def _pod_name(text: str) -> str:
    if not is_pod_name(text):
        raise ValueError("not a pod's name")
    return text


def read_address(text: str) -> Address:
    """Return the address of one host. Raises ValueError."""
    address = Address.parse(text)
    ip = address.ip
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback:
        raise ValueError("not the address of one host")
    return address


def _mtu(text: str) -> int:
    mtu_bytes = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not LEAST_MTU <= mtu_bytes <= MOST_MTU:
        raise ValueError("not an MTU")
    return mtu_bytes


def _mac(text: str) -> str:
    """Return a MAC address in the kernel's spelling; a label's value cannot hold colons."""
    groups = text.lower().replace("-", ":").split(":")
    if len(groups) != 6 or any(len(one) != 2 or not _HEX.issuperset(one) for one in groups):
        raise ValueError("not a MAC address")
    if int(groups[0], 16) & 1 or not any(int(one, 16) for one in groups):
        raise ValueError("not the MAC address of one interface")
    return ":".join(groups)


def _impairment(obj: Mapping[str, Any]) -> Impairment | None:
    found = Impairment.from_json(obj)
    return None if found == Impairment() else found


def _kind(text: str) -> str:
    if text not in UPLINK_KINDS:
        raise ValueError("not a kind of uplink")
    return text


def _device(text: str) -> str:
    if not is_ifname(text) or not text.isprintable():
        raise ValueError("not an interface name")
    return text


def _written(link: Link | Uplink, fields: tuple[Field, ...]) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for field in fields:
        value = getattr(link, field.name)
        if value is not None or not field.is_property:
            written[field.name] = _plain(value)
    return written


def _plain(value: Any) -> Any:
    if isinstance(value, Impairment):
        return value.to_json()
    return str(value) if isinstance(value, Address) else value


_HEX = frozenset("0123456789abcdef")
_ALLOWED_MAC = (
    "a MAC address of one interface, six pairs of hexadecimal digits with '-' between them or, in"
    " an annotation, ':'"
)
LEAST_MTU, MOST_MTU = 68, 65535  # RFC 791 §3.2; what a device can have at most, netdevice.h

MACVLAN, HOST = "macvlan", "host"
UPLINK_KINDS = (MACVLAN, HOST)

FIELDS = (
    Field("ifname", "local_ifname", _ifname, is_required=True),
    Field("address", "local_ip", read_address),
    Field("pair", "pair_name", _pod_name, is_required=True),
    Field("pair_ifname", "pair_ifname", _ifname, is_required=True),
    Field("pair_address", "pair_ip", read_address),
    Field("mtu_bytes", "mtu", _mtu, f"a number from {LEAST_MTU} to {MOST_MTU}", kind=int),
    Field("mac", "local_mac", _mac, _ALLOWED_MAC),
    Field("pair_mac", "pair_mac", _mac, _ALLOWED_MAC),
    Field("impairment", "", _impairment, kind=dict),
    Field("pair_impairment", "", _impairment, kind=dict),
)
_BY_NAME = {field.name: field for field in FIELDS}
UPLINK_FIELDS = (
    _BY_NAME["ifname"],
    Field("kind", "kind", _kind, is_required=True),
    Field("device", "device", _device, is_required=True),
    _BY_NAME["address"],
    Field("device_address", "pair_ip", read_address),
    *(_BY_NAME[name] for name in ("mtu_bytes", "mac", "impairment")),
)
LABELS = (
    *(field.label for field in FIELDS if field.label),
    *(field.label for field in UPLINK_FIELDS if field.label in ("kind", "device")),
    *impairment.LABELS,
)
PROPERTIES = tuple(field for field in FIELDS if field.is_property and field.label)
# What a link's fields are called in the annotation `ratchet.links`, where they are not as labels.
COMPACT = {
    "local_ifname": "ifname",
    "local_ip": "address",
    "pair_name": "pair",
    "pair_ip": "pair_address",
    "local_mac": "mac",
}
