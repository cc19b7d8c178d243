"""The child's view of the records: new, changed, deleted, unfinished, spoilt ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ratchet.attachments import Attachment, Directory
from ratchet.cni.dataclasses import replace
from ratchet_child.model.keys import PodKey
from ratchet_child.pods.records import Records


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(str(tmp_path))


@pytest.fixture
def records(directory: Directory) -> Records:
    return Records(directory.state_dir)


def attachment(container: str = "c1", *, finished: bool = True) -> Attachment:
    return Attachment(
        container_id=container,
        ifname="eth0",
        netns="/run/netns/x",
        network="net",
        namespace="default",
        pod="a",
        kubernetes_name=None,
        uid=None,
        links=(),
        public_ip=None,
        target_pod=None,
        target_container=None,
        attached_at=1.0,
        boot=None,
        result={} if finished else None,
    )


def containers(found: dict[str, Attachment]) -> list[str]:
    return sorted(one.container_id for one in found.values())


def test_a_directory_that_is_not_there_is_empty(records: Records) -> None:
    assert not records.scan()
    assert records.live == records.deleted == {}


def test_a_scan_finds_what_is_new_and_says_so_once(directory: Directory, records: Records) -> None:
    directory.write(attachment())
    assert records.scan()
    assert containers(records.live) == ["c1"]
    assert not records.scan()


def test_an_unfinished_record_is_not_taken_up_until_it_is_finished(
    directory: Directory, records: Records
) -> None:
    directory.write(attachment(finished=False))
    records.scan()
    assert records.live == {}
    directory.write(attachment())
    assert records.scan()
    assert containers(records.live) == ["c1"]


def test_a_deleted_record_moves_from_live_to_deleted(
    directory: Directory, records: Records
) -> None:
    directory.write(attachment())
    records.scan()
    directory.mark_deleted("c1", "eth0")
    assert records.scan()
    assert records.live == {}
    assert containers(records.deleted) == ["c1"]


def test_refresh_reads_one_record_only(directory: Directory, records: Records) -> None:
    directory.write(attachment("c1"))
    directory.write(attachment("c2"))
    assert records.refresh("c1.eth0")
    assert containers(records.live) == ["c1"]
    assert not records.refresh("c1.eth0")
    assert not records.refresh("c3.eth0")


def test_what_has_changed_is_told_by_pod(directory: Directory, records: Records) -> None:
    pod = PodKey("default", "a")
    directory.write(attachment("c1"))
    assert records.scan() == {pod}
    directory.write(attachment("c2"))
    directory.mark_deleted("c1", "eth0")
    assert records.scan() == {pod}
    live, deleted = records.of(pod)
    assert [one.container_id for one in live] == ["c2"]
    assert containers(deleted) == ["c1"]
    assert records.of(PodKey("other", "a")) == ([], {})


def test_a_record_that_is_of_another_pod_now_tells_of_both(
    directory: Directory, records: Records
) -> None:
    directory.write(attachment())
    records.scan()
    directory.write(replace(attachment(), pod="b"))
    assert records.refresh("c1.eth0") == {PodKey("default", "a"), PodKey("default", "b")}
    assert records.of(PodKey("default", "a")) == ([], {})
    named = records.named("c1.eth0")
    assert named is not None
    assert named.pod == "b"


def test_a_record_that_has_vanished_is_dropped(directory: Directory, records: Records) -> None:
    directory.write(attachment())
    records.scan()
    directory.remove("c1", "eth0")
    assert records.scan()
    assert records.live == {}


def test_a_forgotten_record_is_no_news_when_its_file_goes(
    directory: Directory, records: Records
) -> None:
    directory.write(attachment())
    directory.mark_deleted("c1", "eth0")
    records.scan()
    (path,) = records.deleted
    directory.forget(path)
    records.forget(path)
    assert records.deleted == {}
    assert not records.scan()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 99}', "\udcff"])
def test_a_spoilt_record_is_skipped_and_left_where_it_is(
    directory: Directory, records: Records, text: str
) -> None:
    directory.write(attachment("c1"))
    spoilt = os.path.join(directory.records, "c2.eth0.json")
    Path(spoilt).write_bytes(text.encode(errors="surrogateescape"))
    assert records.scan()
    assert containers(records.live) == ["c1"]
    assert os.path.exists(spoilt)


def test_a_record_that_is_spoilt_later_is_dropped(directory: Directory, records: Records) -> None:
    directory.write(attachment())
    records.scan()
    Path(directory.records, "c1.eth0.json").write_text("{", encoding="utf-8")
    assert records.scan()
    assert records.live == {}


def test_other_files_are_nobodys_records(directory: Directory, records: Records) -> None:
    directory.write(attachment())
    for name in (".c2.eth0.json", "c2.eth0.txt", "README"):
        Path(directory.records, name).write_text("{", encoding="utf-8")
    Path(directory.records, "c3.eth0.json").mkdir()
    records.scan()
    assert containers(records.live) == ["c1"]


def test_a_deletion_that_is_named_is_found_without_looking_at_the_others(
    directory: Directory, records: Records
) -> None:
    for container in ("c1", "c2"):
        directory.write(attachment(container))
    records.scan()
    for container in ("c1", "c2"):
        directory.mark_deleted(container, "eth0")
    assert records.refresh_deleted("c1.eth0") == {PodKey("default", "a")}
    assert containers(records.deleted) == ["c1"]
    assert containers(records.live) == ["c2"]  # for the next scan to find
    assert not records.refresh_deleted("c1.eth0")
    assert not records.refresh_deleted("../c2.eth0")
    assert records.scan()
    assert containers(records.deleted) == ["c1", "c2"]
    assert not records.live
