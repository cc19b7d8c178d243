"""What a pod's labels say: the grammar, from strings to links.

Pure: no files, sockets or clocks, so that the parent, the child, ratchetctl and the property-based
tests read one grammar. It says nothing about where labels come from (``ratchet.pods``) nor about
the far pod, which this pod only knows by name.

Label values cannot hold ``/`` or ``:``, so every field may be an annotation of the same name too,
which wins. Whatever is wrong is a `LabelError`, which names the label as the user wrote it,
its value and what is allowed: the user reads it in ``kubectl describe pod``. What passes is safe in
an etcd key, a netlink message and a terminal; nobody checks it again.

It is not on the path of an unlabelled pod.
"""

from __future__ import annotations

from ratchet import impairment, links, names, pods
from ratchet.cni.frozen import dataclass, replace
from ratchet.cni.ip import Address
from ratchet.errors import LabelError, shown
from ratchet.impairment import Impairment
from ratchet.links import Field, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

PREFIX = "ratchet."
POD_FIELDS = ("pod_name", "primary", "public_ip", "target_pod", "target_container")
LINK_FIELDS = links.LABELS
# Informative, and of a link as much as of a pod: `ratchet.2.target_pod` is taken as well.
_TARGET_FIELDS = ("target_pod", "target_container")

_IPV4_PREFIX_LEN = 24
_IPV6_PREFIX_LEN = 64
_ALLOWED_POD_NAME = (
    f"1 to {names.NAME_MAX} letters, digits, '-', '_' and '.', "
    "a letter or a digit first and last, as in the ratchet.pod_name of a pod"
)
_ALLOWED_ADDRESS = (
    "an IPv4 or IPv6 address of one host, with or without a prefix length, as in 192.168.2.100 "
    "or, in an annotation, 192.168.2.100/24 or 2001:db8::1/64"
)
_ALLOWED_TARGET = f"at most {names.NAME_MAX} printable characters"


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the labels of an eligible pod say. Without links the pod only waits to be paired."""

    pod_name: str
    links: tuple[Link, ...]
    public_ip: Address | None
    target_pod: str | None
    target_container: str | None


def is_eligible(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
    """Say whether the pod is Ratchet's: its label, or the annotation that wins over it, says so."""
    return pods.says_eligible(labels, annotations)


def parse(
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    *,
    own_name: str | None,
    cni_ifname: str,
) -> Wiring:
    """Read the links and names that the labels of an eligible pod give.

    `own_name` is the pod's name where its labels came from, None where nothing names it.
    Raises `LabelError`.
    """
    fields = _ratchet_fields(labels, annotations)
    numbers = _link_numbers(fields)
    pod_name = _pod_name(f"{PREFIX}pod_name", fields.get(f"{PREFIX}pod_name", own_name))

    prefixes = [f"{PREFIX}{number}." for number in numbers]
    if _is_primary(fields):
        prefixes.insert(0, PREFIX)
    declared = tuple(_link(fields, prefix, cni_ifname) for prefix in prefixes)
    _check_together(prefixes, declared, pod_name)

    return Wiring(
        pod_name=pod_name,
        links=declared,
        public_ip=_optional_address(fields, f"{PREFIX}public_ip"),
        target_pod=_target(fields, f"{PREFIX}target_pod"),
        target_container=_target(fields, f"{PREFIX}target_container"),
    )


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


# The fields -------------------------------------------------------------------------------------


def _ratchet_fields(labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, str]:
    fields = {label: value for label, value in labels.items() if label.startswith(PREFIX)}
    fields.update(item for item in annotations.items() if item[0].startswith(PREFIX))
    return fields


def _link_numbers(fields: Mapping[str, str]) -> list[str]:
    """Return the n of the numbered links, in order, having looked at every label's name."""
    numbers = set()
    for label, value in fields.items():
        rest = label[len(PREFIX) :]
        number, dot, field = rest.partition(".")
        if not (dot and number.isascii() and number.isdigit()):
            if rest not in POD_FIELDS and rest not in LINK_FIELDS:
                _refuse_misspelling(label, value, rest, PREFIX, POD_FIELDS + LINK_FIELDS)
        elif field in LINK_FIELDS or field in _TARGET_FIELDS or field == "primary":
            if number.startswith("0") or number == "1":
                raise LabelError(
                    label,
                    value,
                    f"{PREFIX}{field} for the first link, {PREFIX}2.{field} for the second",
                )
            if field == "primary" and value != "true":
                raise LabelError(label, value, "true: a pod is the primary of its numbered links")
            numbers.add(number)
        elif field in POD_FIELDS:
            raise LabelError(label, value, f"{PREFIX}{field}, as a pod has only one")
        else:
            _refuse_misspelling(label, value, field, f"{PREFIX}{number}.", LINK_FIELDS)
    # In the order of the numbers, which may be longer than int() reads.
    return sorted(numbers, key=lambda number: (len(number), number))


def _refuse_misspelling(
    label: str, value: str, name: str, prefix: str, known: tuple[str, ...]
) -> None:
    """Raise `LabelError` for nearly a known name, and for what can only be meant as an end's field.

    Other names may be somebody else's labels.
    """
    import difflib  # noqa: PLC0415 - 2 ms, and hardly any pod has such a label

    near = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.8)
    if near:
        # The only label whose name was not ours to choose.
        label = label if label.isascii() and label.isprintable() else shown(label)
        raise LabelError(label, value, f"{prefix}{near[0]}, if that is the label that was meant")
    for end in impairment.ENDS:
        if name.startswith(end):
            own = (field for field in LINK_FIELDS if field.startswith(end))
            raise LabelError(label, value, ", ".join(f"{prefix}{field}" for field in own))


def _is_primary(fields: Mapping[str, str]) -> bool:
    label = f"{PREFIX}primary"
    value = fields.get(label, "false")
    if value not in ("true", "false"):
        raise LabelError(label, value, "true or false")
    return value == "true"


def _link(fields: Mapping[str, str], prefix: str, cni_ifname: str) -> Link:
    address = _optional_address(fields, f"{prefix}local_ip")
    pair_address = _optional_address(fields, f"{prefix}pair_ip")
    if address is not None and pair_address is not None and address.ip == pair_address.ip:
        raise LabelError(
            f"{prefix}pair_ip",
            fields[f"{prefix}pair_ip"],
            f"an address other than the one at this end ({prefix}local_ip)",
        )
    own, far = (_impairment(fields, prefix, end) for end in impairment.ENDS)
    link = Link(
        ifname=_ifname(fields, f"{prefix}local_ifname", cni_ifname),
        address=address,
        pair=_pod_name(f"{prefix}pair_name", fields.get(f"{prefix}pair_name")),
        pair_ifname=_ifname(fields, f"{prefix}pair_ifname", cni_ifname),
        pair_address=pair_address,
        impairment=own,
        pair_impairment=far,
        **{field.name: _property(fields, prefix, field) for field in links.PROPERTIES},
    )
    if link.mac is not None and link.mac == link.pair_mac:
        label = f"{prefix}pair_mac"
        raise LabelError(label, fields[label], f"another one than {prefix}local_mac")
    return link


def _property(fields: Mapping[str, str], prefix: str, field: Field) -> Any:
    """Return what a property's label says, None without the label. Raises `LabelError`."""
    label = f"{prefix}{field.label}"
    value = fields.get(label)
    if value is None:
        return None
    try:
        return field.read(value)
    except ValueError as exc:
        raise LabelError(label, value, field.allowed) from exc


def _impairment(fields: Mapping[str, str], prefix: str, end: str) -> Impairment | None:
    """Return what one end does to frames: what is said of it goes before what is said of both.

    Raises `LabelError`.
    """
    found: dict[str, int | None] = {}
    for quantity in impairment.QUANTITIES:
        for label in (f"{prefix}{quantity.label}", f"{prefix}{end}{quantity.label}"):
            value = fields.get(label)
            if value is not None:
                try:
                    found[quantity.name] = quantity.read(value)
                except ValueError as exc:
                    raise LabelError(label, value, quantity.allowed) from exc
    made = Impairment(**found)
    if made.rate_bits is not None and made.rate_bits % 8:
        made = replace(made, rate_bits=made.rate_bits // 8 * 8)
    if made.jitter_us is not None and made.delay_us is None:
        label = f"{prefix}{end}jitter" if f"{prefix}{end}jitter" in fields else f"{prefix}jitter"
        raise LabelError(label, fields[label], f"one beside {prefix}delay or {prefix}{end}delay")
    return None if made == Impairment() else made


def _check_together(prefixes: list[str], declared: tuple[Link, ...], pod_name: str) -> None:
    """Check what no link shows by itself. Raises `LabelError`."""
    own_ends: dict[str, str] = {}
    far_ends: dict[tuple[str, str], str] = {}
    for prefix, link in zip(prefixes, declared, strict=True):
        if link.pair == pod_name:
            raise LabelError(
                f"{prefix}pair_name", link.pair, "the name of another pod: this one has that name"
            )
        if link.ifname in own_ends:
            raise LabelError(
                f"{prefix}local_ifname",
                link.ifname,
                f"a name that no other link of this pod has ({own_ends[link.ifname]}local_ifname)",
            )
        far_end = (link.pair, link.pair_ifname)
        if far_end in far_ends:
            raise LabelError(
                f"{prefix}pair_ifname",
                link.pair_ifname,
                f"a name that no other link with {link.pair} has ({far_ends[far_end]}pair_ifname)",
            )
        own_ends[link.ifname] = prefix
        far_ends[far_end] = prefix


# The values -------------------------------------------------------------------------------------


def _pod_name(label: str, value: str | None) -> str:
    if value is None or not names.is_pod_name(value):
        raise LabelError(label, value, _ALLOWED_POD_NAME)
    return value


def _ifname(fields: Mapping[str, str], label: str, cni_ifname: str) -> str:
    value = fields.get(label)
    if value is None:
        raise LabelError(label, None, names.NEW_IFNAME)
    check_ifname(label, value, cni_ifname=cni_ifname)
    return value


def _target(fields: Mapping[str, str], label: str) -> str | None:
    value = fields.get(label)
    if value is not None and (len(value) > names.NAME_MAX or not value.isprintable()):
        raise LabelError(label, value, _ALLOWED_TARGET)
    return value


def _optional_address(fields: Mapping[str, str], label: str) -> Address | None:
    """Return an address and its prefix length, None without the label. Raises `LabelError`."""
    value = fields.get(label)
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
