"""Work on the pods of a simulation, done in threads that sit in the pods' nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from ratchetctl.errors import OperatorError, PluginError, SimError
from ratchetctl.sim.directory import PodState
from ratchetctl.sim.progress import Progress


class Workers:
    """Threads for each node, which enter it and stay there."""

    def __init__(self, enter: Callable[[str], None], progress: Progress, parallel: int) -> None:
        """Prepare it; `enter` puts a thread into a node, `parallel` pods of which are worked on."""
        self._enter = enter
        self._progress = progress
        self._parallel = parallel

    def run(
        self, what: str, pods: Sequence[PodState], work: Callable[[PodState], PodState]
    ) -> list[PodState]:
        """Work on every pod in threads of its node, as many at once as a kubelet would.

        Raises SimError that lists what failed, after all others were done. An interruption ends
        the plugins that run and waits for the threads.
        """
        pools: dict[str, ThreadPoolExecutor] = {}
        done: list[PodState] = []
        failed: list[tuple[PodState, OperatorError]] = []
        futures: dict[Future[PodState], PodState] = {}
        with self._progress.task(what, len(pods)) as advance:
            try:
                for pod in pods:
                    if pod.node not in pools:
                        pools[pod.node] = ThreadPoolExecutor(
                            max_workers=self._parallel,
                            initializer=self._enter,
                            initargs=(pod.node,),
                        )
                    futures[pools[pod.node].submit(work, pod)] = pod
                waiting = set(futures)
                while waiting:
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        try:
                            done.append(future.result())
                        except PluginError as error:
                            failed.append((futures[future], error))
                        advance()
            except BaseException:
                for pool in pools.values():
                    pool.shutdown(wait=False, cancel_futures=True)
                raise
            finally:
                for pool in pools.values():
                    pool.shutdown(wait=True, cancel_futures=True)
        if failed:
            raise SimError("\n".join(f"{pod.full_name}: {error}" for pod, error in failed))
        return done
