"""Which tests share a worker when the tests run in parallel, and which of them start first.

Every worker has a cluster, names, ports and folders of its own, so a test may run beside any other.
What is in a group here runs on one worker, in its order, for the reason that stands beside it.

Four workers keep two processors busy, and more would take the time from each other that tests
measure. Tests that mostly wait would leave the processors idle if they met on these workers, so
others take them: the fifth and those after it. When these have none left they run unit tests, at a
lower priority, so that whoever measures time still has the four.

pytest-xdist's own groups (`xdist_group`) are no help: with pytest 9.2 they are passed over without
a word, because xdist 3.8 writes them into an attribute that pytest no longer reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

TWO_MINUTES = "two_minutes"

# Two containerds take their time to start, and /var/lib/cni, on which every machine mounts a folder
# of its own, is made and removed by the cloud: one worker runs all tests on one cloud.
_RUNTIMES = "runtimes"
# A group of its own for each test.
_ALONE = None

# Files and tests by the beginning of their names; the longest one that fits counts. The group that
# takes longest comes first, and is started first.
GROUPS: dict[str, str | None] = {
    # Its first test starts a wait of two minutes, which its last test ends.
    "tests/integration/test_first_ratchet_faults.py": "two minutes",
    "tests/e2e/test_agent_containerd.py": _RUNTIMES,
    "tests/e2e/test_cni_versions.py": _RUNTIMES,
    "tests/e2e/test_containerd.py": _RUNTIMES,
    "tests/e2e/test_examples.py": _RUNTIMES,
    "tests/e2e/test_install.py": _RUNTIMES,
    "tests/e2e/test_podman.py": _RUNTIMES,
    # Its tests look at one run of the benchmark.
    "tests/e2e/test_bench.py": "benchmark",
    # Its tests share an etcd with users, who cost etcd a tenth of a second each.
    "tests/integration/test_etcd_security.py": "secured etcd",
    # Its tests look at one release, which takes ten seconds of a processor to make.
    "tests/e2e/test_dist.py": "release",
    # Their tests look at one image.
    "tests/e2e/test_image.py": "image",
    "tests/e2e/test_daemonset.py": "image",
    # Its tests damage one cluster, each in another way, and mend it.
    "tests/integration/test_faults.py": "cluster for faults",
    "tests/integration/test_faults.py::test_cluster_heals_and_leaks_nothing": _ALONE,
    # Their servers, keys and certificates are made once.
    "tests/integration/test_kubernetes.py": "API server's certificates",
    "tests/integration/test_store.py": "etcd of the store",
    # What is told to a worker has its price: thousands of tests that take a millisecond each are
    # told to it by their files.
    "tests/unit/": "",
    "tests/unit/ratchet_child/test_protocol.py": _ALONE,
}
# What mostly waits, by the beginnings of names: for a lease to expire, for an agent to
# try again, for routers to find each other. Whatever takes long and is not here computes.
WAITING = (
    "tests/integration/test_agent.py::test_a_del_between_reading_and_writing",
    "tests/integration/test_agent_faults.py",
    "tests/integration/test_agent_tells.py",
    "tests/integration/test_bad_neighbours.py::test_an_end_that_is_deleted_in_a_loop",
    "tests/integration/test_cni_details.py::test_del_succeeds_without_etcd",
    "tests/integration/test_ends_survive.py::test_a_container_that_lives_on",
    "tests/integration/test_examples.py::test_hosts_keep_their_routes",
    "tests/integration/test_examples.py::test_the_cloud_router_routes",
    "tests/integration/test_examples.py::test_the_demo_holds",
    "tests/integration/test_first_ratchet_faults.py",
    "tests/integration/test_front_faults.py::test_stopped_while_the_boot_network",
    "tests/integration/test_install_command.py::test_it_follows_and_leaves",
    "tests/integration/test_kube_command.py::test_changes_are_shown_as_they_come",
    "tests/integration/test_link_command.py::test_a_cable_is_pulled_out",
    "tests/integration/test_machines.py",
    "tests/integration/test_metrics.py::test_an_agent_shows_how_it_is",
    "tests/integration/test_namespaces.py::test_pods_of_two_namespaces_never_pair",
    "tests/integration/test_recreate.py::test_a_pod_whose_del_never_comes",
    "tests/integration/test_rollouts.py",
    "tests/integration/test_supervision.py::test_a_node_without_labelled_pods",
    "tests/integration/test_topo_routers.py",
    "tests/integration/test_v010_beside.py",
    "tests/integration/test_v010_node.py::test_vni_of_an_old_primary_that_is_in_use",
)
_COMPUTING = 4  # workers, for two processors
_LOW = 10  # nice(1): a tenth of what others get
# Its tests are for two fronts, each of which is compiled once.
_FRONT_WORDS = "tests/integration/test_front_words.py"

_ORDER = {group: number for number, group in enumerate(dict.fromkeys(GROUPS.values()))}


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Give a free worker the next test or the whole of the next group, in the order of `turn`."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid) or nodeid

    def _reschedule(self, node: WorkerController) -> None:
        # A worker runs a test once it knows the next one. A third would wait behind these two while
        # other workers have nothing to do.
        if not self.workqueue or self._pending_of(self.assigned_work[node]) <= 1:
            super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        waits = is_for_waiting(node.gateway.id)
        scope = next(
            (one for one, tests in self.workqueue.items() if waits == _is_waiting(tests)),
            # Unit tests, which stand last, fill what is left of the time.
            next(reversed(self.workqueue)),
        )
        self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)


def is_for_waiting(worker: str) -> bool:
    """Say whether a worker, such as gw0, takes tests that wait."""
    return int(worker.removeprefix("gw")) >= _COMPUTING


def give_way(item: pytest.Item) -> None:
    """Have a worker that has no more tests that wait leave the processors to the others."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and is_for_waiting(worker) and item.nodeid.startswith("tests/unit/"):
        os.setpriority(os.PRIO_PROCESS, 0, _LOW)


def _is_waiting(tests: Iterable[str]) -> bool:
    return next(iter(tests)).startswith(WAITING)


def group_of(nodeid: str) -> str | None:
    """Return the group of a test, None when it may run on any worker."""
    path, _, name = nodeid.partition("::")
    if path == _FRONT_WORDS:
        return "sanitized front" if "[sanitized" in name else "front"
    fits = [beginning for beginning in GROUPS if nodeid.startswith(beginning)]
    group = GROUPS[max(fits, key=len)] if fits else _ALONE
    return path if group == "" else group


def turn(item: pytest.Item) -> tuple[int, int]:
    """Return when a test has its turn: what takes longest first, so that nobody ends up with it.

    Unit tests come last, and are the small change that keeps all workers busy to the end. What
    waits for two minutes comes last of its group, and of all when there are no workers.
    """
    if waits_for_long(item):
        return 4, 0
    if item.nodeid.startswith("tests/unit/"):
        return 3, 0
    group = group_of(item.nodeid)
    if group is not None:
        return 0, _ORDER.get(group, len(_ORDER))
    return 1 if item.get_closest_marker("slow") is not None else 2, 0


def waits_for_long(item: pytest.Item) -> bool:
    return TWO_MINUTES in getattr(item, "fixturenames", ())
