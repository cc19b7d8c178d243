"""The agent when the API server, its rights, its token or certificates are not what they were."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ratchet.config import Config
from ratchet_child.agent.agent import Agent, Wishes
from tests.faults import clock
from tests.lab import api_server
from tests.lab.agent import NODE_NAME, AgentBed
from tests.lab.api_objects import Obj
from tests.lab.api_requests import RIGHTS
from tests.lab.api_server import TOKEN, Authority
from tests.lab.cluster import Cluster
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, Node, in1_in2
from tests.lab.simulation import ratchetctl

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(str(tmp_path_factory.mktemp("authority")))


@pytest.fixture
def bed(cluster: Cluster, node: Node, tmp_path: Path, authority: Authority) -> Iterator[AgentBed]:
    bed = AgentBed(node, str(tmp_path / "agent"), authority, NODE_NAME)
    try:
        yield bed
    finally:
        bed.clear()
        bed.close()


def lists(bed: AgentBed) -> int:
    return sum(
        method == "GET" and path.startswith("/api/v1/pods?") and "watch=true" not in path
        for method, path, _ in bed.api.calls
    )


def watches(bed: AgentBed) -> int:
    return sum("watch=true" in path for _, path, _ in bed.api.calls)


def wait_known(bed: AgentBed, count: int) -> None:
    wait_for(
        f"{count} pods", bed.status, until=lambda one: one and one["known"] == count, timeout_s=20
    )


def wait_trouble(bed: AgentBed, *words: str, timeout_s: float = 30.0) -> str:
    found = wait_for(
        f"trouble with {words}",
        lambda: [
            one for one in (bed.status() or {})["troubles"] if all(word in one for word in words)
        ],
        timeout_s=timeout_s,
    )
    return str(found[0])


def wait_no_trouble(bed: AgentBed) -> None:
    wait_for("no trouble", lambda: (bed.status() or {})["troubles"], until=lambda one: not one,
             timeout_s=45)  # fmt: skip


# The watch --------------------------------------------------------------------------------------


def test_a_watch_that_is_cut_every_second_lists_once_and_loses_nothing(
    cluster: Cluster, bed: AgentBed
) -> None:
    bed.api.watch_s = 1.0
    bed.start()
    bed.wait_watching()
    pods = [cluster.pod(f"p{number}") for number in range(10)]
    for pod in pods:
        bed.create(pod, {"app": "web"})
        time.sleep(0.4)
    wait_known(bed, len(pods))
    for pod in pods[:5]:
        bed.objects.delete_pod("default", pod.name)
    wait_known(bed, 5)
    assert lists(bed) == 1
    assert watches(bed) >= 4


def test_connections_that_are_torn_lose_nothing(cluster: Cluster, bed: AgentBed) -> None:
    bed.start()
    bed.wait_watching()
    for number in range(8):
        bed.create(cluster.pod(f"p{number}"), {"app": "web"})
        bed.api.hang_up()
        time.sleep(0.3)
    wait_known(bed, 8)
    assert lists(bed) == 1


@pytest.mark.parametrize("by_event", [False, True], ids=["by status", "by event"])
def test_a_version_that_is_too_old_has_the_pods_listed_again(
    cluster: Cluster, bed: AgentBed, by_event: bool
) -> None:
    bed.api.says_410_by_event = by_event
    bed.start()
    bed.create(cluster.pod("a"), {"app": "web"})
    wait_known(bed, 1)
    bed.stop_api()
    bed.objects.delete_pod("default", "a")
    bed.objects.compact()
    bed.start_api()
    bed.api.says_410_by_event = by_event
    bed.create(cluster.pod("b"), {"app": "web"})
    bed.create(cluster.pod("c"), {"app": "web"})
    wait_known(bed, 2)
    assert lists(bed) == 1


def test_bookmarks_keep_the_version_young(cluster: Cluster, bed: AgentBed) -> None:
    """Pods of other nodes come and go; the history is compacted, and nothing is listed again."""
    bed.api.bookmark_s = 0.2
    bed.start()
    bed.wait_watching()
    for number in range(5):
        bed.api.add_pod(f"far-{number}", namespace="default", node="other")
    time.sleep(1.0)
    bed.objects.compact()
    time.sleep(0.5)
    bed.api.hang_up()
    bed.create(cluster.pod("a"), {"app": "web"})
    wait_known(bed, 1)
    assert lists(bed) == 1


def test_an_api_server_that_is_late_and_away_for_long_is_heard_of_again(
    cluster: Cluster, bed: AgentBed
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"), gate=True)
    bed.wait_condition(left, "False", "LinkWaiting")
    bed.stop_api()
    wait_trouble(bed, "pods are not watched", "cannot be reached")
    shown = ratchetctl("status", "--state-dir", bed.node.state_dir)
    assert "the API server: pods are not watched" in shown.stdout
    bed.start_api()
    bed.api.delay_s = 1.5
    bed.run(right, PAIR)
    bed.wait_condition(left, "True", "LinksUp")
    bed.wait_event(left, "LinkUp")
    wait_no_trouble(bed)


# Rights, tokens, certificates -------------------------------------------------------------------


@pytest.mark.parametrize("right", RIGHTS)
def test_a_right_that_is_taken_away_is_told_before_a_pod_fails(
    cluster: Cluster, bed: AgentBed, right: str
) -> None:
    bed.start()
    bed.wait_watching()
    left, right_pod, late = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    bed.run(right_pod, PAIR)
    bed.api.rights.discard(right)
    bed.stop()
    bed.start()  # as time passes: rights are looked at every few minutes
    wait_trouble(bed, right)
    if right.startswith(("create events", "patch events")):
        assert "ApiTrouble" not in [
            one["reason"] for one in bed.objects.events_about(NODE_NAME)
        ] or (right.startswith("patch"))
    else:
        wait_for("an Event", lambda: bed.objects.events_about(NODE_NAME))
    # Pods go on starting, whichever right it is.
    bed.create(left, in1_in2("b"), gate=True)
    if right not in ("list pods", "watch pods"):
        wait_known(bed, 2)
    bed.attach(left).succeeded()
    left.netns.wait_ping("192.168.2.101")
    bed.api.rights.add(right)
    wait_no_trouble(bed)
    # What was refused is written as soon as that is seen.
    bed.wait_condition(left, "True", "LinksUp", timeout_s=10)
    bed.create(late, {"app": "web"})
    wait_known(bed, 3)


def test_a_token_that_rotates_is_read_again(cluster: Cluster, bed: AgentBed) -> None:
    bed.start()
    bed.wait_watching()
    for number in range(3):
        token = f"renewed-{number}"
        bed.api.tokens = {token}
        api_server.replace(bed.token_file, token)
        bed.api.hang_up()
        bed.create(cluster.pod(f"p{number}"), {"app": "web"})
        wait_known(bed, number + 1)
    assert (bed.status() or {})["troubles"] == []


def test_a_token_that_is_not_renewed_is_told_before_it_expires(
    cluster: Cluster, bed: AgentBed
) -> None:
    token = jwt(time.time() - 3300, time.time() + 120)
    bed.api.tokens = {token}
    api_server.replace(bed.token_file, token)
    bed.start()
    bed.wait_watching()
    wait_trouble(bed, "the token", "expires in 2 min")
    note = wait_for("an Event", lambda: bed.objects.events_about(NODE_NAME))[0]
    assert (note["type"], note["reason"]) == ("Warning", "ApiTrouble")
    assert "expires" in note["note"]
    assert token not in bed.node.log()
    renewed = jwt(time.time(), time.time() + 3600)
    bed.api.tokens.add(renewed)
    api_server.replace(bed.token_file, renewed)
    wait_no_trouble(bed)


def test_a_kubeconfig_that_breaks_takes_nothing_away_and_is_told(
    cluster: Cluster, bed: AgentBed
) -> None:
    bed.start()
    bed.wait_watching()
    good = Path(bed.kubeconfig).read_text()
    api_server.replace(bed.kubeconfig, "{")
    bed.api.hang_up()
    wait_trouble(bed, "kubeconfig", "neither JSON nor YAML")
    bed.create(cluster.pod("a"), {"app": "web"})
    wait_known(bed, 1)
    wait_for("an Event", lambda: bed.objects.events_about(NODE_NAME))
    api_server.replace(bed.kubeconfig, good)
    wait_no_trouble(bed)


def test_a_configuration_with_another_kubeconfig_or_none_is_followed(
    cluster: Cluster, bed: AgentBed, tmp_path: Path
) -> None:
    other = str(tmp_path / "other")
    api_server.replace(other, Path(bed.kubeconfig).read_text().replace('"node"', '"other"'))
    bed.start()
    bed.wait_watching()
    pods = [cluster.pod(f"p{number}") for number in range(3)]
    for pod in pods:
        bed.create(pod, {"app": "web"})
    wait_known(bed, 3)
    bed.attach(pods[0], kubeconfig=other).succeeded()
    wait_known(bed, 3)
    assert bed.node.log().count(f"kubeconfig={other}") == 1
    time.sleep(1.5)  # a change in less would count as a parent that came late
    bed.attach(pods[1], kubeconfig=None).succeeded()
    bed.node.status(config=bed.config(kubeconfig=None, cniVersion="1.1.0"))
    wait_for("no agent", bed.status, until=lambda one: one is None)
    time.sleep(1.5)
    bed.attach(pods[2]).succeeded()
    wait_known(bed, 3)


def test_certificates_of_the_server_may_change(
    cluster: Cluster, bed: AgentBed, tmp_path: Path
) -> None:
    bed.start()
    bed.wait_watching()
    other = Authority(os.path.join(tmp_path, "other"), "other")
    bed.api.use_certificate(other.issue("renewed"))
    bed.api.hang_up()
    wait_trouble(bed, "certificate", "is not valid")
    found = json.loads(Path(bed.kubeconfig).read_text())
    found["clusters"][0]["cluster"]["certificate-authority"] = other.ca
    api_server.replace(bed.kubeconfig, json.dumps(found))
    bed.create(cluster.pod("a"), {"app": "web"})
    wait_known(bed, 1)
    wait_no_trouble(bed)


def test_a_token_that_is_refused_is_told_and_forgiven(cluster: Cluster, bed: AgentBed) -> None:
    bed.start()
    bed.wait_watching()
    bed.api.tokens = {"another"}
    bed.api.hang_up()
    wait_trouble(bed, "does not accept the credentials (401)")
    bed.api.tokens = {TOKEN}
    wait_no_trouble(bed)


# Writing ----------------------------------------------------------------------------------------


def test_a_link_that_flaps_costs_one_event_with_a_count(cluster: Cluster, bed: AgentBed) -> None:
    left = cluster.pod("a")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"), gate=True)

    def told(reason: str) -> list[Obj]:
        return [one for one in bed.objects.events_about("a") if one["reason"] == reason]

    for number in range(1, 3):
        right = cluster.pod("b")
        bed.run(right, PAIR)
        bed.wait_condition(left, "True", "LinksUp")
        bed.node.delete(right).succeeded()
        bed.wait_condition(left, "False", "LinkWaiting")
        wait_for("that it waits", lambda: len(told("LinkWaiting")), until=number.__eq__)
    assert [one.get("series", {}).get("count") for one in told("LinkUp")] == [2]


def test_a_hundred_wrong_labels_cost_a_few_events(cluster: Cluster, bed: AgentBed) -> None:
    left = cluster.pod("a")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"))
    for number in range(40):
        bed.label(left, local_ip=f"192.168.2.{number + 300}")
        time.sleep(0.55 if number < 5 else 0.05)
    bed.wait_event(left, "LabelRefused")
    time.sleep(2)
    assert len(bed.events(left)) <= 25


def test_a_nodes_clock_that_jumps_keeps_no_word_and_no_link_back(
    cluster: Cluster, bed: AgentBed, tmp_path: Path
) -> None:
    """By most of an hour, forth and back."""
    file = tmp_path / "clock"
    file.write_text("0")
    bed.environ = clock.using(clock.make(str(tmp_path)), str(file))
    bed.start()
    bed.wait_watching()
    file.write_text("3000")
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.run(left, in1_in2("b"), gate=True)
    bed.wait_condition(left, "False", "LinkWaiting")
    bed.wait_event(left, "LinkWaiting")
    bed.run(right, PAIR)
    bed.wait_condition(left, "True", "LinksUp")
    bed.wait_event(left, "LinkUp")
    file.write_text("0")
    bed.label(left, local_ip="192.168.2.50")
    bed.wait_event(left, "LinksChanged")
    left.netns.wait_ping("192.168.2.101")
    assert "192.168.2.50/24" in left.netns.addresses("in1")
    bed.node.delete(right).succeeded()
    bed.objects.delete_pod(right.namespace, right.name)
    bed.wait_condition(left, "False", "LinkWaiting")


def test_throttled_writes_are_done_later(cluster: Cluster, bed: AgentBed) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"), gate=True)
    bed.run(right, PAIR, gate=True)
    bed.api.faults = [api_server.status(429, {"Retry-After": "1"})] * 4
    bed.wait_condition(left, "True", "LinksUp")
    bed.wait_event(left, "LinkUp")
    bed.wait_event(right, "LinkUp")


def test_nothing_is_asked_when_nothing_happens(cluster: Cluster, bed: AgentBed) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"), gate=True)
    bed.run(right, PAIR, gate=True)
    bed.wait_condition(left, "True", "LinksUp")
    bed.wait_condition(right, "True", "LinksUp")
    wait_for("both ends", lambda: bed.networks(left) and bed.networks(right))
    time.sleep(2)
    before = len(bed.api.calls)
    hold_for("silence", lambda: len(bed.api.calls) == before, duration_s=5)


def test_an_etcd_that_is_away_is_told_of_the_node_and_no_pod_stops_being_ready(
    cluster: Cluster, bed: AgentBed
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start()
    bed.wait_watching()
    bed.run(left, in1_in2("b"), gate=True)
    bed.run(right, PAIR, gate=True)
    bed.wait_condition(left, "True", "LinksUp")
    cluster.etcd.stop()
    found = wait_for("an Event", lambda: bed.objects.events_about(NODE_NAME), timeout_s=60.0)
    assert [one["reason"] for one in found] == ["EtcdAway"]
    assert (bed.condition(left) or {})["status"] == "True"
    assert "PodTrouble" not in [reason for reason, _ in bed.events(left)]
    cluster.etcd.start()
    # Links go on following, and coming, once it is back.
    bed.label(left, local_ip="192.168.2.77")
    right.netns.wait_ping("192.168.2.77")


def test_an_agent_that_never_reached_the_api_server_rests_between_its_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api_server.refusing_port() as port:
        server = {"server": f"https://127.0.0.1:{port}"}
        path = api_server.kubeconfig(str(tmp_path / "kubeconfig"), server, {"token": TOKEN})
        rounds, look = [], Agent._round

        def counted(agent: Agent) -> float:
            rounds.append(time.monotonic())
            return look(agent)

        monkeypatch.setattr(Agent, "_round", counted)
        engine: Any = SimpleNamespace(
            registry=SimpleNamespace(states=list, replaced=list),
            etcd=SimpleNamespace(is_away=False),
            node=SimpleNamespace(address="10.0.0.1", state_dir=str(tmp_path)),
        )
        agent = Agent(Wishes(NODE_NAME), path, str(tmp_path))
        agent.use(Config.parse({"name": "test", "kubeconfig": path}), engine)
        time.sleep(6)
        agent.close()
    # One for each try, which are fewer and fewer, and not one after the other.
    assert 2 <= len(rounds) <= 10


@pytest.mark.parametrize("reports", ["none", "events", "conditions", "network-status"])
def test_only_what_is_asked_for_is_written(cluster: Cluster, bed: AgentBed, reports: str) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    bed.start("--report", reports)
    bed.wait_watching()
    bed.run(left, in1_in2("b"), gate=True)
    bed.run(right, PAIR)
    left.netns.wait_ping("192.168.2.101")
    time.sleep(2)
    written = {
        "events": bool(bed.events(left)),
        "conditions": bed.condition(left) is not None,
        "network-status": bed.networks(left) is not None,
    }
    assert [what for what, is_there in written.items() if is_there] == (
        [] if reports == "none" else [reports]
    )


def test_without_stay_nothing_of_the_agent_is_loaded(cluster: Cluster, bed: AgentBed) -> None:
    left = cluster.pod("a")
    bed.create(left, in1_in2("b"))
    bed.attach(left).succeeded()
    bed.node.wait_child()
    time.sleep(1)
    assert bed.status() is None
    assert watches(bed) == 0
    threads = [
        Path(f"/proc/{pid}/task/{task}/comm").read_text().strip()
        for pid in bed.node.children()
        for task in os.listdir(f"/proc/{pid}/task")
    ]
    assert not [name for name in threads if "agent" in name]


def test_the_childs_program_imports_nothing_of_the_agent_by_itself() -> None:
    """Only what makes an agent imports the room: memory that other children need not pay for."""
    shown = "import ratchet_child.serving, sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "ratchet_child.child" in loaded
    assert [one for one in loaded if one.startswith("ratchet_child.agent")] == []


def jwt(began: float, ends: float) -> str:
    """Return a token as a service account has it."""
    parts = ({"alg": "none"}, {"iat": int(began), "exp": int(ends), "sub": "node"})
    coded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    ]
    return ".".join([*coded, "signature"])
