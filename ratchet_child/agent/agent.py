"""The agent: two threads, and what the rest of the child asks of them.

One thread watches. The other one looks, whenever something has changed in the node or at the API
server, at what is to be followed and written. Both outlive the engine: what is known of pods does
not depend on the configuration, and an engine is replaced when that changes.
"""

from __future__ import annotations

import threading

from ratchet import __version__, log
from ratchet.annotations import NodeTold
from ratchet.attachments import Attachment
from ratchet.cni.dataclasses import dataclass, field
from ratchet.config import DEFAULT_VXLAN_PORT, Config
from ratchet.labels import Wiring
from ratchet.status import AgentStatus
from ratchet_child.agent import frames
from ratchet_child.agent.attacher import Attacher
from ratchet_child.agent.checking import mtu_of
from ratchet_child.agent.connection import Connection
from ratchet_child.agent.credentials import Credentials
from ratchet_child.agent.errors import ApiError, AwayError
from ratchet_child.agent.events import About, EventLog
from ratchet_child.agent.follower import Follower
from ratchet_child.agent.lasting import Lasting
from ratchet_child.agent.notes import Note
from ratchet_child.agent.own_pod import OwnPod
from ratchet_child.agent.reporter import EVENTS, REPORTS, Reporter, about_pod
from ratchet_child.agent.seen import SeenPods, Words
from ratchet_child.agent.standing import Standing
from ratchet_child.agent.troubles import (
    AWAY_S,
    READING,
    STATUS,
    Rights,
    Watched,
    name_trouble,
    troubles,
)
from ratchet_child.agent.troubles import EVENTS as EVENT_RIGHTS
from ratchet_child.agent.views import PodView, views
from ratchet_child.agent.watch import Backoff, Watch
from ratchet_child.engine import Engine
from ratchet_child.metrics import figures
from ratchet_child.model.clock import Clock, SystemClock
from ratchet_child.pods.rewriting import rewrite

# Labels that were told this long ago are as good as asked for: a watch is cut now and then.
FRESH_S = 15.0
_TOGETHER_S = 0.3  # what changes together is looked at together
_ROUND_S = 30.0  # at the latest
_TROUBLED_S = 5.0  # the same, for somebody who has just mended something
_FOLLOWED = ("auto", "kubernetes")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person has asked for: the node's name, what to write, where the host's /proc is."""

    node: str
    kubeconfig: str | None = None  # in place of the network configuration's
    reports: frozenset[str] = field(default_factory=lambda: frozenset(REPORTS))
    proc: str = "/proc"
    pod: str | None = None  # the UID of the agent's own pod, where it is one


class Agent:
    """Works for one node until it is closed."""

    def __init__(
        self, wishes: Wishes, kubeconfig: str, state_dir: str, clock: Clock | None = None
    ) -> None:
        self._kubeconfig = kubeconfig
        self._wishes = wishes
        self._clock = clock or SystemClock()
        self._seen = SeenPods()
        self._lasting = Lasting(state_dir, wishes.node)
        self._lasting.load(self._seen)
        self._engine: Engine | None = None
        self._follows = self._attaches = False
        self._network = ""
        self._vxlan_port = DEFAULT_VXLAN_PORT
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._troubles: tuple[str, ...] = ()
        self._is_etcd_told = False
        self._backoff = Backoff()
        credentials = Credentials(kubeconfig, self._clock)
        self._credentials = credentials
        self._connection = Connection(credentials)
        self._watch = Watch(
            Connection(credentials), wishes.node, self._seen, self._clock, self._wake.set
        )
        rights = READING
        rights += EVENT_RIGHTS if EVENTS in wishes.reports else ()
        rights += STATUS if wishes.reports - {EVENTS} else ()
        who = f"kubeconfig {kubeconfig}"
        self._rights = Rights(rights, self._clock, who, wishes.node)
        self._events = EventLog(wishes.node)
        self._reporter = Reporter(
            self._connection,
            self._seen,
            self._events,
            wishes.reports,
            self._clock,
            self._rights.hurry,
        )
        self._own = (
            None
            if wishes.pod is None
            else OwnPod(wishes.pod, self._connection, self._seen, self.changed)
        )
        self._follower = Follower(self._seen, self._rewrite)
        self._attacher = Attacher(self._seen, wishes.proc)
        self._standing = Standing(self._seen, self._clock, lambda: self._watch.has_listed)
        self._threads = [
            threading.Thread(target=self._watch.run, name="agent-watch", daemon=True),
            threading.Thread(target=self._run, name="agent", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        log.info("the node's pods are watched", node=wishes.node, kubeconfig=kubeconfig)

    # For the child's loop -------------------------------------------------------------------------

    def serves(self, config: Config) -> bool:
        """Say whether a configuration asks for this very agent."""
        kubeconfig = self._wishes.kubeconfig or config.kubeconfig
        return config.use_labels and kubeconfig == self._kubeconfig

    def use(self, config: Config, engine: Engine) -> None:
        """Work with another engine from now on."""
        self._follows = config.label_source in _FOLLOWED
        self._attaches = config.attach == "agent"
        self._network = config.name
        self._vxlan_port = config.vxlan_port
        engine.registry.stands_by = self._standing.stands_by
        self._standing.forget()
        self._engine = engine
        self._wake.set()

    def changed(self) -> None:
        """Have the pods looked at: something has become of one. From any thread."""
        self._wake.set()

    def recall(
        self, namespace: str, name: str, uid: str | None, *, at_any_price: bool
    ) -> tuple[Words, Words] | None:
        """Return a pod's labels and annotations as far as they are known; None when they are not.

        `at_any_price`: also what was told long ago, because the API server cannot be asked. A pod
        is told from another of its name by its UID.
        """
        pod = self._seen.find(namespace, name, uid)
        if pod is None or not (at_any_price or self._is_fresh):
            return None
        figures.recalled()
        return pod.fields

    @property
    def _is_fresh(self) -> bool:
        """Whether asking the API server would bring nothing else.

        While it is away, it brings nothing at all, and a pod would wait for that in vain. Where it
        refuses to have pods watched, it may still tell of one.
        """
        watch = self._watch
        if watch.has_listed and (watch.is_live or watch.lost_for_s() < FRESH_S):
            return True
        return isinstance(watch.error, AwayError)

    def status(self) -> AgentStatus:
        """Return how the agent is, for `ratchetctl status`."""
        return AgentStatus(
            node=self._wishes.node,
            watching=self._watch.is_live,
            known=len(self._seen) if self._watch.has_listed else None,
            troubles=self._troubles,
        )

    def close(self) -> None:
        """End the threads. *Blocks at most* two seconds."""
        self._stopping.set()
        self._watch.stop()
        self._connection.abort()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout=1)

    # The thread that follows and writes -----------------------------------------------------------

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.is_set():
            self._wake.wait(pause_s)
            self._wake.clear()
            self._stopping.wait(_TOGETHER_S)
            if self._stopping.is_set():
                break
            try:
                pause_s = self._round()
            except Exception as error:  # noqa: BLE001 - the agent must go on
                log.crash("the agent has failed", error)
                pause_s = self._backoff.failed()
        self._lasting.save(self._seen, self._clock.monotonic(), at_once=True)
        self._connection.close()

    def _round(self) -> float:
        """Follow and write what there is; return the seconds until there may be more."""
        engine = self._engine
        if engine is None:
            return _ROUND_S
        now = self._clock.monotonic()
        rest_s = _TROUBLED_S if self._troubles else _ROUND_S
        dues = [now + rest_s, self._lasting.save(self._seen, now)]
        there = views(engine)
        for key in self._standing.changed(view.attachment for view in there):
            engine.registry.weigh_again(key)
        ready_at = self._standing.next_due()
        if ready_at is not None:
            dues.append(now + ready_at - self._clock.time())
        about = {about_pod(view, self._seen) for view in there}
        self._events.forget(about | {self._about_node})
        if self._follows:
            # First what needs no answer of the API server.
            for done in self._follower.follow(there, now, engine.node.max_links):
                self._reporter.note(about_pod(done.view, self._seen), done.note)
            dues.append(self._follower.next_due())
        if self._attaches and self._watch.has_listed:
            for about_one, note in self._attacher.attach(engine, self._network, there, now):
                self._reporter.note(about_one, note)
            dues.append(self._attacher.next_due())
        if self._watch.has_listed:
            if self._rights.review(self._connection):
                self._reporter.resume()
            dues.append(self._rights.due)
        self._look_for_troubles(there)
        self._look_at_etcd(engine)
        try:
            due = self._reporter.report(there)
            if self._own is not None:
                dues.append(self._own.tell(self._told(engine), now))
        except ApiError as error:
            log.debug("nothing can be written now", error=str(error))
            dues.append(now + self._backoff.failed())
        else:
            self._backoff.worked()
            if due is not None:
                dues.append(now + due - self._clock.time())
        return max(min(one for one in dues if one is not None) - self._clock.monotonic(), 0.0)

    def _told(self, engine: Engine) -> NodeTold:
        """Return how the node is, for `kubectl ratchet`."""
        node, etcd = engine.node, engine.etcd
        below = mtu_of(node.interface) if node.address else None
        fits = None
        if below is not None:
            fits = below - frames.overhead(6 if ":" in node.address else 4)
        return NodeTold(
            version=__version__,
            network=self._network,
            address=node.address,
            interface=node.interface,
            vxlan_port=self._vxlan_port,
            mtu_bytes=node.mtu_bytes or fits,
            etcd="reachable" if etcd.error is None else "away" if etcd.is_away else "unknown",
            etcd_since=etcd.since,
            etcd_error=etcd.error if etcd.is_away else None,
            guard=None if engine.guard is None else engine.guard.state,
            watching=self._watch.is_live,
            troubles=(*([engine.trouble] if engine.trouble else []), *self._troubles),
        )

    def _rewrite(self, attachment: Attachment, wiring: Wiring) -> bool:
        engine = self._engine
        if engine is None or not rewrite(engine.node.state_dir, attachment, wiring):
            return False
        engine.registry.attached(attachment.name)
        return True

    @property
    def _about_node(self) -> About:
        # The kubelet gives the node's name for its UID, and `kubectl describe node` looks for it.
        return About("Node", "", self._wishes.node, self._wishes.node)

    def _look_at_etcd(self, engine: Engine) -> None:
        """Say once that etcd is away, which is nobody's of the pods."""
        away_s = self._clock.time() - engine.etcd.since if engine.etcd.is_away else 0.0
        if away_s >= AWAY_S and not self._is_etcd_told:
            text = (
                f"Ratchet's etcd does not answer: {engine.etcd.error}. Links that exist go on "
                f"working; new ones wait until it is back."
            )
            self._reporter.note(self._about_node, Note("EtcdAway", "Link", text))
        self._is_etcd_told = away_s >= AWAY_S

    def _look_for_troubles(self, there: list[PodView]) -> None:
        watched = Watched(self._watch.error, self._watch.lost_for_s())
        since = min((view.attachment.attached_at for view in there), default=None)
        name = name_trouble(
            self._wishes.node,
            len(self._seen) if self._watch.has_listed else None,
            None if since is None else self._clock.time() - since,
        )
        rights = self._rights.trouble()
        found = troubles(watched, self._credentials.trouble(), rights, name)
        for trouble in found:
            if trouble not in self._troubles:
                log.warning("trouble with the API server", trouble=trouble)
                text = f"Ratchet's agent has trouble with the API server: {trouble}"
                self._reporter.note(self._about_node, Note("ApiTrouble", "Watch", text))
        if self._troubles and not found:
            log.info("no more trouble with the API server")
        self._troubles = found
