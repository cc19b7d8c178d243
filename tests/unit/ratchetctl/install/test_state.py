"""What a child has kept goes with Ratchet, but for what somebody still needs."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchetctl.install import installation, state
from tests.unit.ratchetctl.install.nodes import FLANNEL, Node

STATE_DIR = "/run/ratchet/cbr0"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Give a node's root with what a child keeps there."""
    root = tmp_path / "root"
    for folder in ("run/ratchet/cbr0/attachments", "var/lib/ratchet/cbr0/boot"):
        (root / folder).mkdir(parents=True)
    (root / "run/ratchet/cbr0/child.lock").touch()
    (root / "run/ratchet/cbr0/seen.json").write_text("{}")
    yield root


def kept(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*")} - {"run", "var", "lib"}


def test_nothing_is_left(root: Path) -> None:
    assert state.forget(STATE_DIR, str(root))
    assert kept(root) == set()
    assert state.forget(STATE_DIR, str(root))


def test_another_networks_files_stay(root: Path) -> None:
    (root / "run/ratchet/other").mkdir()
    assert state.forget(STATE_DIR, str(root))
    assert kept(root) == {"ratchet", "other"}


@pytest.mark.parametrize(
    "record", ["run/ratchet/cbr0/attachments/a.json", "var/lib/ratchet/cbr0/boot/a.json"]
)
def test_records_of_pods_stay_with_all_that_belongs_to_them(root: Path, record: str) -> None:
    (root / record).touch()
    assert not state.forget(STATE_DIR, str(root))
    assert {"seen.json", "child.lock", "a.json"} <= kept(root)


def test_nothing_is_taken_from_a_child_that_runs(root: Path) -> None:
    with open(root / "run/ratchet/cbr0/child.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not state.forget(STATE_DIR, str(root), wait_s=0.15)
    assert "seen.json" in kept(root)
    assert state.forget(STATE_DIR, str(root))


def test_uninstalling_knows_where_the_child_keeps_it(root: Path, node: Node) -> None:
    node.write(FLANNEL)
    node.install()
    assert json.loads((node.conf_dir / "ratchet.node/ratchet.conf").read_text())["state_dir"] == (
        STATE_DIR
    )
    installation.uninstall(node.site, str(root))
    assert kept(root) == set()
