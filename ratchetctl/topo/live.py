"""A topology in the simulator: made, brought to what its file says, ended.

Which pods are a topology's, their label says. Applying attaches what is new, anew what changed and
detaches what is gone; the others are not touched.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ratchet import labels
from ratchetctl.errors import TopologyError
from ratchetctl.manifest import Container, Manifest, Pod
from ratchetctl.sim import containers, status
from ratchetctl.sim.directory import PodState, SimDirectory
from ratchetctl.sim.simulator import Plan, Simulator
from ratchetctl.topo import names, render
from ratchetctl.topo.model import Link, Node, Topology, Uplink
from ratchetctl.topo.reports import ERROR, UP, WAITING, Report

POLL_S = 0.5
PARALLEL = 4
FRR_CONF = "frr.conf"


def pods(topology: Topology, namespace: str = "default") -> list[Pod]:
    """Return the topology's pods as the simulator takes them: those that `render` writes."""
    declared, ends = render.by_node(topology)
    made = []
    for node in topology.nodes:
        own_labels, annotations = render.metadata(topology, node, declared.get(node.name, ()))
        interfaces = [end.ifname for end in ends.get(node.name, ())]
        made.append(
            Pod(
                namespace=namespace,
                name=node.name,
                labels=own_labels,
                annotations=annotations,
                node_name=None,
                node_selector=dict(node.node_selector),
                host_network=False,
                init_containers=tuple(_addresses(node)),
                containers=tuple(_containers(node, interfaces)),
                where=str(node.where),
            )
        )
    return made


def create(simulator: Simulator, plan: Plan, topology: Topology, namespace: str) -> list[PodState]:
    """Make a simulation and attach the topology's pods. Raises OperatorError, leaving nothing."""
    return simulator.up(plan, pods(topology, namespace))


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
    """Set loopback addresses, start FRR and run the nodes' commands in pods just attached.

    Runs with this machine's programs; what an image would run is left alone.
    """
    manifest = Manifest(config_maps=dict(_config_maps(topology, namespace)))
    by_name = {(pod.namespace, pod.name): pod for pod in pods(topology, namespace)}
    work = [
        (state, by_name[state.namespace, state.name])
        for state in attached
        if (state.namespace, state.name) in by_name
    ]
    work = [(state, pod) for state, pod in work if pod.init_containers or pod.containers]

    def start(one: tuple[PodState, Pod]) -> list[str]:
        return containers.run(directory, one[0], one[1], manifest)

    with directory.locked(), ThreadPoolExecutor(PARALLEL) as pool:
        return [sentence for said in pool.map(start, work) for sentence in said]


def wait(directory: SimDirectory, topology: Topology, seconds: float) -> Counter[str]:
    """Wait until every link of the topology is up at both ends, or one is in error for good.

    Blocks at most `seconds`. Returns how many ends are in which state.
    """
    deadline = time.monotonic() + seconds
    wanted = topology.ends
    while True:
        counts = states(directory, topology.name)
        missing = wanted - sum(counts.values())
        if missing > 0:
            counts["waiting"] += missing
        if counts["up"] >= wanted or time.monotonic() >= deadline:
            return counts
        time.sleep(POLL_S)


def states(directory: SimDirectory, name: str) -> Counter[str]:
    """Return how many ends of the topology's links are in which state."""
    mine = {pod.container_id for pod in directory.pods() if _is_of(pod, name)}
    return Counter(
        link["state"]
        for pod in status.collect(directory)["pods"]
        if pod["container_id"] in mine
        for link in pod["links"]
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
        pod, links = mine.get(node.name), seen.get(node.name, [])
        up = min(sum(link["state"] == UP for link in links), wanted)
        errors = [link.get("error") or "" for link in links if link["state"] == ERROR]
        state = ERROR if errors else UP if pod is not None and up == wanted else WAITING
        machine, phase = ("", "missing") if pod is None else (pod.node, "attached")
        trouble = "; ".join(errors)
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
    links: list[Link] = []
    uplinks: list[Uplink] = []
    for pod in mine:
        wiring = labels.parse(
            pod.labels, pod.annotations, own_name=pod.name, cni_ifname=names.CNI_IFNAME
        )
        links += [Link.of(pod.name, link) for link in wiring.links]
        uplinks += [Uplink.of(pod.name, uplink) for uplink in wiring.uplinks]
    return Topology(topology.name, nodes, tuple(links), tuple(uplinks))


def _is_of(pod: PodState, topology: str) -> bool:
    return pod.labels.get(render.TOPOLOGY) == render.label_value(topology)


def _addresses(node: Node) -> Iterator[Container]:
    if node.loopbacks:
        script = " && ".join(render.loopback_commands(node))
        yield Container(render.ADDRESSES, ("/bin/sh", "-c", script), ())


def _containers(node: Node, interfaces: Sequence[str]) -> Iterator[Container]:
    """Yield what can run here: FRR by its configuration, and the node's own commands."""
    if any(file.path.endswith(f"/{FRR_CONF}") for file in node.files):
        yield Container(render.CONTAINER, None, (f"{node.name}-files",))
    if node.commands:
        script = "\n".join(render.after_links(interfaces, node.commands))
        yield Container("commands", ("/bin/sh", "-c", script), ())


def _config_maps(
    topology: Topology, namespace: str
) -> Iterator[tuple[tuple[str, str], Mapping[str, str]]]:
    for node in topology.nodes:
        if node.files:
            yield (namespace, f"{node.name}-files"), render.config_map(node)
