"""The process: its socket, its clock, and the engine that works for one configuration.

One thread waits for everything that the node tells by itself (requests, changes in the pods'
namespaces, the time) and hands it on; it never waits for etcd. A request whose configuration is
another one than before puts a new engine in the place of the old one: everything is rebuilt from
the records, etcd and the kernel, as after a restart.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ratchet import log, messages, statedir
from ratchet.attachments import Directory
from ratchet.cni import codec
from ratchet.config import Config
from ratchet.errors import CniError, ConfigError, KernelError, RatchetError, shown
from ratchet_child import listening
from ratchet_child.bells import Bells
from ratchet_child.engine import Engine, Parts
from ratchet_child.front.door import Door
from ratchet_child.listening import Client, Clients
from ratchet_child.metrics import figures
from ratchet_child.metrics.exporter import Endpoint
from ratchet_child.monitors import Monitors
from ratchet_child.pods.unfinished import UnfinishedFiles
from ratchet_child.pods.vanished import Vanished
from ratchet_child.service import (
    Answer,
    BadRequestError,
    Reply,
    Service,
    decode,
    failure,
)
from ratchet_child.supervision import wire
from ratchet_child.supervision.keeper import Keeper
from ratchet_child.underlay_watch import UnderlayWatch

if TYPE_CHECKING:
    from ratchet_child.agent.agent import Agent

_SWEEP_S = 2.0
_IDLE_S = 30.0
_CHANGING_S = 1.0  # a runtime reads the configuration and starts a parent in less
_FINISH_S = 10.0  # for who still waits, before another child serves; a parent's limit is 5
# What a parent asks that was given the configuration of today, in an ADD or a STATUS. A runtime may
# give DEL and CHECK the one that it kept from the pod's ADD (CNI spec 1.1.0, section 2).
_CURRENT = ("attached", "labels", "health")
# What must not be answered by an address that the node no longer has.
_OF_THE_NODE = ("attached", "check", "status")


class Child:
    """Serves one network on one node until it is stopped or has nothing left to do."""

    def __init__(
        self,
        config: Config,
        listener: socket.socket,
        keeper: Keeper,
        *,
        stay: bool,
        new_agent: Callable[[Config], Agent | None] = lambda _: None,
    ) -> None:
        """Serve; `new_agent` gives the node's agent where a configuration allows one."""
        self._stay = stay
        self._new_agent = new_agent
        self._agent: Agent | None = None
        self._keeper = keeper
        self._finish_by: float | None = None  # monotonic: another child is to serve
        self._directory = Directory(config.state_dir)
        self._unfinished = UnfinishedFiles(config.state_dir)
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._clients = Clients(self._selector, config.state_dir, self._asked)
        self._changed_s: float = 0  # when the parent that brought a new configuration was started
        self._running = True
        self._is_alone = False  # without a supervisor
        self._metrics: Endpoint | None = None
        self._questions: deque[tuple[Answer, Reply, float]] = deque()
        self._underlay = UnderlayWatch()
        self._selector.register(self._underlay, selectors.EVENT_READ, self._underlay_changed)
        self._clients.listen_at(listener)
        self._start(config)
        self._front = Door(config.state_dir, self._ask, self._known, stay=stay)

    def _start(self, config: Config) -> None:
        log.configure(config.log_file, config.log_level, "ratchet-child", to_stderr=self._stay)
        self._use(config, self._engine_for(config))

    def _engine_for(self, config: Config) -> Engine:
        return Engine(Parts.of(config, self._directory, self._keeper), self._changed)

    def _use(self, config: Config, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._vanished = Vanished(self._directory, engine.registry, engine.clock, engine.namespaces)
        if self._agent is not None and not self._agent.serves(config):
            self._agent.close()
            self._agent = None
        self._agent = self._agent or self._new_agent(config)
        self._service = Service(self._engine, config.kubeconfig, self._agent)
        self._bells = Bells(self._engine.store, self._engine)
        self._monitors = Monitors(self._engine)
        self._serve_metrics(config.metrics_address)
        self._engine.start()
        self._monitors.start()
        if self._agent is not None:
            self._agent.use(config, engine)
        node = self._engine.node
        log.info("started", node=node.address, interface=node.interface, pid=os.getpid())
        if node.address:
            self._bells.start()
        else:
            log.warning("links to other nodes wait: no parent_address", reason=node.why_without)

    def _stop(self) -> None:
        self._bells.stop()
        self._service.close()
        self._monitors.stop()
        self._engine.stop()
        self._monitors.close()

    def _serve_metrics(self, address: str | None) -> None:
        """Have the figures served there, across engines."""
        served = None if self._metrics is None else self._metrics.address
        if address == served:
            return
        if self._metrics is not None:
            self._metrics.close()
        self._metrics = None if address is None else Endpoint(address, self._counts)

    def _counts(self) -> figures.Counts:
        """Return the counts of the engine in use, whichever that is."""
        counts = self._engine.status.counts()
        counts.labels = self._service.labels_error is None
        if self._agent is not None:
            agent = self._agent.status()
            counts.agent = figures.AgentCounts(
                agent.watching, agent.known or 0, len(agent.troubles)
            )
        return counts

    def run(self) -> None:
        """Serve. Returns when the child is to end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        signal.signal(signal.SIGHUP, lambda *_: log.reopen())
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        self._listen_to_supervisor()
        self._keeper.ready()
        next_sweep = time.monotonic() + _SWEEP_S
        idle_since = time.monotonic()
        while self._running:
            due = [next_sweep, self._service.next_deadline(), self._underlay.due]
            timeout_s = min(one for one in due if one is not None) - time.monotonic()
            for key, _ in self._selector.select(max(timeout_s, 0)):
                try:
                    key.data(key.fd)
                except Exception as error:  # noqa: BLE001 - a surprise must not end the rest
                    log.crash("an event could not be handled", error)
            now = time.monotonic()
            if self._underlay.due is not None and now >= self._underlay.due:
                self._look_at_underlay()
            self._service.settle()
            if now >= next_sweep:
                next_sweep = now + _SWEEP_S
                self._sweep(now)
            if self._finish_by is not None:
                is_busy = self._clients.are_there or self._front.is_busy
                self._running = self._running and is_busy and now < self._finish_by
            elif not self._engine.is_idle or self._clients.are_there or self._front.is_busy:
                idle_since = now
            elif now - idle_since > _IDLE_S and not self._stay:
                idle_since = now
                self._running = not self._is_over()
        self._front.close()
        self._clients.shut_out()
        if self._agent is not None:
            self._agent.close()
        self._stop()
        self._serve_metrics(None)

    def _is_over(self) -> bool:
        """Say whether nothing is left to do, even once nobody can ask any more.

        A parent that only leaves a record and a word does not notice that the word was not heard.
        """
        self._clients.turn_away()
        statedir.mark_at_rest(self._directory.state_dir)
        self._engine.registry.scan()
        if self._engine.is_idle:
            log.info("nothing left to do")
            self._engine.leave()
            self._keeper.over()
            return True
        statedir.remove(os.path.join(self._directory.state_dir, statedir.AT_REST))
        self._clients.listen_at(listening.listen(self._directory.state_dir))
        self._keeper.listener(self._clients.fileno())
        return False

    # The supervisor -----------------------------------------------------------------------------

    def _listen_to_supervisor(self) -> None:
        if (fd := self._keeper.fileno()) is not None:
            self._selector.register(fd, selectors.EVENT_READ, self._told)

    def _told(self, fd: int) -> None:
        word = self._keeper.receive()
        if word == wire.FINISH:
            self._finish()
        elif word is None:
            log.warning("the supervisor has died, another one is started")
            self._selector.unregister(fd)
            self._is_alone = True
            self._renew_supervisor()

    def _renew_supervisor(self) -> None:
        try:
            if self._keeper.renew(self._clients.fileno()):
                self._is_alone = False
                self._listen_to_supervisor()
        except OSError as error:
            log.warning("no supervisor can be started", error=str(error))

    def _finish(self) -> None:
        """Accept no more requests, which wait for the next child, and end with the last one."""
        if self._finish_by is None:
            log.info("another child is to serve")
            self._finish_by = time.monotonic() + _FINISH_S
        self._clients.leave_to_another()

    def _hand_over(self, client: Client) -> None:
        """Give the place to a process that is to stay, if this one is not to."""
        if self._stay:
            client.send(failure(BadRequestError("hand over, this child is to stay as well")))
            return
        self._keeper.hand_over(client.fd)
        self._clients.drop(client)
        self._finish()

    def _end(self) -> None:
        self._running = False
        self._wake()

    def _changed(self) -> None:
        """Go on, now that a pod has been worked on. From any thread."""
        self._monitors.wake()
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b".")

    def _woken(self, _fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._questions:
            self._serve(*self._questions.popleft())
        if self._agent is not None:
            self._agent.changed()

    def _sweep(self, now: float) -> None:
        """Find what nobody reports: records of killed parents, namespaces that are gone."""
        self._engine.registry.scan()
        self._engine.registry.check_namespaces()
        self._vanished.sweep()
        self._unfinished.sweep(now)
        self._front.sweep()
        self._clients.sweep(now)
        if not self._clients.can_come:
            log.warning("the state directory is gone; nobody can reach this child")
            self._keeper.over()
            self._running = False
        if self._is_alone:
            self._renew_supervisor()

    # The node's own address ---------------------------------------------------------------------

    def _underlay_changed(self, _fd: int) -> None:
        self._underlay.heard(self._engine.node)

    def _look_at_underlay(self) -> None:
        """Work as the node that this is now: another engine, when its end is another one."""
        before = self._engine.node
        try:
            node = self._underlay.look(self._config)
            if node == before:
                return
            engine = self._engine_for(self._config)
        except (KernelError, OSError) as error:
            log.error("the node's address cannot be found again", error=str(error))
            self._underlay.look_again()
            return
        log.warning(
            "the node's address or interface has changed",
            before=before.address or "none",
            node=node.address or "none",
            interface=node.interface,
        )
        self._replace(self._config, engine)

    # Requests -----------------------------------------------------------------------------------

    def _asked(self, client: Client, line: bytes) -> None:
        try:
            request = decode(line)
        except CniError as error:
            client.send(failure(error))
            figures.served(None, time.monotonic() - client.since)
        else:
            if request.get("op") == messages.HAND_OVER:
                self._hand_over(client)
                return
            figures.front_fell_back(request.get("front"))
            self._serve(request, client.send, client.since)

    def _ask(self, request: Answer, reply: Reply) -> None:
        """Have a request of the front's served. From any thread."""
        self._questions.append((request, reply, time.monotonic()))
        self._wake()

    def _known(self, request: Answer) -> Answer | None:
        """Answer what needs neither the loop nor another configuration. From any thread."""
        since = time.monotonic()
        if request.get("settings") != self._config.settings():
            return None
        known = self._service.known(request)
        if known is not None:
            figures.served(request.get("op"), time.monotonic() - since)
        return known

    def _serve(self, request: Answer, send: Reply, since: float) -> None:
        operation = request.get("op")

        def reply(answer: Answer) -> None:
            send(answer)
            figures.served(operation, time.monotonic() - since)

        try:
            if operation in _OF_THE_NODE:
                self._underlay.heard(self._engine.node)
                if self._underlay.due is not None:
                    self._look_at_underlay()
            if operation in _CURRENT:
                self._follow(request.get("settings"), request.get("started_s"))
            self._service.handle(request, reply)
        except CniError as error:
            reply(failure(error))
        except Exception as error:  # noqa: BLE001 - who asks must hear of it
            log.crash("a request could not be served", error, operation=shown(operation))
            reply(failure(RatchetError("the child's log has the traceback")))

    def _follow(self, settings: object, started_s: object) -> None:
        """Work by the configuration that the parents have now."""
        if not isinstance(settings, dict) or settings == self._config.settings():
            return
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if (
            isinstance(started_s, bool)
            or not isinstance(started_s, int | float)
            # What lies in the future would have every later change ignored. Also true of NaN.
            or not 0 <= started_s <= now
        ):
            started_s = now
        if started_s < self._changed_s + _CHANGING_S:
            return  # a parent that was given the configuration of before the change
        config = Config.from_settings(settings)
        # Networks may share a state directory, and then this process: they differ in their names.
        if {**config.settings(), "name": self._config.name} == self._config.settings():
            return
        if config.state_dir != self._config.state_dir:
            allowed = f"{self._config.state_dir}, which this child serves"
            raise ConfigError("state_dir", config.state_dir, allowed)
        # Made before the other one is stopped: it may not be possible.
        engine = self._engine_for(config)
        log.info("the configuration has changed")
        self._changed_s = started_s
        self._replace(config, engine)
        # The supervisor starts the next child with what is written there.
        path = os.path.join(config.state_dir, statedir.SETTINGS)
        try:
            statedir.write_private(path, codec.encode(config.settings()))
        except OSError as error:
            log.warning("the next child begins with the old configuration", error=str(error))

    def _replace(self, config: Config, engine: Engine) -> None:
        """Put an engine in the place of the other one."""
        self._stop()
        log.configure(config.log_file, config.log_level, "ratchet-child", to_stderr=self._stay)
        self._use(config, engine)
