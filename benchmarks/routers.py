"""A random network of OSPF routers in the simulator, until every router reaches every loopback.

What is timed is the user's command, `ratchetctl topo create --sim --run`, and what the network
needs after it. Whether a router reaches the others is seen without a process: a socket in its
namespace sends an ICMP echo to each loopback. Its table of routes is counted before that, so that
looking takes little of the time that is measured.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.command import Lab, lab
from benchmarks.etcd import cpu_s
from benchmarks.figures import Results
from ratchetctl.sim import netns, processes
from ratchetctl.sim.directory import SimDirectory

TIMEOUT_S = 180.0
LOOK_EVERY_S = 0.25
_ROUTES = "/proc/thread-self/net/route"
_LOOPBACK = re.compile(r"ip address (?:replace|add) ([0-9.]+)/32 dev lo")
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_ICMP = struct.Struct("!BBHHH")
_SO_RCVBUFFORCE = 33  # socket(7)
_ROOM = 1 << 22  # of a socket that hears two hundred answers at once


class RoutersError(Exception):
    """The network does not come up."""


class Router:
    """A socket in one router, and the loopbacks that have not answered it yet."""

    def __init__(self, path: str, own: str, loopbacks: Sequence[str]) -> None:
        self._path = path
        self.silent = set(loopbacks) - {own}
        self._needed = {_as_in_proc(one) for one in self.silent}
        self._number = secrets.randbelow(1 << 16)
        with netns.inside(path):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        self._socket.bind((own, 0))

    def close(self) -> None:
        self._socket.close()

    def has_routes(self) -> bool:
        """Say whether there is a route to every loopback; proc_pid_net(5)."""
        if self._needed:
            with netns.inside(self._path), open(_ROUTES, encoding="ascii") as file:
                self._needed.difference_update(line.split("\t", 2)[1] for line in file)
        return not self._needed

    def ask(self) -> None:
        """Send an echo to every loopback that has not answered yet."""
        for address in self.silent:
            with contextlib.suppress(OSError):
                self._socket.sendto(_echo(self._number), (address, 0))

    def listen(self) -> None:
        """Take the answers that have arrived."""
        while True:
            try:
                packet, (address, _) = self._socket.recvfrom(256)
            except BlockingIOError:
                return
            except OSError:
                continue
            start = (packet[0] & 0x0F) * 4
            kind, _, _, number, _ = _ICMP.unpack_from(packet, start)
            if kind == _ECHO_REPLY and number == self._number:
                self.silent.discard(address)


def _echo(number: int) -> bytes:
    """Return an ICMP echo request; RFC 792, its checksum RFC 1071."""
    total = (_ECHO_REQUEST << 8) + number + 1
    total = (total & 0xFFFF) + (total >> 16)
    return _ICMP.pack(_ECHO_REQUEST, 0, ~total & 0xFFFF, number, 1)


def _as_in_proc(address: str) -> str:
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"


@dataclass(frozen=True, slots=True)
class _Spent:
    """What the processes of a simulation have used until now."""

    cpu_s: float
    memory_kb: int


def measure(results: Results, plugin_dir: str, nodes: int, more: int, seed: int) -> None:
    """Bring a random network up with one command, and time it until every loopback answers."""
    with lab(plugin_dir) as made:
        drawn = made.topo("random", str(nodes), str(more), "--seed", str(seed), "--routing", "ospf")
        _time(results, made, drawn, nodes)
        destroyed_s = made.destroy()
    results.add("routers/destroy", f"{nodes} routers, until nothing is left", "s", [destroyed_s])


def _time(results: Results, made: Lab, topology: str, nodes: int) -> None:
    free_before = _available_kb()
    created = made.create(topology, "--run")
    missing = _converge(made.directory, created.started)
    answered_s = time.perf_counter() - created.started
    if missing:
        results.problem(f"routers: {missing} of {nodes * (nodes - 1)} loopbacks do not answer")
    spent = _spent(made.directory)
    text = f"{nodes} OSPF routers"
    for key, what, unit, value in (
        ("answer", "until every loopback answers from every router", "s", answered_s),
        ("create", "until `topo create` has returned", "s", created.wall_s),
        ("missing", "loopbacks that do not answer", "", float(missing)),
        ("cpu/create", "cpu of `topo create` and what it waits for", "s", created.cpu_s),
        ("cpu/run", "cpu of what runs then", "s", spent.cpu_s),
        ("memory", "memory of all processes, shared parts counted once", "kB", spent.memory_kb),
        ("taken", "memory that the machine has less", "kB", free_before - _available_kb()),
    ):
        results.add(f"routers/{key}", f"{text}, {what}", unit, [float(value)])


def _converge(directory: SimDirectory, started: float) -> int:
    """Wait until every loopback has answered every router; how many have not in the end."""
    loopbacks = _loopbacks(directory)
    paths = {pod.name: pod.netns for pod in directory.pods()}
    if set(loopbacks) != set(paths):
        raise RoutersError("not every router has a loopback address")
    every = list(loopbacks.values())
    with contextlib.ExitStack() as stack:
        routers = []
        for name, own in loopbacks.items():
            routers.append(Router(paths[name], own, every))
            stack.callback(routers[-1].close)
        while any(router.silent for router in routers):
            if time.perf_counter() - started > TIMEOUT_S:
                break
            asking = [one for one in routers if one.silent and one.has_routes()]
            for router in asking:
                router.ask()
                for other in asking:
                    if other is router:
                        break
                    other.listen()
            deadline = time.perf_counter() + LOOK_EVERY_S
            while time.perf_counter() < deadline and any(one.silent for one in asking):
                for router in asking:
                    router.listen()
                time.sleep(0.005)
            if not asking:
                time.sleep(LOOK_EVERY_S)
        return sum(len(router.silent) for router in routers)


def _loopbacks(directory: SimDirectory) -> Mapping[str, str]:
    """Return the loopback address of each pod, from what it was told to run first."""
    found = {}
    for pod in directory.pods():
        work = directory.read_work(pod)
        match = _LOOPBACK.search(str(work["first"])) if work is not None else None
        if match is not None:
            found[pod.name] = match[1]
    return found


def _spent(directory: SimDirectory) -> _Spent:
    paths = directory.all_netns()
    identities = {found for path in paths if (found := netns.identity(path))}
    pids = processes.pids(identities)
    return _Spent(sum(map(cpu_s, pids)), sum(map(_share_kb, pids)))


def _share_kb(pid: int) -> int:
    """Return a process's share of memory, what several have counted once; proc_pid_smaps(5)."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
    return 0


def _available_kb() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
