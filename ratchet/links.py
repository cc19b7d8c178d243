"""A link as its primary declares it, and the one way in which it is written as JSON.

Attachment records, declarations in etcd and labels all speak of the same link. What a link has is
one row of `FIELDS`: the name of the field, which is also its key in JSON, the label that gives it,
and how its value is read. The JSON is kept compatible in both directions: keys that are not known
are ignored, and a property that a link does not have is not written.

Pure. What is read back is checked as labels are, because etcd is shared.
"""

from __future__ import annotations

from ratchet import impairment
from ratchet.cni.frozen import dataclass
from ratchet.cni.ip import Address
from ratchet.impairment import Impairment
from ratchet.names import is_new_ifname, is_pod_name

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

    def to_json(self) -> dict[str, Any]:
        """Return the link as `from_json` reads it."""
        written: dict[str, Any] = {}
        for field in FIELDS:
            value = getattr(self, field.name)
            if value is not None or not field.is_property:
                written[field.name] = _plain(value)
        return written

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Link:
        """Read what `to_json` wrote. Raises ValueError, which names the key."""
        return cls(**{field.name: field.from_json(obj) for field in FIELDS})


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
LABELS = (*(field.label for field in FIELDS if field.label), *impairment.LABELS)
PROPERTIES = tuple(field for field in FIELDS if field.is_property and field.label)
