"""Which of FRR's daemons a configuration names, and with which options. Pure.

With the file `daemons`, that file decides, as it does on a router; without it, everything runs that
frr.conf has lines for or that has a file of its own (bgpd.conf).
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

FOLDERS = ("/etc/frr", "/etc/quagga")
INTEGRATED, DAEMONS, VTYSH = "frr.conf", "daemons", "vtysh.conf"

# In the order in which FRR's own script starts them (frrcommon.sh), with the lines of frr.conf that
# each alone understands.
LINES: Mapping[str, str] = {
    "zebra": r"$^",
    "bgpd": r"router bgp\b|bgp \S",
    "ripd": r"router rip\b",
    "ripngd": r"router ripng\b",
    "ospfd": r"router ospf\b| +ip ospf ",
    "ospf6d": r"router ospf6\b| +ipv6 ospf6 ",
    "isisd": r"router isis\b| +ip(v6)? router isis\b",
    "babeld": r"router babel\b| +babel ",
    "pimd": r"router pim$|ip (pim|msdp)\b| +ip (pim|igmp)\b",
    "pim6d": r"router pim6\b|ipv6 pim\b| +ipv6 (pim|mld)\b",
    "ldpd": r"mpls ldp\b",
    "nhrpd": r"nhrp \S| +ip(v6)? nhrp ",
    "eigrpd": r"router eigrp\b",
    "pbrd": r"pbr-map \S| +pbr-policy ",
    "staticd": r" *ip(v6)? m?route ",
    "bfdd": r"bfd$| +neighbor \S+ bfd\b| +ip(v6)? ospf6? bfd\b| +isis bfd\b| +ip pim bfd\b"
    r"| *ip(v6)? route .* bfd\b",
    "fabricd": r"router openfabric\b| +ip(v6)? router openfabric\b",
    "vrrpd": r"vrrp \S| +vrrp \d",
    "pathd": r"segment-routing$",
}
_PATTERNS = {daemon: re.compile(lines, re.MULTILINE) for daemon, lines in LINES.items()}
_OF_DAEMONS = frozenset(f"{daemon}.conf" for daemon in LINES)
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(\w+)=(.*)\Z")
# A router has its terminals' ports on lo only.
USUAL_OPTIONS = ("-A", "127.0.0.1")
# FRR's own value. A daemon keeps tables as long as the limit, many times over: where a machine
# allows a million files, a router would take hundreds of MB.
USUAL_MAX_FDS = 1024


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that is to run."""

    name: str
    options: tuple[str, ...] = USUAL_OPTIONS


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run, and what is named and will not run, with the reason.

    `files` are those of /etc/frr, by their names; `others` are the container's further ones.
    `max_fds` is how many files and sockets a daemon may have open.
    """

    daemons: tuple[Daemon, ...]
    files: Mapping[str, str]
    others: Mapping[str, str]
    left_out: tuple[tuple[str, str], ...] = ()
    max_fds: int = USUAL_MAX_FDS

    @property
    def is_integrated(self) -> bool:
        return INTEGRATED in self.files


def is_configuration(path: str) -> bool:
    """Say whether a file at this path of a container is FRR's, and enough for a router."""
    name = posixpath.basename(path)
    return name == INTEGRATED or (name in _OF_DAEMONS and posixpath.dirname(path) in FOLDERS)


def plan(files: Mapping[str, str], hostname: str) -> Plan:
    """Return what is to run for a container's files, by their paths."""
    own = dict(_files(files))
    found = {posixpath.basename(path): content for path, content in own.items()}
    others = {path: content for path, content in files.items() if path not in own}
    found.setdefault(VTYSH, "service integrated-vtysh-config\n")
    if INTEGRATED not in found and not _OF_DAEMONS & set(found):
        found[INTEGRATED] = f"hostname {hostname}\n"
    named = _named(found)
    if DAEMONS not in found:
        return Plan(tuple(map(Daemon, (one for one in LINES if one in named))), found, others)
    said = dict(_assignments(found[DAEMONS]))
    runs, left_out = [], []
    for name in LINES:
        if name in ("zebra", "staticd") or said.get(name, "no") not in ("", "no", "0"):
            runs.append(Daemon(name, _options(said, name)))
        elif name in named:
            left_out.append((name, f"the file daemons does not start it: write {name}=yes there"))
    return Plan(tuple(runs), found, others, tuple(left_out), _max_fds(said))


def written(daemons: Iterable[Daemon]) -> str:
    """Return the file `daemons` that has FRR's own script start these."""
    lines = ["vtysh_enable=yes"]
    for daemon in daemons:
        lines.append(f"{daemon.name}=yes")
        lines.append(f'{daemon.name}_options="{shlex.join(daemon.options)}"')
    return "".join(f"{line}\n" for line in lines)


def _files(files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the files of FRR's folder, wherever the integrated one lies."""
    homes = {posixpath.dirname(path) for path in files if posixpath.basename(path) == INTEGRATED}
    for path, content in files.items():
        folder = posixpath.dirname(path)
        if folder in homes or folder in FOLDERS:
            yield path, content


def _named(files: Mapping[str, str]) -> set[str]:
    text = files.get(INTEGRATED, "")
    named = {"zebra"}
    for daemon, pattern in _PATTERNS.items():
        if f"{daemon}.conf" in files or any(map(pattern.match, text.splitlines())):
            named.add(daemon)
    return named


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Yield what the shell would make of the lines of a file `daemons`."""
    for line in text.splitlines():
        match = _ASSIGNMENT.match(line)
        if match:
            yield match[1], " ".join(_words(match[2]))


def _options(said: Mapping[str, str], daemon: str) -> tuple[str, ...]:
    everywhere = _words(said.get("frr_global_options", ""))
    options = said.get(f"{daemon}_options")
    return (*everywhere, *(USUAL_OPTIONS if options is None else _words(options)))


def _max_fds(said: Mapping[str, str]) -> int:
    value = said.get("MAX_FDS", "")
    return int(value) if value.isdecimal() and int(value) > 0 else USUAL_MAX_FDS


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text, comments=True))
    except ValueError:
        return tuple(text.split())
