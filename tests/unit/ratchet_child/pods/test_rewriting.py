"""A record is rewritten only while it is there, and only if it is what was read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ratchet.attachments import Attachment, Boot, Directory
from ratchet.cni.dataclasses import replace
from ratchet.errors import StateError
from ratchet.labels import Wiring
from ratchet.links import Link, Uplink
from ratchet_child.pods import rewriting
from ratchet_child.pods.rewriting import rewrite

BEFORE, AFTER = (Link(name, None, "b", "in2", None) for name in ("in1", "in3"))
RECORD = Attachment(
    container_id="c1",
    ifname="eth0",
    netns="/run/netns/x",
    network="test",
    namespace="default",
    pod="a",
    kubernetes_name="a",
    uid="u1",
    links=(BEFORE,),
    public_ip=None,
    target_pod=None,
    target_container=None,
    attached_at=1.0,
    boot=Boot(({"type": "ptp"},), "", "/opt/cni/bin"),
    result={"ips": []},
    boottime_s=5.0,
)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    directory = Directory(str(tmp_path))
    directory.write(RECORD)
    return directory


def said(*links: Link, uplinks: tuple[Uplink, ...] = (), expected: tuple[str, ...] = ()) -> Wiring:
    return Wiring("a", links, None, None, None, uplinks, expected)


def links(directory: Directory) -> tuple[Link, ...] | None:
    found = directory.read("c1", "eth0")
    return None if found is None else found.links


def files(directory: Directory) -> list[str]:
    return sorted(os.listdir(directory.records))


def meanwhile(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """Have something happen before each exchange, as another process does it."""
    exchange, waiting = rewriting._exchange, list(steps)

    def interrupted(one: str, other: str) -> bool:
        if waiting:
            waiting.pop(0)()
        return exchange(one, other)

    monkeypatch.setattr(rewriting, "_exchange", interrupted)


def test_only_the_links_change(directory: Directory) -> None:
    assert rewrite(directory.state_dir, replace(RECORD, boot=None, result={}), said(AFTER))
    assert directory.read("c1", "eth0") == replace(RECORD, links=(AFTER,))
    assert files(directory) == ["c1.eth0.json"]
    assert os.stat(f"{directory.records}/c1.eth0.json").st_mode & 0o777 == 0o600


def test_uplinks_and_what_others_are_to_declare_change_with_the_links(directory: Directory) -> None:
    uplink = Uplink("up1", "macvlan", "eth0")
    assert rewrite(directory.state_dir, RECORD, said(uplinks=(uplink,), expected=("in5",)))
    changed = replace(RECORD, links=(), uplinks=(uplink,), expected=("in5",))
    assert directory.read("c1", "eth0") == changed
    assert rewrite(directory.state_dir, changed, said(BEFORE))
    assert directory.read("c1", "eth0") == RECORD


def test_a_record_that_is_gone_is_not_made(directory: Directory) -> None:
    directory.mark_deleted("c1", "eth0")
    before = files(directory)
    assert not rewrite(directory.state_dir, RECORD, said(AFTER))
    assert files(directory) == before


def test_a_del_between_reading_and_writing_stands(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, lambda: directory.mark_deleted("c1", "eth0"))
    assert not rewrite(directory.state_dir, RECORD, said(AFTER))
    assert links(directory) is None
    assert len(files(directory)) == 1
    assert [one.links for _, one in directory.deleted()] == [(BEFORE,)]


def test_an_add_between_reading_and_writing_stands(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = replace(RECORD, links=())
    meanwhile(monkeypatch, lambda: directory.write(newer))
    assert not rewrite(directory.state_dir, RECORD, said(AFTER))
    assert links(directory) == ()
    assert files(directory) == ["c1.eth0.json"]


def test_a_del_while_an_add_is_put_back_stands(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(
        monkeypatch,
        lambda: directory.write(replace(RECORD, links=())),
        lambda: directory.mark_deleted("c1", "eth0"),
    )
    assert not rewrite(directory.state_dir, RECORD, said(AFTER))
    assert links(directory) is None
    assert [one.container_id for _, one in directory.deleted()] == ["c1"]
    assert len(files(directory)) == 1


def test_a_del_and_an_add_of_the_same_container_stand(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again() -> None:
        directory.mark_deleted("c1", "eth0")
        directory.write(replace(RECORD, links=(), attached_at=2.0))

    meanwhile(monkeypatch, again)
    assert not rewrite(directory.state_dir, RECORD, said(AFTER))
    assert links(directory) == ()


def test_another_sandbox_of_the_name_is_not_rewritten(directory: Directory) -> None:
    directory.write(replace(RECORD, netns="/run/netns/y"))
    assert not rewrite(directory.state_dir, RECORD, said(AFTER))
    assert links(directory) == (BEFORE,)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EROFS, errno.ENOSPC])
def test_what_the_file_system_refuses_is_an_error_and_leaves_nothing(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(rewriting, "_exchange", refuse)
    with pytest.raises(StateError, match=r"c1\.eth0\.json"):
        rewrite(directory.state_dir, RECORD, said(AFTER))
    assert files(directory) == ["c1.eth0.json"]
    assert links(directory) == (BEFORE,)
