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

from ratchet import impairment, label_values, links, names, pods
from ratchet.cni.dataclasses import dataclass, replace
from ratchet.errors import LabelError, shown
from ratchet.impairment import Impairment
from ratchet.links import Field, Link, Uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from ratchet.cni.ip import Address

PREFIX = "ratchet."
POD_FIELDS = ("pod_name", "primary", "public_ip", "target_pod", "target_container", "links")
LINK_FIELDS = links.LABELS
# Informative, and of a link as much as of a pod: `ratchet.2.target_pod` is taken as well.
_TARGET_FIELDS = ("target_pod", "target_container")


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the labels of an eligible pod say. Without links the pod only waits to be paired."""

    pod_name: str
    links: tuple[Link, ...]
    public_ip: Address | None
    target_pod: str | None
    target_container: str | None
    uplinks: tuple[Uplink, ...] = ()
    expected: tuple[str, ...] = ()
    """Interfaces of this pod that other pods are to declare links on."""

    def recorded(self) -> dict[str, Any]:
        """Return what an attachment's record keeps of it, by the record's fields."""
        return {
            "pod": self.pod_name,
            "links": self.links,
            "uplinks": self.uplinks,
            "expected": self.expected,
            "public_ip": self.public_ip,
            "target_pod": self.target_pod,
            "target_container": self.target_container,
        }


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of one link, and what whoever wrote them calls each."""

    values: Mapping[str, str]
    prefix: str
    is_compact: bool = False

    def called(self, field: str) -> str:
        own = links.COMPACT.get(field, field) if self.is_compact else field
        return f"{self.prefix}{own}"

    def get(self, field: str) -> str | None:
        return self.values.get(self.called(field))

    def refuse(self, field: str, allowed: str) -> NoReturn:
        called = self.called(field)
        raise LabelError(called, self.values.get(called), allowed)


def is_eligible(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
    """Say whether the pod is Ratchet's: its label, or the annotation that wins over it, says so."""
    return pods.says_eligible(labels, annotations)


def require_at_most(number: int, wiring: Wiring) -> None:
    """Refuse a pod with so many links that the node's other pods would have to wait for them."""
    found = len(wiring.links) + len(wiring.uplinks)
    if found > number:
        most = "1 link" if number == 1 else f"{number} links"
        allowed = f"at most {most}, which the configuration key max_links sets"
        raise LabelError(f"{PREFIX}<n>", f"{found} links", allowed)


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
    pod_name = label_values.pod_name(f"{PREFIX}pod_name", fields.get(f"{PREFIX}pod_name", own_name))

    declared = [_Fields(fields, f"{PREFIX}{number}.") for number in numbers]
    if _is_primary(fields):
        declared.insert(0, _Fields(fields, PREFIX))
    expected = []
    for one in _compact(fields):
        if all(one.get(field) is None for field in ("pair_name", "kind", "device")):
            expected.append((one, _expected(one, cni_ifname)))
        else:
            declared.append(one)
    read = [(one, _link(one, cni_ifname)) for one in declared]
    _check_together(read, expected, pod_name)

    return Wiring(
        pod_name=pod_name,
        links=tuple(link for _, link in read if isinstance(link, Link)),
        public_ip=label_values.optional_address(
            f"{PREFIX}public_ip", fields.get(f"{PREFIX}public_ip")
        ),
        target_pod=label_values.target(f"{PREFIX}target_pod", fields.get(f"{PREFIX}target_pod")),
        target_container=label_values.target(
            f"{PREFIX}target_container", fields.get(f"{PREFIX}target_container")
        ),
        uplinks=tuple(link for _, link in read if isinstance(link, Uplink)),
        expected=tuple(ifname for _, ifname in expected),
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


def _compact(fields: Mapping[str, str]) -> list[_Fields]:
    """Return the entries of the annotation `ratchet.links`. Raises `LabelError`."""
    text = fields.get(f"{PREFIX}links")
    if text is None:
        return []
    from ratchet import compact  # noqa: PLC0415 - hardly any pod has the annotation

    known = tuple(links.COMPACT.get(field, field) for field in LINK_FIELDS)
    found = []
    for number, entry in enumerate(compact.entries(text), 1):
        prefix = compact.prefix(number)
        for name, value in entry.items():
            if name not in known:
                label = compact.called(number, name)
                _refuse_misspelling(label, value, name, "", known)
                raise LabelError(label, value, f"one of these fields: {', '.join(known)}")
        values = {f"{prefix}{name}": value for name, value in entry.items()}
        found.append(_Fields(values, prefix, is_compact=True))
    return found


def _expected(fields: _Fields, cni_ifname: str) -> str:
    """Return the interface of an end that another pod declares. Raises `LabelError`."""
    ifname = _ifname(fields, "local_ifname", cni_ifname)
    if len(fields.values) > 1:
        fields.refuse(
            "pair_name",
            f"{label_values.ALLOWED_POD_NAME}; an entry with an ifname alone expects a link",
        )
    return ifname


def _link(fields: _Fields, cni_ifname: str) -> Link | Uplink:
    if fields.get("kind") is not None or fields.get("device") is not None:
        return _uplink(fields, cni_ifname)
    address, pair_address = _address(fields, "local_ip"), _address(fields, "pair_ip")
    if address is not None and pair_address is not None and address.ip == pair_address.ip:
        own = fields.called("local_ip")
        fields.refuse("pair_ip", f"an address other than the one at this end ({own})")
    slow, far = (_impairment(fields, end) for end in impairment.ENDS)
    link = Link(
        ifname=_ifname(fields, "local_ifname", cni_ifname),
        address=address,
        pair=label_values.pod_name(fields.called("pair_name"), fields.get("pair_name")),
        pair_ifname=_ifname(fields, "pair_ifname", cni_ifname),
        pair_address=pair_address,
        impairment=slow,
        pair_impairment=far,
        **{field.name: _property(fields, field) for field in links.PROPERTIES},
    )
    if link.mac is not None and link.mac == link.pair_mac:
        fields.refuse("pair_mac", f"another one than {fields.called('local_mac')}")
    return link


def _uplink(fields: _Fields, cni_ifname: str) -> Uplink:
    """Read a link with the node. Raises `LabelError`."""
    kind = fields.get("kind")
    if kind not in links.UPLINK_KINDS:
        fields.refuse("kind", " or ".join(links.UPLINK_KINDS))
    is_host = kind == links.HOST
    for field in LINK_FIELDS:
        is_pairs = field.startswith("pair_") and not (is_host and field == "pair_ip")
        if is_pairs and fields.get(field) is not None:
            fields.refuse(field, f"nothing in a link of kind {kind}, which has no pair")
    device = fields.get("device")
    # A macvlan's is there already, whatever it is called; a host link's is made.
    if device is None or not (names.is_new_ifname if is_host else names.is_ifname)(device):
        fields.refuse("device", names.NEW_IFNAME if is_host else names.EXISTING_IFNAME)
    if device == "lo":
        fields.refuse("device", "an interface of the node other than lo")
    address, device_address = _address(fields, "local_ip"), _address(fields, "pair_ip")
    if address is not None and device_address is not None and address.ip == device_address.ip:
        own = fields.called("local_ip")
        fields.refuse("pair_ip", f"an address other than the one at this end ({own})")
    read = {field.name: _property(fields, field) for field in links.PROPERTIES}
    return Uplink(
        ifname=_ifname(fields, "local_ifname", cni_ifname),
        kind=kind,
        device=device,
        address=address,
        device_address=device_address,
        mtu_bytes=read["mtu_bytes"],
        mac=read["mac"],
        impairment=_impairment(fields, impairment.ENDS[0]),
    )


def _property(fields: _Fields, field: Field) -> Any:
    """Return what a property's label says, None without the label. Raises `LabelError`."""
    value = fields.get(field.label)
    if value is None:
        return None
    try:
        return field.read(value)
    except ValueError as exc:
        raise LabelError(fields.called(field.label), value, field.allowed) from exc


def _impairment(fields: _Fields, end: str) -> Impairment | None:
    """Return what one end does to frames: what is said of it goes before what is said of both.

    Raises `LabelError`.
    """
    found: dict[str, int | None] = {}
    for quantity in impairment.QUANTITIES:
        for field in (quantity.label, f"{end}{quantity.label}"):
            value = fields.get(field)
            if value is not None:
                try:
                    found[quantity.name] = quantity.read(value)
                except ValueError as exc:
                    raise LabelError(fields.called(field), value, quantity.allowed) from exc
    made = Impairment(**found)
    if made.rate_bits is not None and made.rate_bits % 8:
        made = replace(made, rate_bits=made.rate_bits // 8 * 8)
    if made.jitter_us is not None and made.delay_us is None:
        field = "jitter" if fields.get(f"{end}jitter") is None else f"{end}jitter"
        delay, own = fields.called("delay"), fields.called(f"{end}delay")
        fields.refuse(field, f"one beside {delay} or {own}")
    return None if made == Impairment() else made


def _check_together(
    read: list[tuple[_Fields, Link | Uplink]], expected: list[tuple[_Fields, str]], pod_name: str
) -> None:
    """Check what no link shows by itself. Raises `LabelError`."""
    own_ends: dict[str, str] = {}
    far_ends: dict[tuple[str, str], str] = {}
    for fields, ifname in [*((one, link.ifname) for one, link in read), *expected]:
        called = fields.called("local_ifname")
        if ifname in own_ends:
            raise LabelError(
                called, ifname, f"a name that no other link of this pod has ({own_ends[ifname]})"
            )
        own_ends[ifname] = called
    for fields, link in read:
        if isinstance(link, Link) and link.pair == pod_name:
            fields.refuse("pair_name", "the name of another pod: this one has that name")
        if isinstance(link, Uplink) and link.kind != links.HOST:
            continue
        field = "pair_ifname" if isinstance(link, Link) else "device"
        whose = link.pair if isinstance(link, Link) else "the node"
        far_end = (link.pair, link.pair_ifname) if isinstance(link, Link) else ("", link.device)
        if far_end in far_ends:
            fields.refuse(
                field, f"a name that no other link with {whose} has ({far_ends[far_end]})"
            )
        far_ends[far_end] = fields.called(field)


def _ifname(fields: _Fields, field: str, cni_ifname: str) -> str:
    value = fields.get(field)
    if value is None:
        fields.refuse(field, names.NEW_IFNAME)
    label_values.check_ifname(fields.called(field), value, cni_ifname=cni_ifname)
    return value


def _address(fields: _Fields, field: str) -> Address | None:
    return label_values.optional_address(fields.called(field), fields.get(field))
