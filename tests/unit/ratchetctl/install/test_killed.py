"""An installer that is killed at any point leaves a node on which pods start."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from ratchetctl.install import installation
from tests.unit.ratchetctl.install.folders import (
    FLANNEL_LIST,
)
from tests.unit.ratchetctl.install.nodes import FLANNEL, Node, with_all


class Killed(BaseException):
    """The process is no more."""


STEPS = ("link", "mkdir", "replace", "rmdir", "symlink", "unlink")


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> None:
    """Have the process die at the n-th change of a name, before it or after it."""
    left = [number]

    def wrapped(step: str) -> Callable[..., object]:
        real = getattr(os, step)

        def do(*args: object, **keys: object) -> object:
            left[0] -= 1
            if left[0] < 0 or (left[0] == 0 and not after):
                raise Killed
            done = real(*args, **keys)
            if left[0] == 0:
                raise Killed
            return done

        return do

    for step in STEPS:
        monkeypatch.setattr(os, step, wrapped(step))


def run_killed(
    monkeypatch: pytest.MonkeyPatch, number: int, after: bool, work: Callable[[], None]
) -> bool:
    """Run until killed; whether it was."""
    with monkeypatch.context() as patch:
        kill_at(patch, number, after=after)
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("what", ["install", "upgrade", "uninstall"])
def test_killed_at_any_point_pods_start_and_the_next_run_mends_it(
    node: Node, monkeypatch: pytest.MonkeyPatch, what: str, after: bool
) -> None:
    node.write(FLANNEL)
    (node.bin_dir / "ratchet").write_text("v0.1.0")
    site = with_all(node)
    before = node.both()
    number = 0
    killed = True
    while killed:
        number += 1
        if what != "install":
            node.install(1, site)

        def work() -> None:
            if what == "uninstall":
                installation.uninstall(site)
            else:
                node.install(2, site)

        killed = run_killed(monkeypatch, number, after, work)
        # A runtime can go on at once: what it takes is whole, and what that names is there.
        name, found = node.first()
        if name != "10-flannel.conflist":
            assert found["delegate"] == FLANNEL_LIST
            for path in named_files(found):
                assert os.path.getsize(path) > 0, path
            assert (node.bin_dir / "ratchet").read_text().startswith("ratchet ")
        if what == "uninstall":
            installation.uninstall(site)
        else:
            node.install(2, site)
            assert node.ours()["delegate"] == FLANNEL_LIST
            left = [str(path) for path in node.root.rglob("*.new")]
            assert left == []
            assert not (node.bin_dir / "ratchet.node" / "partial").exists()
            installation.uninstall(site)
        assert node.both() == before, number
    assert number > 10


def named_files(found: dict[str, Any]) -> list[str]:
    paths = [found[key] for key in ("kubeconfig", "etcd_ca_cert", "etcd_cert", "etcd_key")]
    return [*paths, found["child_path"]]
