"""Network namespaces as the tests see them: made, looked into, listened to, removed.

It looks with `ip`, `ping` and plain sockets only. It must not use the project's own netlink code or
its simulator: what these tests say about the kernel has to come from somebody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tests.lab.polling import DEADLINE_S, wait_for

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
MS_BIND, MNT_DETACH = 0x1000, 0x2  # mount(2), umount2(2)
ETH_P_ALL = 0x0003
SIOCGIFMTU = 0x8921
COMMAND_TIMEOUT_S = 20.0

# Each worker of a parallel run takes ports of its own (random_port).
_FIRST_PORT, _WORKERS, _BLOCKS = 10000, 16, 437

# rtnetlink(7)
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV6_IFADDR = 0x100
RTM_NEWLINK, RTM_DELLINK, RTM_DELADDR = 16, 17, 21
IFF_UP, IFF_RUNNING = 0x1, 0x40

_libc = ctypes.CDLL(None, use_errno=True)
_is_folder_made = False


def random_name(kind: str) -> str:
    """Return a name that nothing else on the machine has."""
    return f"rt-{kind}-{secrets.token_hex(4)}"


def random_port() -> int:
    """Return a port for a server, with two more after it.

    Below those that the kernel gives to clients (ip_local_port_range, ip(7)): a server's port must
    not be one from which somebody has just asked another one.
    """
    return _FIRST_PORT + 3 * (_WORKERS * secrets.randbelow(_BLOCKS) + _worker() % _WORKERS)


def free_port() -> int:
    """Return a port for a server on this machine's own loopback, with two more after it, all free.

    The kernel's own choice (a socket bound to port 0) would be one that the kernel may give to a
    client before the server has started.
    """
    while True:
        port = random_port()
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for one in range(port, port + 3):
                probe = probes.enter_context(socket.socket())
                probe.bind(("127.0.0.1", one))
            return port


def _worker() -> int:
    """Return the number of the pytest-xdist worker that this is, 0 without workers."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def run(*argv: str, check: bool = True) -> str:
    """Run a program and return its standard output; its standard error is part of the failure."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    if check:
        assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}: {done.stderr.strip()}"
    return done.stdout


class Namespace:
    """A named network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        self.mounts: MountNamespace | None = None

    def __repr__(self) -> str:
        return f"<namespace {self.name}>"

    def create(self) -> None:
        """Make it as ip-netns(8) does; the first one has ip make the folder, too."""
        global _is_folder_made  # noqa: PLW0603 - the machine's folder
        if not _is_folder_made:
            run("ip", "netns", "add", self.name)
            _is_folder_made = True
            return
        os.close(os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))

        def make() -> None:
            _call("unshare", CLONE_NEWNET)
            _call("mount", b"/proc/thread-self/ns/net", self.path.encode(), None, MS_BIND, None)

        _on_a_thread(make, f"making {self.name}")

    def remove(self) -> None:
        """Remove the namespace as ip-netns(8) does. Safe to call twice."""
        if os.path.exists(self.path):
            _call("umount2", self.path.encode(), MNT_DETACH)
            os.unlink(self.path)

    @property
    def exists(self) -> bool:
        return os.path.exists(self.path)

    @property
    def inode(self) -> int:
        return os.stat(self.path).st_ino

    def ip(self, *args: str, check: bool = True) -> str:
        return run("ip", "-n", self.name, *args, check=check)

    def command(self, *argv: str) -> list[str]:
        """Return the argument list that runs a program in here.

        nsenter and not `ip netns exec`, which would give each program another mount namespace.
        """
        mounts = [] if self.mounts is None else [f"--mount={self.mounts.path}"]
        return ["nsenter", f"--net={self.path}", *mounts, "--", *argv]

    def command_output(self, *argv: str) -> str:
        """Return what a program in here prints."""
        return run(*self.command(*argv))

    def batch(self, commands: str) -> None:
        """Have ip(8) carry out commands, one a line, in one process."""
        argv = self.command("ip", "-batch", "-")
        subprocess.run(argv, input=commands, text=True, check=True, timeout=COMMAND_TIMEOUT_S)

    def try_batch(self, commands: Iterable[str], timeout_s: float) -> None:
        """Have ip(8) carry commands out as far as they can be, with the CPU that others leave."""
        argv = self.command("nice", "-n", "19", "ip", "-force", "-batch", "-")
        text, quiet = "".join(f"{line}\n" for line in commands), subprocess.DEVNULL
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                argv,
                input=text.encode(),
                stdout=quiet,
                stderr=quiet,
                check=False,
                timeout=timeout_s,
            )

    def sysctl(self, name: str, value: str) -> None:
        """Set a network parameter in here."""
        self.command_output("sh", "-c", f"echo {value} >/proc/sys/{name}")

    def processes(self) -> set[int]:
        """Return the ids of the processes that are in here."""
        inode, found = self.inode, set()
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    if os.stat(f"/proc/{entry}/ns/net").st_ino == inode:
                        found.add(int(entry))
        return found

    # Looking

    def names(self) -> set[str]:
        """Return the names of all interfaces, at a tenth of what `links` costs."""
        return self.do(lambda: {name for _, name in socket.if_nameindex()})

    def mtu(self, ifname: str) -> int:
        """Return the MTU of an interface (SIOCGIFMTU, netdevice(7)). Raises OSError."""

        def ask() -> int:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                answer = fcntl.ioctl(asking, SIOCGIFMTU, struct.pack("=16s24x", ifname.encode()))
            return int(struct.unpack_from("=i", answer, 16)[0])

        return self.do(ask)

    def links(self) -> dict[str, dict[str, Any]]:
        """Return every interface by name, as `ip -j -d link` prints it."""
        found: list[dict[str, Any]] = json.loads(self.ip("-j", "-d", "link", "show") or "[]")
        return {link["ifname"]: link for link in found if link}

    def link(self, ifname: str) -> dict[str, Any] | None:
        return self.links().get(ifname) if ifname in self.names() else None

    def addresses(self, ifname: str) -> list[str]:
        """Return the addresses of an interface with prefix length, link-local ones left out."""
        found: list[dict[str, Any]] = json.loads(
            self.ip("-j", "addr", "show", "dev", ifname, check=False) or "[]"
        )
        return [
            f"{address['local']}/{address['prefixlen']}"
            for link in found
            for address in link.get("addr_info", [])
            if address["scope"] == "global"
        ]

    def pings(self, address: str, *more: str) -> bool:
        """Say whether one echo request is answered within a second."""
        done = subprocess.run(
            self.command("ping", "-n", "-c1", "-W1", *more, address),
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        return done.returncode == 0

    def wait_ping(self, address: str, timeout_s: float = DEADLINE_S) -> None:
        wait_for(
            f"{address} to answer {self.name}", lambda: self.pings(address), timeout_s=timeout_s
        )

    def wait_link(
        self, ifname: str, kind: str | None = None, timeout_s: float = DEADLINE_S
    ) -> dict[str, Any]:
        """Wait until an interface is there (and of that kind) and return it."""
        found = wait_for(
            f"{kind or 'interface'} {ifname} in {self.name}",
            lambda: self.link(ifname),
            until=lambda link: link is not None and kind in (None, kind_of(link)),
            timeout_s=timeout_s,
        )
        assert found is not None
        return found

    def wait_no_link(self, ifname: str, timeout_s: float = DEADLINE_S) -> None:
        wait_for(
            f"{ifname} to leave {self.name}",
            lambda: ifname in self.names(),
            until=lambda is_there: not is_there,
            timeout_s=timeout_s,
        )

    def wait_no_carrier(self, ifname: str, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until the cable of an interface, which stays, is pulled out; return the interface.

        The pod has not set it down: that has no carrier either.
        """
        found = wait_for(
            f"{ifname} in {self.name} to lose its carrier",
            lambda: self.link(ifname),
            until=lambda link: link is None or not has_carrier(link),
            timeout_s=timeout_s,
        )
        assert found is not None, f"{ifname} has left {self.name}"
        assert "UP" in found["flags"], found
        return found

    # Inside

    def do(self, function: Callable[[], T]) -> T:
        """Call a function on a thread that has entered this namespace.

        A socket stays in the namespace in which it was made, so this is enough to get one.
        """

        def work() -> T:
            enter(self.path)
            return function()

        return _on_a_thread(work, f"in {self.name}")

    @contextlib.contextmanager
    def packets(self, ifname: str) -> Iterator[socket.socket]:
        """Give a packet(7) socket on an interface; what arrives is kept from the start."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            made.bind((ifname, ETH_P_ALL))
            # The membership makes a real card's driver and any switch chip deliver all multicasts.
            return made

        with self.do(make) as opened:
            yield opened

    def watch(self, ifname: str) -> LinkWatch:
        """Start listening for anything that happens to an interface."""
        link = self.link(ifname)
        assert link is not None, f"no {ifname} in {self.name}"
        return LinkWatch(self, ifname, int(link["ifindex"]))


class MountNamespace:
    """The files of the machine, but for some folders of its own: what nodes have one each of."""

    def __init__(self, *folders: str) -> None:
        self._fd = -1
        self._kept = [_keep(folder) for folder in folders]
        mounts = "".join(
            f"mkdir -p {folder} && mount -t tmpfs -o mode=700 tmpfs {folder} && "
            for folder in folders
        )
        # Slave: pods' namespaces that are made later are to be seen.
        argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c"]
        with subprocess.Popen(
            [*argv, f"{mounts} echo made && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as maker:
            assert maker.stdout is not None
            assert maker.stdout.readline() == "made\n"
            self._fd = os.open(f"/proc/{maker.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            maker.communicate()
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self) -> None:
        """Let go of it. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        while self._kept:
            os.unlink(self._kept.pop())


def _keep(folder: str) -> str:
    """Make a folder of the machine one that nobody else removes, by a file in it.

    Outside it is no mount point: it could be removed, and what is mounted on it would go with it.
    """
    path = os.path.join(folder, f".{random_name('kept')}")
    while True:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), open(path, "x"):
            return path


class LinkWatch:
    """Hears from the kernel when an interface or an address of it went away, even for a moment."""

    def __init__(self, namespace: Namespace, ifname: str, ifindex: int) -> None:
        self.what = f"{ifname} in {namespace.name}"
        self._ifindex = ifindex

        def make() -> socket.socket:
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            made.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
            made.setblocking(False)
            return made

        self._socket = namespace.do(make)

    def __enter__(self) -> LinkWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def flaps(self) -> list[str]:
        """Return what happened to the interface since the last call."""
        found: list[str] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return found
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                found += self._judge(kind, data[16:length])
                data = data[(length + 3) & ~3 :]

    def _judge(self, kind: int, body: bytes) -> list[str]:
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            index, flags = struct.unpack_from("=4xiI", body)
            if index == self._ifindex and kind == RTM_DELLINK:
                return [f"{self.what} was deleted"]
            if index == self._ifindex and not (flags & IFF_UP and flags & IFF_RUNNING):
                return [f"{self.what} went down"]
        elif kind == RTM_DELADDR:
            (index,) = struct.unpack_from("=4xi", body)
            if index == self._ifindex:
                return [f"{self.what} lost an address"]
        return []


def enter(path: str) -> None:
    """Move the calling thread into a network namespace."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)


def _call(function: str, *arguments: Any) -> None:
    """Call a function of the C library. Raises OSError."""
    if getattr(_libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _on_a_thread(function: Callable[[], T], name: str) -> T:
    """Return what a function returns on a thread of its own, which may change namespaces."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def kind_of(link: dict[str, Any]) -> str | None:
    """Return the kind of an interface: veth, vxlan, bridge; None for lo and real cards."""
    kind = link.get("linkinfo", {}).get("info_kind")
    return str(kind) if kind is not None else None


def vxlan_of(link: dict[str, Any]) -> dict[str, Any]:
    """Return what `ip -d` says about a vxlan interface (id, remote, port, link, ...)."""
    assert kind_of(link) == "vxlan", link
    data: dict[str, Any] = link["linkinfo"]["info_data"]
    return data


def has_carrier(link: dict[str, Any] | None) -> bool:
    """Tell whether an interface that is there has its cable plugged in."""
    assert link is not None, "the interface has gone"
    return "NO-CARRIER" not in link["flags"]


def is_up(link: dict[str, Any]) -> bool:
    return "UP" in link["flags"] and "LOWER_UP" in link["flags"]
