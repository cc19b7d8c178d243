"""The check of the way between nodes: frames to all others, and which of theirs have come.

Nobody answers a frame: each node only counts what comes, and says so at the API server. So there is
nothing here that could be made to send something to somebody who has not been named by whoever may
write on the agent's own pod, and no port is open. What comes is heard by a raw socket, which the
kernel gives what has passed the node's firewall, for the seconds that a check lasts and no longer:
every datagram of the node passes its filter meanwhile.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable

from ratchet import log
from ratchet.annotations import Asked, Heard
from ratchet.cni.ip import Host
from ratchet_child.agent import frames

LASTS_S = 8.0
_ROUNDS_S = (0.5, 1.5, 2.5, 3.5, 4.5, 5.5)  # agents begin when they hear of it
_PAUSE_S = 0.0003  # between two datagrams: a switch is not to be flooded
_SO_ATTACH_FILTER = 26
_SIOCGIFMTU = 0x8921
_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_DONT, _PROBE = 0, 3  # ip(7), IP_PMTUDISC_*: let it be fragmented; never, whatever is known
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_LARGEST_BYTES = 1 << 16
_IPV4_LENGTH = 0x0F


class Check:
    """One check, in a thread of its own. `on_end` is called when it is over."""

    def __init__(
        self,
        asked: Asked,
        address: str,
        port: int,
        mtu_bytes: int | None,
        on_end: Callable[[], None],
    ) -> None:
        self.number = asked.number
        self.result: Heard | None = None
        self._asked = asked
        self._address = address
        self._port = port
        self._mtu_bytes = mtu_bytes
        self._on_end = on_end
        self._thread = threading.Thread(target=self._run, name="check", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._heard()
        except (OSError, ValueError) as error:
            log.warning("nodes cannot be checked", error=str(error))
            self.result = Heard(self.number, error=str(error))
        self._on_end()

    def _heard(self) -> Heard:
        """Send and listen. *Raises* OSError and ValueError. *Blocks* `LASTS_S`. *Needs* NET_RAW."""
        if not self._address:
            raise ValueError("this node has no parent_address")
        own = Host.parse(self._address)
        peers = sorted({Host.parse(one) for one in self._asked.peers} - {own}, key=str)
        refused = [str(one) for one in peers if not is_a_node(one, own)]
        if refused:
            raise ValueError(f"{refused[0]} is no node's address")
        log.info("frames between nodes are checked", number=self.number, peers=len(peers))
        came: dict[Host, set[str]] = {peer: set() for peer in peers}
        unsent: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(listener(own.version, self._port))
            by_kind = {kind: stack.enter_context(_sender(own, kind)) for kind in frames.KINDS}
            started = time.monotonic()
            for at in (*_ROUNDS_S, LASTS_S):
                self._listen(raw, own, came, started + at)
                if at == LASTS_S:
                    break
                for peer in peers:
                    self._send(by_kind, own, peer, unsent)
                    self._listen(raw, own, came, time.monotonic() + _PAUSE_S)
        return Heard(
            self.number,
            silent=_those(came, lambda kinds: not kinds),
            small_only=_those(came, lambda kinds: kinds == {frames.SMALL}),
            fragmented=_those(
                came, lambda kinds: frames.LARGE in kinds and frames.WHOLE not in kinds
            ),
            unsent=unsent,
        )

    def _send(
        self, by_kind: dict[str, socket.socket], own: Host, peer: Host, unsent: dict[str, str]
    ) -> None:
        for kind, sock in by_kind.items():
            if kind != frames.SMALL and self._mtu_bytes is None:
                continue
            frame = frames.make(self._asked.secret, kind, own, peer, self._mtu_bytes or 0)
            try:
                sock.sendto(frame, (str(peer), self._port))
            except OSError as error:
                if kind == frames.SMALL:
                    unsent[str(peer)] = error.strerror or str(error)

    def _listen(
        self, raw: socket.socket, own: Host, came: dict[Host, set[str]], until: float
    ) -> None:
        while True:
            left_s = max(until - time.monotonic(), 0)
            if not select.select([raw], [], [], left_s)[0]:
                return
            datagram = raw.recv(_LARGEST_BYTES)
            header = 4 * (datagram[0] & _IPV4_LENGTH) if own.version == 4 and datagram else 0
            found = frames.read(
                self._asked.secret, own, datagram[header + frames.UDP_HEADER_BYTES :]
            )
            if found is not None and found[0] in came:
                came[found[0]].add(found[1])


def listener(version: int, port: int) -> socket.socket:
    """Return a socket that hears frames of a check. *Needs* NET_RAW."""
    raw = socket.socket(_FAMILY[version], socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_UDP)
    try:
        program = b"".join(struct.pack("=HBBI", *one) for one in frames.bpf(version, port))
        held = array.array("B", program)  # the kernel copies it
        packed = struct.pack("HP", len(program) // 8, held.buffer_info()[0])
        raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, packed)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    except BaseException:
        raw.close()
        raise
    return raw


def mtu_of(interface: str) -> int | None:
    """Return an interface's MTU in bytes; None when it is not there."""
    if not interface:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16si", os.fsencode(interface)[:15], 0)
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFMTU, request.ljust(40, b"\0"))
        except OSError:
            return None
    mtu: int = struct.unpack_from("16si", answer)[1]
    return mtu


def is_a_node(peer: Host, own: Host) -> bool:
    """Say whether a node may have an address, for one with an address of its own."""
    is_one = not (peer.is_unspecified or peer.is_loopback or peer.is_multicast)
    return is_one and peer.version == own.version and peer.packed != b"\xff" * 4


def _sender(own: Host, kind: str) -> socket.socket:
    sock = socket.socket(_FAMILY[own.version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(*_MTU_DISCOVER[own.version], _PROBE if kind == frames.WHOLE else _DONT)
        # Tunnels send from there as well, unless it is translated on its way.
        with contextlib.suppress(OSError):
            sock.bind((str(own), 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _those(came: dict[Host, set[str]], are: Callable[[set[str]], bool]) -> tuple[str, ...]:
    found: Iterable[Host] = (peer for peer, kinds in came.items() if are(kinds))
    return tuple(map(str, found))
