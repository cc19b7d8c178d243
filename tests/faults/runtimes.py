"""The runtimes on the nodes of the fault suite, and the containers that there are by now.

They do what containerd and the kubelet do: an ADD that fails is followed by a DEL and tried again
in a new container, a DEL is repeated until it succeeds and may come late, without a namespace or
with an empty CNI_NETNS. Which containers there are is what the invariants are computed from, and
nothing that Ratchet says.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.faults.nodes import CALL_TIMEOUT_S, FaultNode
from tests.faults.plan import Operation
from tests.faults.topology import Link, PodId, Topology
from tests.lab.runtime import Call, Outcome, Pod, request_config

RETRY_S = 0.3
GIVE_UP_S = 90.0  # a runtime whose calls fail for so long after the fault: something is wrong


class StuckError(AssertionError):
    """An operation that a runtime repeats does not succeed."""


@dataclass(eq=False)
class Sandbox:
    """One container of a pod, on one node."""

    id: PodId
    node: int
    pod: Pod

    def __repr__(self) -> str:
        return f"{self.id}@{self.node}:{self.pod.container_id[:8]}"


def make_sandbox(pod: PodId, node: int) -> Sandbox:
    """Make a container, with its namespace."""
    sandbox = Sandbox(pod, node, Pod(pod.name, pod.namespace))
    sandbox.pod.netns.create()
    return sandbox


@dataclass(frozen=True)
class Pulled:
    """What `ratchetctl link` has said of a link, which holds as long as its primary's container."""

    container: str
    is_out: bool


class Runtimes:
    """One for each node. Each of their calls is made in a thread of its own."""

    def __init__(self, topology: Topology, nodes: Mapping[int, FaultNode]) -> None:
        self.topology = topology
        self.nodes = nodes
        self.attached: dict[PodId, Sandbox] = {}
        # Containers whose DEL is still to come although a newer one has taken their place.
        self.late: list[tuple[Sandbox, Operation]] = []
        self.killed: Counter[str] = Counter()  # what was still there to be killed
        self.pulled: dict[Link, Pulled] = {}
        self._lock = threading.Lock()
        self._sandboxes: set[Sandbox] = set()
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()

    def start(self, name: str, action: Callable[[], None]) -> threading.Thread:
        """Let a runtime do something in a thread of its own, which ends before `stop` does."""
        thread = threading.Thread(target=action, name=name)
        with self._lock:
            self._threads.add(thread)
        thread.start()
        return thread

    def finish(self, thread: threading.Thread) -> None:
        thread.join()
        with self._lock:
            self._threads.discard(thread)

    def stop(self) -> None:
        """End what is under way."""
        self._stopping.set()
        while any(thread.is_alive() for thread in self._threads):
            for node in self.nodes.values():
                for call in list(node.calls):
                    call.process.kill()
            time.sleep(0.05)

    def lose(self, node: int) -> list[Sandbox]:
        """Forget the containers of a node that has lost them, and return them."""
        lost = [one for one in self.sandboxes() if one.node == node]
        with self._lock:
            for sandbox in lost:
                if self.attached.get(sandbox.id) is sandbox:
                    del self.attached[sandbox.id]
            self.late = [one for one in self.late if one[0] not in lost]
        return lost

    def said_of(self, link: Link) -> Pulled | None:
        """Return what has been said of a link and holds."""
        said, primary = self.pulled.get(link), self.attached.get(link.primary)
        if said is None or primary is None or primary.pod.container_id != said.container:
            return None
        return said

    def is_out(self, link: Link) -> bool:
        """Tell whether the link's cable is pulled out."""
        said = self.said_of(link)
        return said is not None and said.is_out

    def sandboxes(self) -> list[Sandbox]:
        with self._lock:
            return list(self._sandboxes)

    def new_sandbox(self, pod: PodId, node: int) -> Sandbox:
        sandbox = make_sandbox(pod, node)
        with self._lock:
            self._sandboxes.add(sandbox)
        return sandbox

    def remove_sandbox(self, sandbox: Sandbox) -> None:
        sandbox.pod.netns.remove()
        with self._lock:
            self._sandboxes.discard(sandbox)

    def run_operation(self, operation: Operation) -> None:
        """Carry an operation through, whatever happens meanwhile. Raises StuckError."""
        before = self.attached.get(operation.pod)
        if operation.kind == "attach":
            self._attach(operation, operation.node)
        elif operation.kind == "detach":
            self._drop(operation, before)
        elif operation.kind == "restart":
            self._restart(operation, before)
        else:
            self._overlap(operation, before)

    def _restart(self, operation: Operation, before: Sandbox | None) -> None:
        if operation.del_when == "before":
            self._drop(operation, before)
            before = None
        self._attach(operation, operation.node)
        if before is not None and operation.del_when == "late":
            with self._lock:
                self.late.append((before, operation))
        elif before is not None:
            self.detach(before, operation)

    def _overlap(self, operation: Operation, before: Sandbox | None) -> None:
        """Two ADDs at once, of which the first stays, and the DEL of what was there before.

        That one comes with them or after them.
        """
        assert operation.other is not None
        second = self.new_sandbox(operation.pod, operation.other)
        beside: list[Callable[[], object]] = [lambda: self._add(second, None)]
        after = [second]
        if before is not None:
            if operation.del_when == "after":
                after.append(before)
            else:
                beside.append(lambda: self.detach(before, operation))
        errors: list[BaseException] = []

        def carefully(action: Callable[[], object]) -> None:
            try:
                action()
            except BaseException as error:  # noqa: BLE001 - told by the thread that waits for it
                errors.append(error)

        threads = [
            self.start(f"overlap {operation.pod}", lambda one=one: carefully(one))  # type: ignore[misc]
            for one in beside
        ]
        try:
            self._attach(operation, operation.node)
        finally:
            for thread in threads:
                self.finish(thread)
        if errors:
            raise errors[0]
        for sandbox in after:
            self.detach(sandbox, operation)

    def _attach(self, operation: Operation, node: int | None) -> None:
        """ADD until it succeeds, each time in a new container."""
        assert node is not None
        kill_s = operation.kill_add_s
        end = time.monotonic() + GIVE_UP_S
        while True:
            sandbox = self.new_sandbox(operation.pod, node)
            outcome = self._add(sandbox, kill_s)
            if outcome is not None and outcome.exit == 0:
                with self._lock:
                    self.attached[operation.pod] = sandbox
                return
            kill_s = None
            self.detach(sandbox, operation)
            if time.monotonic() > end or self._stopping.is_set():
                raise StuckError(f"ADD of {sandbox} fails: {outcome!r}")
            time.sleep(RETRY_S)

    def _add(self, sandbox: Sandbox, kill_s: float | None) -> Outcome | None:
        """One ADD; None when its parent was killed."""
        node = self.nodes[sandbox.node]
        labels = self.topology.labels(sandbox.id)
        call = node.start_add(sandbox.pod, labels, self.topology.annotations(sandbox.id))
        return self._finish(node, call, kill_s)

    def _finish(self, node: FaultNode, call: Call, kill_s: float | None) -> Outcome | None:
        """Wait for a call, or kill its parent after a while; None when it was killed."""
        try:
            if kill_s is not None:
                time.sleep(kill_s)
                if call.process.poll() is None:
                    call.kill()
                    with self._lock:
                        self.killed["parents"] += 1
                    return None
            return call.finish(CALL_TIMEOUT_S)
        finally:
            node.calls.remove(call)

    def _drop(self, operation: Operation, sandbox: Sandbox | None) -> None:
        if sandbox is None:
            return
        with self._lock:
            if self.attached.get(sandbox.id) is sandbox:
                del self.attached[sandbox.id]
        self.detach(sandbox, operation)

    def detach(self, sandbox: Sandbox, operation: Operation) -> None:
        """DEL until it succeeds, then remove the namespace, if that has not been done before."""
        node = self.nodes[sandbox.node]
        if operation.netns_gone:
            sandbox.pod.netns.remove()
        kill_s = operation.kill_del_s
        changes: dict[str, str | None] | None = {"CNI_NETNS": ""} if operation.netns_empty else None
        again = operation.del_again
        end = time.monotonic() + GIVE_UP_S
        while True:
            outcome = self._del(node, sandbox, kill_s, changes)
            kill_s = None
            if outcome is not None and outcome.exit == 0:
                if not again:
                    break
                again, changes = False, {"CNI_NETNS": ""}
                self.remove_sandbox(sandbox)
                continue
            if time.monotonic() > end or self._stopping.is_set():
                raise StuckError(f"DEL of {sandbox} fails: {outcome!r}")
            time.sleep(RETRY_S)
        self.remove_sandbox(sandbox)

    def _del(
        self,
        node: FaultNode,
        sandbox: Sandbox,
        kill_s: float | None,
        changes: dict[str, str | None] | None,
    ) -> Outcome | None:
        config = request_config(
            node.config(),
            self.topology.labels(sandbox.id),
            self.topology.annotations(sandbox.id),
        )
        call = node.start_delete(
            sandbox.pod, config=config, environ=changes, prev_result=changes is None
        )
        outcome = self._finish(node, call, kill_s)
        if outcome is not None and outcome.exit == 0:
            node.attachments.pop((sandbox.pod.container_id, "eth0"), None)
        return outcome
