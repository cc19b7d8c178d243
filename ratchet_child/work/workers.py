"""The threads that work on the pods, each on one pod at a time.

What the work is, is decided elsewhere, and so is when a pod has its next turn: here the work
succeeds or fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ratchet import log
from ratchet.cni.dataclasses import replace
from ratchet.errors import RatchetError, StoreError
from ratchet_child.metrics import figures
from ratchet_child.model.clock import Clock
from ratchet_child.model.keys import PodKey
from ratchet_child.pods.earlier import PublishedEarlier
from ratchet_child.pods.registry import Registry
from ratchet_child.pods.schedule import Schedule
from ratchet_child.pods.state import Look, PodState
from ratchet_child.pods.turns import Pauses, Situation, after_failure, after_success
from ratchet_child.work.ends import Ends
from ratchet_child.work.reconcile import Reconciler

WORKERS = 6


class Workers:
    """Takes pods from the schedule, each in whichever thread is free."""

    def __init__(
        self,
        schedule: Schedule[PodKey],
        registry: Registry,
        reconciler: Reconciler,
        ends: Ends,
        earlier: PublishedEarlier,
        clock: Clock,
        on_change: Callable[[], None],
        *,
        pauses: Pauses,
        threads: int,
    ) -> None:
        """`on_change` is called from any thread when a pod has been worked on."""
        self._schedule = schedule
        self._registry = registry
        self._reconciler = reconciler
        self._ends = ends
        self._earlier = earlier
        self._clock = clock
        self._on_change = on_change
        self._pauses = pauses
        self._threads = [
            threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads. *Blocks at most* a few requests."""
        self._schedule.stop()
        for thread in self._threads:
            thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            key = self._schedule.take()
            if key is None:
                return
            state = self._registry.get(key)
            if state is not None:
                self.work_on(state)
            self._schedule.done(key)
            self._on_change()

    def work_on(self, state: PodState) -> None:
        """Reconcile a pod and plan its next turn. For the thread that has taken it."""
        started = self._clock.monotonic()
        progress = state.progress
        with self._registry.lock:
            number = state.heard.asked
            gone = [one.container for one in state.heard.gone]
            progress.turn_of = state.container or (gone[-1] if gone else progress.turn_of)
            look, state.heard.look = state.heard.look, Look(everyone=False)
            if progress.look_all_at is not None and started >= progress.look_all_at:
                look.everyone = True
        try:
            self._reconciler.reconcile(state, look, number)
        except (RatchetError, OSError) as error:
            self._failed(state, look, error)
        except Exception as error:  # noqa: BLE001 - one pod must not end the others'
            log.crash("reconciling failed", error, pod=state.key, container=state.progress.turn_of)
            self._failed(state, look, error)
        else:
            if progress.error is not None and not state.inside.errors:
                log.info("works again", pod=state.key, container=state.progress.turn_of)
            progress.error = None
            progress.failures = progress.failures + 1 if state.inside.errors else 0
            progress.serve(number)
            self._plan_next(state, look)
        figures.reconciled(self._clock.monotonic() - started)

    def _failed(self, state: PodState, look: Look, error: Exception) -> None:
        progress = state.progress
        has_begun = self._earlier.is_known  # before that, failing is no news
        if has_begun:
            figures.tried_in_vain()
            if progress.error != str(error):
                tell = log.debug if state.is_trace else log.warning
                tell(
                    "will try again",
                    pod=state.key,
                    container=state.progress.turn_of,
                    error=str(error),
                )
                progress.fail(str(error), self._clock.time())
        with self._registry.lock:
            if has_begun and isinstance(error, StoreError):
                state.doubt()
            state.heard.look.add(look)  # what was to be looked at still is
        progress.failures += 1
        self._registry.schedule(state, after_failure(progress.failures, self._pauses))

    def _plan_next(self, state: PodState, look: Look) -> None:
        """Plan when the pod is worked on next without being asked for."""
        expects_vni = self._ends.expects_vni(state)
        with self._registry.lock:
            if state.is_idle:
                self._registry.remove(state)
                return
            situation = replace(self._situation(state, look), expects_vni=expects_vni)
        turn = after_success(situation, self._pauses)
        state.progress.look_all_at, state.progress.waits = turn.look_all_at, turn.waits
        log.debug(
            "worked on",
            pod=state.key,
            container=state.progress.turn_of,
            looked_at="everyone" if look.everyone else log.Joined(look.peers),
            next_s=None if turn.delay_s is None else f"{turn.delay_s:.3f}",
        )
        if turn.delay_s is not None:
            self._registry.schedule(state, turn.delay_s)

    def _situation(self, state: PodState, look: Look) -> Situation:
        """*Needs* the registry's lock."""
        progress, wanted = state.progress, state.inside.wanted
        return Situation(
            now=self._clock.monotonic(),
            has_news=not state.heard.look.is_empty,
            looked_at_everyone=look.everyone,
            look_all_at=progress.look_all_at,
            waits=progress.waits,
            # A pod without any link waits as well: for a primary that declares one.
            is_waiting=wanted is not None
            and bool(wanted.waiting or not wanted.ends or progress.memory.deaf),
            is_superseded=progress.memory.superseded,
            keep_until=progress.keep_until,
            settle_s=self._reconciler.settles_in(state),
            withdraw_again_at=min(state.heard.again.values(), default=None),
            has_errors=bool(state.inside.errors),
            failures=progress.failures,
        )
