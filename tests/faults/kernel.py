"""What the kernel says of namespaces: interfaces, addresses, processes, and whether links carry.

By netlink, raw sockets and /proc directly, in this process: a check looks at some thirty namespaces
and is made several times a second, which `ip` and `ping` would be too slow for. It shares nothing
with the netlink code under test, so that an error there is not repeated here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from tests.lab.namespaces import enter

T = TypeVar("T")

MARK = 29281  # the group of Ratchet's interfaces, as the documentation has it

_HEADER = struct.Struct("=IHHII")
_GETLINK, _GETADDR, _GETQDISC = 18, 22, 38
_DONE, _ERROR = 3, 2
_UP, _RUNNING = 0x1, 0x40
_ROOT = 0xFFFFFFFF  # the parent of a discipline that an interface itself has
_DUMP = 0x301
_ETHERTYPE = 0x88B5  # IEEE 802: for experiments
_REPLY_S = 0.6


@dataclass
class Interface:
    ifname: str
    index: int
    up: bool
    running: bool = True  # netdevice(7): it has a carrier, and is not dormant
    mtu: int = 0
    group: int = 0
    alias: str = ""
    kind: str | None = None
    peer_index: int | None = None
    vni: int | None = None
    remote: str | None = None
    port: int | None = None
    mode: int | None = None  # of a macvlan
    rate_bits: int | None = None  # a second, by a token bucket at the root
    addresses: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Probe:
    """A link to be tried: from an interface in one namespace to one in another."""

    name: str
    path: str
    ifname: str
    far_path: str
    far_ifname: str
    far_address: str | None  # None: frames are sent, both ways


def in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, which may enter namespaces and never comes back."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            errors.append(error)

    thread = threading.Thread(target=work, name="looking")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def interfaces(paths: Iterable[str]) -> dict[str, dict[str, Interface] | None]:
    """The interfaces of namespaces, by path and name; None for a namespace that is gone."""

    def look() -> dict[str, dict[str, Interface] | None]:
        found: dict[str, dict[str, Interface] | None] = {}
        for path in paths:
            try:
                enter(path)
            except OSError:
                found[path] = None
                continue
            found[path] = _interfaces()
        return found

    return in_thread(look)


def _interfaces() -> dict[str, Interface]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as opened:
        by_index: dict[int, Interface] = {}
        request = struct.pack("=BxHiIIHHI", 0, 0, 0, 0, 0, 8, 29, 8)  # without statistics
        for body in _dump(opened, _GETLINK, request):
            one = _interface(body)
            by_index[one.index] = one
        for body in _dump(opened, _GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            length, index = body[1], struct.unpack_from("=I", body, 4)[0]
            attributes = dict(_attributes(body, 8))
            raw = attributes.get(2) or attributes.get(1)
            if raw is not None and index in by_index:
                text = f"{ipaddress.ip_address(raw)}/{length}"
                by_index[index].addresses.add(text)
        for body in _dump(opened, _GETQDISC, bytes(20)):
            index, _, parent = struct.unpack_from("=iII", body, 4)
            attributes = dict(_attributes(body, 20))
            is_bucket = attributes.get(1) == b"tbf\0" and parent == _ROOT
            if is_bucket and index in by_index:
                by_index[index].rate_bits = _rate_bits(attributes[2])
        return {one.ifname: one for one in by_index.values()}


def _interface(body: bytes) -> Interface:
    index, flags = struct.unpack_from("=4xiI", body)
    attributes = dict(_attributes(body, 16))
    one = Interface(attributes[3].rstrip(b"\0").decode(), index, bool(flags & _UP))
    one.running = bool(flags & _RUNNING)
    one.mtu = _number(attributes.get(4)) or 0
    one.group = _number(attributes.get(27)) or 0
    one.alias = attributes.get(20, b"").rstrip(b"\0").decode()
    one.peer_index = _number(attributes.get(5))
    info = dict(_attributes(attributes.get(18, b""), 0))
    if 1 in info:
        one.kind = info[1].rstrip(b"\0").decode()
    if one.kind == "vxlan":
        data = dict(_attributes(info.get(2, b""), 0))
        one.vni = _number(data.get(1))
        remote = data.get(2) or data.get(16)
        one.remote = str(ipaddress.ip_address(remote)) if remote else None
        one.port = int.from_bytes(data.get(15, b""), "big")
    if one.kind == "macvlan":
        one.mode = _number(dict(_attributes(info.get(2, b""), 0)).get(1))
    return one


def _rate_bits(options: bytes) -> int:
    """The rate of a token bucket, which the kernel has in bytes; struct tc_tbf_qopt."""
    inside = dict(_attributes(options, 0))
    (small,) = struct.unpack_from("=8xI", inside[1])
    return 8 * (int.from_bytes(inside[4], "little") if 4 in inside else small)


def _number(raw: bytes | None) -> int | None:
    return None if raw is None else int.from_bytes(raw[:4], "little")


def _attributes(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _dump(opened: socket.socket, kind: int, request: bytes) -> list[bytes]:
    """Everything of one kind. Once more when it changed under the dump."""
    while True:
        opened.send(_HEADER.pack(_HEADER.size + len(request), kind, _DUMP, 1, 0) + request)
        found: list[bytes] = []
        interrupted = done = False
        while not done:
            data = opened.recv(1 << 17)
            while len(data) >= _HEADER.size:
                length, answer, flags, _, _ = _HEADER.unpack_from(data)
                interrupted = interrupted or bool(flags & 0x10)
                if answer in (_DONE, _ERROR):
                    done = True
                else:
                    found.append(data[_HEADER.size : length])
                data = data[(length + 3) & ~3 :]
        if not interrupted:
            return found


# Whether links carry


def deaf(probes: Iterable[Probe]) -> set[str]:
    """The names of those over which nothing comes back."""
    return in_thread(lambda: _deaf(list(probes)))


def _deaf(probes: list[Probe]) -> set[str]:
    with contextlib.ExitStack() as stack:
        waiting: dict[socket.socket, tuple[str, Callable[[bytes], bool]]] = {}
        unheard: dict[str, int] = {}
        for number, probe in enumerate(probes, 1):
            unheard[probe.name] = 1 if probe.far_address else 2
            try:
                if probe.far_address:
                    made = [_ping(probe, number, stack)]
                else:
                    made = _frames(probe, number, stack)
            except OSError:
                continue  # an interface or an address is missing: others will say so
            for opened, is_answer in made:
                waiting[opened] = (probe.name, is_answer)
        poll = select.poll()
        by_fd = {opened.fileno(): opened for opened in waiting}
        for descriptor in by_fd:
            poll.register(descriptor, select.POLLIN)
        end = time.monotonic() + _REPLY_S
        while by_fd and (left := end - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                opened = by_fd[descriptor]
                name, is_answer = waiting[opened]
                with contextlib.suppress(OSError):
                    if not is_answer(opened.recv(2048)):
                        continue
                unheard[name] -= 1
                poll.unregister(descriptor)
                del by_fd[descriptor]
        return {name for name, left_over in unheard.items() if left_over}


def _ping(
    probe: Probe, number: int, stack: contextlib.ExitStack
) -> tuple[socket.socket, Callable[[bytes], bool]]:
    enter(probe.path)
    assert probe.far_address is not None
    six = ":" in probe.far_address
    family = socket.AF_INET6 if six else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    opened = stack.enter_context(socket.socket(family, socket.SOCK_RAW, protocol))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, probe.ifname.encode())
    payload = os.urandom(8)
    message = struct.pack("!BBHHH", 128 if six else 8, 0, 0, number, 1) + payload
    if not six:  # the kernel makes ICMPv6's checksum itself
        message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]
    opened.sendto(message, (probe.far_address, 0))
    expected = bytes([129 if six else 0])

    def is_answer(data: bytes) -> bool:
        body = data if six else data[(data[0] & 15) * 4 :]
        return body[:1] == expected and body.endswith(payload)

    return opened, is_answer


def _frames(
    probe: Probe, number: int, stack: contextlib.ExitStack
) -> list[tuple[socket.socket, Callable[[bytes], bool]]]:
    ends = []
    for path, ifname in ((probe.path, probe.ifname), (probe.far_path, probe.far_ifname)):
        enter(path)
        opened = stack.enter_context(
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE))
        )
        opened.bind((ifname, _ETHERTYPE))
        ends.append(opened)
    payload = os.urandom(8) + struct.pack("!I", number)
    frame = b"\xff" * 6 + b"\x02" + os.urandom(5) + struct.pack("!H", _ETHERTYPE)
    made: list[tuple[socket.socket, Callable[[bytes], bool]]] = []
    for sender, receiver, mark in ((ends[0], ends[1], b"a"), (ends[1], ends[0], b"b")):
        sender.send(frame + payload + mark + bytes(40))
        made.append((receiver, lambda data, text=payload + mark: text in data))  # type: ignore[misc]
    return made


def _checksum(data: bytes) -> int:
    total = int(sum(struct.unpack(f"!{len(data) // 2}H", data)))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


# Processes


@dataclass
class Process:
    pid: int
    netns: int  # inode of its network namespace
    command: str


def processes() -> list[Process]:
    """Every process of the machine that has not ended."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            netns = os.stat(f"/proc/{entry}/ns/net").st_ino
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
            found.append(Process(int(entry), netns, command))
    return found


@dataclass
class Descriptors:
    """What a process has open."""

    count: int = 0
    namespaces: list[int] = field(default_factory=list)  # inodes of network namespaces
    sockets: int = 0


def descriptors(pid: int) -> Descriptors:
    found = Descriptors()
    own = os.stat("/proc/self/ns/net")
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/fd/{name}"
                target = os.readlink(path)
                found.count += 1
                found.sockets += target.startswith("socket:")
                if target.startswith(("net:", "/run/netns/", "/var/run/netns/")):
                    status = os.stat(path)
                    if status.st_dev == own.st_dev:
                        found.namespaces.append(status.st_ino)
    return found
