"""What one value of a label may be: a pod's name, an interface's, an address. Pure.

The grammar (`ratchet.labels`) knows which label is which; in here is what is allowed, and how that
is said.
"""

from __future__ import annotations

from ratchet import names
from ratchet.cni.ip import Address
from ratchet.errors import LabelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_IPV4_PREFIX_LEN = 24
_IPV6_PREFIX_LEN = 64
ALLOWED_POD_NAME = (
    f"1 to {names.NAME_MAX} letters, digits, '-', '_' and '.', "
    "a letter or a digit first and last, as in the ratchet.pod_name of a pod"
)
_ALLOWED_ADDRESS = (
    "an IPv4 or IPv6 address of one host, with or without a prefix length, as in 192.168.2.100 "
    "or, in an annotation, 192.168.2.100/24 or 2001:db8::1/64"
)
_ALLOWED_TARGET = f"at most {names.NAME_MAX} printable characters"


def pod_name(label: str, value: str | None) -> str:
    """Return the name of a pod. Raises `LabelError`."""
    if value is None or not names.is_pod_name(value):
        raise LabelError(label, value, ALLOWED_POD_NAME)
    return value


def target(label: str, value: str | None) -> str | None:
    """Return an informative text, None without the label. Raises `LabelError`."""
    if value is not None and (len(value) > names.NAME_MAX or not value.isprintable()):
        raise LabelError(label, value, _ALLOWED_TARGET)
    return value


def optional_address(label: str, value: str | None) -> Address | None:
    """Return an address and its prefix length, None without the label. Raises `LabelError`."""
    if value is None:
        return None

    def refuse(allowed: str = _ALLOWED_ADDRESS, cause: Exception | None = None) -> NoReturn:
        raise LabelError(label, value, allowed) from cause

    slash = "/" in value
    try:
        address = Address.parse(value)
    except ValueError as error:
        refuse(cause=error)
    ip = address.ip
    if not slash:
        address = Address(ip, _IPV4_PREFIX_LEN if ip.version == 4 else _IPV6_PREFIX_LEN)

    if ip.is_unspecified or ip.is_multicast or ip.is_loopback:
        refuse("the address of one host: not the unspecified one, multicast or loopback")
    if ip.is_ipv4_mapped:
        refuse("the address in its IPv4 form, as IPv4-mapped addresses never go over a link")
    if address.prefix_len == 0:
        refuse("a prefix length of at least 1")
    if address.host_bits >= 2:  # RFC 3021, RFC 6164: /31 and /127 are two hosts
        network = address.network
        if ip == network.ip:
            refuse(f"the address of a host in {network}, not that of the network itself")
        if ip.version == 4 and ip == address.broadcast:
            refuse(f"the address of a host in {network}, not its broadcast address")
    if str(ip) == "255.255.255.255":
        refuse("the address of one host, not the broadcast address")
    return address


def check_ifname(label: str, value: str, *, cni_ifname: str) -> None:
    """Check an interface name by the kernel's rules (dev_valid_name) and ours. Raises `LabelError`.

    `cni_ifname` is the runtime's CNI_IFNAME. Runtimes give every pod the same one, so it is not
    free at the far end either.
    """
    if not names.is_new_ifname(value):
        raise LabelError(label, value, names.NEW_IFNAME)
    if value == "lo":
        raise LabelError(label, value, "a name other than lo, which every pod has already")
    if value == cni_ifname:
        raise LabelError(
            label, value, "a name that is not the one that the runtime uses itself (CNI_IFNAME)"
        )
