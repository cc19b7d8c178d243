"""The nodes' agents with containerd: pods start, follow their labels and say why, whatever breaks.

`tests/integration/test_agent.py` and its neighbours have every case with namespaces for pods. Here
is what a real runtime adds: its own sandboxes and cgroups, labels that it does not pass, its calls
of the plugin when a sandbox is made anew, and its restarts.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.agents import NodeAgent
from tests.e2e.cloud import Cloud
from tests.e2e.containerd import Sandbox
from tests.e2e.cri import CriError, PodConfig
from tests.e2e.test_containerd import assert_linked
from tests.faults import clock
from tests.integration.test_kernel_refusals import overlay
from tests.lab.api_requests import RIGHTS
from tests.lab.api_server import ApiServer
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, in1_in2, primary

pytestmark = pytest.mark.root

HEARD_AGAIN_S = 30.0
# Of the other rights, which nothing needs in these seconds, the next review tells.
HEARD_AT_ONCE = ("watch pods", "patch pods/status", "create events.k8s.io/events")


class Agents(list[NodeAgent]):
    """Both nodes' agents, and the API server that they watch."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(NodeAgent(cloud, number) for number in range(len(cloud.nodes)))
        self._cloud = cloud

    @property
    def api(self) -> ApiServer:
        return self._cloud.api

    def start(self, **changes: Any) -> None:
        for agent in self:
            agent.spawn(**changes)
        self.wait_watching()

    def wait_watching(self) -> None:
        for agent in self:
            agent.wait_watching()

    def stop_api(self) -> None:
        self.api.close()

    def start_api(self) -> None:
        """Have the API server be there again, or be as it was before it was made to misbehave."""
        api = self._cloud.start_api()
        for agent in self:
            agent.api = api


@pytest.fixture
def agents(cloud: Cloud) -> Iterator[Agents]:
    """Give the agents of two machines, which are to be started."""
    agents = Agents(cloud)
    with ExitStack() as undo:
        for agent in agents:
            undo.callback(agent.stop)
            undo.callback(agent.clear)
        undo.callback(agents.start_api)
        yield agents


def linked_pods(
    agents: Agents, *, gate: bool = False, heard: bool = False
) -> tuple[Sandbox, Sandbox]:
    left = agents[0].run("primary-pod", in1_in2("pair-pod"), gate=gate, heard=heard)
    right = agents[1].run("pair-pod", PAIR, gate=gate, heard=heard)
    assert_linked(left, right)
    return left, right


@contextmanager
def untouched(*ends: tuple[Sandbox, str]) -> Iterator[None]:
    """Assert that ends neither flap nor change nor are made anew."""
    with ExitStack() as undo:
        watches = [undo.enter_context(sandbox.netns.watch(ifname)) for sandbox, ifname in ends]
        yield
        assert [flap for watch in watches for flap in watch.flaps()] == []


# Labels from memory -----------------------------------------------------------------------------


def test_pods_start_without_a_request_of_their_own(agents: Agents) -> None:
    agents.start()
    left, _ = linked_pods(agents, heard=True)
    plain = agents[0].run("web", {"app": "web"}, heard=True)
    assert plain.netns.addresses("eth0") == [f"{plain.status.ip}/24"]
    assert left.netns.addresses("eth0") == [f"{left.status.ip}/24"]
    assert agents[0].gets() == []


def test_sandboxes_made_anew_start_while_the_api_server_is_away(agents: Agents) -> None:
    agents.start()
    left, right = linked_pods(agents)
    plain = agents[0].run("web", {"app": "web"})
    agents.stop_api()
    again, plain_again = agents[0].make_anew(left), agents[0].make_anew(plain)
    assert_linked(again, right)
    assert plain_again.netns.addresses("eth0") == [f"{plain_again.status.ip}/24"]
    # Of a pod that nobody has told of, nothing is known, whatever its name.
    with pytest.raises(CriError, match="labels cannot be read now; try again later"):
        agents[0].containerd.run(PodConfig("primary-pod"))


# Links follow -----------------------------------------------------------------------------------

SECOND = primary("in3", "10.3.0.1", "third", "in4", "10.3.0.2", 2)
SECOND.pop("ratchet")


def test_annotating_a_running_pod_plugs_and_pulls_a_cable_and_touches_no_other(
    agents: Agents,
) -> None:
    agents.start()
    left, right = linked_pods(agents)
    third = agents[0].run("third", PAIR)
    with untouched((left, "in1"), (right, "in2")):
        agents[0].write(left.pod, "annotations", SECOND)
        left.netns.wait_ping("10.3.0.2")
        note = agents[0].wait_event(left.pod, "LinksChanged")
        assert note == "The links follow the pod's labels: added in3."
        index = left.netns.links()["in3"]["ifindex"]
        agents[0].write(left.pod, "annotations", {"ratchet.2.local_ip": "10.3.0.9/16"})
        third.netns.wait_ping("10.3.0.9")
        assert left.netns.links()["in3"]["ifindex"] == index
        # Its cable goes to the pod on the other node.
        agents[0].write(left.pod, "annotations", {"ratchet.2.pair_name": "pair-pod"})
        right.netns.wait_ping("10.3.0.9")
        third.netns.wait_no_link("in4")
        agents[0].write(left.pod, "annotations", dict.fromkeys(SECOND))
        left.netns.wait_no_link("in3")
        right.netns.wait_no_link("in4")
        assert left.netns.pings("192.168.2.101")


def test_a_wrong_change_leaves_what_was_and_an_event_names_the_label(agents: Agents) -> None:
    agents.start()
    left, right = linked_pods(agents)
    with untouched((left, "in1"), (right, "in2")):
        agents[0].write(left.pod, "annotations", {"ratchet.local_ip": "192.168.2.300/24"})
        note = agents[0].wait_event(left.pod, "LabelRefused", "ratchet.local_ip", "192.168.2.300")
        assert "stay as they were" in note
        assert_linked(left, right)


# What is told -----------------------------------------------------------------------------------


def test_links_that_wait_come_up_are_refused_and_fail_are_told(
    cloud: Cloud, agents: Agents
) -> None:
    cloud.configure(wait="none")
    agents.start(wait="none")
    here, there = agents
    left = here.run("primary-pod", in1_in2("pair-pod"), gate=True)
    here.run("e", {"ratchet": "true"})
    here.run("f", primary("in1", None, "e", "in2", None))
    refused = here.run("g", primary("in1", None, "e", "in2", None), gate=True)
    with overlay(here.node, "external"):
        failing = here.run("c", primary("in1", "10.4.0.1", "d", "in2", "10.4.0.2"), gate=True)
        there.run("d", PAIR)
        here.wait_event(refused.pod, "LinkRefused", "interface in2 of e is the end of the link f")
        here.wait_event(left.pod, "LinkWaiting", "in1 waits for pair-pod since 20")
        here.wait_condition(left.pod, "False", "LinkWaiting")
        here.wait_event(failing.pod, "LinkFailed", "UDP port 4789", "vxlan_port")
        for one in (refused, failing):
            here.wait_condition(one.pod, "False", "LinkFailed")
    failing.netns.wait_ping("10.4.0.2")
    here.wait_condition(failing.pod, "True", "LinksUp")
    right = there.run("pair-pod", PAIR, gate=True)
    here.wait_event(
        left.pod, "LinkUp", f"in1 to pair-pod is up (vxlan, with node {there.node.address})"
    )
    there.wait_event(right.pod, "LinkUp", "in2 to primary-pod")
    for agent, one in ((here, left), (there, right)):
        agent.wait_condition(one.pod, "True", "LinksUp")
    # The link is up a moment before the child has read what the kernel made of it.
    (end,) = wait_for(
        "network-status",
        lambda: here.networks(left.pod),
        until=lambda ends: ends and "mtu" in ends[0],
    )
    assert (end["name"], end["interface"]) == ("ratchet/primary-pod:in1", "in1")
    assert (end["ips"], end["mtu"]) == (["192.168.2.100"], 1450)
    assert end["mac"] == left.netns.links()["in1"]["address"]


# Taking over ------------------------------------------------------------------------------------


def test_an_agent_takes_over_from_a_spawned_child_and_gives_back(agents: Agents) -> None:
    left, right = linked_pods(agents)
    (spawned,) = agents[0].node.children()
    with untouched((left, "in1"), (right, "in2")):
        agents.start()
        assert spawned not in agents[0].node.children()
        # It works on what the other one has attached.
        agents[1].run("third", PAIR)
        agents[0].write(left.pod, "annotations", SECOND)
        left.netns.wait_ping("10.3.0.2")
        for agent in agents:
            agent.stop()
        # The next pod of each node starts a child again.
        late = agents[0].run("late", primary("in5", "10.5.0.1", "other", "in6", "10.5.0.2"))
        agents[1].run("other", PAIR)
        late.netns.wait_ping("10.5.0.2")
        assert [agent.status() for agent in agents] == [None, None]
        assert left.netns.pings("192.168.2.101")


# Without being the CNI plugin -------------------------------------------------------------------


def test_the_agent_attaches_pods_whose_network_is_somebody_elses(
    cloud: Cloud, agents: Agents
) -> None:
    """By the cgroups in which containerd has put them."""
    for containerd in cloud.nodes:
        usual = {"cniVersion": "1.0.0", "name": "mynet", **containerd.node.bridge_config()}
        containerd.configure(usual, conflist=True)
    agents.start(attach="agent")
    here = agents[0]
    plain = here.run("web", {"app": "web"})
    left, right = linked_pods(agents)
    third = here.run("third", PAIR)
    # Who asks for none has the condition as well: the pod has started before its links.
    here.wait_condition(left.pod, "True", "LinksUp")
    assert here.networks(left.pod)
    with untouched((left, "in1"), (right, "in2")):
        here.write(left.pod, "annotations", SECOND)
        third.netns.wait_ping("10.3.0.1")
        for containerd in cloud.nodes:
            containerd.kill(signal.SIGKILL)
            containerd.start()
        here.write(left.pod, "annotations", dict.fromkeys(SECOND))
        third.netns.wait_no_link("in4")
        # A label that comes later, after containerd's restart.
        here.write(plain.pod, "labels", primary("in7", "10.7.0.1", "pair-pod", "in8", "10.7.0.2"))
        right.netns.wait_ping("10.7.0.1")
    again = here.make_anew(left)
    assert_linked(again, right)
    here.delete(again)
    right.netns.wait_no_carrier("in2")


# Faults -----------------------------------------------------------------------------------------


def test_an_api_server_that_is_away_and_late_keeps_no_link_back(agents: Agents) -> None:
    agents.start()
    here, there = agents
    left, right = linked_pods(agents, gate=True)
    here.wait_condition(left.pod, "True", "LinksUp")
    index = left.netns.links()["in1"]["ifindex"]
    agents.stop_api()
    again = there.make_anew(right)
    assert_linked(left, again)
    here.write(left.pod, "annotations", {"ratchet.local_ip": "192.168.2.50/24"})
    hold_for("the link", lambda: left.netns.pings("192.168.2.101"), duration_s=2)
    agents.start_api()
    agents.api.delay_s = 1.0
    again.netns.wait_ping("192.168.2.50", timeout_s=HEARD_AGAIN_S)
    assert left.netns.links()["in1"]["ifindex"] == index
    here.wait_event(left.pod, "LinksChanged")


def test_a_watch_that_is_cut_every_second_loses_no_pod(agents: Agents) -> None:
    agents.api.watch_s = 1.0
    agents.start()
    left, right = linked_pods(agents)
    for number in range(2):
        left = agents[0].make_anew(left)
        assert_linked(left, right)
        agents[0].delete(agents[0].run(f"web-{number}", {"app": "web"}))
    wait_for("one pod", agents[0].status, until=lambda one: one and one["known"] == 1)
    listed = [path for _, path, _ in agents.api.calls if path.startswith("/api/v1/pods?")]
    assert len([path for path in listed if "watch=true" not in path]) == len(agents)


def test_a_nodes_clock_that_is_wrong_keeps_no_link_back(agents: Agents, tmp_path: Path) -> None:
    """By most of an hour, forth and back; the other node's is right."""
    file = tmp_path / "clock"
    file.write_text("3000")
    here, there = agents
    here.spawn(environ=clock.using(clock.make(str(tmp_path)), str(file)))
    there.spawn()
    agents.wait_watching()
    left, right = linked_pods(agents, gate=True)
    here.wait_condition(left.pod, "True", "LinksUp")
    here.wait_event(left.pod, "LinkUp")
    file.write_text("-3000")
    again = there.make_anew(right)
    assert_linked(left, again)
    here.write(left.pod, "annotations", {"ratchet.local_ip": "192.168.2.50/24"})
    again.netns.wait_ping("192.168.2.50")
    here.wait_event(left.pod, "LinksChanged")


def test_whichever_right_is_taken_away_pods_go_on_starting_with_their_links(agents: Agents) -> None:
    agents.start()
    here = agents[0]
    left, right = linked_pods(agents)
    for verb in RIGHTS:
        agents.api.rights.discard(verb)
        agents.api.hang_up()
        here.delete(left)
        # What nobody may ask for has to have been heard of; a kubelet would try again until then.
        heard = verb == "get pods"
        left = here.run("primary-pod", in1_in2("pair-pod"), gate=True, heard=heard)
        assert_linked(left, right)
        if verb in HEARD_AT_ONCE:
            wait_for("a word", here.status, until=lambda one, verb=verb: _tells(one, verb))  # type: ignore[misc]
        agents.api.rights.add(verb)
    here.wait_watching()


def _tells(status: dict[str, Any] | None, what: str) -> bool:
    return status is not None and any(what in trouble for trouble in status["troubles"])
