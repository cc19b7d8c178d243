"""A topology in the simulator: made, brought to what its file says, ended.

Which pods are a topology's, their label says. Applying attaches what is new, anew what changed and
detaches what is gone; the others are not touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ratchet import labels
from ratchetctl.errors import TopologyError
from ratchetctl.manifest import Pod
from ratchetctl.sim import configuration, containers, links, status, work
from ratchetctl.sim.directory import PodState, SimDirectory
from ratchetctl.sim.routers import known as routers
from ratchetctl.sim.simulator import Plan, Simulator
from ratchetctl.sim.work import Command, Work
from ratchetctl.topo import names, render
from ratchetctl.topo.kinds import kind as kind_of
from ratchetctl.topo.model import End, Link, Node, Topology, Uplink
from ratchetctl.topo.reports import ERROR, UP, WAITING, Report

PARALLEL = 4
COMMANDS = "commands"  # of the topology's file, as a log is named by them


def pods(topology: Topology, namespace: str = "default") -> list[Pod]:
    """Return the topology's pods as the simulator takes them: those that `render` writes."""
    declared, _ = render.by_node(topology)
    made = []
    for node in topology.nodes:
        own_labels, annotations = render.metadata(topology, node, declared.get(node.name, ()))
        made.append(
            Pod(
                namespace=namespace,
                name=node.name,
                labels=own_labels,
                annotations=annotations,
                node_name=None,
                node_selector=dict(node.node_selector),
                host_network=False,
                init_containers=(),
                containers=(),
                where=str(node.where),
            )
        )
    return made


def create(
    simulator: Simulator,
    plan: Plan,
    topology: Topology,
    namespace: str,
    say: Callable[[str], None],
) -> list[PodState]:
    """Make a simulation and attach the topology's pods. Raises OperatorError, leaving nothing.

    Pods in which nothing is to run get no eth0, which takes longer to make than their links, unless
    the plan says otherwise.
    """
    is_plain = plan.template is None and plan.boot_network is None and not uses_network(topology)
    if is_plain:
        plan = replace(plan, boot_network=configuration.LOOPBACK)
    attached = simulator.up(plan, pods(topology, namespace))
    if is_plain:
        say("nothing is to run in the nodes: they have no eth0 (--boot-network bridge makes one)")
    return attached


def uses_network(topology: Topology) -> bool:
    """Say whether anything in the file could use the network that a cluster's pods have."""
    return any(
        node.ports
        or node.command
        or node.args
        or node.commands
        or node.files
        or node.routing
        or not kind_of(node.kind).interactive
        for node in topology.nodes
    )


def apply(
    simulator: Simulator, topology: Topology, namespace: str, say: Callable[[str], None]
) -> list[PodState]:
    """Make exactly the difference in a running simulation; the pods that were attached."""
    wanted = pods(topology, namespace)
    names = {(pod.namespace, pod.name) for pod in wanted}
    known = list(simulator.directory.pods())
    foreign = [
        pod
        for pod in known
        if (pod.namespace, pod.name) in names and not _is_of(pod, topology.name)
    ]
    if foreign:
        raise TopologyError(
            f"{topology.name}: the pod {foreign[0].full_name} of the simulation is not of this"
            " topology; use another --namespace or --name"
        )
    gone = [
        pod.full_name
        for pod in known
        if _is_of(pod, topology.name) and (pod.namespace, pod.name) not in names
    ]
    if gone:
        say(f"{len(gone)} gone: {', '.join(gone[:10])}{' ...' if len(gone) > 10 else ''}")
        simulator.delete(gone)
    if uses_network(topology) and not _gives_network(simulator.directory):
        say("the pods of this simulation have no eth0: `destroy` and `create` give them one")
    return simulator.apply(wanted)


def destroy(simulator: Simulator, name: str) -> list[int]:
    """Detach a topology's pods; where that leaves no pod, end the simulation. Safe to call twice.

    Returns pids that would not end.
    """
    directory = simulator.directory
    if not directory.exists:
        return []
    known = list(directory.pods())
    mine = [pod.full_name for pod in known if _is_of(pod, name)]
    if known and not mine:
        topologies = sorted({pod.labels.get(render.TOPOLOGY, "") for pod in known} - {""})
        raise TopologyError(
            f"no pod of the topology {name} is in the simulation {directory.name};"
            f" there are {', '.join(topologies) or 'no topologies'}"
        )
    if len(mine) == len(known):
        return simulator.down()
    simulator.delete(mine)
    return []


def run(
    directory: SimDirectory,
    topology: Topology,
    attached: Iterable[PodState],
    namespace: str,
) -> list[str]:
    """Start what nodes run that were just attached, or whose files or commands have changed.

    It runs with this machine's programs. Returns a sentence for each; raises SimError that lists
    what does not run, after everything else was started.
    """
    _, ends = render.by_node(topology)
    nodes = {node.name: node for node in topology.nodes}
    new = {state.container_id for state in attached}
    changed = []
    for state in directory.pods():
        if state.namespace != namespace or not _is_of(state, topology.name):
            continue
        found = _work(nodes[state.name], ends.get(state.name, ()))
        kept = directory.read_work(state)
        before = Work() if kept is None else Work.from_json(kept)
        if found != before or (state.container_id in new and found != Work()):
            changed.append((state, found))
    with directory.locked():
        return containers.run(directory, changed, PARALLEL)


def wait(directory: SimDirectory, topology: Topology, seconds: float) -> Counter[str]:
    """Wait until every link of the topology is up at both ends.

    Blocks at most `seconds`. Returns how many ends are in which state.
    """
    return links.wait(
        directory, seconds, chosen=lambda pod: _is_of(pod, topology.name), wanted=topology.ends
    )


def reports(directory: SimDirectory, topology: Topology, namespace: str) -> list[Report]:
    """Return how each of the topology's pods and its links are. Raises SimError."""
    mine = {pod.name: pod for pod in directory.pods() if _is_of(pod, topology.name)}
    seen = {
        pod["name"]: pod["links"]
        for pod in status.collect(directory)["pods"]
        if pod["namespace"] == namespace
    }
    _, ends = render.by_node(topology)
    found = []
    for node in topology.nodes:
        wanted = len(ends.get(node.name, ()))
        pod, its = mine.get(node.name), seen.get(node.name, [])
        up = min(sum(link["state"] == UP for link in its), wanted)
        errors = [link.get("error") or "" for link in its if link["state"] == ERROR]
        faults = [f"{link['ifname']}: {link['fault']}" for link in its if link.get("fault")]
        state = ERROR if errors else UP if pod is not None and up == wanted else WAITING
        machine, phase = ("", "missing") if pod is None else (pod.node, "attached")
        trouble = "; ".join(errors or faults)
        found.append(Report(node.name, machine, phase, up, wanted, state, trouble, True))
    return found


def running(directory: SimDirectory, topology: Topology) -> Topology:
    """Return what runs of a topology: its pods and their links, as their labels say.

    A node that is in both is taken as the file has it: pods keep no images here. Raises SimError
    when there is no simulation.
    """
    directory.read_state()
    mine = [pod for pod in directory.pods() if _is_of(pod, topology.name)]
    known = {node.name: node for node in topology.nodes}
    nodes = tuple(known.get(pod.name, Node(pod.name, pod.name, "", "")) for pod in mine)
    cables: list[Link] = []
    uplinks: list[Uplink] = []
    for pod in mine:
        wiring = labels.parse(
            pod.labels, pod.annotations, own_name=pod.name, cni_ifname=names.CNI_IFNAME
        )
        cables += [Link.of(pod.name, link) for link in wiring.links]
        uplinks += [Uplink.of(pod.name, uplink) for uplink in wiring.uplinks]
    return Topology(topology.name, nodes, tuple(cables), tuple(uplinks))


def _gives_network(directory: SimDirectory) -> bool:
    """Say whether pods of a simulation get an eth0."""
    node = directory.read_state().nodes[0]
    return configuration.gives_network(configuration.load(directory.node(node.name)))


def _is_of(pod: PodState, topology: str) -> bool:
    return pod.labels.get(render.TOPOLOGY) == render.label_value(topology)


def _work(node: Node, ends: Sequence[End]) -> Work:
    """Return what of a node can run here: a router by its configuration, and its own commands."""
    known = kind_of(node.kind)
    files = {file.path: file.content for file in node.files}
    router = routers.of(files, node.kind)
    first: list[Command] = []
    commands: list[Command] = []
    after: list[Command] = []
    unable: list[tuple[str, str]] = []
    if node.loopbacks:
        script = " && ".join(render.loopback_commands(node))
        first.append((render.ADDRESSES, ("/bin/sh", "-c", script)))
    if router is None and known.is_image:
        unable.append((node.kind, "it is a program of its image, and the simulator runs none"))
    elif router is None and (command := (*(node.command or ()), *node.args)):
        work.take((render.CONTAINER, command), commands, unable)
    if node.commands:
        script = "\n".join(render.after_links([end.ifname for end in ends], node.commands))
        after.append((COMMANDS, ("/bin/sh", "-c", script)))
    return Work(
        router=router,
        first=tuple(first),
        commands=tuple(commands),
        after=tuple(after),
        unable=tuple(unable),
        files=tuple(files.items()),
    )
