"""Queueing disciplines (tc(8)) that slow, delay and lose what an interface sends: packed and read.

A rate is a tbf, tc-tbf(8); delay, jitter, loss and corruption are a netem, tc-netem(8), below the
tbf if there is one. Ours have handles of their own: what has another handle, the pod has put there.
The kernel refuses to put ours in the place of such a one. Pure, like `rtnetlink`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from ratchet.cni.dataclasses import dataclass, replace
from ratchet.impairment import Impairment
from ratchet_child.kernel.rtnetlink import attribute, attributes, number, text

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38

_TCMSG = struct.Struct("=BxxxiIII")  # struct tcmsg: family, interface, handle, parent, info
_TC_H_ROOT = 0xFFFFFFFF
_MAJOR = 16
_ROOT, _BELOW = 0x7261 << _MAJOR, 0x7262 << _MAJOR  # "ra", as the interfaces' mark
_CLASS = _ROOT | 1  # the one class of a tbf
_TCA_KIND, _TCA_OPTIONS = 1, 2
_HEADER_BYTES = 16  # struct nlmsghdr

# linux/pkt_sched.h
_TBF_OPTIONS = struct.Struct("=BBHhHIBBHhHIIII")  # two tc_ratespec; limit, buffer, mtu
_TCA_TBF_PARMS, _TCA_TBF_RATE64, _TCA_TBF_BURST = 1, 4, 6
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET
_NETEM_OPTIONS = struct.Struct("=IIIIII")  # latency, limit, loss, gap, duplicate, jitter
_TCA_NETEM_CORRUPT, _TCA_NETEM_LATENCY64, _TCA_NETEM_JITTER64 = 4, 10, 11
_U32 = 0xFFFFFFFF

_PPM = 1_000_000
_HEADERS_BYTES = 22  # Ethernet with two VLAN tags
_BURST_S = 0.01  # what a token bucket holds: the kernel fills it once in a timer's tick at worst
_QUEUE_S = 0.1  # how long a frame waits at most for its turn at a rate
_LEAST_FRAMES, _MOST_FRAMES = 1_000, 100_000  # that netem holds
_FRAME_BYTES, _USUAL_RATE_BITS = 1_500, 10**9

KINDS = ("tbf", "netem", "pfifo")  # which an interface has at its root if it has any of ours


@dataclass(frozen=True, slots=True)
class Part:
    """One of the queueing disciplines of an impairment, and what it is for."""

    kind: str
    does: Impairment
    body: bytes


def parts(index: int, wanted: Impairment, mtu_bytes: int) -> list[Part]:
    """Return what makes an impairment on an interface that has none, in order."""
    made = []
    parent, handle = _TC_H_ROOT, _ROOT
    if wanted.rate_bits is not None:
        options = _tbf(wanted.rate_bits, mtu_bytes)
        body = _qdisc(index, handle, parent, "tbf", options)
        made.append(Part("tbf", Impairment(rate_bits=wanted.rate_bits), body))
        parent, handle = _CLASS, _BELOW
    rest = replace(wanted, rate_bits=None)
    if rest != Impairment():
        options = _netem(wanted)
        made.append(Part("netem", rest, _qdisc(index, handle, parent, "netem", options)))
    return made


def nothing(index: int) -> bytes:
    """Return what has an interface send nothing: a pfifo without room, tc-pfifo(8)."""
    return _qdisc(index, _ROOT, _TC_H_ROOT, "pfifo", struct.pack("=I", 0))


def ours(index: int) -> bytes:
    """Return what removes our disciplines from an interface, and never another one."""
    return _TCMSG.pack(0, index, _ROOT, _TC_H_ROOT, 0)


def each_of_ours(index: int) -> tuple[bytes, ...]:
    """Ask for our disciplines of an interface, one at a time.

    A dump would be of all interfaces in the namespace, and a pod may have thousands.
    """
    return tuple(_TCMSG.pack(0, index, handle, 0, 0) for handle in (_ROOT, _BELOW))


def read(messages: Iterable[bytes]) -> dict[int, Impairment]:
    """Return what our disciplines among RTM_NEWQDISC messages do, by interface."""
    found: dict[int, Impairment] = {}
    for message in messages:
        _, index, handle, _, _ = _TCMSG.unpack_from(message, _HEADER_BYTES)
        if handle not in (_ROOT, _BELOW):
            continue
        own = attributes(message, _HEADER_BYTES + _TCMSG.size)
        options = own.get(_TCA_OPTIONS, b"")
        known = found.get(index, Impairment())
        match text(own.get(_TCA_KIND, b"")):
            case "tbf":
                found[index] = replace(known, rate_bits=_rate_bits(attributes(options)))
            case "netem":
                found[index] = replace(_done_by_netem(options), rate_bits=known.rate_bits)
            case _:
                found[index] = known
    return found


def _qdisc(index: int, handle: int, parent: int, kind: str, options: bytes) -> bytes:
    return (
        _TCMSG.pack(0, index, handle, parent, 0)
        + attribute(_TCA_KIND, kind.encode() + b"\0")
        + attribute(_TCA_OPTIONS, options)
    )


def _tbf(rate_bits: int, mtu_bytes: int) -> bytes:
    rate = rate_bits // 8
    # A frame that the bucket cannot hold would never be sent.
    burst = max(int(rate * _BURST_S), 2 * (mtu_bytes + _HEADERS_BYTES))
    limit = min(burst + int(rate * _QUEUE_S), _U32)
    spec = (0, _ETHERNET, 0, 0, 0, min(rate, _U32))
    options = attribute(_TCA_TBF_PARMS, _TBF_OPTIONS.pack(*spec, 0, 0, 0, 0, 0, 0, limit, 0, 0))
    options += attribute(_TCA_TBF_BURST, struct.pack("=I", min(burst, _U32)))
    if rate > _U32:
        options += attribute(_TCA_TBF_RATE64, struct.pack("=Q", rate))
    return options


def _rate_bits(options: Mapping[int, bytes]) -> int | None:
    rate = number(options.get(_TCA_TBF_RATE64))
    if rate is None:
        spec = options.get(_TCA_TBF_PARMS, b"")
        if len(spec) < _TBF_OPTIONS.size:
            return None
        rate = int(_TBF_OPTIONS.unpack_from(spec)[5])
    return rate * 8


def _netem(wanted: Impairment) -> bytes:
    delay_us, jitter_us = wanted.delay_us or 0, wanted.jitter_us or 0
    # All that is on its way has to fit in.
    bits = (wanted.rate_bits or _USUAL_RATE_BITS) * (delay_us + jitter_us) // _PPM
    frames = min(_LEAST_FRAMES + bits // 8 // _FRAME_BYTES, _MOST_FRAMES)
    options = _NETEM_OPTIONS.pack(0, frames, _share(wanted.loss_ppm), 0, 0, 0)
    options += attribute(_TCA_NETEM_LATENCY64, struct.pack("=q", delay_us * 1000))
    options += attribute(_TCA_NETEM_JITTER64, struct.pack("=q", jitter_us * 1000))
    if wanted.corrupt_ppm is not None:
        corrupt = struct.pack("=II", _share(wanted.corrupt_ppm), 0)
        options += attribute(_TCA_NETEM_CORRUPT, corrupt)
    return options


def _done_by_netem(options: bytes) -> Impairment:
    if len(options) < _NETEM_OPTIONS.size:
        return Impairment()
    loss = _NETEM_OPTIONS.unpack_from(options)[2]
    more = attributes(options, _NETEM_OPTIONS.size)
    corrupt = number(more.get(_TCA_NETEM_CORRUPT, b"")[:4])
    return Impairment(
        delay_us=(number(more.get(_TCA_NETEM_LATENCY64)) or 0) // 1000 or None,
        jitter_us=(number(more.get(_TCA_NETEM_JITTER64)) or 0) // 1000 or None,
        loss_ppm=_ppm(loss),
        corrupt_ppm=_ppm(corrupt or 0),
    )


def _share(ppm: int | None) -> int:
    """Return a probability as the kernel counts it: of 2**32 - 1."""
    return round((ppm or 0) * _U32 / _PPM)


def _ppm(share: int) -> int | None:
    return round(share * _PPM / _U32) or None
