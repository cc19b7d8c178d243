"""The requests that children send to etcd, one by one, against those of the file beside this one.

Other nodes, older children among them, live with what is written, and the number of requests is
what limits a cluster. So a change of either is made on purpose: `RATCHET_RECORD=1` writes the file
anew, and its diff is read.

What is compared: for each step and node, each request with its method, key and fields. Made equal
are container IDs, addresses, state directories, machines and etcd's indices. A node's watches, and
the listing that goes before one, are one thread's and stand apart. The rest is in order wherever
one pod is at work on a node; where two are, each in its thread, they are sorted. Requests that a
waiting pod makes when its time has come, after a step has gone quiet, belong to no step.

A loaded machine may let such a moment fall into a step, or two reasons to look at a pod into one:
the steps are therefore gone through again, from an empty etcd, until each has once been as it is in
the file. What a change of the program adds, drops or alters is there each time.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.etcd_recorder import Asked, Recorder
from tests.lab.cluster import Cluster
from tests.lab.namespaces import random_port
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node, Pod, in1_in2, primary

pytestmark = pytest.mark.root

EXPECTED = Path(__file__).with_name("etcd_requests.txt")
TRIES = 10
# Less than the second after which a pod that waits looks again by itself.
QUIET_S = 0.5
STEP_TIMEOUT_S = 20.0

INDEX_FIELDS = ("prevIndex", "waitIndex")

Steps = dict[str, str]
"""What was asked in each step, by the step's name."""


class Scene:
    """Takes pods through their lives and writes down what etcd was asked in each step."""

    def __init__(self, cluster: Cluster, recorder: Recorder) -> None:
        self.cluster = cluster
        self.nodes = cluster.nodes[:2]
        self._recorder = recorder
        self._names: dict[str, str] = {}
        self.steps: Steps = {}
        for node in cluster.nodes:
            self._names[node.address] = f"ADDRESS{node.number}"
            self._names[node.state_dir] = f"STATE_DIR{node.number}"

    def pod(self, name: str, as_what: str | None = None) -> Pod:
        made = self.cluster.pod(name)
        self._names[made.container_id] = f"CONTAINER-{as_what or name}"
        return made

    def add(self, node: Node, pod: Pod, labels: dict[str, str]) -> None:
        node.add(pod, labels, etcd_port=self._recorder.port).succeeded()

    def step(
        self,
        what: str,
        do: Callable[[], object],
        until: Callable[[], object],
        *,
        together: str = "",
    ) -> None:
        """Do something, wait for its end, and note the requests of each node.

        On nodes whose numbers are in `together`, several pods are at work at the same time.
        """
        self._recorder.take()
        do()
        wait_for(what, until)
        self._recorder.wait_quiet(QUIET_S, STEP_TIMEOUT_S)
        asked = self._recorder.take()
        lines = []
        for node in self.nodes:
            own = [one for one in asked if one.client == node.address]
            heard = [one for one in own if self._is_hearing(one, node)]
            worked = [self._text(one) for one in own if one not in heard]
            if str(node.number) in together:
                worked.sort()
            order = ", sorted" if str(node.number) in together else ""
            for title, texts in (
                (f"node {node.number}{order}", worked),
                (f"node {node.number}, watching", [self._text(one) for one in heard]),
            ):
                if texts:
                    lines += [f"## {title}", *texts]
        self.steps[what] = "\n".join(lines) + "\n"

    def _is_hearing(self, one: Asked, node: Node) -> bool:
        return one.is_watch or (
            one.method == "GET" and one.path == f"/v2/keys/ratchet/nodes/{node.address}"
        )

    def _text(self, one: Asked) -> str:
        fields = [*one.fields, *one.form]
        shown = [f"{key}={'INDEX' if key in INDEX_FIELDS else value}" for key, value in fields]
        text = " ".join([one.method, one.path.removeprefix("/v2/keys"), *shown])
        for name, word in self._names.items():
            text = re.sub(re.escape(name) + r"(?![0-9a-f.])", word, text)
        text = re.sub(r"(@|\"machine\":\")[0-9a-f]{16}\b", r"\1MACHINE", text)
        return re.sub(r'("host":").*?(","since":)\d+', r"\1HOST\2INDEX", text)


def has(pod: Pod, *ifnames: str) -> Callable[[], bool]:
    return lambda: pod.netns.names() == {"lo", *ifnames}


def every(*conditions: Callable[[], object]) -> Callable[[], bool]:
    return lambda: all(condition() for condition in conditions)


def no_record(node: Node, pod: Pod) -> Callable[[], bool]:
    return lambda: not any(name.startswith(pod.container_id) for name in node.records())


def one_node(scene: Scene) -> None:
    node = scene.nodes[0]
    a, b, again = scene.pod("a"), scene.pod("b"), scene.pod("b", "b-again")
    scene.step(
        "one node: ADD of the primary", lambda: scene.add(node, a, in1_in2("b")), lambda: True
    )
    scene.step(
        "one node: ADD of its pair",
        lambda: scene.add(node, b, PAIR),
        every(has(a, "in1"), has(b, "in2")),
        together="1",
    )
    scene.step(
        "one node: DEL of the pair",
        lambda: node.delete(b).succeeded(),
        every(has(a, "in1"), no_record(node, b)),
        together="1",
    )
    scene.step(
        "one node: ADD of the pair, created again",
        lambda: scene.add(node, again, PAIR),
        every(has(a, "in1"), has(again, "in2")),
        together="1",
    )
    scene.step(
        "one node: DEL of the primary",
        lambda: node.delete(a).succeeded(),
        every(has(again, "in2"), no_record(node, a)),
        together="1",
    )
    scene.step(
        "one node: DEL of the last pod",
        lambda: node.delete(again).succeeded(),
        no_record(node, again),
    )


def two_nodes(scene: Scene) -> None:
    node, far = scene.nodes
    a, b, again = scene.pod("a"), scene.pod("b"), scene.pod("b", "b-again")
    scene.step(
        "two nodes: ADD of the primary", lambda: scene.add(node, a, in1_in2("b")), lambda: True
    )
    scene.step(
        "two nodes: ADD of its pair",
        lambda: scene.add(far, b, PAIR),
        every(has(a, "in1"), has(b, "in2")),
    )
    scene.step(
        "two nodes: DEL of the pair",
        lambda: far.delete(b).succeeded(),
        every(has(a, "in1"), no_record(far, b)),
    )
    scene.step(
        "two nodes: ADD of the pair, created again",
        lambda: scene.add(far, again, PAIR),
        every(has(a, "in1"), has(again, "in2")),
    )
    scene.step(
        "two nodes: DEL of the primary",
        lambda: node.delete(a).succeeded(),
        every(has(again, "in2"), no_record(node, a)),
    )
    scene.step(
        "two nodes: DEL of the last pod",
        lambda: far.delete(again).succeeded(),
        no_record(far, again),
    )


def three_links(scene: Scene) -> None:
    node, far = scene.nodes
    a, b, c = scene.pod("a"), scene.pod("b"), scene.pod("c")
    labels = {
        **in1_in2("b"),
        **primary("in3", None, "b", "in4", None, number=2),
        **primary("in5", "192.168.5.1/24", "c", "in6", "192.168.5.2/24", number=3),
    }
    labels = {key: value.removesuffix("/24") for key, value in labels.items()}
    scene.step("three links: ADD of a pair", lambda: scene.add(far, b, PAIR), lambda: True)
    scene.step(
        "three links: ADD of their primary, two with that pair and one that waits",
        lambda: scene.add(node, a, labels),
        every(has(a, "in1", "in3"), has(b, "in2", "in4")),
    )
    scene.step(
        "three links: ADD of the third link's pair",
        lambda: scene.add(node, c, PAIR),
        every(has(a, "in1", "in3", "in5"), has(c, "in6")),
        together="1",
    )
    scene.step(
        "three links: DEL of the primary",
        lambda: node.delete(a).succeeded(),
        every(has(b, "in2", "in4"), has(c, "in6"), no_record(node, a)),
        together="1",
    )
    scene.step("three links: DEL of a pair", lambda: far.delete(b).succeeded(), no_record(far, b))
    scene.step(
        "three links: DEL of the last pod", lambda: node.delete(c).succeeded(), no_record(node, c)
    )


SCENES = {"one node": one_node, "two nodes": two_nodes, "three links": three_links}


@pytest.fixture
def recorder(cluster: Cluster) -> Iterator[Recorder]:
    etcd = cluster.etcd
    made = Recorder(etcd.namespace, etcd.address, random_port(), etcd.port)
    yield made
    # After the children have ended, which would otherwise find etcd away.
    cluster.end_test()
    made.close()


def recorded(cluster: Cluster, recorder: Recorder, name: str) -> Steps:
    """Go through a scene from an empty etcd, with children that run, and leave etcd empty."""
    assert cluster.end_test() == []
    for node in cluster.nodes[:2]:
        node.status(config=node.config(cniVersion="1.1.0", etcd_port=recorder.port)).succeeded()
    recorder.wait_quiet(QUIET_S, STEP_TIMEOUT_S)
    scene = Scene(cluster, recorder)
    SCENES[name](scene)
    assert set(cluster.etcd.tree()) <= {"/ratchet/", "/ratchet/vxlanid"}
    return scene.steps


def expected() -> Steps:
    """Read the file: the steps of all scenes."""
    found: Steps = {}
    for part in EXPECTED.read_text().split("\n\n"):
        title, _, requests = part.partition("\n")
        found[title.removeprefix("# ")] = requests.rstrip("\n") + "\n"
    return found


@pytest.mark.parametrize("name", SCENES)
def test_etcd_is_asked_what_it_was_asked_before(
    cluster: Cluster, recorder: Recorder, name: str
) -> None:
    if os.environ.get("RATCHET_RECORD") == "1":
        record(cluster, recorder, name)
        return
    wanted = {what: text for what, text in expected().items() if what.startswith(f"{name}: ")}
    assert wanted
    different: Steps = dict.fromkeys(wanted, "")
    for _ in range(TRIES):
        found = recorded(cluster, recorder, name)
        assert list(found) == list(wanted)
        different = {
            what: difference(what, wanted[what], found[what])
            for what in different
            if found[what] != wanted[what]
        }
        if not different:
            return
    shown = "\n".join(different.values())
    pytest.fail(f"etcd is asked something else, {TRIES} times:\n{shown}", pytrace=False)


def difference(what: str, wanted: str, found: str) -> str:
    lines = difflib.unified_diff(
        wanted.splitlines(), found.splitlines(), f"{what}, before", "now", n=4, lineterm=""
    )
    return "\n".join(lines)


def record(cluster: Cluster, recorder: Recorder, name: str) -> None:
    """Write the steps of a scene down in the file, each as it is found most often."""
    found = [recorded(cluster, recorder, name) for _ in range(TRIES)]
    steps = expected() if EXPECTED.exists() else {}
    for what in found[0]:
        texts = [one[what] for one in found]
        steps[what] = max(sorted(texts, key=len), key=texts.count)
        times = texts.count(steps[what])
        assert times > 1, f"{what} is never the same twice"
        print(f"{what}: {times} of {TRIES} times")
    EXPECTED.write_text("\n".join(f"# {what}\n{text}" for what, text in steps.items()))
