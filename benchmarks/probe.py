"""Seeing that a link is there, without starting a process and within a fraction of a millisecond.

Sockets stay in the namespace in which they were made, so one thread can look into all pods. A link
is up when both of its ends have their addresses, are up and running, and a frame has crossed in
each direction. Frames carry the number of their link: one that arrives at another link's end tells
of pods that were wired to a stranger.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from dataclasses import dataclass, field

from ratchetctl.sim import netns

_ETH_P_PROBE = 0x88B5  # IEEE 802, local experimental
_ETH = struct.Struct("!6s6sH")
_BROADCAST = b"\xff" * 6
_SOURCE = b"\x02rtchb"
_BODY = struct.Struct("!8sIB")
_MAGIC = b"rtchbnch"
_SHORTEST_FRAME = 60

_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915
_IFREQ = struct.Struct("=16s24x")
_FLAGS = struct.Struct("=16xH")
_IFF_UP, _IFF_RUNNING = 0x1, 0x40


class Eyes:
    """Sockets in one pod."""

    def __init__(self, path: str) -> None:
        with netns.inside(path):
            self._control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._packets = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_PROBE)
            )
        self._packets.setblocking(False)
        self.arrived: set[tuple[str, int, int]] = set()  # interface, link, direction

    def close(self) -> None:
        self._control.close()
        self._packets.close()

    def is_ready(self, ifname: str, address: str) -> bool:
        """Say whether an interface is up and has an address."""
        request = _IFREQ.pack(ifname.encode())
        try:
            flags = _FLAGS.unpack_from(fcntl.ioctl(self._control, _SIOCGIFFLAGS, request))[0]
            if flags & (_IFF_UP | _IFF_RUNNING) != _IFF_UP | _IFF_RUNNING:
                return False
            answer = fcntl.ioctl(self._control, _SIOCGIFADDR, request)
        except OSError:
            return False
        return socket.inet_ntoa(answer[20:24]) == address

    def send(self, ifname: str, number: int, direction: int) -> None:
        frame = _ETH.pack(_BROADCAST, _SOURCE, _ETH_P_PROBE) + _BODY.pack(_MAGIC, number, direction)
        with contextlib.suppress(OSError):  # it has just gone
            self._packets.sendto(frame.ljust(_SHORTEST_FRAME, b"\0"), (ifname, 0))

    def read(self) -> None:
        """Take what has arrived."""
        while True:
            try:
                frame, (ifname, _, kind, *_) = self._packets.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:
                continue
            if kind == socket.PACKET_OUTGOING or len(frame) < _ETH.size + _BODY.size:
                continue
            magic, number, direction = _BODY.unpack_from(frame, _ETH.size)
            if magic == _MAGIC:
                self.arrived.add((ifname, number, direction))


@dataclass(slots=True)
class End:
    """One end of a link, as it should be."""

    eyes: Eyes
    ifname: str
    address: str


@dataclass(slots=True)
class Cable:
    """A link that is expected between two pods."""

    number: int
    a: End
    b: End
    is_ready: bool = field(default=False)

    def answers(self) -> bool:
        """Look once."""
        if not self.is_ready:
            self.is_ready = all(
                end.eyes.is_ready(end.ifname, end.address) for end in (self.a, self.b)
            )
            if not self.is_ready:
                return False
        self.a.eyes.send(self.a.ifname, self.number, 0)
        self.b.eyes.send(self.b.ifname, self.number, 1)
        self.a.eyes.read()
        self.b.eyes.read()
        return (self.b.ifname, self.number, 0) in self.b.eyes.arrived and (
            self.a.ifname,
            self.number,
            1,
        ) in self.a.eyes.arrived

    def strangers(self) -> int:
        """Return how many frames of other links have arrived at the ends of this one."""
        return sum(
            1
            for end in (self.a, self.b)
            for ifname, number, _ in end.eyes.arrived
            if ifname == end.ifname and number != self.number
        )
