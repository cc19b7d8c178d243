"""Which folders and files nobody but root can change, and when that is looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ratchet import log, statedir
from ratchet.attachments import Directory
from tests.unit.ratchet.test_attachments import attachment


def test_a_missing_folder_is_ours_to_make_where_only_we_can_write(tmp_path: Path) -> None:
    assert statedir.open_to_others(str(tmp_path / "a/b")) is None


@pytest.mark.parametrize("missing", ["a", "a/b", "./a/../a/b"])
def test_a_first_part_that_is_not_there_below_a_sticky_folder_is_refused(
    tmp_path: Path, missing: str
) -> None:
    tmp_path.chmod(0o1777)
    assert statedir.open_to_others(f"{tmp_path}/{missing}") == str(tmp_path / "a")
    with pytest.raises(PermissionError, match="somebody other than root"):
        statedir.make_private(f"{tmp_path}/{missing}")
    assert os.listdir(tmp_path) == []


def test_a_link_that_leads_to_a_missing_part_of_a_sticky_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    (tmp_path / "link").symlink_to("sticky/a")
    assert statedir.open_to_others(str(tmp_path / "link/b")) == str(tmp_path / "sticky/a")


def test_a_folder_of_ours_in_a_sticky_one_is_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "a").mkdir()
    assert statedir.open_to_others(str(tmp_path / "a/b")) is None
    statedir.make_private(str(tmp_path / "a/b"))
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700


def test_a_folder_is_looked_at_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is faster, between the first look and the making."""
    make = os.mkdir

    def faster(path: str, mode: int) -> None:
        make(path, mode)
        os.chmod(path, 0o777)

    monkeypatch.setattr(os, "mkdir", faster)
    state = tmp_path / "state"
    with pytest.raises(PermissionError, match="somebody other than root"):
        statedir.make_private(str(state))
    with pytest.raises(PermissionError, match="somebody other than root"):
        statedir.write_private(str(state / "file"), b"x")
    with pytest.raises(PermissionError, match="somebody other than root"):
        statedir.make_readable(str(state))
    assert log.open_file(str(state / "log")) == -1
    assert os.listdir(state) == []


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_a_file_that_others_could_have_written_is_not_read(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert statedir.read_private(str(file)) == b"x"
    file.chmod(mode)
    with pytest.raises(PermissionError, match="could have written"):
        statedir.read_private(str(file))


@pytest.mark.parametrize("plant", ["link", "fifo"])
def test_a_record_is_a_plain_file(tmp_path: Path, plant: str) -> None:
    directory = Directory(str(tmp_path / "state"))
    directory.write(attachment())
    path = Path(directory.records, "c1.eth0.json")
    path.rename(tmp_path / "elsewhere")
    if plant == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path, 0o600)
    assert directory.read("c1", "eth0") is None
    assert directory.live() == []


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_log_is_not_written_where_its_folder_could_be_anothers(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    assert log.open_file(str(folder / "made/by/us/ratchet.log")) == -1
    assert os.listdir(folder) == []


def test_a_log_is_written_where_a_group_may_write(tmp_path: Path) -> None:
    """As /var/log is the group syslog's on Ubuntu."""
    if os.geteuid() == 0:
        os.chown(tmp_path, -1, 4)
    tmp_path.chmod(0o775)
    assert statedir.open_to_others(str(tmp_path)) == str(tmp_path)
    fd = log.open_file(str(tmp_path / "sub/ratchet.log"))
    assert fd >= 0
    os.close(fd)
    assert (tmp_path / "sub").stat().st_mode & 0o777 == 0o755
