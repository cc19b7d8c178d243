"""The cluster of the fault suite: nodes, the network between them, etcd, and the runtimes' pods."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from typing import TYPE_CHECKING

from tests.faults import clock
from tests.faults.kernel import Process, processes
from tests.faults.members import Members
from tests.faults.nodes import FaultNode, end_processes
from tests.faults.runtimes import Runtimes
from tests.faults.topology import OUTSIDE, Topology
from tests.lab import underlay
from tests.lab.cluster import scratch_dir
from tests.lab.namespaces import Namespace, random_name

if TYPE_CHECKING:
    from tests.faults.stranger import Stranger

FRONT = "/run/ratchet/front.sock"  # the machine's: the nodes have none of their own


class World(Runtimes):
    """Four nodes (or as many as wanted), an etcd, and the pods of a topology on them."""

    def __init__(self, topology: Topology, *, nodes: int, members: int) -> None:
        self.nodes: dict[int, FaultNode] = {}
        super().__init__(topology, self.nodes)
        self.stranger: Stranger | None = None  # whose pods are none of the topology's
        self._undo = contextlib.ExitStack()
        try:
            self._build(nodes, members)
        except BaseException:
            self.close()
            raise

    def _build(self, nodes: int, members: int) -> None:
        self.directory = tempfile.mkdtemp(prefix="rt-faults-", dir=scratch_dir())
        self._undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
        lies = clock.make(os.path.join(self.directory, "clock"))
        self.underlay = Namespace(random_name("underlay"))
        self._undo.callback(self.underlay.remove)
        self.underlay.create()
        addresses = [f"10.99.0.{n}" for n in range(1, members + 1)]
        # A MAC address of its own: else it has a port's, which goes when a node is rebooted, while
        # the others look for etcd at that one until their neighbour tables are old.
        underlay.lay(self.underlay, [*addresses, OUTSIDE])
        self.etcd = Members(
            self.underlay, addresses, 20000 + secrets.randbelow(10000), self.directory
        )
        self._undo.callback(self.etcd.stop)
        self.etcd.start()
        for number in range(1, nodes + 1):
            node = self.nodes[number] = FaultNode.make(number, self.etcd, self.directory, lies)
            self._undo.callback(node.remove)
            node.namespace.create()
            node.plug_in(self.underlay)
        self._undo.callback(self._end_all)

    def close(self) -> None:
        """Remove everything that was made, whatever has become of it. Safe to call twice."""
        self._undo.close()

    def _end_all(self) -> None:
        self.etcd.resume()
        self.stop()
        end_processes(self.own_processes())
        remove_dead_socket(FRONT)
        for sandbox in self.sandboxes():
            self.remove_sandbox(sandbox)

    def reboot(self, node: FaultNode, down_s: float) -> None:
        """Lose everything that a node has in memory: processes, interfaces, /run.

        Its own namespace stays, empty: its number is what tells the machine from others.
        """
        self.lose(node.number)
        while doomed := node.processes():  # one may just have started another
            end_processes(doomed)
        for sandbox in self.lose(node.number):
            self.remove_sandbox(sandbox)
        if self.stranger is not None:
            self.stranger.node_lost(node.number)
        node.pull_out(self.underlay)
        time.sleep(down_s)
        node.plug_in(self.underlay)

    def own_processes(self) -> list[Process]:
        """Every process that this world has started or had started, but for its etcd."""
        inodes = {
            namespace.inode
            for namespace in (
                *(node.namespace for node in self.nodes.values()),
                *(sandbox.pod.netns for sandbox in self.sandboxes()),
            )
            if namespace.exists
        }
        return [
            one
            for one in processes()
            if (one.netns in inodes or self.directory in one.command)
            and one.pid not in self.etcd.pids
            and one.pid != os.getpid()
        ]


def remove_dead_socket(path: str) -> None:
    """Remove the socket that a process has left which was killed; one that is served stays."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(FileNotFoundError):
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
