"""When a pod that is not ours has the child started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ratchet import statedir
from ratchet.attachments import Directory
from tests.unit.ratchet.test_attachments import attachment


@pytest.fixture
def state_dir(tmp_path: Path) -> str:
    return str(tmp_path / "state")


def test_a_node_that_nobody_has_looked_after_is_left_alone(state_dir: str) -> None:
    assert statedir.is_left_alone(state_dir)
    assert not os.path.exists(state_dir)


def test_a_node_at_rest_is_not(state_dir: str) -> None:
    statedir.mark_at_rest(state_dir)
    assert not statedir.is_left_alone(state_dir)


def test_a_mark_of_another_boot_says_nothing(state_dir: str) -> None:
    """Only /run is emptied by a boot; state_dir may be elsewhere."""
    statedir.mark_at_rest(state_dir)
    Path(state_dir, statedir.AT_REST).write_text("6b0e9b0c-0000-4000-8000-000000000000\n")
    assert statedir.is_left_alone(state_dir)


def test_where_a_boot_empties_the_directory_a_mark_is_only_looked_for(
    state_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statedir.mark_at_rest(state_dir)
    monkeypatch.setattr(statedir, "VOLATILE", (f"{os.path.dirname(state_dir)}/",))
    opened: list[str] = []
    monkeypatch.setattr(os, "open", lambda path, *_: opened.append(path))
    assert not statedir.is_left_alone(state_dir)
    assert opened == []


def test_a_lock_that_nobody_holds_means_left_alone(state_dir: str) -> None:
    os.mkdir(state_dir, 0o700)
    Path(state_dir, statedir.LOCK).touch()
    assert statedir.is_left_alone(state_dir)


def test_a_record_ends_the_rest_even_if_its_parent_is_killed(state_dir: str) -> None:
    statedir.mark_at_rest(state_dir)
    Directory(state_dir).write(attachment())
    assert statedir.is_left_alone(state_dir)


def test_a_mark_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    statedir.mark_at_rest(str(tmp_path / "file" / "state"))
