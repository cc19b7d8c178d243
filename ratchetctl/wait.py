"""`ratchetctl wait`: the init container that ends when a pod's links are up.

It runs inside the pod's network namespace and asks nobody but the kernel, so it needs no rights at
the API server, no capability and no way to etcd. What to wait for is named by the arguments, or
read from the pod's own labels and annotations as the downward API writes them into files.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType

import click

from ratchet import labels, names, pods
from ratchet.errors import LabelError
from ratchetctl import wording
from ratchetctl.errors import WaitError
from ratchetctl.status import WAITS

PODINFO = "/etc/podinfo"
CNI_IFNAME = "eth0"
_LOOK_S = 0.2
_SAY_AGAIN_S = 60.0
_SIOCGIFFLAGS = 0x8913  # netdevice(7)
_IFF_UP, _IFF_RUNNING = 0x1, 0x40

ABSENT, DOWN, NO_CARRIER = "there is no such interface yet", "it is set down", "it has no carrier"


@dataclass(frozen=True, slots=True)
class Awaited:
    """An interface, and the far pod of its link where that is known."""

    ifname: str
    far_pod: str | None = None

    def __str__(self) -> str:
        return self.ifname if self.far_pod is None else f"{self.ifname} to {self.far_pod}"


@click.command()
@click.argument("interfaces", nargs=-1, metavar="[IFNAME[=POD]]...")
@click.option(
    "--podinfo",
    metavar="DIR",
    default=None,
    help=f"where the files labels and annotations of the downward API are  [default: {PODINFO}]",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=None,
    help="give up after this time  [default: wait for as long as it takes]",
)
def wait(interfaces: tuple[str, ...], podinfo: str | None, timeout_s: float | None) -> None:
    """Wait until a pod's links are up, as an init container of that pod.

    For example: ratchetctl wait in1 in2=r3

    A link is up when its interface is there and has a carrier. The name of the far pod is only for
    the messages. Without an IFNAME, the links are those that the pod's labels and annotations
    declare or expect.

    The exit status is 0 when all links are up, 3 if --timeout was over before, 1 if the command
    failed, and 2 for wrong arguments.
    """
    if interfaces and podinfo is not None:
        raise click.UsageError("name the interfaces or give --podinfo, not both")
    # The first process of a container is ended only by signals that it handles, pid_namespaces(7).
    signal.signal(signal.SIGTERM, _end)
    awaited = [read(one) for one in interfaces] or declared(podinfo or PODINFO)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        missing = until_up(
            awaited, lambda ifname: lack_of(asked, ifname), timeout_s, say=_say, pause=time.sleep
        )
    if missing:
        _say(f"gave up after {timeout_s:g} s: {shown(missing)}")
        click.get_current_context().exit(WAITS)
    _say(f"all links are up: {', '.join(str(one) for one in awaited)}")


def until_up(
    awaited: Iterable[Awaited],
    lack: Callable[[str], str | None],
    timeout_s: float | None,
    *,
    say: Callable[[str], None],
    pause: Callable[[float], None],
    clock: Callable[[], float] = time.monotonic,
) -> dict[Awaited, str]:
    """Wait until nothing is lacking; return what still is when the time is over.

    What is waited for is said when it changes, and once a minute.
    """
    began = clock()
    said: dict[Awaited, str] = {}
    said_at = began
    while True:
        missing = {one: why for one in awaited if (why := lack(one.ifname)) is not None}
        now = clock()
        if not missing or (timeout_s is not None and now - began >= timeout_s):
            return missing
        if missing != said or now - said_at >= _SAY_AGAIN_S:
            say(f"waiting for {shown(missing)}")
            said, said_at = missing, now
        pause(_LOOK_S)


def shown(missing: dict[Awaited, str]) -> str:
    """Return what is missing, and why, in one line."""
    return "; ".join(f"{one}: {why}" for one, why in missing.items())


def read(text: str) -> Awaited:
    """Read IFNAME or IFNAME=POD. *Raises* UsageError."""
    ifname, has_pod, pod = text.partition("=")
    if not names.is_ifname(ifname):
        raise click.UsageError(f"{text!r}: allowed is an interface name, with =POD or without")
    if has_pod and not names.is_pod_name(pod):
        raise click.UsageError(f"{text!r}: allowed after the = is the name of a pod")
    return Awaited(ifname, pod or None)


def declared(directory: str) -> list[Awaited]:
    """Return what the pod's labels and annotations declare and expect. *Raises* WaitError."""
    words = [_downward(os.path.join(directory, name)) for name in ("labels", "annotations")]
    if words == [None, None]:
        raise WaitError(
            f"nothing says what to wait for: name the interfaces, or mount a downwardAPI volume "
            f"with the files labels and annotations at {directory}"
        )
    own, notes = (one or {} for one in words)
    if not pods.says_eligible(own, notes):
        raise WaitError(f'{directory} does not say ratchet: "true", so the pod gets no links')
    try:
        wiring = labels.parse(own, notes, own_name=socket.gethostname(), cni_ifname=CNI_IFNAME)
    except LabelError as error:
        raise WaitError(f"{directory}: {error}") from error
    awaited = [Awaited(one.ifname, one.pair) for one in wiring.links]
    awaited += [Awaited(one.ifname) for one in wiring.uplinks]
    awaited += [Awaited(one) for one in wiring.expected]
    if not awaited:
        raise WaitError(
            "the pod's labels declare no link: name the interfaces of the links that other pods "
            "declare on it"
        )
    return awaited


def _downward(path: str) -> dict[str, str] | None:
    """Read lines of key="value", where Go has quoted the value; None without the file."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    found = {}
    for line in lines:
        key, _, value = line.partition("=")
        try:
            found[key] = unquoted(value)
        except ValueError as error:
            raise WaitError(f'{path}: {line!r}: allowed are lines of key="value"') from error
    return found


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_DIGITS = {"x": 2, "u": 4, "U": 8}


def unquoted(text: str) -> str:
    """Return what Go's strconv.Quote has quoted. *Raises* ValueError."""
    if len(text) < len('""') or text[0] != '"' or text[-1] != '"':
        raise ValueError("not in quotes")
    found = []
    rest = iter(text[1:-1])
    for char in rest:
        if char != "\\":
            found.append(char)
            continue
        kind = next(rest, "\\")
        if kind in _DIGITS:
            number = "".join(next(rest, "") for _ in range(_DIGITS[kind]))
            found.append(chr(int(number, 16)))
        else:
            found.append(_ESCAPES.get(kind, kind))
    return "".join(found)


def lack_of(asked: socket.socket, ifname: str) -> str | None:
    """Say what an interface lacks to be up, None for nothing. netdevice(7), no capability."""
    try:
        answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, struct.pack("16sH14x", ifname.encode(), 0))
    except OSError:
        return ABSENT
    (flags,) = struct.unpack_from("H", answer, 16)
    if not flags & _IFF_UP:
        return DOWN
    return None if flags & _IFF_RUNNING else NO_CARRIER


def _say(text: str) -> None:
    click.echo(wording.plain(text))


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    sys.exit(128 + number)
