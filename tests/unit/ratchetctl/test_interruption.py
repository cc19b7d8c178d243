"""Ctrl-C at the worst moments; the signals are the process's own."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from ratchetctl.interruption import WATCHED, interruptible, uninterrupted
from ratchetctl.sim.directory import SimDirectory
from ratchetctl.sim.progress import Progress
from ratchetctl.sim.simulator import Plan, Simulator


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {one: signal.getsignal(one) for one in WATCHED}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def test_a_second_signal_changes_nothing_until_the_end_of_the_process() -> None:
    with pytest.raises(SystemExit, match=str(128 + signal.SIGINT)), interruptible():
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


def test_what_may_not_be_cut_short_is_finished_first() -> None:
    done = []
    with pytest.raises(SystemExit), interruptible():
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            done.append("inside")
        done.append("after")
    assert done == ["inside"]


def test_an_up_that_is_interrupted_as_its_directory_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "ratchet"
    plugin.touch(0o755)
    create = SimDirectory.create

    def interrupted(directory: SimDirectory) -> None:
        create(directory)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SimDirectory, "create", interrupted)
    directory = SimDirectory("x", str(tmp_path / "sims"))
    simulator = Simulator(directory, Progress(Console(file=io.StringIO())), lambda _: None)
    with pytest.raises(SystemExit), interruptible():
        simulator.up(Plan(nodes=1, plugin_dirs=[str(tmp_path)]), [])
    assert not directory.exists
