"""A cluster of namespaces: nodes, pods, an underlay and an etcd.

Nodes are network namespaces joined by a bridge that lies in a namespace of its own; pods are
network namespaces; plugins are executed by the CNI protocol, as a runtime does. It is independent
of the project's simulator on purpose, so that an error in the one cannot hide an error in the
other, and it imports nothing of the programs under test.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable

from tests.lab import nftables, underlay
from tests.lab.etcd_server import Etcd
from tests.lab.namespaces import MountNamespace, Namespace, random_name, random_port
from tests.lab.polling import wait_for
from tests.lab.runtime import Node, Pod, command_name, is_supervisor
from tests.lab.underlay import ROUTER_ADDRESS

LOG_LINES = 80
TERMINATE_TIMEOUT_S = 5.0
STRANGE_S = 2.0
MTU_BYTES = 1500  # of eth0, which tests may change
GONE_S = 30.0  # a pod may have hundreds of links, and the machine four such tests


class Cluster:
    """Nodes on one underlay, with an etcd that they reach through it."""

    def __init__(self, nodes: int = 3) -> None:
        self._undo = contextlib.ExitStack()
        self.pods: list[Pod] = []
        self._baseline: dict[int, set[str]] = {}
        self.is_fresh = True  # nothing has happened on the nodes since they were made, or swept
        # What there was to say before the cluster was swept.
        self.last_words: list[tuple[str, str]] = []
        try:
            self._build(nodes)
        except BaseException:
            self._undo.close()
            raise

    def _build(self, nodes: int) -> None:
        self.directory = tempfile.mkdtemp(prefix="rt-", dir=scratch_dir())
        self._undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.underlay = self._namespace(random_name("underlay"))
        underlay.lay(self.underlay, (ROUTER_ADDRESS, underlay.ROUTER_ADDRESS6))
        # Not the usual port, so that a program which ignores the configuration is caught.
        port = random_port()
        self.etcd = Etcd(self.underlay, ROUTER_ADDRESS, port, self.directory)
        self._undo.callback(self.etcd.stop)
        self.nodes = [self._node(number) for number in range(1, nodes + 1)]
        self.etcd.start()

    def close(self) -> None:
        self.end_test()
        self._undo.close()

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self._undo.callback(namespace.remove)
        namespace.create()
        return namespace

    def _node(self, number: int) -> Node:
        namespace = self._namespace(random_name(f"node{number}"))
        # Each node has its front's socket, as a machine has.
        namespace.mounts = MountNamespace("/run/ratchet")
        self._undo.callback(namespace.mounts.close)
        directory = os.path.join(self.directory, f"node{number}")
        os.mkdir(directory)
        node = Node(
            number,
            namespace,
            underlay.node_address(number),
            underlay.node_address6(number),
            self.etcd,
            directory,
        )
        namespace.ip("link", "set", "lo", "up")
        self.join(node, "eth0", node.address, node.address6)
        namespace.ip("route", "add", "default", "via", ROUTER_ADDRESS)
        self._baseline[number] = namespace.names()
        node.next_round()
        return node

    def join(self, node: Node, ifname: str, address: str, address6: str | None = None) -> None:
        """Give a node another interface on the underlay."""
        port = underlay.port_of(ifname, node.number)
        underlay.plug_in(self.underlay, node.namespace, ifname, port)
        for one in (address, address6):
            if one is not None:
                underlay.add_address(node.namespace, one, ifname)
        node.namespace.ip("link", "set", ifname, "up")

    def pod(self, name: str, namespace: str = "default") -> Pod:
        """Make a sandbox for a pod; it is removed at the end of the test."""
        pod = Pod(name, namespace)
        self.pods.append(pod)
        pod.netns.create()
        return pod

    def words(self) -> list[tuple[str, str]]:
        """Return what helps to understand a failure: the ends of the logs, and the keys."""
        said = [
            (
                f"node {node.number}: its child is {node.children() or 'not there'}, its log",
                "\n".join([*node.log().splitlines()[-LOG_LINES:], *map(_calls_of, node.serving())]),
            )
            for node in self.nodes
        ]
        try:
            keys = repr(self.etcd.tree()) if self.etcd.answers() else "etcd does not answer"
        except (AssertionError, OSError) as error:  # it wants a password, or went meanwhile
            keys = repr(error)
        return [*said, ("etcd keys", keys)]

    def wait_withdrawn(self, pod: Pod, *reserved: str) -> None:
        """Wait until etcd has nothing of a pod that has gone but the VNIs reserved for its links.

        `reserved` names these links by the keys of their declarations, such as `b/links/a:in1`.
        Whatever is reserved expires by itself.
        """

        def left() -> dict[str, str]:
            keys = self.etcd.keys()
            return {key: keys[key] for key in keys if pod.container_id in f"{key} {keys[key]}"}

        def is_right(keys: dict[str, str]) -> bool:
            wanted = set()
            for name in reserved:
                declaration = json.loads(keys.get(f"/ratchet/association/{name}", "{}"))
                if declaration.get("gone") is not True:
                    return False
                wanted |= {f"/ratchet/association/{name}", f"/ratchet/vni/{declaration['vni']}"}
            return set(keys) == wanted

        what = f"the keys of {pod} to go but for {reserved or 'none'}"
        kept = wait_for(what, left, until=is_right)
        assert set(kept) <= self.etcd.expiring()

    # Between two cases of one test

    def clear(self) -> None:
        """Detach and remove every pod, and assert that nothing is left of them.

        Unlike at the end of a test, the nodes' children run on, and know for example which VNI
        comes next. `Node.log` says nothing of what was logged before.
        """
        problems = self.problems_after_test()
        self.forget_test()
        assert not problems, "left behind:\n" + "\n".join(problems)

    # The end of a test

    def forget_test(self) -> None:
        """Remove the pods, which are detached, and forget the log; the children run on."""
        self.is_fresh = False
        for pod in self.pods:
            pod.netns.remove()
        self.pods.clear()
        for node in self.nodes:
            node.end_calls()
            self._remove_interfaces(node)
            node.forget_log()

    def problems_after_test(self) -> list[str]:
        """Detach what is still attached and return what is left behind that should not be."""
        problems: list[str] = []
        self.etcd.resume()
        self.etcd.start()
        self._attempt(problems, self._detach_all)
        for pod in self.pods:
            # Before its namespace goes: Ratchet has to remove the ends, not the kernel.
            self._attempt(problems, lambda pod=pod: no_links(pod))  # type: ignore[misc]
        for look in (self._keys_gone, self._records_gone, self._nodes_clean):
            self._attempt(problems, look)
        return problems

    def end_test(self) -> list[str]:
        """End every process and remove every pod, key and record. Safe to call twice.

        Returns what would not go as it should.
        """
        if any(node.calls for node in self.nodes):
            # A fixture's own failure is reported after this, when nothing is left to be seen.
            self.last_words = self.words()
        problems: list[str] = []
        self.etcd.resume()
        for node in self.nodes:
            node.end_calls()
            self._attempt(problems, lambda node=node: end_processes(node))  # type: ignore[misc]
            self._attempt(problems, node.reap)
        for pod in self.pods:
            self._attempt(problems, pod.netns.remove)
        self.pods.clear()
        for node in self.nodes:
            self._remove_interfaces(node)
            with contextlib.suppress(OSError):  # a test has taken it away
                if node.namespace.mtu("eth0") != MTU_BYTES:
                    node.namespace.ip("link", "set", "eth0", "mtu", str(MTU_BYTES), check=False)
            # A child that was killed leaves its guard to the next one, and there is none.
            self._attempt(problems, lambda node=node: nftables.flush(node.namespace))  # type: ignore[misc]
            node.attachments.clear()
            node.next_round()
        self.etcd.start()
        self.etcd.wipe()
        self.is_fresh = True
        return problems

    def _remove_interfaces(self, node: Node) -> None:
        """Remove what a node has got, such as the bridge of its boot network."""
        for ifname in node.namespace.names() - self._baseline[node.number]:
            # The far end of a veth may have gone with the near one.
            node.namespace.ip("link", "delete", ifname, check=False)

    @staticmethod
    def _attempt(problems: list[str], action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - all problems are wanted, not the first alone
            problems.append(f"{type(error).__name__}: {error}")

    def _detach_all(self) -> None:
        started = [
            (node, attachment, node.start_delete(attachment.pod, ifname=attachment.ifname))
            for node in self.nodes
            for attachment in list(node.attachments.values())
        ]
        for node, attachment, call in started:
            call.finish().succeeded()
            node.attachments.pop((attachment.pod.container_id, attachment.ifname), None)

    def _keys_gone(self) -> None:
        wait_for(
            "all etcd keys but vxlanid to go",
            self.etcd.tree,
            until=lambda tree: set(tree) <= {"/ratchet/", "/ratchet/vxlanid"},
            timeout_s=GONE_S,
        )

    def _records_gone(self) -> None:
        for node in self.nodes:
            wait_for(
                f"the records of node {node.number} to go",
                node.records,
                until=lambda records: not records,
                timeout_s=GONE_S,
            )

    def _nodes_clean(self) -> None:
        for node in self.nodes:
            allowed = self._baseline[node.number] | {"cni0"}
            # Of a pod that was removed without a DEL the kernel takes the rest down when it can.
            wait_for(
                f"what is left on node {node.number} to go",
                lambda node=node, allowed=allowed: node.namespace.names() - allowed,  # type: ignore[misc]
                until=lambda left: not left,
            )


def no_links(pod: Pod) -> None:
    """Assert that a detached pod has lost every link within the deadline."""
    if pod.netns.exists:
        wait_for(
            f"the links of {pod} to go",
            pod.netns.names,
            until=lambda links: links <= {"lo"},
            timeout_s=GONE_S,
        )


def end_processes(node: Node) -> None:
    """End the child of a node by its id; assert that it heeds SIGTERM and that it was alone."""
    children, supervisors, strangers = _settled(node)
    # A child that ends before its supervisor is told to would be started again.
    end_pids(node.namespace, supervisors)
    end_pids(node.namespace, children | strangers)
    assert not strangers, f"stray processes on node {node.number}: {strangers}"
    assert len(children) <= 1, f"more than one child on node {node.number}: {children}"
    assert len(supervisors) <= 1, f"more than one supervisor on node {node.number}: {supervisors}"


def _settled(node: Node) -> tuple[set[int], set[int], set[int]]:
    """Return a node's children, its supervisors, and who is neither.

    A child that is being started is a fork first that has yet to get its name, and it may come
    between two looks: a stranger is who is neither for a while.
    """
    end = time.monotonic() + STRANGE_S
    while True:
        there = node.namespace.processes()
        serving = node.serving(there)
        supervisors = {pid for pid in serving if is_supervisor(pid)}
        children, strangers = serving - supervisors, there - serving
        if not strangers or time.monotonic() > end:
            return children, supervisors, strangers & node.namespace.processes()
        time.sleep(0.05)


def end_pids(namespace: Namespace, pids: set[int]) -> None:
    """End processes that are in a namespace; assert that they heed SIGTERM."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + TERMINATE_TIMEOUT_S
    while (stubborn := namespace.processes() & pids) and time.monotonic() < end:
        time.sleep(0.02)
    # A supervisor waits for its child.
    waited_for = "\n".join(map(_calls_of, namespace.processes())) if stubborn else ""
    for pid in stubborn:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not stubborn, f"{stubborn} in {namespace} did not heed SIGTERM; there are:\n{waited_for}"


def _calls_of(pid: int) -> str:
    """Return in which system call each thread of a process is: number and arguments, proc(5)."""
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/syscall", encoding="ascii") as file:
                found.append(f"    thread {thread}: {file.read().strip()}")
    return "\n".join([f"{pid}: {command_name(pid)}", *found])


def scratch_dir() -> str | None:
    """Return a folder in memory if there is one: etcd waits for the disk at every write."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
