"""A topology on a cluster: made, brought to what its file says, waited for, removed.

ConfigMaps and Services come before the pods that use them, and go after them. What the API server
would refuse is asked of it before anything is changed (a dry run of each change, and of the first
object of each kind that is made). Requests run in parallel; a busy server says how long to wait.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor
from concurrent.futures import wait as completed
from typing import Any

from ratchetctl.api.client import Client
from ratchetctl.api.connection import PARALLEL
from ratchetctl.api.errors import AwayError, ConflictError, ForbiddenError, MissingError
from ratchetctl.api.resources import CONFIG_MAPS, EVENTS, PODS, SERVICES, of
from ratchetctl.errors import ClusterError, TopologyError
from ratchetctl.sim.progress import Progress
from ratchetctl.topo import plan as planning
from ratchetctl.topo import render, reports
from ratchetctl.topo.fields import shown
from ratchetctl.topo.model import Topology
from ratchetctl.topo.plan import MANAGER, Obj, Plan, named
from ratchetctl.topo.reports import Report

KINDS = (CONFIG_MAPS, SERVICES, PODS)
GONE_S = 120.0  # how long a pod may take to end
UNTOLD_S = 20.0  # how long after it runs an agent may be silent about a pod
STEP_S = 2.0
MOST_SHOWN = 10


class Cluster:
    """One topology in one namespace of a cluster."""

    def __init__(
        self,
        client: Client,
        topology: Topology,
        say: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self._client = client
        self._topology = topology
        self._say = say
        self._progress = progress

    @property
    def _selector(self) -> str:
        return f"{render.TOPOLOGY}={render.label_value(self._topology.name)}"

    def plan(self, restart: bool = False) -> Plan:
        """Compare the file with what is there. Raises ClusterError, TopologyError."""
        live = [one for kind in KINDS for one in self._client.list(kind).items]
        wanted = render.objects(self._topology, self._client.namespace)
        return planning.plan(self._topology.name, wanted, live, restart)

    def mine(self) -> list[Obj]:
        """Return what is there of the topology."""
        return [
            one
            for kind in KINDS
            for one in self._client.list(kind, labels=self._selector).items
            if planning.is_of(one, self._topology.name)
        ]

    def check(self, plan: Plan, force: bool, every: bool = False) -> None:
        """Ask the API server whether it would take the plan. Raises ClusterError, TopologyError.

        Of what is made, the first object of each kind stands for the others, unless `every`.
        """
        contested = [
            f"{named(change.obj)}: {manager} manages {shown(path)}"
            for change in plan.changed
            for path, manager in change.contested
        ]
        if contested and not force:
            raise _conflict(contested)
        going = {planning.key(one) for one in plan.going}
        new = [one for one in plan.created if planning.key(one) not in going]
        if not every:
            new = list({one["kind"]: one for one in reversed(new)}.values())
        asked = [*(change.obj for change in plan.changed), *new]
        conflicts: list[str] = []

        def ask(obj: Obj) -> None:
            try:
                self._apply(obj, force, dry_run=True)
            except ConflictError as error:
                conflicts.extend(
                    f"{named(obj)}: {one.manager} manages {one.field}" for one in error.owners
                )
                if not error.owners:
                    raise

        self._each("checked", asked, ask)
        if conflicts:
            raise _conflict(sorted(conflicts))

    def carry_out(self, plan: Plan, force: bool) -> None:
        """Make the difference. Raises ClusterError at what fails; what was done stays done."""
        first = [*filter(_no_pod, plan.created)]
        self._each("files and ports made", first, lambda one: self._apply(one, force))
        # ConfigMaps and Services are in front of pods in a plan.
        self._each("changed in place", plan.changed, lambda one: self._change(one, force))
        leaving = [one.before for one in plan.remade] + [*filter(_is_pod, plan.removed)]
        self._each("pods removed", leaving, self._delete)
        self._await_gone([*leaving, *filter(_is_pod, plan.going)])
        making = [*filter(_is_pod, plan.created), *(one.obj for one in plan.remade)]
        self._each("pods made", making, lambda one: self._apply(one, force))
        self._each("files and ports removed", [*filter(_no_pod, plan.removed)], self._delete)

    def remove(self, objects: Sequence[Obj], dry_run: bool = False) -> None:
        """Remove objects, pods first. Safe to call twice."""
        pods = [*filter(_is_pod, objects)]
        self._each("pods removed", pods, lambda one: self._delete(one, dry_run))
        if not dry_run:
            self._await_gone(pods)
        others = [*filter(_no_pod, objects)]
        self._each("files and ports removed", others, lambda one: self._delete(one, dry_run))

    def reports(self) -> list[Report]:
        """Return what each of the topology's pods says now."""
        pods = self._client.list(PODS, labels=self._selector).items
        return self._reported({one["metadata"]["name"]: one for one in pods})

    def wait(self, seconds: float) -> list[Report]:
        """Wait until every link is up. Blocks at most `seconds`, and for one request.

        Ends sooner where pods run and no agent tells of links. Returns the reports at the end.
        """
        started = time.monotonic()
        deadline = started + seconds
        told: set[str] = set()
        silent_since: float | None = None
        found: list[Report] = []
        links, shown_up = len(self._topology.all_links), -1
        for known in self._client.follow(PODS, labels=self._selector, step_s=STEP_S):
            now = time.monotonic()
            found = self._reported({name: pod for (_, name), pod in known.items()})
            for one in found:
                if one.state == reports.ERROR and one.trouble and one.trouble not in told:
                    told.add(one.trouble)
                    self._say(f"pod {one.name}: {one.trouble}")
            if all(one.state == reports.UP for one in found):
                break
            is_silent = all(one.runs and not one.is_told for one in found if one.ends)
            silent_since = (silent_since or now) if is_silent else None
            if now >= deadline or (silent_since is not None and now - silent_since >= UNTOLD_S):
                break
            up = links_up(found, links)
            if up != shown_up and now - started >= STEP_S:
                shown_up, started = up, now
                self._say(f"{up} of {links} links are up, {_phases(found)}")
        return found

    def causes(self, found: Iterable[Report]) -> list[str]:
        """Return why pods are not as they should be, from their latest warnings where they have."""
        late = [one for one in found if one.state != reports.UP]
        warnings: dict[str, str] = {}
        try:
            events = self._client.list(EVENTS, fields="type=Warning").items if late else ()
        except (ForbiddenError, MissingError, AwayError):
            events = ()  # they help, and are not needed
        for event in sorted(events, key=_when):
            about = event.get("regarding") or {}
            if about.get("kind") == "Pod":
                warnings[str(about.get("name"))] = f"{event.get('reason')}: {event.get('note')}"
        lines = []
        for one in late[:MOST_SHOWN]:
            why = warnings.get(one.name) or one.trouble or f"{one.up} of {one.ends} ends are up"
            lines.append(f"pod {one.name} ({one.phase}): {why}")
        if len(late) > MOST_SHOWN:
            lines.append(f"and {len(late) - MOST_SHOWN} more")
        return lines

    def _reported(self, pods: Mapping[str, Obj]) -> list[Report]:
        _, ends = render.by_node(self._topology)
        return [
            reports.report(pods.get(node.name), node.name, ends.get(node.name, []))
            for node in self._topology.nodes
        ]

    def _apply(self, obj: Obj, force: bool, dry_run: bool = False) -> None:
        try:
            self._client.apply(obj, MANAGER, force=force, dry_run=dry_run)
        except MissingError as error:
            space = self._client.namespace
            raise ClusterError(
                f"{error}; make it with: kubectl create namespace {space}"
            ) from error

    def _change(self, change: planning.Change, force: bool) -> None:
        self._apply(change.obj, force)
        if change.contested:
            # What others have set is not taken away by an apply.
            nothing: dict[str, Any] = {}
            for path, _ in change.contested:
                at = nothing
                for part in path[:-1]:
                    at = at.setdefault(part, {})
                at[path[-1]] = None
            name = change.obj["metadata"]["name"]
            self._client.patch(of(change.obj), name, nothing, MANAGER)

    def _delete(self, obj: Obj, dry_run: bool = False) -> None:
        metadata = obj["metadata"]
        self._client.delete(of(obj), metadata["name"], uid=metadata["uid"], dry_run=dry_run)

    def _await_gone(self, pods: Sequence[Obj]) -> None:
        """Wait until pods have ended, so that others can have their names."""
        left = {one["metadata"]["uid"] for one in pods}
        if not left:
            return
        deadline = time.monotonic() + GONE_S
        for known in self._client.follow(PODS, labels=self._selector, step_s=STEP_S):
            names = [
                one["metadata"]["name"] for one in known.values() if one["metadata"]["uid"] in left
            ]
            if not names:
                return
            if time.monotonic() >= deadline:
                raise ClusterError(
                    f"{len(names)} pods have not ended within {GONE_S:.0f} s, the first is"
                    f" {names[0]}; is its node there? (kubectl describe pod {names[0]})"
                )

    def _each(self, what: str, items: Sequence[Any], work: Callable[[Any], None]) -> None:
        """Do something with all items, several at once; stop at the first error and raise it."""
        if not items:
            return
        with (
            self._progress.task(what, len(items), "objects") as advance,
            ThreadPoolExecutor(PARALLEL) as pool,
        ):
            futures = [pool.submit(work, item) for item in items]
            for future in futures:
                future.add_done_callback(lambda _: advance())
            _, left = completed(futures, return_when=FIRST_EXCEPTION)
            for future in left:
                future.cancel()
            for future in futures:
                if not future.cancelled():
                    future.result()


def links_up(found: Sequence[Report], links: int) -> int:
    """Return how many links are up at both ends, at least as far as pods can tell."""
    missing = sum(one.ends - one.up for one in found)
    return max(links - (missing + 1) // 2, 0)


def by_machine(found: Iterable[Report]) -> Iterator[tuple[str, list[str]]]:
    """Yield each machine with the names of its pods."""
    machines: dict[str, list[str]] = {}
    for one in found:
        machines.setdefault(one.machine or "(none yet)", []).append(one.name)
    yield from sorted(machines.items())


def _phases(found: Iterable[Report]) -> str:
    counts = Counter(one.phase for one in found)
    return ", ".join(f"{count} pods {phase}" for phase, count in sorted(counts.items()))


def _is_pod(obj: Obj) -> bool:
    return bool(obj["kind"] == "Pod")


def _no_pod(obj: Obj) -> bool:
    return not _is_pod(obj)


def _when(event: Obj) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("eventTime")
        or event.get("deprecatedLastTimestamp")
        or ""
    )


def _conflict(lines: Sequence[str]) -> TopologyError:
    shown_lines = list(lines[:MOST_SHOWN])
    if len(lines) > MOST_SHOWN:
        shown_lines.append(f"and {len(lines) - MOST_SHOWN} more")
    return TopologyError(
        "somebody else manages what the topology wants to be different:\n  "
        + "\n  ".join(shown_lines)
        + "\nnothing was changed; take these fields over with --force-conflicts"
    )
