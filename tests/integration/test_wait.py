"""`ratchetctl wait` in the namespaces of pods with real links."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Pod, in1_in2

pytestmark = pytest.mark.root
TIMEOUT_S = 20.0


def start(pod: Pod, *arguments: str) -> subprocess.Popen[str]:
    """Start it as an init container has it: no capability, an environment of nothing."""
    program = os.path.join(os.path.dirname(sys.executable), "ratchetctl")
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--regid=65534"]
    argv += ["--clear-groups", sys.executable, "-c", f"exec(open({program!r}).read())"]
    argv += ["wait", *arguments]
    return subprocess.Popen(
        pod.netns.command(*argv),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("place", [0, 1], ids=["same node", "two nodes"])
def test_it_says_what_it_waits_for_and_ends_when_the_link_is_up(
    cluster: Cluster, place: int
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    cluster.nodes[0].add(left, in1_in2("b")).succeeded()
    with start(left, "in1=b") as waiting:
        assert line(waiting) == "waiting for in1 to b: there is no such interface yet"
        cluster.nodes[place].add(right, PAIR).succeeded()
        assert waiting.wait(TIMEOUT_S) == 0
        assert line(waiting) == "all links are up: in1 to b"
    with start(right, "in2=a", "--timeout", "10") as waiting:
        assert waiting.wait(TIMEOUT_S) == 0
    cluster.nodes[place].delete(right)
    wait_for("no carrier", lambda: "NO-CARRIER" in left.netns.links()["in1"]["flags"])
    with start(left, "in1=b", "--timeout", "1") as waiting:
        assert line(waiting) == "waiting for in1 to b: it has no carrier"
        assert line(waiting) == "gave up after 1 s: in1 to b: it has no carrier"
        assert waiting.wait(TIMEOUT_S) == 3


def test_a_pod_that_goes_meanwhile_need_not_kill_it(cluster: Cluster) -> None:
    pod = cluster.pod("a")
    cluster.nodes[0].add(pod, in1_in2("b")).succeeded()
    with start(pod, "in1") as waiting:
        assert line(waiting).startswith("waiting for in1")
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(TIMEOUT_S) == 128 + signal.SIGTERM
