"""Pods whose namespace is gone and whose DEL never comes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ratchet.attachments import Boot, Directory
from ratchet.cni.dataclasses import replace
from ratchet_child.kernel.netns import Namespaces
from ratchet_child.pods.vanished import LATE_S, Vanished
from tests.unit.ratchet.test_attachments import attachment


class World:
    """One attached pod and one that a newer container has replaced; the clock stands still."""

    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.netns = folder / "netns"
        self.directory = Directory(str(folder / "state"))
        one = replace(attachment(), netns=str(self.netns), result={})
        self.one = replace(one, boot=Boot(({"type": "bridge"},), "", "/bin"))
        self.older = replace(one, container_id="older", boot=None)
        for each in (self.one, self.older):
            self.directory.write(each)
        self.vanished: str | None = self.one.container_id
        self.told: list[str] = []
        self.sweeper = Vanished(
            self.directory,
            self._registry(),
            self,  # type: ignore[arg-type]
            Namespaces(),
        )

    def _registry(self) -> Any:
        state = SimpleNamespace(
            heard=SimpleNamespace(attachment=replace(self.one, boot=None)),
            container=self.one.container_id,
            progress=self,
        )
        return SimpleNamespace(
            states=lambda: [state], replaced=lambda: [self.older], deleted=self.told.append
        )

    def monotonic(self) -> float:
        return self.now

    def sweep_after(self, seconds: float) -> list[str]:
        self.now += seconds
        self.sweeper.sweep()
        return [one.container_id for one in self.directory.live()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_record_is_handed_over_and_the_boot_networks_del_is_owed(world: World) -> None:
    assert len(world.sweep_after(0)) == 2
    assert len(world.sweep_after(LATE_S - 1)) == 2
    assert world.sweep_after(1) == []
    assert sorted(world.told) == sorted([world.one.name, world.older.name])
    assert [one.container_id for one in world.directory.kept_boots()] == [world.one.container_id]


def test_a_namespace_that_is_there_again_is_not_gone(world: World) -> None:
    world.sweep_after(0)
    world.netns.touch()
    assert len(world.sweep_after(LATE_S)) == 2
    world.netns.unlink()
    assert len(world.sweep_after(LATE_S)) == 2  # from the start
    assert world.sweep_after(LATE_S) == []


def test_another_namespace_at_the_path_is_not_the_pods(world: World) -> None:
    world.netns.symlink_to("/proc/self/ns/net")
    world.sweep_after(0)
    assert world.sweep_after(LATE_S) == []


def test_a_pod_that_the_child_has_not_missed_is_left_alone(world: World) -> None:
    world.vanished = None
    world.sweep_after(0)
    assert world.sweep_after(LATE_S) == [world.one.container_id]
