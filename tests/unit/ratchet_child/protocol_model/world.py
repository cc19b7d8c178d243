"""Nodes, their engines and what happens to them; and what must hold when all is quiet.

Each node runs the real `Engine`, `Ends`, `Pairing` and `Bells` over the in-memory etcd. Its worker
threads and its watch are tasks: `World.choices` lists what could happen next, `World.take` has one
of it happen. A crash ends a node's process between any two steps; its records, its namespaces and
its keys stay, as does everything else.

Looking again by itself, the workers' last resort, is switched off: bells must do. Only pods whose
name another container holds may look unasked, since nobody rings for these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest import mock

from ratchet import log
from ratchet.attachments import Attachment
from ratchet.cni.dataclasses import replace
from ratchet.cni.ip import Address
from ratchet.errors import StoreError
from ratchet.links import Link
from ratchet_child import bells
from ratchet_child.engine import Engine, Parts
from ratchet_child.kernel.netns import News
from ratchet_child.model.keys import FIRST_VNI, Declaration, PodKey, Published
from ratchet_child.model.links import DeclaredLink
from ratchet_child.model.local import Node as LocalNode
from ratchet_child.pods.records import pod_of
from ratchet_child.pods.schedule import Rank
from ratchet_child.pods.turns import Pauses
from ratchet_child.store.api import Entry, HistoryLostError
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore
from tests.unit.ratchet_child.protocol_model.kernel import (
    Device,
    Kernel,
    Namespaces,
    Space,
    Spaces,
)
from tests.unit.ratchet_child.protocol_model.tasks import Task, TaskLock, on_one_processor

T = TypeVar("T")

NEVER_S = 1e9
# Looking again unasked is switched off.
PAUSES = Pauses(waiting_s=(NEVER_S, NEVER_S), superseded_s=NEVER_S)
_MOST_STEPS = 20_000
_STEP_S = 0.001  # what a request takes

Choice = tuple[str, ...]
Footprint = tuple[str, str, str]  # node, operation, key


class Clock:
    """Stands still until all is quiet."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Plan:
    """In the place of `Schedule`: the model decides who is taken."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.due: dict[PodKey, float] = {}
        self.busy: set[PodKey] = set()

    def put(self, item: PodKey, delay_s: float = 0.0, *, rank: Rank = Rank.FIRST) -> None:
        due = self._clock.now + delay_s
        self.due[item] = min(due, self.due.get(item, due))

    def ready(self) -> list[PodKey]:
        return sorted(
            key for key, due in self.due.items() if due <= self._clock.now and key not in self.busy
        )

    def take(self, item: PodKey) -> None:
        del self.due[item]
        self.busy.add(item)

    def done(self, item: PodKey) -> None:
        self.busy.discard(item)

    def stop(self) -> None:
        pass


class Disk:
    """A node's records, in the place of `Records`, `Directory` and `Addresses`."""

    def __init__(self, before: Callable[[str, str], None]) -> None:
        self._before = before
        self.state_dir = "/nowhere"
        self.live: dict[str, Attachment] = {}
        self.deleted: dict[str, Attachment] = {}
        self.addresses: list[str] = []

    def forget(self, path: str) -> None:
        self._before("forget record", "")
        self.deleted.pop(path, None)


class Records:
    """What a process has seen of the disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.live: dict[str, Attachment] = {}
        self.deleted: dict[str, Attachment] = {}

    def of(self, pod: PodKey) -> tuple[list[Attachment], dict[str, Attachment]]:
        live = [one for one in self.live.values() if pod_of(one) == pod]
        return live, {path: one for path, one in self.deleted.items() if pod_of(one) == pod}

    def named(self, name: str) -> Attachment | None:
        return self.live.get(name)

    def scan(self) -> set[PodKey]:
        before = {**self.live, **self.deleted}
        self.live, self.deleted = dict(self._disk.live), dict(self._disk.deleted)
        now = {**self.live, **self.deleted}
        return {
            pod_of(one)
            for path in before.keys() | now.keys()
            if before.get(path) != now.get(path)
            for one in (before.get(path), now.get(path))
            if one is not None
        }

    def refresh(self, name: str) -> set[PodKey]:
        found, before = self._disk.live.get(name), self.live.get(name)
        if found is None or found == before:
            return set()
        self.live[name] = found
        return {pod_of(one) for one in (before, found) if one is not None}

    def forget(self, path: str) -> None:
        self.deleted.pop(path, None)


class Keeper:
    """Nothing outlives a process here."""

    def keep(self, name: str, fd: int) -> None:
        pass

    def drop(self, name: str) -> None:
        pass

    def kept(self) -> dict[str, int]:
        return {}


class Addresses:
    """The addresses on the disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def use(self, address: str) -> list[str]:
        if address not in self._disk.addresses:
            self._disk.addresses.append(address)
        return [one for one in self._disk.addresses if one != address]

    def forget(self, address: str) -> None:
        self._disk.addresses.remove(address)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod to attach: a name and the links that it declares."""

    name: str
    links: tuple[Link, ...] = ()


def link(ifname: str, pair: str, pair_ifname: str) -> Link:
    return Link(ifname, None, pair, pair_ifname, Address.parse("10.0.0.2/24"))


@dataclass(slots=True)
class Node:
    """A machine. `engine` is None while no child runs."""

    name: str
    address: str
    kernel: Kernel
    disk: Disk
    plan: Plan
    engine: Engine | None = None
    tasks: list[Task] = field(default_factory=list)
    started: dict[str, int] = field(default_factory=dict)
    fails: str | None = None  # its next request is "refused", or write "unanswered" or "late"

    def number(self, what: str) -> str:
        """A name that is the same in every run in which the node has come this far."""
        self.started[what] = self.started.get(what, 0) + 1
        return f"{self.name} {what} {self.started[what]}"


class World:
    """All there is. To be used as a context: ends every thread."""

    def __init__(self, nodes: int, *, kernel_steps: bool = False) -> None:
        self.etcd = MemoryEtcd()
        self.clock = Clock()
        self.spaces = Spaces()
        self.nodes: list[Node] = []
        self.trace: list[Choice] = []
        self.surprises: list[str] = []
        self.running: Task | None = None
        self.watches_end = False  # whether watches end without having heard anything
        self._kernel_steps = kernel_steps
        self.crashes = 0
        self._containers = 0
        self.late: list[Callable[[], object]] = []  # requests that etcd has still to carry out
        self.primaries: dict[str, set[str]] = {}  # of each pair, all that there were
        self._stack = contextlib.ExitStack()
        for number in range(nodes):
            name = "ABCDEF"[number]
            self.nodes.append(
                Node(
                    name,
                    f"10.0.0.{number + 1}",
                    Kernel(self.spaces, name, self._before_kernel),
                    Disk(self._before),
                    Plan(self.clock),
                )
            )

    def __enter__(self) -> World:
        self._stack.enter_context(on_one_processor())
        for name in ("info", "warning", "error", "debug"):
            self._stack.enter_context(mock.patch.object(log, name, _ignore))
        self._stack.enter_context(mock.patch.object(log, "crash", self._surprise))
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            for task in node.tasks:
                with contextlib.suppress(BaseException):
                    task.kill()
        self._stack.close()

    # Happenings -------------------------------------------------------------------------------

    def attach(self, node: Node, pod: Pod, container: str) -> None:
        """A parent's ADD: a namespace, a record, a word to the child."""
        path = f"/netns/{container}"
        self.spaces.add(path, node.name)
        self._containers += 1
        attachment = Attachment(
            container_id=container,
            ifname="eth0",
            netns=path,
            network="net",
            namespace="default",
            pod=pod.name,
            kubernetes_name=None,
            uid=None,
            links=pod.links,
            public_ip=None,
            target_pod=None,
            target_container=None,
            attached_at=float(self._containers),
            boottime_s=float(self._containers),
            boot=None,
            result={},
        )
        node.disk.live[attachment.name] = attachment
        for one in pod.links:
            self.primaries.setdefault(one.pair, set()).add(pod.name)
        self.start(node)
        assert node.engine is not None
        node.engine.registry.attached(attachment.name)

    def detach(self, node: Node, container: str, *, keep_namespace: bool = False) -> None:
        """A parent's DEL, and the runtime's removal of the namespace. *Safe to call twice.*"""
        attachment = node.disk.live.pop(f"{container}.eth0", None)
        if attachment is not None:
            node.disk.deleted[f"{container}.deleted"] = attachment
            self.start(node)
            assert node.engine is not None
            node.engine.registry.scan()
        if not keep_namespace:
            self.spaces.remove(f"/netns/{container}")
        self._tell_lost()

    def redeclare(self, node: Node, pod: Pod, container: str) -> None:
        """Another ADD for an attached container, with other labels."""
        name = f"{container}.eth0"
        node.disk.live[name] = replace(node.disk.live[name], links=pod.links)
        assert node.engine is not None
        node.engine.registry.attached(name)

    def start(self, node: Node) -> None:
        """Have a child run, if none does."""
        if node.engine is not None:
            return
        node.plan = Plan(self.clock)
        unsteady: Any = {
            "store": _Unsteady(self, node),
            "devices": node.kernel,
            "kinds": node.kernel.kinds(),
            "directory": node.disk,
            "records": Records(node.disk),
            "addresses": Addresses(node.disk),
            "namespaces": Namespaces(self.spaces),
            "schedule": node.plan,
            "keeper": Keeper(),
        }
        running = node.engine = Engine(
            Parts(
                node=LocalNode(node.address, "eth1", "/nowhere"),
                clock=self.clock,
                pauses=PAUSES,
                new_lock=lambda: TaskLock(lambda: self.running, node.number("lock")),
                **unsteady,
            ),
            _ignore,
        )
        running.registry.scan()
        listener = bells.Bells(running.store, running)
        self._begin(node, "bells", lambda: self._listen(running, listener))

    def crash(self, node: Node) -> None:
        """`kill -9` of the child."""
        self.crashes += 1
        running, node.engine = node.engine, None
        for task in node.tasks:
            self.running = task
            task.kill()
        self.running = None
        node.tasks.clear()
        node.plan = Plan(self.clock)
        if running is not None:
            running.close_kernel()
        self._tell_lost()

    def reboot(self, node: Node) -> None:
        """Nothing of the node is left but its keys."""
        self.crash(node)
        node.disk.live.clear()
        node.disk.deleted.clear()
        node.disk.addresses.clear()
        for space in list(self.spaces.by_path.values()):
            if space.node == node.name:
                self.spaces.remove(space.path)
        self.spaces.news.clear()

    def readdress(self, node: Node, address: str) -> None:
        """An administrator gives the node another address: a new engine, at once."""
        self.crash(node)
        node.address = address
        self.start(node)

    def lower(self, container: str, ifname: str) -> None:
        """Somebody sets an interface down, or removes it if it is down already."""
        space = self.spaces.by_path[f"/netns/{container}"]
        device = space.devices.get(ifname)
        if device is None:
            return
        if device.up:
            device.up = False
            self.spaces.news.append((space, device.index, False))
        else:
            self.spaces.drop(space, ifname)
        self._tell_lost()

    def carry_out_late(self) -> None:
        """A member of etcd goes on that was gone for a while."""
        late, self.late = self.late, []
        for request in late:
            request()

    def pass_time(self, seconds: float) -> None:
        """Long enough for bells to fade."""
        self.clock.now += seconds
        self.etcd.expire(seconds)

    def repeat_bells(self) -> None:
        store = MemoryStore(self.etcd)
        for key, value in self.etcd.contents().items():
            if "/bell/" in key:
                store.set(key, value, ttl_s=30)

    # Steps ------------------------------------------------------------------------------------

    def choices(self) -> list[Choice]:
        """What the nodes could do next, always in the same order."""
        found: list[Choice] = []
        for node in self.nodes:
            in_kernel = [task for task in node.tasks if task.at[0] == "kernel"]
            for task in in_kernel or node.tasks:
                if task.ready():
                    found.append(("step", node.name, task.name))
            if not in_kernel:
                found += [("work", node.name, str(key)) for key in node.plan.ready()]
        return found

    def footprint(self, choice: Choice) -> Footprint:
        """What a choice touches: the node, and the key with what is done to it."""
        if choice[0] == "step":
            task = self._task(choice)
            return choice[1], *task.at
        return choice[1], "", ""

    def take(self, choice: Choice) -> None:
        self.trace.append(choice)
        if len(self.trace) > _MOST_STEPS:
            raise AssertionError("it never comes to rest")
        self.clock.now += _STEP_S
        node = self.node(choice[1])
        if choice[0] == "step":
            task = self._task(choice)
        else:
            key = PodKey.parse(choice[2])
            node.plan.take(key)
            task = self._begin(node, f"work on {key}", self._worker(node, key))
        self._step(node, task)

    def rest(self, seconds: float = 5.0) -> None:
        """Let everything happen that can within a short time."""
        end = self.clock.now + seconds
        while self.clock.now < end and (self.choices() or self._wake(end)):
            for choice in self.choices()[:1]:
                self.take(choice)

    def settle(self) -> None:
        """Let everything happen that still can, in a plain order, the clock too."""
        for _ in range(400):
            while choices := self.choices():
                self.take(choices[0])
            if not self._wake():
                return
        raise AssertionError("it never comes to rest")

    def node(self, name: str) -> Node:
        return self.nodes["ABCDEF".index(name)]

    def _wake(self, until: float = NEVER_S / 2) -> bool:
        """All waits: have happen what time brings. False when it brings nothing."""
        for node in self.nodes:
            # The next CNI call or a supervisor does so; without either nobody removes the keys.
            published = any(
                key.startswith(f"nodes/{node.address}/pods/") for key in self.etcd.contents()
            )
            if node.engine is None and (node.disk.live or node.disk.deleted or published):
                self.start(node)
                return True
        for node in self.nodes:
            if node.engine is not None:  # as the child does every other second
                node.engine.registry.scan()
                node.engine.registry.check_namespaces()
        if self.choices():
            return True
        soonest = min(
            (due for node in self.nodes for due in node.plan.due.values()), default=NEVER_S
        )
        if soonest < until:
            self.clock.now = max(self.clock.now, soonest)
            return True
        return False

    def look_unasked(self) -> None:
        """The last resort, for pods whose name another container holds."""
        for node in self.nodes:
            for state in node.engine.registry.states() if node.engine else ():
                if state.progress.memory.superseded:
                    state.heard.look.everyone = True
                    node.plan.put(state.key)

    def _task(self, choice: Choice) -> Task:
        return next(task for task in self.node(choice[1]).tasks if task.name == choice[2])

    def _begin(self, node: Node, what: str, body: Callable[[], None]) -> Task:
        task = Task(node.number(what), body)
        node.tasks.append(task)
        return task

    def _step(self, node: Node, task: Task) -> None:
        self.running = task
        try:
            task.step()
        finally:
            self.running = None
        if task.ended:
            node.tasks.remove(task)
        self._tell_lost()
        assert not self.surprises, self.surprises

    def _worker(self, node: Node, key: PodKey) -> Callable[[], None]:
        running, plan = node.engine, node.plan
        assert running is not None

        def work() -> None:
            state = running.registry.get(key)
            if state is not None:
                running.workers.work_on(state)
            plan.done(key)

        return work

    def _listen(self, running: Engine, listener: bells.Bells) -> None:
        while True:
            try:
                listener._listen()
            except HistoryLostError:
                continue
            except StoreError as error:
                running.etcd_is_away(str(error))

    def _before(self, name: str, key: str) -> None:
        task = self.running
        assert task is not None, f"{name} {key} outside of a task"
        for node in self.nodes:
            if task in node.tasks and node.engine is not None:
                states = node.engine.registry.states()
                held: Any = (node.engine.registry.lock, *(one.inside.lock for one in states))
                assert not any(lock._is_owned() for lock in held), f"a lock is held over {name}"
        if name.startswith("watch"):
            index = int(name.rsplit(" ", 1)[1])
            task.point("watch", key, lambda: self.watches_end or self.etcd.has_news(key, index))
        else:
            task.point(name, key)
        for node in self.nodes:
            if task in node.tasks and node.fails == "refused":
                node.fails = None
                raise StoreError(f"{name} {key}", "refused")

    def _before_kernel(self) -> None:
        if self._kernel_steps and self.running is not None:
            self.running.point("kernel", "")

    def _tell_lost(self) -> None:
        """Monitors are heard at once, unless somebody is in the middle of a change."""
        if any(task.at[0] == "kernel" for node in self.nodes for task in node.tasks):
            return
        news, self.spaces.news = self.spaces.news, []
        for space, index, has_gone in news:
            running = self.node(space.node).engine
            for state in running.registry.states() if running else ():
                assert running is not None
                namespace: Any = state.inside.namespace
                if namespace is not None and namespace.space is space:
                    one = frozenset({index})
                    heard = News(gone=one) if has_gone else News(changed=one)
                    running.interfaces_changed(state.key, heard)

    def _surprise(self, message: str, exc: BaseException, **fields: object) -> None:
        self.surprises.append(f"{message}: {exc!r} {fields}")

    # What must hold ---------------------------------------------------------------------------

    def check(self) -> None:
        """Bring everything to rest and say what is not as it should be. *Raises* AssertionError."""
        self.settle()
        for _ in range(3):
            self.look_unasked()
            self.settle()
        problems = [*self._wrong_ends(), *self._wrong_keys()]
        assert not problems, "\n".join(problems)

    def check_empty(self) -> None:
        """As `check`, when no pod is attached: only the counter is left.

        A child that was killed after its very last pod leaves a directory or two without keys.
        """
        self.check()
        self.etcd.expire()
        self.settle()
        left = set(self.etcd.contents()) - {"vxlanid"}
        assert not left, f"keys are left: {sorted(left)}"
        empty = [
            one
            for one in self.etcd.directories()
            if not (self.crashes and (one in _LEFT_LAST or one.startswith("nodes/")))
        ]
        assert not empty, f"directories are left: {empty}"

    def index_of(self, container: str, ifname: str) -> int | None:
        """Return the index of an end, None when there is none."""
        for candidates in self.attached().values():
            for _, attachment in candidates:
                device = self._space(attachment).devices.get(ifname)
                if attachment.container_id == container and device is not None:
                    return device.index
        return None

    def attached(self) -> dict[str, list[tuple[Node, Attachment]]]:
        """The attached containers by pod."""
        found: dict[str, list[tuple[Node, Attachment]]] = {}
        for node in self.nodes:
            for attachment in node.disk.live.values():
                found.setdefault(attachment.pod, []).append((node, attachment))
        return found

    def _holders(self) -> tuple[dict[str, tuple[Node, Attachment]], list[str]]:
        """The container that holds each pod's name, by etcd."""
        keys = self.etcd.contents()
        holders: dict[str, tuple[Node, Attachment]] = {}
        problems = []
        for pod, candidates in self.attached().items():
            base = f"association/{pod}"
            place = keys.get(f"{base}/id"), keys.get(f"{base}/parentaddr")
            for node, attachment in candidates:
                if place == (attachment.container_id, node.address):
                    holders[pod] = (node, attachment)
            if pod not in holders:
                problems.append(f"{pod} is published as {place}")
            if f"{base}/parentiface" not in keys:
                problems.append(f"{pod} is published without parentiface")
        return holders, problems

    def _wrong_ends(self) -> Iterator[str]:
        holders, problems = self._holders()
        yield from problems
        right: set[tuple[str, str]] = set()
        cables: dict[int, set[frozenset[tuple[PodKey, str]]]] = {}
        for pod, (node, attachment) in holders.items():
            for one in attachment.links:
                other = holders.get(one.pair)
                if other is None:
                    continue
                far_node, far = other
                cable = DeclaredLink(PodKey("default", pod), one).cable
                if any(
                    own.ifname == one.pair_ifname
                    and DeclaredLink(PodKey("default", one.pair), own).cable != cable
                    for own in far.links
                ):
                    continue  # the far pod's own link has the interface: there is neither end
                what = f"{pod}:{one.ifname} - {one.pair}:{one.pair_ifname}"
                a = self._space(attachment).devices.get(one.ifname)
                b = self._space(far).devices.get(one.pair_ifname)
                right |= {
                    (attachment.container_id, one.ifname),
                    (far.container_id, one.pair_ifname),
                }
                if a is None or b is None:
                    yield f"{what}: one end is missing: {a} {b}"
                elif not (a.has_carrier and b.has_carrier):
                    yield f"{what} has no carrier"
                elif node is far_node:
                    if a.kind != "veth" or a.far != (self._space(far), one.pair_ifname):
                        yield f"{what}: not a veth"
                elif (str(a.remote), str(b.remote)) != (far_node.address, node.address):
                    yield f"{what}: remotes {a.remote} {b.remote}"
                elif a.vni is None or a.vni != b.vni or a.vni < FIRST_VNI:
                    yield f"{what}: VNIs {a.vni} {b.vni}"
                else:
                    cables.setdefault(a.vni, set()).add(cable)
        for vni, users in cables.items():
            if len(users) > 1:
                yield f"VNI {vni} is used by {len(users)} links"
        for _, candidates in sorted(self.attached().items()):
            for _, attachment in candidates:
                for ifname, device in self._space(attachment).devices.items():
                    if (attachment.container_id, ifname) in right:
                        continue
                    if attachment.pod in holders and self._survives(device, attachment, holders):
                        if device.has_carrier:
                            yield f"{attachment.container_id} {ifname} has a carrier, and no peer"
                        continue
                    yield f"{attachment.container_id} has an end too many: {ifname}"

    def _survives(
        self,
        device: Device,
        attachment: Attachment,
        holders: dict[str, tuple[Node, Attachment]],
    ) -> bool:
        """Whether an end may stay because the pod at the other end is gone."""
        if device.label is None:
            return False
        primary, _, ifname = device.label.link.rpartition(":")
        if primary != attachment.pod:
            return primary not in holders
        return any(one.ifname == ifname and one.pair not in holders for one in attachment.links)

    def _wrong_keys(self) -> Iterator[str]:
        live = {one.container_id for all_of in self.attached().values() for _, one in all_of}
        claims: dict[str, str] = {}
        declared: dict[str, str] = {}
        reserved: dict[str, str] = {}
        links: dict[str, list[tuple[str, Declaration]]] = {}
        written_for: dict[str, str] = {}
        keys = self.etcd.contents()
        holders, _ = self._holders()
        holding = {attachment.container_id for _, attachment in holders.values()}
        renumbered = any(node.kernel.foreign_vnis for node in self.nodes)
        listed: dict[str, list[str]] = {pod: [] for pod in holders}
        for key, value in keys.items():
            parts = key.split("/")
            if parts[0] == "vni":
                claims[parts[1]] = value
            elif parts[-1] == "id":
                written_for[key] = value
            elif "pods" in parts:
                written_for[key] = container = Published.loads(value).container
                if parts[3] in holders and holders[parts[3]][1].container_id == container:
                    listed[parts[3]].append(parts[1])
            elif "links" in parts:
                declaration = Declaration.loads(value, parts[1])
                if declaration.gone:
                    reserved[str(declaration.vni)] = f"{declaration.container} {key}"
                    if parts[1] not in self.attached():
                        yield f"{key} is reserved for a pod that is gone as well"
                    continue
                written_for[key] = declaration.container
                if str(declaration.vni) in declared:
                    yield f"VNI {declaration.vni} is declared twice"
                declared[str(declaration.vni)] = f"{declaration.container} {key}"
                links.setdefault(parts[1], []).append((parts[3], declaration))
            elif parts[-1] in ("parentaddr", "parentiface") and parts[1] not in self.attached():
                yield f"{key} is of a pod that is gone"
        for pod, (node, _) in holders.items():
            if listed[pod] != [node.address]:
                yield f"{pod} is listed on {listed[pod]}, and is on {node.address}"
        for key, container in written_for.items():
            if container not in live:
                yield f"{key} is of a container that is gone: {container}"
        for vni, claim in reserved.items():
            # The pair may have given it its number, and claims it then.
            if claims.pop(vni, claim).partition(" ")[2] != claim.partition(" ")[2]:
                yield f"VNI {vni} is reserved for {claim} and claimed by another"
        for vni, claim in (claims | declared).items():
            if claims.get(vni) != declared.get(vni, claim):
                yield f"VNI {vni} is declared as {declared.get(vni)}, claimed as {claims.get(vni)}"
            if claim.partition(" ")[0] not in live:
                yield f"VNI {vni} is claimed by a container that is gone: {claim}"
            # After a crash while a link was renumbered, or before its pod was superseded, one too
            # many goes with its container.
            if vni not in declared and claim.partition(" ")[0] in holding and not renumbered:
                yield f"VNI {vni} is claimed and not declared: {claim}"
        for base in {key.rpartition("/")[0] for key in keys if key.endswith(_LEGACY)} - {""}:
            pod = base.split("/")[1]
            written = [keys.get(f"{base}/{name}") for name in _LEGACY]
            if not any(
                written == [str(one.vni), "10.0.0.2", one.link.pair_ifname, name.partition(":")[0]]
                for name, one in links.get(pod, ())
            ):
                yield f"the v0.1.0 keys of {pod} say {written}"
        for pod, found in links.items():
            # Of several primaries the one that wrote last may have gone, and its link with it.
            if (
                pod in self.attached()
                and len(self.primaries[pod]) == 1
                and f"association/{pod}/primaryname" not in keys
            ):
                yield f"{pod} has no v0.1.0 keys but {len(found)} links"

    def _space(self, attachment: Attachment) -> Space:
        return self.spaces.by_path[attachment.netns]


class _Unsteady(MemoryStore):
    """A store some of whose writes are carried out without an answer, or late."""

    def __init__(self, world: World, node: Node) -> None:
        super().__init__(world.etcd, world._before)
        self._world = world
        self._node = node

    def set(self, key: str, value: str, ttl_s: int | None = None) -> str | None:
        return self._write(MemoryStore.set, key, value, ttl_s)

    def create(self, key: str, value: str) -> Entry | None:
        return self._write(MemoryStore.create, key, value)

    def swap(self, key: str, value: str, modified: int, ttl_s: int | None = None) -> Entry | None:
        return self._write(MemoryStore.swap, key, value, modified, ttl_s)

    def remove(self, key: str, modified: int) -> bool:
        return self._write(MemoryStore.remove, key, modified)

    def expire_value(self, key: str, value: str, ttl_s: int) -> bool:
        return self._write(MemoryStore.expire_value, key, value, ttl_s)

    def remove_value(self, key: str, value: str) -> bool:
        return self._write(MemoryStore.remove_value, key, value)

    def prune(self, key: str) -> bool:
        return self._write(MemoryStore.prune, key)

    def remove_tree(self, key: str) -> bool:
        return self._write(MemoryStore.remove_tree, key)

    def _write(self, request: Callable[..., T], key: str, *details: object) -> T:
        how = self._node.fails
        if how not in ("unanswered", "late"):
            return request(self, key, *details)
        if how == "late":
            self._before(request.__name__, key)
            etcd = MemoryStore(self._etcd)
            self._world.late.append(lambda: request(etcd, key, *details))
        else:
            request(self, key, *details)
        self._node.fails = None
        raise StoreError(f"{request.__name__} {key}", "no answer")


_LEFT_LAST = ("association", "nodes", "vni")
_LEGACY = ("vxlanid", "pairip", "pairifname", "primaryname")


def _ignore(*_: object, **__: object) -> None:
    pass
