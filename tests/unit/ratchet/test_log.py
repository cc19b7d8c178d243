from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    log.configure(None, "info", "ratchet", True)


def test_a_line_is_logfmt() -> None:
    line = log.line("info", "ratchet", "it's up", {"pod": "default/a", "link": None, "n": 3}, 1.5)
    assert line == (
        'time=1970-01-01T00:00:01.500Z level=info program=ratchet msg="it\'s up" '
        "pod=default/a n=3\n"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a b", '"a b"'),
        ('say "x"', '"say \\"x\\""'),
        ("a=b", '"a=b"'),
        ("", '""'),
        ("a\nb", '"a\\nb"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("\\", '"\\\\"'),
    ],
)
def test_values_are_escaped(value: str, written: str) -> None:
    assert log.line("info", "p", "m", {"k": value}, 0).endswith(f" k={written}\n")


@given(st.text(), st.dictionaries(st.sampled_from("abc"), st.text()))
def test_a_line_is_one_line_whatever_is_in_it(message: str, fields: dict[str, object]) -> None:
    line = log.line("info", "p", message, fields, 0)
    assert line.endswith("\n")
    assert line[:-1].isprintable()


def test_lines_go_to_the_file_from_the_level_on(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log"
    log.configure(str(path), "warning", "p", to_stderr=False)
    log.info("no")
    log.warning("yes", pod="a")
    log.error("yes, too")
    assert [line.split("msg=")[1] for line in path.read_text().splitlines()] == [
        '"yes" pod=a',
        '"yes, too"',
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_never_raises(tmp_path: Path) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "below", tmp_path / "fifo"):
        if path.name == "fifo":
            os.mkfifo(path)
        log.configure(str(path), "debug", "p", to_stderr=False)
        log.debug("a", b="\ud800", c=Broken())
        log.debug("a", b="\ud800")


def test_a_crash_is_logged_with_its_traceback_on_one_line(tmp_path: Path) -> None:
    log.configure(str(tmp_path / "log"), "info", "p", to_stderr=False)
    try:
        raise KeyError("what")
    except KeyError as exc:
        log.crash("internal error", exc)
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "KeyError: 'what'" in line


def test_a_bound_logger_names_its_subject_on_every_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log.configure(str(path), "debug", "ratchet", to_stderr=False)
    one = log.Logger(pod="a", container="a1")
    one.info("begins")
    one.bind(link="a:in1").debug("decides", ends=log.Joined(["in1", "in2"]), waiting=log.Joined([]))
    first, second = path.read_text().splitlines()
    assert first.endswith('msg="begins" pod=a container=a1')
    assert second.endswith('msg="decides" pod=a container=a1 link=a:in1 ends=in1,in2 waiting=none')


def test_a_file_that_was_moved_away_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rotated = tmp_path / "log", tmp_path / "log.1"
    log.configure(str(path), "info", "p", to_stderr=False)
    log.info("one")
    path.rename(rotated)
    log.info("two")  # within the second, which costs nothing
    monkeypatch.setattr(log, "MOVED_S", 0.0)
    log.info("three")
    path.unlink()
    log.info("four")
    assert [line.split("msg=")[1] for line in rotated.read_text().splitlines()] == [
        '"one"',
        '"two"',
    ]
    assert path.read_text().endswith('msg="four"\n')
    assert path.read_text().count("\n") == 1


def test_a_file_is_opened_anew_when_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log.configure(str(path), "info", "p", to_stderr=False)
    log.info("one")
    before = len(os.listdir("/proc/self/fd"))
    path.rename(tmp_path / "log.1")
    log.reopen()
    log.info("two")
    assert path.read_text().endswith('msg="two"\n')
    assert len(os.listdir("/proc/self/fd")) == before
    log.configure(None, "info", "p", to_stderr=False)
    log.reopen()
