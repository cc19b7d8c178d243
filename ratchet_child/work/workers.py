"""The threads that work on the pods, and when each pod has its turn again.

What goes wrong is tried again, sooner at first and then less often; nothing is ever given up. What
the work is, is decided elsewhere: here it succeeds or fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ratchet import log
from ratchet.errors import RatchetError, StoreError
from ratchet_child.metrics import figures
from ratchet_child.model.keys import PodKey
from ratchet_child.pods.registry import Registry
from ratchet_child.pods.schedule import Schedule
from ratchet_child.pods.state import Look, PodState
from ratchet_child.store.health import Health
from ratchet_child.work.ends import Ends
from ratchet_child.work.reconcile import Reconciler

_WORKERS = 6
_RETRY_FIRST_S = 0.1
_RETRY_LONGEST_S = 2.0
_WAITING_FIRST_S = 1.0
_WAITING_LONGEST_S = 15.0
_SUPERSEDED_S = 2.0  # nobody rings when a name is free again
_ERROR_LONGEST_S = 5.0
_VNI_RETRY_S = 0.05


class Workers:
    """Takes pods from the schedule, each in whichever thread is free."""

    def __init__(
        self,
        schedule: Schedule[PodKey],
        registry: Registry,
        reconciler: Reconciler,
        ends: Ends,
        etcd: Health,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called from any thread when a pod has been worked on."""
        self._schedule = schedule
        self._registry = registry
        self._reconciler = reconciler
        self._ends = ends
        self._etcd = etcd
        self._on_change = on_change
        self._threads = [
            threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
            for number in range(_WORKERS)
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
        started = time.monotonic()
        with self._registry.lock:
            number = state.asked
            look, state.look = state.look, Look(everyone=False)
            if state.look_all_at is not None and started >= state.look_all_at:
                look.everyone = True
        try:
            self._reconciler.reconcile(state, look, number)
        except (RatchetError, OSError) as error:
            self._failed(state, look, error)
        except Exception as error:  # noqa: BLE001 - one pod must not end the others'
            log.crash("reconciling failed", error, pod=state.key, container=state.container)
            self._failed(state, look, error)
        else:
            if state.error is not None and not state.errors:
                log.info("works again", pod=state.key, container=state.container)
            state.error = None
            state.failures = state.failures + 1 if state.errors else 0
            state.serve(number)
            self._plan_next(state, look)
        figures.reconciled(time.monotonic() - started)

    # When it has failed -------------------------------------------------------------------------

    def _failed(self, state: PodState, look: Look, error: Exception) -> None:
        has_begun = self._etcd.is_known  # before that, failing is no news
        if has_begun:
            figures.tried_in_vain()
            if state.error != str(error):
                log.warning(
                    "will try again", pod=state.key, container=state.container, error=str(error)
                )
                state.fail(str(error))
        with self._registry.lock:
            if has_begun and isinstance(error, StoreError):
                state.doubt()
            state.look.add(look)  # what was to be looked at still is
        state.failures += 1
        self._schedule.put(state.key, _backoff(_RETRY_FIRST_S, _RETRY_LONGEST_S, state.failures))

    # When it has succeeded ----------------------------------------------------------------------

    def _plan_next(self, state: PodState, look: Look) -> None:
        """When the pod is worked on next without being asked for."""
        with self._registry.lock:
            if state.is_idle:
                self._registry.remove(state)
                return
            if not state.look.is_empty:
                self._schedule.put(state.key)
            self._plan_look(state, look)
        rests_s = self._ends.rests_for(state)
        if rests_s is not None:  # this run came before its time, which must not be forgotten
            self._schedule.put(state.key, rests_s)
        if state.again:
            due = min(state.again.values())
            self._schedule.put(state.key, max(due - time.monotonic(), 0))
        if self._ends.expects_vni(state):
            self._schedule.put(state.key, _VNI_RETRY_S)
        elif state.errors:
            self._schedule.put(
                state.key, _backoff(_RETRY_FIRST_S, _ERROR_LONGEST_S, state.failures)
            )

    def _plan_look(self, state: PodState, look: Look) -> None:
        """Nobody rings for a v0.1.0 node, or when a bell was lost: who waits looks by itself.

        So does who has a link with such a node: the pod there may come again, elsewhere or with
        another VNI. A second apart at first, then less often. What happens in between neither
        counts nor postpones the next look.
        """
        now = time.monotonic()
        # A pod without any link waits as well: for a primary that declares one.
        waits = state.wanted is not None and bool(
            state.wanted.waiting or not state.wanted.ends or state.memory.deaf
        )
        if now < state.keep_until:
            state.look_all_at = state.keep_until
        elif state.memory.superseded:
            state.look_all_at = now + _SUPERSEDED_S
        elif not waits:
            state.look_all_at, state.waits = None, 0
        elif look.everyone or state.look_all_at is None:
            state.waits = min(state.waits + 1, 100)
            state.look_all_at = now + _backoff(_WAITING_FIRST_S, _WAITING_LONGEST_S, state.waits)
        if state.look_all_at is not None:
            self._schedule.put(state.key, max(state.look_all_at - now, 0))


def _backoff(first_s: float, longest_s: float, times: int) -> float:
    """Half as long again each time."""
    return float(min(longest_s, first_s * 1.5 ** min(times - 1, 30)))
