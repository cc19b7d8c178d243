"""The simulated cluster: making it, attaching and detaching pods, ending it.

Each node has its own runtime and its own threads (`ratchetctl.sim.workers`); a pod's whole life
happens in one of them. A pod is written down before anything is made for
it, and ending a simulation looks at what is there (namespaces, processes in them, files) and not at
what was planned, so a call that was killed leaves nothing that `down` would not find.
"""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace

from ratchet.attachments import Directory
from ratchetctl.errors import OperatorError, SimError
from ratchetctl.interruption import uninterrupted
from ratchetctl.manifest import Pod
from ratchetctl.node import STATE_DIRS
from ratchetctl.sim import configuration, etcd, netns, places, processes, schedule, underlay
from ratchetctl.sim.directory import NodeState, PodState, SimDirectory, SimState
from ratchetctl.sim.progress import Progress
from ratchetctl.sim.runtime import Runtime
from ratchetctl.sim.workers import Workers

UNDERLAY = "underlay"
DEFAULT_PARALLEL = 4
DETACH_TIMEOUT_S = 15.0
ELIGIBLE = "ratchet"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a simulation is to be made of."""

    nodes: int
    node_labels: Sequence[tuple[str, str, str]] = ()
    template: Mapping[str, object] | None = None
    boot_network: str | None = None
    plugin_dirs: Sequence[str] = ()
    etcd: str | None = None
    etcd_prefix: str = "/ratchet"


class Simulator:
    """One simulation, by its directory. Every method but status needs root."""

    def __init__(
        self,
        directory: SimDirectory,
        progress: Progress,
        say: Callable[[str], None],
        parallel: int = DEFAULT_PARALLEL,
    ) -> None:
        self.directory = directory
        self._say = say
        self._workers = Workers(self._enter, progress, parallel)

    def up(self, plan: Plan, pods: Sequence[Pod], *, keep: bool = False) -> list[PodState]:
        """Make the cluster and attach the pods.

        Whatever goes wrong, an interruption too, leaves nothing (unless keep). Raises
        OperatorError.
        """
        nodes = self._plan_nodes(plan, pods)
        # Every pod is placed before anything is made, so that a bad nodeName costs nothing.
        placed = [(pod, schedule.place(pod, nodes).name) for pod in pods]
        template = plan.template or configuration.default(plan.boot_network)
        # A wrong configuration and a missing plugin likewise.
        configuration.check(configuration.for_node(template, self._site("node1", 1, plan)))
        Runtime(template, plan.plugin_dirs)
        with ExitStack() as made:

            def undo(kind: type[BaseException] | None, *_: object) -> None:
                if kind is not None and not keep:
                    self._tear_down()

            with uninterrupted():
                self.directory.create()
                made.enter_context(self.directory.locked())
                made.push(undo)
            state = self._build(plan, nodes, template)
            return self._attach_all(state, placed)

    def apply(self, pods: Sequence[Pod]) -> list[PodState]:
        """Attach the pods that are not there, and those anew whose definition has changed.

        Raises OperatorError; pods whose ADD succeeded stay.
        """
        with self._locked():
            state = self.directory.read_state()
            nodes, known = self._scheduler(state)
            new = [pod for pod in pods if _differs(pod, known.get((pod.namespace, pod.name)))]
            unchanged = len(pods) - len(new)
            for sentence in schedule.hand_out_labels(new, nodes):
                self._say(sentence)
            replaced = [known[key] for pod in new if (key := (pod.namespace, pod.name)) in known]
            for old in replaced:
                next(node for node in nodes if node.name == old.node).pods -= 1
            placed = [(pod, schedule.place(pod, nodes).name) for pod in new]
            labels = {node.name: node.labels for node in nodes}
            state = replace(
                state,
                nodes=tuple(replace(node, labels=labels[node.name]) for node in state.nodes),
            )
            self.directory.write_state(state)
            if unchanged:
                self._say(f"{unchanged} unchanged")
            if replaced:
                self._say(f"{len(replaced)} changed: deleted and made anew")
                self._detach_all(state, replaced)
            return self._attach_all(state, placed)

    def delete(self, names: Iterable[str]) -> None:
        """Detach pods and remove their namespaces, ending what runs in them. Raises SimError."""
        with self._locked():
            state = self.directory.read_state()
            self._detach_all(state, [self.pod(name) for name in names])

    def restart(self, names: Iterable[str], node: str | None = None) -> list[PodState]:
        """Delete pods and attach them again, as new containers, on the same or another node."""
        with self._locked():
            state = self.directory.read_state()
            if node is not None:
                node = self.node(node).name
            old = [self.pod(name) for name in names]
            self._detach_all(state, old)
            new = [
                self._new_pod(
                    pod.namespace, pod.name, pod.labels, pod.annotations, node or pod.node
                )
                for pod in old
            ]
            return self._attach_states(state, new)

    def down(self) -> list[int]:
        """End everything and remove every trace. Safe to call twice; pids that would not end."""
        if not self.directory.exists:
            return []
        with self._locked():
            try:
                state = self.directory.read_state()
            except (SimError, ValueError, KeyError, TypeError):
                return self._tear_down()
            try:
                if state.foreign_etcd:
                    # A given etcd outlives the simulation: let the children take their keys back.
                    self._try_to_detach(state)
            finally:
                refused = self._tear_down()
            return refused

    def pod(self, name: str) -> PodState:
        """Return a pod by [NAMESPACE/]NAME. Raises SimError."""
        namespace, slash, short = name.rpartition("/")
        found = self.directory.read_pod(namespace if slash else "default", short)
        if found is None:
            self.directory.read_state()  # says when there is no simulation at all
            known = ", ".join(pod.full_name for pod in self.directory.pods()[:20]) or "none"
            raise SimError(
                f"no pod {name!r} in the simulation {self.directory.name!r}: there are {known}"
            )
        return found

    def node(self, name: str) -> NodeState:
        """Return a node by its name or number. Raises SimError."""
        nodes = self.directory.read_state().nodes
        for node in nodes:
            if name in (node.name, str(node.number)):
                return node
        raise SimError(f"no node {name!r}: the nodes are {', '.join(node.name for node in nodes)}")

    def _plan_nodes(self, plan: Plan, pods: Sequence[Pod]) -> list[schedule.Node]:
        if not 1 <= plan.nodes <= underlay.MAX_NODES:
            raise SimError(f"--nodes {plan.nodes}: 1 to {underlay.MAX_NODES}")
        nodes = [schedule.Node.named(f"node{number}", {}) for number in range(1, plan.nodes + 1)]
        by_name = {node.name: node for node in nodes}
        for name, key, value in plan.node_labels:
            if name not in by_name:
                raise SimError(
                    f"--node-label {name}:{key}={value}: the nodes are {', '.join(by_name)}"
                )
            by_name[name].labels[key] = value
        for sentence in schedule.hand_out_labels(pods, nodes):
            self._say(sentence)
        return nodes

    def _build(
        self, plan: Plan, nodes: Sequence[schedule.Node], template: Mapping[str, object]
    ) -> SimState:
        directory = self.directory
        state = SimState(
            nodes=tuple(
                NodeState(node.name, number, underlay.node_address(number), node.labels)
                for number, node in enumerate(nodes, start=1)
            ),
            plugin_dirs=tuple(plan.plugin_dirs),
            etcd_prefix=plan.etcd_prefix,
            foreign_etcd=plan.etcd,
        )
        netns.make_room(directory.netns(""), passes_on=True)
        netns.make_room(directory.place(""))
        netns.create(directory.netns(UNDERLAY))
        for node in state.nodes:
            netns.create(directory.netns(node.name))
        underlay.build(
            directory.netns(UNDERLAY),
            [(node, directory.netns(node.name)) for node in state.nodes],
        )
        for node in state.nodes:
            self._configure(node, template, plan)
            places.make(directory.place(node.name), directory.sockets(node.name))
        # Written before the first program is started: from here on `down` knows of a given etcd.
        directory.write_state(state)
        if plan.etcd:
            etcd.forward(directory, directory.netns(UNDERLAY), plan.etcd)
        else:
            etcd.start(directory, directory.netns(UNDERLAY))
        many = "1 node" if len(state.nodes) == 1 else f"{len(state.nodes)} nodes"
        self._say(f"{many} and etcd are up")
        return state

    def _site(self, name: str, number: int, plan: Plan) -> configuration.Site:
        return configuration.Site(
            folder=self.directory.node(name),
            state_dir=self.directory.state_dir(name),
            address=underlay.node_address(number),
            subnet=underlay.pod_subnet(number),
            etcd_prefix=plan.etcd_prefix,
        )

    def _configure(self, node: NodeState, template: Mapping[str, object], plan: Plan) -> None:
        site = self._site(node.name, node.number, plan)
        os.makedirs(os.path.join(site.folder, "cni"))
        configuration.write(configuration.for_node(template, site), site)
        configuration.write_flannel_subnet(site)

    def _scheduler(
        self, state: SimState
    ) -> tuple[list[schedule.Node], dict[tuple[str, str], PodState]]:
        """Return the nodes as the scheduler sees them, and the pods that there are."""
        known = {(pod.namespace, pod.name): pod for pod in self.directory.pods()}
        nodes = [schedule.Node(node.name, dict(node.labels)) for node in state.nodes]
        by_name = {node.name: node for node in nodes}
        for pod in known.values():
            by_name[pod.node].pods += 1
        return nodes, known

    def _attach_all(self, state: SimState, placed: Sequence[tuple[Pod, str]]) -> list[PodState]:
        pods = []
        for pod, node in placed:
            if pod.host_network:
                self._say(f"{pod.full_name} has hostNetwork: no plugin is run for it, left out")
                continue
            pods.append(
                self._new_pod(
                    pod.namespace, pod.name, dict(pod.labels), dict(pod.annotations), node
                )
            )
        return self._attach_states(state, pods)

    def _new_pod(
        self,
        namespace: str,
        name: str,
        labels: dict[str, str],
        annotations: dict[str, str],
        node: str,
    ) -> PodState:
        container_id = secrets.token_hex(32)
        return PodState(
            namespace=namespace,
            name=name,
            uid=str(uuid.uuid4()),
            container_id=container_id,
            node=node,
            labels=labels,
            annotations=annotations,
            netns=self.directory.netns(container_id),
        )

    def _attach_states(self, state: SimState, pods: Sequence[PodState]) -> list[PodState]:
        runtimes = self._runtimes(state, pods)
        for name, runtime in runtimes.items():
            speaking = any(ELIGIBLE in key for pod in pods for key in pod.annotations)
            if speaking and not runtime.passes_annotations:
                self._say(
                    f"{name}: pods have Ratchet's annotations, but the network configuration does"
                    f" not ask for them (capabilities: {configuration.ANNOTATIONS})"
                )

        def attach(pod: PodState) -> PodState:
            self.directory.write_pod(pod)
            try:
                netns.create(pod.netns)
                done = replace(pod, result=runtimes[pod.node].add(pod))
            except BaseException:
                # As a runtime: a failed ADD is followed by a DEL, and the sandbox goes.
                self._release(pod, runtimes[pod.node])
                raise
            self.directory.write_pod(done)
            return done

        return self._workers.run("attaching", pods, attach)

    def _detach_all(self, state: SimState, pods: Sequence[PodState]) -> None:
        runtimes = self._runtimes(state, pods)
        # Containers end before their sandbox's network is taken away.
        ids = (netns.identity(pod.netns) for pod in pods)
        processes.end({found for found in ids if found})

        def detach(pod: PodState) -> PodState:
            runtimes[pod.node].delete(pod)
            netns.remove(pod.netns)
            self.directory.forget_pod(pod)
            return pod

        self._workers.run("deleting", pods, detach)

    def _release(self, pod: PodState, runtime: Runtime) -> None:
        try:
            runtime.delete(pod)
        except OperatorError as error:
            self._say(f"{pod.full_name}: after the failed ADD, {error}")
        netns.remove(pod.netns)
        self.directory.forget_pod(pod)

    def _runtimes(self, state: SimState, pods: Iterable[PodState]) -> dict[str, Runtime]:
        return {
            node: Runtime(configuration.load(self.directory.node(node)), state.plugin_dirs)
            for node in {pod.node for pod in pods}
        }

    def _try_to_detach(self, state: SimState) -> None:
        try:
            self._detach_all(state, self.directory.pods())
        except OperatorError as error:
            self._say(str(error))
        deadline = time.monotonic() + DETACH_TIMEOUT_S
        directories = [Directory(self.directory.state_dir(node.name)) for node in state.nodes]
        while any(one.deleted() for one in directories):
            if time.monotonic() > deadline:
                self._say(
                    f"keys may be left in etcd {state.foreign_etcd} below {state.etcd_prefix}:"
                    " remove them with `ratchetctl clean`"
                )
                return
            time.sleep(0.1)

    def _tear_down(self) -> list[int]:
        with uninterrupted():
            paths = self.directory.all_netns()
            ids = (netns.identity(path) for path in paths)
            refused = processes.end({found for found in ids if found})
            for path in paths:
                netns.remove(path)
            netns.remove_room(self.directory.netns(""))
            netns.remove_room(self.directory.place(""))
            self.directory.remove()
            # The front's socket was there. A machine that is a node has more in it.
            with suppress(OSError):
                os.rmdir(STATE_DIRS)
            return refused

    def _enter(self, node: str) -> None:
        places.enter(self.directory.netns(node), self.directory.place(node))

    def _locked(self) -> AbstractContextManager[None]:
        return self.directory.locked(
            lambda: self._say("waiting for another ratchetctl that works on this simulation")
        )


def _differs(pod: Pod, known: PodState | None) -> bool:
    return (
        known is None
        or known.result is None
        or (dict(pod.labels), dict(pod.annotations)) != (known.labels, known.annotations)
        or (pod.node_name is not None and pod.node_name != known.node)
    )
