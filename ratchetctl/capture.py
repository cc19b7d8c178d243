"""`ratchetctl capture`: what goes over an interface of a pod, as a pcap stream.

A packet socket in the pod's network namespace, packet(7), and the file format of
draft-ietf-opsawg-pcap: no program has to be installed in the pod or on the node. Wireshark reads
the stream from a pipe.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import threading
import time
from typing import BinaryIO, NoReturn

import click

from ratchetctl import target
from ratchetctl.errors import StatusError
from ratchetctl.remote import HEARD_EVERY_S, Remote
from ratchetctl.sim import netns
from ratchetctl.target import Target

_MAGIC_NS = 0xA1B23C4D  # times in nanoseconds
_VERSION = (2, 4)
_LINKTYPE_ETHERNET = 1
_FILE = struct.Struct("=IHHiIII")
_FRAME = struct.Struct("=IIII")

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata: status, lengths, offsets, VLAN
_VLAN_VALID, _TPID_VALID = 1 << 4, 1 << 6
_ETH_P_8021Q = 0x8100
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("=qq")
_MACS_BYTES = 12  # of a frame, before the place of a VLAN tag
_BUFFER_BYTES = 4 << 20
_LOOK_S = 1.0  # how long it takes at most to notice that the interface has gone
_MOST_BYTES = 1 << 18
UNHEARD_S = 6 * HEARD_EVERY_S


@click.command()
@target.options
@click.option(
    "-w",
    "--write",
    "path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="write to FILE instead of standard output",
)
@click.option("-c", "--count", type=click.IntRange(1), help="end after so many frames")
@click.option(
    "-s",
    "--snaplen",
    type=click.IntRange(64, _MOST_BYTES),
    default=_MOST_BYTES,
    show_default=True,
    help="keep so many bytes of each frame",
)
@click.option("--while-heard", is_flag=True, hidden=True)
def capture(
    interface: Target | Remote,
    path: str | None,
    count: int | None,
    snaplen: int,
    while_heard: bool,
) -> None:
    """Stream what an interface of a pod sends and receives, in pcap format.

    For example: ratchetctl capture r1:eth1 --cluster | wireshark -k -i -

    It ends with Ctrl-C, or when the interface goes. The pod is on this node; with --sim in a
    simulation, with --cluster on a cluster.
    """
    if path is None and sys.stdout.isatty():
        raise click.UsageError("a capture is not for a terminal: use -w FILE or a pipe")
    if isinstance(interface, Remote):
        with contextlib.nullcontext() if path is None else open(path, "wb") as output:
            interface.repeat("--while-heard", without=("path",), output=output)
    if while_heard:
        threading.Thread(target=_end_unheard, daemon=True).start()
    netns.enter(interface.netns)
    with contextlib.ExitStack() as stack:
        taps = stack.enter_context(_open(interface))
        file: BinaryIO = (
            sys.stdout.buffer if path is None else stack.enter_context(open(path, "wb"))
        )
        with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
            file.write(header(snaplen))
            file.flush()
            _copy(taps, interface.ifname, file, count, snaplen)
            return
        # Nobody reads any more: nor may Python try to write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def header(snaplen: int) -> bytes:
    """Return how a file of Ethernet frames begins."""
    return _FILE.pack(_MAGIC_NS, *_VERSION, 0, 0, snaplen, _LINKTYPE_ETHERNET)


def record(frame: bytes, at_ns: int, snaplen: int) -> bytes:
    """Return one frame as it stands in the file."""
    seconds, rest = divmod(at_ns, 10**9)
    kept = frame[:snaplen]
    return _FRAME.pack(seconds & 0xFFFFFFFF, rest, len(kept), len(frame)) + kept


def tagged(frame: bytes, auxdata: bytes) -> bytes:
    """Return a frame with the VLAN tag that the kernel has taken off it."""
    status, _, _, _, _, tci, tpid = _AUXDATA.unpack(auxdata)
    if not status & _VLAN_VALID:
        return frame
    tag = struct.pack("!HH", tpid if status & _TPID_VALID else _ETH_P_8021Q, tci)
    return frame[:_MACS_BYTES] + tag + frame[_MACS_BYTES:]


def _open(interface: Target) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        made.settimeout(_LOOK_S)
        made.bind((interface.ifname, _ETH_P_ALL))
    except OSError as error:
        made.close()
        raise StatusError(f"{interface} cannot be listened to: {error.strerror}") from error
    return made


def _copy(
    taps: socket.socket, ifname: str, file: BinaryIO, count: int | None, snaplen: int
) -> None:
    taken = 0
    room = socket.CMSG_SPACE(_AUXDATA.size) + socket.CMSG_SPACE(_TIMESPEC.size)
    while count is None or taken < count:
        try:
            frame, ancillary, _, _ = taps.recvmsg(_MOST_BYTES, room)
        except OSError:
            # It was set down (ENETDOWN), and may be set up again, or it has gone; of the latter the
            # kernel does not tell who has heard of the former. Or nothing came for a while.
            if not _is_there(ifname):
                return
            continue
        at_ns = time.time_ns()
        for level, kind, data in ancillary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                frame = tagged(frame, data[: _AUXDATA.size])
            elif (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, rest = _TIMESPEC.unpack(data[: _TIMESPEC.size])
                at_ns = seconds * 10**9 + rest
        file.write(record(frame, at_ns, snaplen))
        file.flush()
        taken += 1


def _end_unheard() -> NoReturn:
    """End with whoever has started us from elsewhere: nobody tells us of a connection that is cut.

    Standard input says nothing but that somebody is there.
    """
    while select.select([sys.stdin], (), (), UNHEARD_S)[0] and os.read(sys.stdin.fileno(), 4096):
        pass
    # Not by an exception: the main thread may wait for a reader that has gone.
    os._exit(0)


def _is_there(ifname: str) -> bool:
    try:
        socket.if_nametoindex(ifname)
    except OSError:
        return False
    return True
