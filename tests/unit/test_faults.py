"""What the fault suite decides without a cluster: which ends must stay, what stands on its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import page
from tests.faults.lifetimes import End, must_stay
from tests.faults.plan import Fault, Operation, Step
from tests.faults.runner import Healing, Report
from tests.faults.topology import PodId, topology

ONE = Report(
    seed=7,
    members=1,
    steps=2000,
    seconds=3600.0,
    machine="etcd 3, 2 cores",
    killed={"parents": 5},
    healings=[Healing(1, "child killed", 0.2), Healing(2, "child killed", 2.0)],
)
THREE = Report(
    seed=8,
    members=3,
    steps=500,
    seconds=600.0,
    broken=[12],
    healings=[Healing(1, "leader killed", 1.5)],
)
KILLED = "Killed in time: 5 parents. No step was broken. It ran with etcd 3, 2 cores."

NEAR, FAR = PodId("default", "near"), PodId("default", "far")
BEFORE = End(index=2, kind="vxlan", vni=11, pod=NEAR, far=(FAR, "f1"))
AFTER = End(index=5, kind="vxlan", vni=11, pod=NEAR, far=(FAR, "f2"))
QUIET = Fault("nothing")


@pytest.mark.parametrize("del_when", ["before", "after", "late"])
def test_a_tunnels_end_must_stay_when_the_far_pod_restarts(del_when: str) -> None:
    step = Step(7, QUIET, (Operation("restart", FAR, 2, del_when=del_when),))
    assert must_stay(BEFORE, AFTER, step)
    assert must_stay(BEFORE, AFTER, step, late=[PodId("lab", "far")])


@pytest.mark.parametrize(
    "step",
    [
        Step(7, QUIET, (Operation("overlap", FAR, 2, 3),)),
        Step(7, QUIET, (Operation("restart", NEAR, 2),)),
        Step(7, Fault("interface deleted")),
        Step(7, Fault("node rebooted")),
    ],
    ids=["far pod on two nodes", "its own pod restarts", "the pod deletes it", "its node goes"],
)
def test_an_end_may_be_made_anew(step: Step) -> None:
    assert not must_stay(BEFORE, AFTER, step)


def test_an_end_may_be_made_anew_when_an_older_container_of_the_far_pod_takes_the_free_name() -> (
    None
):
    detach = Step(7, QUIET, (Operation("restart", FAR, 2, del_when="before"),))
    assert not must_stay(BEFORE, AFTER, detach, late=[FAR])
    assert must_stay(BEFORE, AFTER, Step(7, QUIET), late=[FAR])


UPLINK = End(index=3, kind="macvlan", vni=None, pod=NEAR, far=(NEAR, "n1"))


@pytest.mark.parametrize("fault", ["nothing", "keys wiped", "etcd stopped", "child killed"])
def test_an_uplink_must_stay_whatever_becomes_of_etcd_and_other_pods(fault: str) -> None:
    step = Step(7, Fault(fault), (Operation("restart", FAR, 2),))
    assert must_stay(UPLINK, replace(UPLINK, index=9), step)


@pytest.mark.parametrize(
    "step",
    [
        Step(7, QUIET, (Operation("overlap", NEAR, 2, 3),)),
        Step(7, Fault("interface deleted")),
        Step(7, Fault("node rebooted")),
    ],
    ids=["its own pod is attached twice", "the pod deletes it", "its node goes"],
)
def test_an_uplink_may_be_made_anew(step: Step) -> None:
    assert not must_stay(UPLINK, replace(UPLINK, index=9), step)


def test_both_pods_that_declare_a_cable_say_the_same_of_it() -> None:
    found = topology(20, 20)
    twice = [one for one in found.links if one.seen_from_pair() in found.links]
    assert len(twice) >= 2
    assert {one.properties.mtu for one in twice} == {1300}
    assert [one for one in found.links if one.properties.rate_kbit]
    assert {one.kind for one in found.uplinks} == {"macvlan", "host"}


def test_table_has_the_times_of_each_size_of_cluster_side_by_side() -> None:
    assert page.block([THREE, ONE]).splitlines() == [
        "| fault | one member: times | median | worst | three members: times | median | worst |",
        "|---|---|---|---|---|---|---|",
        "| child killed | 2 | 1.10 | 2.00 |  |  |  |",
        "| leader killed |  |  |  | 1 | 1.50 | 1.50 |",
        "",
        f"- Seed 7, one member: 2,000 steps in 60 minutes. {KILLED}",
        "- Seed 8, three members: 500 steps in 10 minutes. Broken steps: 12.",
    ]


def test_runs_with_as_many_members_share_a_column() -> None:
    assert "| child killed | 4 | 1.10 | 2.00 |" in page.block([ONE, ONE])


def test_nothing_else_of_the_page_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text(ONE.to_json(), encoding="utf-8")
    there = tmp_path / "page.md"
    there.write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["page", str(tmp_path / "a.json"), "--page", str(there)])
    assert page.main() == 0
    assert there.read_text(encoding="utf-8") == (
        f"before\n\n{page.BEGIN}\n\n{page.block([ONE])}\n\n{page.END}\n\nafter\n"
    )


def test_page_without_a_place_for_it_is_left_alone() -> None:
    with pytest.raises(ValueError, match="no block that begins with"):
        page.with_block("a page", "text")


def test_documentation_has_a_place_for_it() -> None:
    assert page.with_block(page.PAGE.read_text(encoding="utf-8"), "text").count("text") >= 1
