"""What `ratchetctl wait` waits for, and what it says meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from ratchet import __version__, labels
from ratchetctl import wait
from ratchetctl.errors import WaitError
from ratchetctl.wait import Awaited

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def podinfo(tmp_path: Path, labels: str, annotations: str = "") -> str:
    (tmp_path / "labels").write_text(labels)
    (tmp_path / "annotations").write_text(annotations)
    return str(tmp_path)


# What is waited for


def test_an_interface_may_be_given_with_its_far_pod() -> None:
    assert wait.read("in1") == Awaited("in1")
    assert str(wait.read("in1=r2-0")) == "in1 to r2-0"


@pytest.mark.parametrize("text", ["", "=r2", "in/1", "in1=", "in1=r 2", "x" * 16])
def test_what_is_no_interface_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="allowed"):
        wait.read(text)


def test_labels_of_the_downward_api_say_what_is_declared(tmp_path: Path) -> None:
    directory = podinfo(
        tmp_path,
        'ratchet="true"\nratchet.primary="true"\nratchet.local_ifname="in1"\n'
        'ratchet.pair_name="b"\nratchet.pair_ifname="in2"',
        'ratchet.links="- {ifname: in3, pair: c, pair_ifname: in4}\\n- {ifname: in5}\\n"\n'
        'other="a \\"quoted\\" \\u00e9"',
    )
    assert wait.declared(directory) == [Awaited("in1", "b"), Awaited("in3", "c"), Awaited("in5")]


def test_uplinks_are_waited_for(tmp_path: Path) -> None:
    annotations = 'ratchet.links="[{ifname: up1, kind: macvlan, device: eth0}]"'
    assert wait.declared(podinfo(tmp_path, 'ratchet="true"', annotations)) == [Awaited("up1")]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('app="x"', 'does not say ratchet: "true"'),
        ('ratchet="true"', "declare no link"),
        ('ratchet="true"\nratchet.primary="maybe"', "ratchet.primary"),
        ("ratchet=true", 'allowed are lines of key="value"'),
        ('ratchet="', 'allowed are lines of key="value"'),
        ('ratchet="true"\nother="\\xzz"', "allowed are lines"),
    ],
)
def test_labels_that_say_nothing_are_an_error_that_says_so(
    tmp_path: Path, written: str, said: str
) -> None:
    with pytest.raises(WaitError, match=said):
        wait.declared(podinfo(tmp_path, written))


def test_without_files_the_error_names_both_ways(tmp_path: Path) -> None:
    with pytest.raises(WaitError, match="name the interfaces, or mount a downwardAPI volume"):
        wait.declared(str(tmp_path / "none"))


# Waiting


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


def run(up_at: dict[str, float], timeout_s: float | None) -> tuple[dict[Awaited, str], list[str]]:
    clock, said = Clock(), list[str]()
    left = wait.until_up(
        [wait.read(one) for one in ("in1=b", "in2")],
        lambda ifname: None if clock.now >= up_at[ifname] else wait.ABSENT,
        timeout_s,
        say=said.append,
        pause=clock.pause,
        clock=clock,
    )
    return left, said


def test_each_change_is_said_once_with_interface_and_far_pod() -> None:
    left, said = run({"in1": 4.0, "in2": 2.0}, None)
    assert not left
    assert said == [
        "waiting for in1 to b: there is no such interface yet; in2: there is no such interface yet",
        "waiting for in1 to b: there is no such interface yet",
    ]


def test_what_lasts_is_said_again_every_minute() -> None:
    _, said = run({"in1": 150.0, "in2": 0.0}, None)
    assert len(said) == 3


def test_the_time_ends_with_what_is_still_missing() -> None:
    left, _ = run({"in1": 100.0, "in2": 0.0}, 10.0)
    assert wait.shown(left) == "in1 to b: there is no such interface yet"


def test_what_is_up_at_the_last_moment_is_up() -> None:
    assert run({"in1": 0.0, "in2": 0.0}, 0.0) == ({}, [])


# The example


def example() -> list[dict[str, Any]]:
    with open(os.path.join(ROOT, "examples", "statefulsets.yaml"), encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


@pytest.mark.parametrize("version", ["1.26", "1.31", "1.37"])
def test_the_example_is_valid(version: str) -> None:
    for one in example():
        kubernetes_validate.validate(one, version, strict=True)


def test_the_example_waits_for_the_links_that_its_labels_declare() -> None:
    links: dict[str, tuple[str, str]] = {}
    waits = {}
    for one in example():
        template, pod = one["spec"]["template"], f"{one['metadata']['name']}-0"
        wiring = labels.parse(template["metadata"]["labels"], {}, own_name=pod, cni_ifname="eth0")
        for link in wiring.links:
            links[pod] = link.ifname, link.pair
            links[link.pair] = link.pair_ifname, pod
        (init,) = template["spec"]["initContainers"]
        assert init["image"] == f"ghcr.io/ratchet-cni/ratchet:{__version__}"
        command, *arguments = init["args"]
        assert command == wait.wait.name
        (awaited,) = (wait.read(argument) for argument in arguments)
        waits[pod] = awaited.ifname, awaited.far_pod
    assert waits == links
