"""A simulation's directory: names, records, what a missing or half-made one says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ratchetctl.errors import SimError
from ratchetctl.sim.directory import NodeState, PodState, SimDirectory, SimState

POD = PodState("ns", "p.q", "u", "c1", "node1", {"a": "b"}, {}, "/x", {"ips": []})


@pytest.fixture
def directory(tmp_path: Path) -> SimDirectory:
    made = SimDirectory("one", str(tmp_path / "base"))
    made.create()
    return made


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", "-a", "a" * 40, "a b"])
def test_refuses_names_that_are_no_file_names(name: str) -> None:
    with pytest.raises(SimError, match="--name"):
        SimDirectory(name)


def test_reads_what_it_wrote(directory: SimDirectory) -> None:
    state = SimState((NodeState("node1", 1, "172.30.1.1", {"k": "v"}),), ("/p",), "/ratchet", None)
    directory.write_state(state)
    directory.write_pod(POD)
    assert directory.read_state() == state
    assert directory.read_pod("ns", "p.q") == POD
    assert directory.pods() == [POD]
    directory.forget_pod(POD)
    directory.forget_pod(POD)
    assert directory.pods() == []


def test_pods_with_the_longest_names_have_files_of_their_own(directory: SimDirectory) -> None:
    one, other = (replace(POD, namespace="n" * 63, name="p" * 252 + end) for end in "ab")
    for pod in (one, other):
        directory.write_pod(pod)
    assert directory.read_pod(one.namespace, one.name) == one
    assert {pod.name for pod in directory.pods()} == {one.name, other.name}
    for pod in (one, other):
        directory.forget_pod(pod)
    assert directory.pods() == []


def test_an_existing_simulation_is_not_made_again(directory: SimDirectory) -> None:
    with pytest.raises(SimError, match="sim down --name one"):
        directory.create()


def test_a_missing_or_half_made_one_says_what_to_do(directory: SimDirectory) -> None:
    with pytest.raises(SimError, match="not made completely"):
        directory.read_state()
    directory.remove()
    with pytest.raises(SimError, match="no simulation 'one' is running"):
        directory.read_state()
    with pytest.raises(SimError, match="no simulation"), directory.locked():
        pass


def test_removing_leaves_no_base_and_is_safe_twice(directory: SimDirectory) -> None:
    directory.remove()
    directory.remove()
    assert not Path(directory.base).exists()


def test_a_base_that_others_use_stays(directory: SimDirectory) -> None:
    other = SimDirectory("two", directory.base)
    other.create()
    directory.remove()
    assert other.exists
