"""Network namespaces as open descriptors, and rtnetlink(7) sockets inside them.

Namespaces are opened by path; none that anybody else could see is created here. A socket stays in
the namespace in which it was opened, so a thread enters a namespace (setns(2), 20 microseconds)
just for that moment and every later request needs no change of namespace at all. pyroute2's own
helper for this forks a process and costs 8 to 28 ms, and its request loop several times what the
kernel needs, so of pyroute2 only the message formats are used.

An open namespace lives on after its last process and mount, with its interfaces: whoever holds a
`Namespace` must watch `is_current` and close it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping

from ratchet.cni.dataclasses import dataclass, field
from ratchet.errors import KernelError
from ratchet.netns import Identity, identity_at, is_another, own_identity
from ratchet_child import steps
from ratchet_child.kernel import rtnetlink

_CLONE_NEWNET = 0x40000000  # setns(2)
_NLMSG = struct.Struct("=IHHII")  # length, type, flags, sequence, port: netlink(7)
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_ECHO = 0x8
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_EXCL = 0x200
_RTMGRP_LINK = 1
_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_NETLINK_CAP_ACK = 10
_NETLINK_GET_STRICT_CHK = 12  # Linux 4.20: a dump of one interface's addresses is only that
_RECEIVE_BYTES = 1 << 17
_READS = 64  # of a monitor at a time; what is left is read in the next turn
_ANSWER_TIMEOUT_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


class Netlink:
    """A netlink socket in one namespace, rtnetlink's as a rule. Safe to use from many threads."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        """Open a socket in the calling thread's namespace."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(_ANSWER_TIMEOUT_S)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._lock = threading.Lock()
        self._sequence = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def request(self, *messages: tuple[int, int, bytes]) -> list[int]:
        """Send (type, flags, body) messages in one go; the errno of each, 0 for success."""
        steps.reach("netlink")
        with self._lock:
            numbers: dict[int, int] = {}
            packed = []
            for position, (kind, flags, body) in enumerate(messages):
                self._sequence += 1
                numbers[self._sequence] = position
                packed.append(
                    _message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, body)
                )
            results = [0] * len(messages)
            self._socket.send(b"".join(packed))
            while numbers:
                for kind, sequence, body in self._receive():
                    if kind == _NLMSG_ERROR and sequence in numbers:
                        results[numbers.pop(sequence)] = _error(body)
        steps.reach("netlink done")
        return results

    def transact(
        self,
        begin: tuple[int, int, bytes],
        messages: list[tuple[int, int, bytes]],
        end: tuple[int, int, bytes],
    ) -> int:
        """Send messages of which all or none are carried out; the first errno, 0 for success.

        That is nfnetlink's way: `begin` and `end` bracket the messages.
        """
        steps.reach("netlink")
        with self._lock:
            first = self._sequence + 1
            packed = []
            for kind, flags, body in (begin, *messages, end):
                self._sequence += 1
                # The last one's answer is sent when all have been carried out.
                ack = NLM_F_ACK if self._sequence == first + len(messages) else 0
                packed.append(_message(kind, flags | ack | NLM_F_REQUEST, self._sequence, body))
            self._socket.send(b"".join(packed))
            code = 0
            while True:
                for kind, sequence, body in self._receive():
                    if kind != _NLMSG_ERROR or not first <= sequence <= self._sequence:
                        continue
                    code = code or _error(body)
                    # An error of the brackets is one of the whole, and the only answer.
                    if sequence in (first, first + len(messages), self._sequence):
                        steps.reach("netlink done")
                        return code

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All answers to a dump request, each a whole message."""
        return self._ask(kind, NLM_F_DUMP, body)

    def get(self, kind: int, body: bytes, flags: int = 0) -> list[bytes]:
        """Return the answer to a request for one object, as whole messages.

        *Raises* OSError with the kernel's errno.
        """
        return self._ask(kind, NLM_F_ACK | flags, body)

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        with self._lock:
            while True:
                self._sequence += 1
                mine = self._sequence
                self._socket.send(_message(kind, flags | NLM_F_REQUEST, mine, body))
                answers: list[bytes] = []
                for answer_kind, answer in self._answers(mine):
                    if answer_kind == _NLMSG_ERROR:
                        code = _error(answer)
                        if code == errno.EINTR:  # the dump met a change: once more
                            break
                        if code:
                            raise OSError(code, os.strerror(code))
                        return answers
                    if answer_kind == _NLMSG_DONE:
                        return answers
                    answers.append(answer)

    def _answers(self, mine: int) -> Iterator[tuple[int, bytes]]:
        while True:
            for kind, sequence, body in self._receive():
                if sequence == mine:
                    yield kind, body

    def _receive(self) -> list[tuple[int, int, bytes]]:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, "the kernel did not answer") from error
        return list(messages(data))


_NOT_MOUNTED = (
    "this process sees a plain file there and no namespace: the namespace is gone, or the child"
    " runs in a container that does not see the node's mounts (mountPropagation: HostToContainer)"
)


class Namespace:
    """An open network namespace with a rtnetlink socket in it.

    *Needs* CAP_SYS_ADMIN. *Raises* KernelError when the path cannot be opened as a namespace.
    """

    def __init__(self, path: str, known: Identity | None, own: Identity) -> None:
        """Open what is at a path, if it is the namespace that is `known` to be the pod's.

        None where that was not kept. The node's `own` is refused always.
        """
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(f"open network namespace {path}", str(error)) from error
        status = os.fstat(self.fd)
        self.identity = (status.st_dev, status.st_ino)
        if is_another(self.identity, known, own):
            os.close(self.fd)
            whose = "the node's own namespace" if self.identity == own else "another namespace"
            raise KernelError(f"open network namespace {path}", f"{whose} is there")
        try:
            with entered(self.fd):
                self.netlink = Netlink()
        except OSError as error:
            is_namespace = _is_namespace(self.fd)
            os.close(self.fd)
            why = str(error) if is_namespace else _NOT_MOUNTED
            raise KernelError(f"enter network namespace {path}", why) from error

    def is_current(self) -> bool:
        """Whether the path still leads to this namespace."""
        return identity_at(self.path) == self.identity

    def close(self) -> None:
        """Let go of the namespace. *Safe to call twice.*"""
        if self.fd >= 0:
            self.netlink.close()
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True, slots=True)
class News:
    """What has become of Ratchet's interfaces in a namespace, by index."""

    changed: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()
    # By the pod, into another namespace: its number, -1 without one, and the index there.
    moved: Mapping[int, tuple[int, int]] = field(default_factory=dict)


class Monitor:
    """Hears what becomes of Ratchet's interfaces in a namespace.

    A pod may make thousands of interfaces of its own, and 200,000 events a second of these. The
    kernel drops those before they reach this process.
    """

    def __init__(self, namespace: Namespace | None = None) -> None:
        with entered(namespace.fd) if namespace else contextlib.nullcontext():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        _drop_unmarked(self._socket)
        self._socket.bind((0, _RTMGRP_LINK))
        self._socket.setblocking(False)
        self.is_behind = False  # there was more than `read` reads at a time

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> News | None:
        """Return what has happened, or a part of it; None when it may be anything."""
        changed: set[int] = set()
        gone: set[int] = set()
        moved: dict[int, tuple[int, int]] = {}
        self.is_behind = True
        for _ in range(_READS):
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                self.is_behind = False
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more happened than the buffer could hold
                    raise
                return None
            for kind, _, message in messages(data):
                if kind not in (_RTM_NEWLINK, _RTM_DELLINK) or rtnetlink.is_of_bridge(message):
                    continue
                if not rtnetlink.is_marked(message):
                    continue
                link = rtnetlink.read_link(message)
                if kind == _RTM_NEWLINK:
                    changed.add(link.index)
                    gone.discard(link.index)
                    moved.pop(link.index, None)
                elif link.moved_to is not None:
                    changed.discard(link.index)
                    moved[link.index] = link.moved_to
                else:
                    changed.discard(link.index)
                    gone.add(link.index)
        return News(frozenset(changed), frozenset(gone), moved)


class Namespaces:
    """The namespaces of this machine, by path. One object, so that tests can hand in others.

    `known` is what an attachment's namespace is known by; None where that was not kept. Another
    one at its path counts as none, and the node's own always does.
    """

    def __init__(self) -> None:
        """*Needs* a thread that has not entered another namespace."""
        self._own = own_identity()

    def exist(self, path: str, known: Identity | None) -> bool:
        """Say whether there is anything at a path that may be the attachment's namespace."""
        found = identity_at(path)
        return found is not None and not is_another(found, known, self._own)

    def open(self, path: str, known: Identity | None) -> Namespace:
        """Open the namespace at a path. *Raises* KernelError, also where it is another one."""
        return Namespace(path, known, self._own)

    def make(self) -> Namespace:
        """Make a namespace without a name, which is there until it is closed.

        *Raises* KernelError, OSError.
        """
        with _own() as own:
            if _libc.unshare(_CLONE_NEWNET):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            try:
                return Namespace("/proc/thread-self/ns/net", None, self._own)
            finally:
                _setns(own)

    def monitor(self, namespace: Namespace) -> Monitor:
        """Hear of interfaces in a namespace. *Raises* OSError."""
        return Monitor(namespace)


@contextlib.contextmanager
def entered(fd: int) -> Iterator[None]:
    """Be in a namespace for a moment: this thread only. *Raises* OSError."""
    with _own() as own:
        _setns(fd)
        try:
            yield
        finally:
            _setns(own)


@contextlib.contextmanager
def _own() -> Iterator[int]:
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield own
    finally:
        os.close(own)


def _is_namespace(fd: int) -> bool:
    """Say whether a file is one of the kernel's namespaces, which are on a device of their own."""
    return os.fstat(fd).st_dev == os.stat("/proc/self/ns/net").st_dev


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    length = _NLMSG.size + len(body)
    return _NLMSG.pack(length, kind, flags, sequence, 0) + body + b"\0" * (-length % 4)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Split what was received: type, sequence number and the whole of each message."""
    offset = 0
    while offset + _NLMSG.size <= len(data):
        length, kind, _, sequence, _ = _NLMSG.unpack_from(data, offset)
        if length < _NLMSG.size:
            return
        yield kind, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


_RTM_NEWLINK = 16
_RTM_DELLINK = 17


def _drop_unmarked(monitor: socket.socket) -> None:
    """Have the kernel give a socket the messages about marked interfaces only (socket(7))."""
    program = ctypes.create_string_buffer(b"".join(_FILTER.pack(*one) for one in _MARKED))
    address = struct.pack("@HP", len(_MARKED), ctypes.addressof(program))
    with contextlib.suppress(OSError):  # `read` passes over the rest
        monitor.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, address)


_SO_ATTACH_FILTER = 26
_FILTER = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, if false, operand
# Classic BPF, linux/filter.h. A netlink notification is one message; words are loaded as big-endian
# numbers, and the kernel writes attributes in the machine's order.
_MARKED = (
    (0x00, 0, 0, rtnetlink.ATTRIBUTES_OFFSET),  # ld #offset of the attributes
    (0x01, 0, 0, rtnetlink.GROUP_ATTRIBUTE),  # ldx #IFLA_GROUP
    (0x30, 0, 0, 0xFFFFF000 + 12),  # ldb [SKF_AD_NLATTR]: where that attribute is, or 0
    (0x15, 3, 0, 0),  # jeq #0, drop
    (0x07, 0, 0, 0),  # tax
    (0x40, 0, 0, 4),  # ld [x + 4]
    (0x15, 1, 0, int.from_bytes(struct.pack("=I", rtnetlink.MARK), "big")),  # jeq #mark, keep
    (0x06, 0, 0, 0),  # drop: ret #0
    (0x06, 0, 0, 0xFFFFFFFF),  # keep: ret #-1
)


def _error(message: bytes) -> int:
    """Return the errno in an NLMSG_ERROR message; 0 is an acknowledgement."""
    return -int(struct.unpack_from("=i", message, _NLMSG.size)[0])
