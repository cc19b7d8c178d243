"""What etcd is asked as the cluster grows: real engines, pairing and store against a real etcd.

    python -m benchmarks.growth FOLDER NODES PODS_PER_NODE MORE IDLE_SECONDS

One process holds the children of all nodes: the engine, the bells and the store are the product's
own, each node with its own connections. Only netlink is made up (the kernel of the protocol's model
stands for it), so a thousand nodes fit on one machine. One worker a node instead of six, as nobody
waits here. Prints one JSON object. `measure` starts it in a namespace with an etcd of its own.
"""

from __future__ import annotations

import gc
import ipaddress
import json
import os
import random
import resource
import secrets
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.bed import memory_folder
from benchmarks.etcd import Connection, Etcd
from benchmarks.figures import Results
from ratchet import log
from ratchet.attachments import Attachment, Directory
from ratchet.cni.ip import Address
from ratchet.config import Config
from ratchet.links import Link
from ratchet_child.bells import Bells
from ratchet_child.engine import Engine, Parts
from ratchet_child.model.keys import PodKey
from ratchet_child.model.local import Node as LocalNode
from ratchet_child.pods.records import Records
from ratchet_child.store.api import Event, Request
from ratchet_child.store.encoding import NAMES
from ratchet_child.store.etcd_v2 import EtcdV2Store
from ratchet_child.store.pipeline import Answered
from ratchet_child.store.transport import Transport
from ratchet_child.work.earlier_addresses import EarlierAddresses
from ratchetctl.sim import netns
from tests.unit.ratchet_child.protocol_model.kernel import Kernel, Namespaces, Spaces
from tests.unit.ratchet_child.protocol_model.world import Keeper

ADDRESS = "127.0.0.1"
ETCD_PORT = 2379
AT_ONCE = 4  # pods under way in the whole cluster, the same at any size
NEAR = 10  # how many pods later at most a pod's pair comes
PAUSE_S = 0.002
TIMEOUT_S = 1200.0
_STACK_BYTES = 512 * 1024
_BELLS = "bells"

# struct tcp_info, linux/tcp.h: bytes acknowledged and received.
_TCP_BYTES = struct.Struct("=120xQQ")


class _Tally:
    """Requests, events and bytes, of workers and of the watching threads apart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.events: Counter[str] = Counter()
        self.foreign = 0
        self._connections: set[socket.socket] = set()
        self._closed = (0, 0)

    def request(self, name: str) -> None:
        with self._lock:
            self.requests[_kind(), name] += 1

    def event(self, address: str, key: str) -> None:
        with self._lock:
            self.events[address] += 1
            self.foreign += not f"{key}/".startswith(f"nodes/{address}/")

    def connection(self, opened: socket.socket) -> None:
        if _kind() != _BELLS:
            with self._lock:
                self._connections.add(opened)

    def closing(self, opened: socket.socket) -> None:
        """Keep what a connection has carried, which nobody can ask when it is closed."""
        with self._lock:
            if opened in self._connections:
                self._connections.remove(opened)
                sent, received = _carried(opened)
                self._closed = self._closed[0] + sent, self._closed[1] + received

    def bytes(self) -> tuple[int, int]:
        """Return what was sent and received by the workers' connections."""
        with self._lock:
            sent, received = self._closed
            for opened in self._connections:
                one, other = _carried(opened)
                sent, received = sent + one, received + other
        return sent, received


def _carried(opened: socket.socket) -> tuple[int, int]:
    """Return the bytes that a connection has sent and received; none of one that is closed."""
    if opened.fileno() < 0:
        return 0, 0
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_BYTES.size)
    sent, received = _TCP_BYTES.unpack(info)
    return sent, received


def _kind() -> str:
    return _BELLS if threading.current_thread().name == _BELLS else "work"


_tally = _Tally()


class _CountingStore(EtcdV2Store):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._address = str(config.parent_address)

    def _transport(self, host: str, port: int, context: ssl.SSLContext | None) -> Transport:
        return _CountedTransport(host, port, context)

    def _exchange(
        self, client: Any, requests: Sequence[Request], on_large: Callable[[], None]
    ) -> list[Answered]:
        for one in requests:
            _tally.request(f"{NAMES[type(one)]} {_row(one.key)}")
        return super()._exchange(client, requests, on_large)

    def watch(self, key: str, index: int) -> Event | None:
        _tally.request(f"watch {_row(key)}")
        event = super().watch(key, index)
        # A bell that nobody needs any more is taken away half a minute later: time, not size.
        if event is not None and event.action != "expire":
            _tally.event(self._address, event.key)
        return event


def _row(key: str) -> str:
    """Return what kind of key it is, in the words of docs/etcd-keys.md."""
    match key.split("/"):
        case ["association", _, "links", *_]:
            return "links"
        case ["association" | "nodes", _, kind, *_]:
            return kind
        case [kind, *_]:
            return kind
        case _:
            return key


class _CountedTransport(Transport):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        connection = self._connection
        connect, close = connection.connect, connection.close

        def counted() -> None:
            connect()
            _tally.connection(connection.sock)

        def closed() -> None:
            if connection.sock is not None:
                _tally.closing(connection.sock)
            close()

        connection.connect = counted  # type: ignore[method-assign]
        connection.close = closed  # type: ignore[method-assign]


class _Node:
    """A node's child without its socket and without a kernel."""

    def __init__(self, number: int, folder: str) -> None:
        self.address = str(ipaddress.IPv4Address("10.0.0.0") + number)
        self.folder = os.path.join(folder, str(number))
        self.spaces = Spaces()
        self.directory = Directory(self.folder)
        config = Config.parse(
            {
                "type": "ratchet",
                "name": "growth",
                "cniVersion": "1.0.0",
                "delegate": {"type": "loopback"},
                "etcd_host": ADDRESS,
                "etcd_port": ETCD_PORT,
                "parent_interface": "eth0",
                "parent_address": self.address,
                "state_dir": self.folder,
            }
        )
        kernel = Kernel(self.spaces, self.address, lambda: None)
        made_up: dict[str, Any] = {
            "devices": kernel,
            "kinds": kernel.kinds(),
            "namespaces": Namespaces(self.spaces),
        }
        parts = Parts(
            node=LocalNode(self.address, "eth0", self.folder),
            store=_CountingStore(config),
            directory=self.directory,
            records=Records(self.folder),
            addresses=EarlierAddresses(self.folder),
            keeper=Keeper(),
            threads=1,
            **made_up,
        )
        self.engine = Engine(parts, lambda: None)
        self.bells = Bells(self.engine.store, self.engine)
        self.attached: dict[str, Attachment] = {}

    def start(self) -> None:
        self.engine.start()
        self.bells.start()

    @property
    def is_listening(self) -> bool:
        return self.engine.etcd.error is None

    def attach(self, name: str, links: tuple[Link, ...]) -> Callable[[], bool]:
        """Attach a pod; tells whether that is done."""
        container = secrets.token_hex(32)
        path = f"/netns/{self.address}/{container}"
        self.spaces.add(path, self.address)
        attachment = Attachment(
            container_id=container,
            ifname="eth0",
            netns=path,
            network="growth",
            namespace="default",
            pod=name,
            kubernetes_name=name,
            uid=None,
            links=links,
            public_ip=None,
            target_pod=None,
            target_container=None,
            attached_at=time.time(),
            boot=None,
            result={},
            boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME),
        )
        self.directory.write(attachment)
        self.attached[name] = attachment
        taken = self.engine.registry.attached(attachment.name)
        assert taken is not None
        return lambda: self.engine.status.is_served(*taken, "present")

    def detach(self, name: str) -> str:
        """Detach a pod; its container."""
        attachment = self.attached.pop(name)
        self.directory.mark_deleted(attachment.container_id, attachment.ifname)
        self.engine.registry.scan()
        self.spaces.remove(attachment.netns)
        return attachment.container_id

    def is_up(self, name: str) -> bool:
        links = self.engine.status.links(PodKey("default", name))
        return bool(links) and all(link.state == "up" for link in links)


class _Cluster:
    def __init__(self, nodes: int, folder: str) -> None:
        self.nodes = [_Node(number + 1, folder) for number in range(nodes)]
        for node in self.nodes:
            node.start()
        _wait("every node to listen", lambda: all(node.is_listening for node in self.nodes))


class _Phase:
    """What was counted between two moments."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._requests = Counter(_tally.requests)
        self._events = Counter(_tally.events)
        self._bytes = _tally.bytes()

    def per(self, links: int) -> dict[str, Any]:
        requests = Counter(_tally.requests)
        requests.subtract(self._requests)
        by_name = {name: n / links for (kind, name), n in requests.items() if kind != _BELLS and n}
        events = Counter(_tally.events)
        events.subtract(self._events)
        sent, received = (now - then for now, then in zip(_tally.bytes(), self._bytes, strict=True))
        return {
            "seconds": time.monotonic() - self._started,
            "requests": sum(by_name.values()),
            "requests_by_name": by_name,
            "bytes_sent": sent / links,
            "bytes_received": received / links,
            "events": sum(events.values()) / links,
            "nodes_that_heard": sum(1 for count in events.values() if count > 0),
            "watching_requests": sum(n for (kind, _), n in requests.items() if kind == _BELLS),
        }


def _wait(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {TIMEOUT_S:.0f} s for {what}")
        time.sleep(PAUSE_S)


def _at_most(actions: Iterable[Callable[[], Callable[[], bool]]]) -> None:
    """Begin actions, so many at once, until all are done."""
    under_way: list[Callable[[], bool]] = []
    deadline = time.monotonic() + TIMEOUT_S
    for begin in actions:
        # A child that has read a large answer looks for garbage among all that its process has.
        # Here that is what a thousand children have.
        gc.freeze()
        under_way.append(begin())
        while len(under_way) >= AT_ONCE:
            under_way = [one for one in under_way if not one()]
            if len(under_way) >= AT_ONCE:
                time.sleep(PAUSE_S)
            if time.monotonic() > deadline:
                raise TimeoutError("pods are not attached or detached in time")
    _wait("the last pods", lambda: all(one() for one in under_way))


def run(folder: str, nodes: int, pods_per_node: int, more: int, idle_s: float) -> dict[str, Any]:
    """Fill a cluster, add links one by one, watch it idle, and empty it."""
    threading.stack_size(_STACK_BYTES)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    log.configure(None, "error", "growth", to_stderr=True)
    return _grow(_Cluster(nodes, folder), pods_per_node, more, idle_s)


def _grow(cluster: _Cluster, pods_per_node: int, more: int, idle_s: float) -> dict[str, Any]:
    chance = random.Random(len(cluster.nodes))
    found: dict[str, Any] = {"nodes": len(cluster.nodes)}

    # Every pod declares one link, with a pod of another node; so the mix is the same at any size.
    pods = [
        (f"p{number}x{position}", number)
        for number in range(len(cluster.nodes))
        for position in range(pods_per_node)
    ]
    chance.shuffle(pods)
    links = {}
    for position, (name, number) in enumerate(pods):
        # The two pods of a link come soon after each other, in either order: who waits for long
        # looks by itself now and then, which is a matter of time and not of size.
        near = pods[max(0, position - NEAR) : position + NEAR + 1]
        pair, _ = chance.choice([one for one in near if one[1] != number])
        links[name] = (Link("up", _address(1), pair, f"d{position}", _address(2)),)
    phase = _Phase()
    _at_most(
        [lambda n=name, i=number: cluster.nodes[i].attach(n, links[n]) for name, number in pods]  # type: ignore[misc]
    )
    _wait("every link", lambda: _waiting(cluster) == 0)
    found["links"] = len(links)
    found["fill"] = phase.per(len(links))

    times = []
    phase = _Phase()
    for number in range(more):
        a, b = chance.sample(cluster.nodes, 2)
        done = b.attach(f"b{number}", ())
        _wait("a pair", done)
        started = time.perf_counter()
        a.attach(f"a{number}", (Link("in1", _address(1), f"b{number}", "in2", _address(2)),))
        _wait("one more link", lambda: a.is_up(f"a{number}") and b.is_up(f"b{number}"))  # noqa: B023 - it is waited for here
        times.append(time.perf_counter() - started)
    # Both pods of each are new: what a pair of pods costs with its link.
    found["one_more"] = {**phase.per(more), "link_ms": [one * 1e3 for one in times]}

    if idle_s:
        phase = _Phase()
        time.sleep(idle_s)
        found["idle"] = phase.per(1)

    # Before the last pods go: the end of the last node is told to all that still listen.
    found["foreign_events"] = _tally.foreign
    phase = _Phase()
    names = [(cluster.nodes[number], name) for name, number in pods]
    names += [(node, name) for node in cluster.nodes for name in node.attached if name not in links]

    def detach(node: _Node, name: str) -> Callable[[], bool]:
        container = node.detach(name)
        records = node.directory.records
        # The record goes last.
        return lambda: not any(one.startswith(container) for one in os.listdir(records))

    _at_most([lambda n=node, p=name: detach(n, p) for node, name in names])  # type: ignore[misc]
    found["empty"] = phase.per(len(links) + more)
    return found


def _waiting(cluster: _Cluster) -> int:
    return sum(
        count
        for node in cluster.nodes
        for state, count in node.engine.status.counts().links.items()
        if state != "up"
    )


def _address(number: int) -> Address:
    return Address.parse(f"192.168.1.{number}/24")


# From outside -----------------------------------------------------------------------------------


def measure(
    results: Results, sizes: Iterable[int], pods_per_node: int, more: int, idle_s: float
) -> None:
    """Run every size with an etcd of its own; the figures as multiples of the smallest size's."""
    runs = [_in_namespace(nodes, pods_per_node, more, idle_s) for nodes in sizes]
    first = runs[0]["nodes"]
    results.about["growth"] = runs
    for found in runs:
        nodes = found["nodes"]
        text = f"{nodes} nodes, {found['links']} links"
        for key, what, unit, value in (
            ("requests", "etcd requests per link (with its pod)", "", found["fill"]["requests"]),
            ("bytes", "bytes per link", "B", _bytes(found["fill"])),
            ("events", "events heard per link", "", found["fill"]["events"]),
            (
                "watches",
                "requests of the watches per link",
                "",
                _per_link(found, "watching_requests"),
            ),
            ("node-requests", "etcd requests per node", "", _per_node(found, "requests")),
            ("node-bytes", "bytes per node", "B", _bytes(found["fill"]) * found["links"] / nodes),
            ("node-events", "events heard per node", "", _per_node(found, "events")),
            ("one-more/requests", "requests of one more pair", "", found["one_more"]["requests"]),
            ("one-more/bytes", "bytes of one more pair", "B", _bytes(found["one_more"])),
            ("one-more/events", "events heard of one more pair", "", found["one_more"]["events"]),
            ("empty", "requests to take a link back", "", found["empty"]["requests"]),
            ("etcd-cpu", "etcd's CPU for a request", "ms", found["etcd_cpu_ms"]),
        ):
            results.add(
                f"growth/{nodes}/{key}",
                f"{text}, {what}",
                unit,
                [value],
                None if nodes == first else f"growth/{first}/{key}",
            )
        results.add(
            f"growth/{nodes}/link-ms",
            f"{text}, one more link, without netlink",
            "ms",
            found["one_more"]["link_ms"],
            None if nodes == first else f"growth/{first}/link-ms",
        )
        results.add(
            f"growth/{nodes}/foreign",
            f"{text}, events of others' links that a node heard",
            "",
            [float(found["foreign_events"])],
        )
        results.add(f"growth/{nodes}/etcd-rss", f"{text}, etcd's RSS", "kB", [found["etcd_rss_kb"]])


def _per_link(found: dict[str, Any], key: str) -> float:
    return float(found["fill"][key] / found["links"])


def _per_node(found: dict[str, Any], key: str) -> float:
    """Return what was counted for each link, for a node's share of the links."""
    return float(found["fill"][key] * found["links"] / found["nodes"])


def _bytes(phase: dict[str, Any]) -> float:
    return float(phase["bytes_sent"] + phase["bytes_received"])


def _in_namespace(nodes: int, pods_per_node: int, more: int, idle_s: float) -> dict[str, Any]:
    folder = tempfile.mkdtemp(prefix="rb-", dir=memory_folder())
    path = os.path.join(folder, "netns")
    netns.create(path)
    etcd = Etcd(path, ADDRESS, ETCD_PORT, os.path.join(folder, "etcd"))
    try:
        etcd.start()
        with netns.inside(path):
            arguments = [os.path.join(folder, "nodes"), nodes, pods_per_node, more, idle_s]
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.growth", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"growth with {nodes} nodes: exit {process.returncode}")
        found: dict[str, Any] = json.loads(output)
        found["etcd_cpu_ms"] = etcd.cpu_s() * 1e3 / found["requests"]
        found["etcd_rss_kb"] = float(etcd.rss_kb())
        return found
    finally:
        etcd.stop()
        netns.remove(path)
        shutil.rmtree(folder, ignore_errors=True)


def load(results: Results, count: int, threads: int) -> None:
    """Measure how many requests a second an etcd of one and of three members answers."""
    for members in (1, 3):
        folder = tempfile.mkdtemp(prefix="rb-", dir=memory_folder())
        path = os.path.join(folder, "netns")
        netns.create(path)
        etcd = Etcd(path, ADDRESS, ETCD_PORT, os.path.join(folder, "etcd"))
        try:
            etcd.start(members)
            for name, request in (
                ("write", lambda c, n: c.put(f"/load/{n % 100}", "x" * 100)),
                ("quorum-read", lambda c, n: c.get(f"/load/{n % 100}")),
            ):
                before = etcd.cpu_s()
                seconds = _load(etcd, count, threads, request)
                base = f"etcd/{members}-members/{name}"
                results.add(
                    f"{base}/rate",
                    f"etcd of {members}, {name}s a second, {threads} clients",
                    "1/s",
                    [count / seconds],
                    None if members == 1 else f"etcd/1-members/{name}/rate",
                )
                results.add(
                    f"{base}/cpu",
                    f"etcd of {members}, CPU of all members for a {name}",
                    "ms",
                    [(etcd.cpu_s() - before) * 1e3 / count],
                    None if members == 1 else f"etcd/1-members/{name}/cpu",
                )
        finally:
            etcd.stop()
            netns.remove(path)
            shutil.rmtree(folder, ignore_errors=True)


def _load(
    etcd: Etcd, count: int, threads: int, request: Callable[[Connection, int], object]
) -> float:
    ports = etcd.ports
    connections = [
        Connection(etcd.namespace, etcd.address, ports[number % len(ports)])
        for number in range(threads)
    ]
    numbers = iter(range(count))
    lock = threading.Lock()

    def work(connection: Connection) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            request(connection, number)

    workers = [threading.Thread(target=work, args=(one,)) for one in connections]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return seconds


def main() -> None:
    nodes, pods_per_node, more = map(int, sys.argv[2:5])
    found = run(sys.argv[1], nodes, pods_per_node, more, float(sys.argv[5]))
    found["requests"] = sum(_tally.requests.values())
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # the watching threads have up to twenty seconds left


if __name__ == "__main__":
    main()
