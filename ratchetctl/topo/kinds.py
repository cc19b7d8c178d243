"""Device kinds: what a node runs when its file does not say so, and how it names interfaces.

A kind that is not in the table is taken as it is: image and command come from the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ALPINE = "alpine:3"

Rename = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


def _rename(pattern: str, made: Callable[[re.Match[str]], str]) -> Rename:
    return re.compile(pattern + r"\Z", re.IGNORECASE), made


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind brings along: `config_path` is where it reads its startup configuration.

    `interactive` kinds run a shell that ends without a terminal, as containerlab gives it one.
    `renames` turn the vendor's interface names into the kernel's.
    """

    image: str | None = None
    command: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    config_path: str | None = None
    interactive: bool = False
    renames: tuple[Rename, ...] = ()
    is_image: bool = False


def _joined(prefix: str, separator: str) -> Callable[[re.Match[str]], str]:
    return lambda match: prefix + separator.join(one for one in match.groups() if one is not None)


def _counted(match: re.Match[str]) -> str:
    """Map the vendor's port 0 to eth1, as images built with vrnetlab do."""
    return f"eth{int(match.group(1)) + 1}"


_CEOS = Kind(
    command=("/sbin/init",),
    env=(
        ("CEOS", "1"),
        ("EOS_PLATFORM", "ceoslab"),
        ("ETBA", "1"),
        ("INTFTYPE", "eth"),
        ("SKIP_ZEROTOUCH_BARRIER_IN_SYSDBINIT", "1"),
        ("container", "docker"),
    ),
    config_path="/mnt/flash/startup-config",
    renames=(_rename(r"et(?:hernet)?(\d+)(?:/(\d+))?(?:/(\d+))?", _joined("eth", "_")),),
)
_SRLINUX = Kind(
    image="ghcr.io/nokia/srlinux",
    config_path="/etc/opt/srlinux/config.json",
    renames=(_rename(r"ethernet-(\d+)/(\d+)(?:/(\d+))?", _joined("e", "-")),),
)
_FRR = Kind(image="quay.io/frrouting/frr:10.2.1", config_path="/etc/frr/frr.conf")
_LINUX = Kind(image=ALPINE, interactive=True)
_JUNIPER = Kind(renames=(_rename(r"(?:et|xe|ge)-0/0/(\d+)", _counted),))
_CSR = Kind(
    renames=(
        _rename(
            r"gi(?:gabitethernet)?(\d+)", lambda match: f"eth{max(int(match.group(1)) - 1, 0)}"
        ),
    ),
)
_VEOS = Kind(renames=(_rename(r"et(?:hernet)?1/(\d+)", _joined("eth", "")),))
_IOL = Kind(
    renames=(
        _rename(
            r"e(?:thernet)?(\d+)/(\d+)",
            lambda match: f"eth{4 * int(match.group(1)) + int(match.group(2))}",
        ),
    ),
)
_CRPD = Kind(config_path="/config/juniper.conf")
_XR = Kind(renames=(_rename(r"(?:gi|gigabitethernet)0[/-]0[/-]0[/-](\d+)", _counted),))

KINDS: Mapping[str, Kind] = {
    "linux": _LINUX,
    "frr": _FRR,
    "quagga": Kind(image="networkop/qrtr", config_path="/etc/quagga/zebra.conf"),
    "gobgp": Kind(config_path="/gobgp.conf"),
    "ceos": _CEOS,
    "arista_ceos": _CEOS,
    "srl": _SRLINUX,
    "nokia_srlinux": _SRLINUX,
    "crpd": _CRPD,
    "juniper_crpd": _CRPD,
    "juniper_vmx": _JUNIPER,
    "juniper_vjunosrouter": _JUNIPER,
    "juniper_vjunosswitch": _JUNIPER,
    "vr-vmx": _JUNIPER,
    "vr-juniper_vmx": _JUNIPER,
    "juniper_vsrx": _JUNIPER,
    "arista_veos": _VEOS,
    "vr-veos": _VEOS,
    "cisco_iol": _IOL,
    "cisco_csr1000v": _CSR,
    "vr-csr": _CSR,
    "cisco_xrv9k": _XR,
    "vr-xrv9k": _XR,
    "cisco_xrd": Kind(config_path="/etc/xrd/first-boot.cfg"),
}
ANY = Kind()


def kind(name: str) -> Kind:
    return KINDS.get(name, ANY)
