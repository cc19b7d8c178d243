"""The program `ratchet-child`, which counts what each pod costs and what its locks are held over.

Times mean little on a busy machine. So the tests of bad neighbours look at numbers that have
nothing to do with its speed: requests to the kernel and to etcd that are made for a pod, requests
that are made under one lock, and CPU time of the loop between two waits.

The environment variable RATCHET_COUNTS names the file in which the counts are found, as JSON. While
a file of that name with `.reset` after it is there, they begin anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

VARIABLE = "RATCHET_COUNTS"
EVERY_S = 0.1

_new_rlock = threading.RLock


class Counts:
    """What has been counted; written by all threads, each under the interpreter's own lock."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self.requests: dict[str, Counter[str]] = {}  # by pod: etcd, changes, reads, messages read
        # By the module that has made the lock: what is changed, and what is read, under it.
        self.most_held: Counter[str] = Counter()
        self.most_read: Counter[str] = Counter()
        self.loop_locks: Counter[str] = Counter()  # by module: how often the loop took such a lock
        self.loop_cpu_s = 0.0  # the most of one turn
        self.loop_requests = 0  # the same

    def to_json(self) -> str:
        values = {name: dict(value) for name, value in self.requests.copy().items()}
        return json.dumps({**vars(self), "requests": values})


class _Thread(threading.local):
    pod = ""
    requests = 0
    reads = 0


counts = Counts()
_this = _Thread()


def note(what: str, times: int = 1) -> None:
    """Count a request of this thread, for the pod that it works on."""
    _this.requests += what in ("changes", "etcd")
    _this.reads += what == "reads"
    counts.requests.setdefault(_this.pod, Counter())[what] += times


class CountedLock:
    """A reentrant lock that knows which module has made it and what is done under it."""

    def __init__(self, module: str) -> None:
        self._lock = _new_rlock()
        self._module = module
        self._depth = 0
        self._before = (0, 0)

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        if not self._lock.acquire(*args, **kwargs):
            return False
        self._depth += 1
        if self._depth == 1:
            self._before = _this.requests, _this.reads
            if threading.current_thread() is threading.main_thread():
                counts.loop_locks[self._module] += 1
        return True

    def release(self) -> None:
        if self._depth == 1:
            made, read = _this.requests - self._before[0], _this.reads - self._before[1]
            counts.most_held[self._module] = max(counts.most_held[self._module], made)
            counts.most_read[self._module] = max(counts.most_read[self._module], read)
        self._depth -= 1
        self._lock.release()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


def new_lock() -> Any:
    """Return a lock that counts, for the child's own modules."""
    module = sys._getframe(1).f_globals.get("__name__", "")
    return CountedLock(module) if module.startswith("ratchet_child") else _new_rlock()


class CountedSelector(selectors.EpollSelector):
    """Measures what its thread does between two waits, if that is the child's loop."""

    def select(self, timeout: float | None = None) -> Any:
        is_loop = threading.current_thread() is threading.main_thread()
        if is_loop:
            cpu_s, requests = time.thread_time(), _this.requests + _this.reads
            before = getattr(self, "_before", (cpu_s, requests))
            counts.loop_cpu_s = max(counts.loop_cpu_s, cpu_s - before[0])
            counts.loop_requests = max(counts.loop_requests, requests - before[1])
        found = super().select(timeout)
        if is_loop:
            self._before = time.thread_time(), _this.requests + _this.reads
        return found


def install() -> None:
    """Count from now on; for before the child's modules are loaded."""
    setattr(threading, "RLock", new_lock)  # noqa: B010 - a class, to the type checker
    setattr(selectors, "DefaultSelector", CountedSelector)  # noqa: B010 - the same
    from ratchet_child import steps
    from ratchet_child.kernel.netns import Netlink
    from ratchet_child.work.reconcile import Reconciler

    def ask(self: Any, *args: Any) -> Any:
        note("reads")
        answers = ask_really(self, *args)
        note("messages", len(answers))
        return answers

    def reconcile(self: Any, state: Any, *args: Any) -> None:
        _this.pod = str(state.key)
        try:
            reconcile_really(self, state, *args)
        finally:
            _this.pod = ""

    ask_really, reconcile_really = Netlink._ask, Reconciler.reconcile
    setattr(Netlink, "_ask", ask)  # noqa: B010 - the same
    setattr(Reconciler, "reconcile", reconcile)  # noqa: B010 - the same
    names = {"netlink": "changes", "etcd": "etcd"}
    steps.on_step = lambda point: note(names[point]) if point in names else None
    threading.Thread(target=_tell, args=(os.environ[VARIABLE],), daemon=True).start()


def _tell(path: str) -> None:
    while True:
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.reset")
            counts.begin_anew()
        with contextlib.suppress(OSError, RuntimeError):  # it is counted meanwhile
            text = counts.to_json()
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.rename(f"{path}.new", path)
        time.sleep(EVERY_S)


def main() -> int:
    from ratchet_child.supervision import supervisor

    if supervisor.is_asked_for(sys.argv[1:]):
        return supervisor.main(sys.argv[1:], _serve)
    from ratchet_child import command

    return command.main(sys.argv[1:])


def _serve(arguments: Sequence[str], listener: int, keeper: Any) -> int:
    install()
    from ratchet_child import serving

    return serving.serve(arguments, listener, keeper)


if __name__ == "__main__":
    sys.exit(main())
