"""Files that a parent was writing when it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet_child.pods.unfinished import UnfinishedFiles

PLACES = [".settings.json.17", "attachments/.c.eth0.json.17", "boot/.c.eth0.json.17"]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    for folder in ("attachments", "boot"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.mark.parametrize("place", PLACES)
def test_a_file_that_nobody_finishes_is_removed(state_dir: Path, place: str) -> None:
    leftovers = UnfinishedFiles(str(state_dir))
    (state_dir / place).touch()
    for now in (100.0, 102.0, 104.0):
        leftovers.sweep(now)
        assert (state_dir / place).exists()
    leftovers.sweep(106.0)
    assert not (state_dir / place).exists()


def test_files_that_are_being_written_stay(state_dir: Path) -> None:
    """Also where there is always one of that name."""
    leftovers = UnfinishedFiles(str(state_dir))
    path = state_dir / PLACES[0]
    for now in range(100, 130, 2):
        (state_dir / "next").touch()  # before the other goes: another inode
        (state_dir / "next").rename(path)
        leftovers.sweep(now)
        assert path.exists()


@pytest.mark.parametrize(
    "place",
    [
        "child.sock",
        "settings.json",
        "attachments/c.eth0.json",
        "attachments/c.eth0.17.deleted",
        "attachments/.c.eth0.json",
        "attachments/c.17",
    ],
)
def test_everything_else_stays(state_dir: Path, place: str) -> None:
    leftovers = UnfinishedFiles(str(state_dir))
    (state_dir / place).touch()
    for now in range(100, 120, 2):
        leftovers.sweep(now)
    assert (state_dir / place).exists()


def test_a_directory_that_is_gone_is_no_error(state_dir: Path) -> None:
    UnfinishedFiles(str(state_dir / "gone")).sweep(100.0)
