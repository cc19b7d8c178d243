"""`kubectl ratchet`, which is `ratchetctl kube` as well: the links of a cluster.

Exit status: 0 when everything that was shown is up, 3 when something waits or is not known, 4 when
something is wrong; 1 is the command's own failure, and 2 wrong arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

import click

from ratchet import __version__
from ratchet.status import ERROR, UP, WAITING
from ratchetctl import wording
from ratchetctl.api import arguments
from ratchetctl.api.client import ALL, Client
from ratchetctl.api.errors import ForbiddenError, MissingError
from ratchetctl.api.resources import PODS
from ratchetctl.errors import StatusError
from ratchetctl.kube import checking, cleaning, completion, explaining, nodes, reading, shown
from ratchetctl.kube import links as joining
from ratchetctl.kube import output as printing
from ratchetctl.kube.cluster import Cluster, Pod

WELL, WAITS, WRONG = 0, 3, 4
_STATES = (UP, WAITING, ERROR, joining.UNKNOWN)


@click.group(
    "kube",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The same as `kubectl ratchet`, where kubectl finds the program kubectl-ratchet.",
)
@click.version_option(__version__, prog_name="kubectl-ratchet", message="%(prog)s %(version)s")
def kube() -> None:
    """Show and mend the links of a Kubernetes cluster (kubectl ratchet)."""


in_system_namespace = click.option(
    "--system-namespace",
    default=reading.SYSTEM_NAMESPACE,
    show_default=True,
    help="where Ratchet's agents are",
)
watching = click.option("-w", "--watch", is_flag=True, help="go on, and show what changes")


def scope(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose a cluster and pods: it gets `where`, None for all."""

    @arguments.options
    @click.option("-A", "--all-namespaces", is_flag=True, help="look at all namespaces")
    @click.option("-l", "--selector", help="look only at pods with these labels, as kubectl has it")
    @in_system_namespace
    @wraps(command)
    def wrapped(cluster: Client, all_namespaces: bool, **rest: Any) -> Any:
        return command(client=cluster, where=None if all_namespaces else cluster.namespace, **rest)

    return wrapped


@kube.command()
@scope
@printing.option
@watching
@click.option(
    "--state", "states", multiple=True, type=click.Choice(_STATES), help="only links in this state"
)
@click.argument("pod", required=False, shell_complete=completion.pods)
def links(
    client: Client,
    where: str | None,
    selector: str | None,
    system_namespace: str,
    output: str,
    watch: bool,
    states: tuple[str, ...],
    pod: str | None,
) -> None:
    """Show every link: both pods, nodes, kind, state, since when, and why.

    With POD, only that pod's links are shown.
    """

    def chosen(cluster: Cluster) -> list[joining.Row]:
        rows = joining.rows(cluster)
        if pod is not None:
            rows = joining.of_pod(rows, _named(cluster, where or client.namespace, pod))
        return [row for row in rows if not states or row.state in states]

    _run(
        client,
        where,
        system_namespace,
        selector,
        lambda found: shown.links(chosen(found), time.time(), wide=output == "wide"),
        output,
        watch,
        shown.LINK_KEYS,
        lambda found: (row.state if not row.fault else ERROR for row in chosen(found)),
    )


@kube.command()
@scope
@printing.option
@watching
def pods(
    client: Client,
    where: str | None,
    selector: str | None,
    system_namespace: str,
    output: str,
    watch: bool,
) -> None:
    """Show the labelled pods, how their links are, and why."""
    _run(
        client,
        where,
        system_namespace,
        selector,
        lambda found: shown.pods(found, time.time(), wide=output == "wide"),
        output,
        watch,
        shown.POD_KEYS,
        lambda found: (shown.pod_state(found, pod)[0] for pod in found.pods if not pod.is_over),
    )


@kube.command()
@arguments.options
@in_system_namespace
@click.option(
    "-o",
    "--output",
    type=click.Choice(("text", "json", "yaml")),
    default="text",
    show_default=True,
    help="how to show it",
)
@click.argument("pod", shell_complete=completion.pods)
def explain(cluster: Client, system_namespace: str, output: str, pod: str) -> None:
    """Say what a pod's labels ask for, what is there, what is missing, and who has to do what."""
    where = cluster.namespace
    found = reading.cluster(cluster, where, system=system_namespace, every_label=True)
    _say_blind(found)
    one = _find(found, where, pod)
    if one is None:
        label = _stranger(cluster, where, pod)
        finding = explaining.not_ratchets(pod, label)
        _print_explanation(
            explaining.Explanation(Pod(where, pod, None, "Unknown"), (), (), (finding,)), output
        )
        click.get_current_context().exit(WRONG)
    wanted = {link.pair for link in (() if one.wiring is None else one.wiring.links)}
    others = {
        name: _why_no_end(cluster, where, name)
        for name in wanted
        if found.find(where, name) is None
    }
    said = explaining.explain(found, one, {k: v for k, v in others.items() if v is not None})
    _print_explanation(said, output)
    states = [row.state for row in (*said.declared, *said.incoming)]
    states += [ERROR] if one.label_error is not None else []
    states += [shown.pod_state(found, one)[0]]
    click.get_current_context().exit(exit_status(states))


@kube.command()
@arguments.options
@in_system_namespace
@printing.option
@click.option("--no-frames", is_flag=True, help="do not have the nodes send frames to each other")
def check(cluster: Client, system_namespace: str, output: str, no_frames: bool) -> None:
    """Look at every node: versions, agent, etcd, kubeconfig, and frames between every two nodes.

    The agents send frames of the tunnels' port to each other, small ones and ones as large as links
    may send, and say which have come. That takes ten seconds and the right to patch pods/status in
    the agents' namespace.
    """
    agents = reading.agents(cluster, system_namespace)
    if agents is None:
        raise ForbiddenError(f"not allowed to list pods in namespace {system_namespace}")
    names = checking.node_names(cluster)
    if not agents:
        raise StatusError(
            f"no agent of Ratchet's in namespace {system_namespace}; is it installed, or does"
            " --system-namespace name another one?"
        )
    results = None
    if not no_frames:
        results = checking.frames(
            cluster, agents, system_namespace, lambda text: click.echo(f"{text} ...", err=True)
        )
    found = nodes.states(agents, names, results or {})
    problems = nodes.problems(found, results)
    if output in printing.TABLES:
        printing.show(shown.nodes(found, time.time(), wide=output == "wide"), output)
        for line in shown.problems(problems):
            click.echo(wording.plain(line))
    else:
        printing.show_one(shown.check_object(found, problems), output)
    status = WRONG if any(one.is_grave for one in problems) else WAITS if problems else WELL
    click.get_current_context().exit(status)


kube.add_command(cleaning.clean)


def exit_status(states: Iterable[str]) -> int:
    """Return how well all of it is."""
    found = set(states)
    if found & {ERROR, "superseded"}:
        return WRONG
    return WAITS if found - {UP} else WELL


def _run(
    client: Client,
    where: str | None,
    system: str,
    selector: str | None,
    table: Callable[[Cluster], printing.Table],
    how: str,
    watch: bool,
    key_columns: int,
    states: Callable[[Cluster], Iterable[str]],
) -> None:
    """Show what there is; with `watch`, also what becomes of it."""
    if watch:
        latest: list[Cluster] = []
        changes = _changes(client, where, system, selector, latest)
        printing.follow(changes, lambda: table(latest[-1]), how, key_columns=key_columns)
        return
    found = reading.cluster(client, where, system=system, selector=selector)
    _say_blind(found)
    printing.show(table(found), how)
    click.get_current_context().exit(exit_status(states(found)))


def _changes(
    client: Client, where: str | None, system: str, selector: str | None, latest: list[Cluster]
) -> Iterator[None]:
    """Yield whenever something may have changed; `latest` holds the cluster as it is then."""
    agents, looked_at = reading.agents(client, system), time.monotonic()
    for objects in client.follow(PODS, ALL if where is None else where, labels=selector):
        if time.monotonic() - looked_at > reading.AGENTS_S:
            agents, looked_at = reading.agents(client, system), time.monotonic()
        read = (reading.read_pod(obj) for obj in objects.values())
        latest[:] = [Cluster.of([pod for pod in read if pod is not None], agents, where)]
        yield


def _say_blind(cluster: Cluster) -> None:
    if cluster.agents is None:
        text = (
            "kubectl-ratchet: the agents may not be listed, so what is shown of a node that is"
            " away may be old"
        )
        click.echo(text, err=True)


def _find(cluster: Cluster, namespace: str, name: str) -> Pod | None:
    """Return a pod by its own name, or by the one that it has to other pods."""
    for pod in cluster.pods:
        if (pod.namespace, pod.name) == (namespace, name):
            return pod
    return cluster.find(namespace, name)


def _named(cluster: Cluster, namespace: str, name: str) -> Pod:
    """Return the pod that is meant: NAME or NAMESPACE/NAME. *Raises* StatusError."""
    within, slash, short = name.rpartition("/")
    found = _find(cluster, within if slash else namespace, short)
    if found is None:
        raise StatusError(
            f"there is no pod {short} of Ratchet's in namespace {within or namespace}; "
            f"`kubectl ratchet explain {short}` says more"
        )
    return found


def _stranger(client: Client, namespace: str, name: str) -> str | None:
    """Return the label `ratchet` of a pod that is none of Ratchet's. *Raises* MissingError."""
    metadata = client.get(PODS, name, namespace)["metadata"]
    value = (metadata.get("annotations") or {}).get("ratchet")
    if value is None:
        value = (metadata.get("labels") or {}).get("ratchet")
    return None if value is None else str(value)


def _why_no_end(client: Client, namespace: str, name: str) -> str | None:
    """Return why a pod of that name is none of Ratchet's; None when there is none."""
    try:
        return explaining.not_ratchets(name, _stranger(client, namespace, name)).what
    except (MissingError, ForbiddenError):
        return None


def _print_explanation(one: explaining.Explanation, how: str) -> None:
    if how == "text":
        for line in shown.explanation(one, time.time()).splitlines():
            click.echo(wording.plain(line))
    else:
        printing.show_one(shown.explanation_object(one), how)
