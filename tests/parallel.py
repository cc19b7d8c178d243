"""Which tests share a worker when the tests run in parallel, and which of them start first.

Every worker has a cluster, names, ports and folders of its own, so a test may run beside any other.
What is in a group here runs on one worker, in its order, for the reason that stands beside it.

pytest-xdist's own groups (`xdist_group`) are no help: with pytest 9.2 they are passed over without
a word, because xdist 3.8 writes them into an attribute that pytest no longer reads.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

TWO_MINUTES = "two_minutes"

# Two containerds take their time to start, and /var/lib/cni, on which every machine mounts a folder
# of its own, is made and removed by the cloud: one worker runs all tests on one cloud.
_RUNTIMES = "runtimes"

GROUPS = {
    "tests/e2e/test_cni_versions.py": _RUNTIMES,
    "tests/e2e/test_containerd.py": _RUNTIMES,
    "tests/e2e/test_examples.py": _RUNTIMES,
    "tests/e2e/test_install.py": _RUNTIMES,
    "tests/e2e/test_podman.py": _RUNTIMES,
    # Its tests look at one run of the benchmark.
    "tests/e2e/test_bench.py": "benchmark",
    # Its first test starts a wait of two minutes, which its last test ends.
    "tests/integration/test_first_ratchet_faults.py": "two minutes",
    # Its tests share an etcd with users, who cost etcd a tenth of a second each.
    "tests/integration/test_etcd_security.py": "secured etcd",
}


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Give a free worker the next test or the whole of the next group, in the order of `turn`."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid) or nodeid


def group_of(nodeid: str) -> str | None:
    """Return the group of a test, None when it may run on any worker."""
    return GROUPS.get(nodeid.partition("::")[0])


def turn(item: pytest.Item) -> int:
    """Return when a test has its turn: what takes longest first, so that nobody ends up with it.

    What waits for two minutes comes last of its group, and of all when there are no workers.
    """
    if waits_for_long(item):
        return 3
    if group_of(item.nodeid) is not None:
        return 0
    return 1 if item.get_closest_marker("slow") is not None else 2


def waits_for_long(item: pytest.Item) -> bool:
    return TWO_MINUTES in getattr(item, "fixturenames", ())
