from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet import statedir
from ratchet.attachments import Attachment, Boot, Directory
from ratchet.cni.ip import Address
from ratchet.errors import StateError
from ratchet.links import Link
from ratchet.names import is_new_ifname

LINK = Link(
    "in1",
    Address.parse("192.168.2.100/24"),
    "pair-pod",
    "in2",
    Address.parse("192.168.2.101/24"),
)


def attachment(container_id: str = "c1", ifname: str = "eth0", **changes: Any) -> Attachment:
    fields: dict[str, Any] = {
        "container_id": container_id,
        "ifname": ifname,
        "netns": "/run/netns/x",
        "network": "net",
        "namespace": "default",
        "pod": "primary-pod",
        "kubernetes_name": "primary-pod-x",
        "uid": None,
        "links": (LINK,),
        "public_ip": None,
        "target_pod": None,
        "target_container": None,
        "attached_at": 1.5,
        "boottime_s": 0.5,
        "boot": Boot(({"type": "loopback", "name": "net"},), "A=B", "/opt/cni/bin"),
        "result": {"cniVersion": "1.0.0"},
    }
    return Attachment(**{**fields, **changes})


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(str(tmp_path / "state"))


def files(directory: Directory) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(folder, name), directory.state_dir)
        for folder, _, names in os.walk(directory.state_dir)
        for name in names
    )


hosts = st.ip_addresses().filter(
    lambda ip: not (ip.is_unspecified or ip.is_multicast or ip.is_loopback)
)
addresses = st.none() | hosts.map(lambda host: Address.parse(str(host)))
words = st.text(max_size=5)
ifnames = st.text(min_size=1, max_size=5).filter(is_new_ifname)
pod_names = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?", fullmatch=True)
links = st.builds(Link, ifnames, addresses, pod_names, ifnames, addresses)


@given(
    st.builds(
        Attachment,
        container_id=words, ifname=words, netns=words, network=words, namespace=words, pod=words,
        kubernetes_name=st.none() | words, uid=st.none() | words,
        links=st.lists(links).map(tuple),
        public_ip=addresses, target_pod=st.none() | words, target_container=st.none() | words,
        attached_at=st.floats(0, 1e10),
        boot=st.none() | st.builds(
            Boot, st.lists(st.dictionaries(words, words)).map(tuple), words, words
        ),
        result=st.none() | st.dictionaries(words, words),
        netns_identity=st.none() | st.tuples(st.integers(0), st.integers(0)),
    )
)  # fmt: skip
def test_a_record_is_read_as_it_was_written(found: Attachment) -> None:
    assert Attachment.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_record_without_the_identity_of_its_namespace_is_read(directory: Directory) -> None:
    older = attachment().to_json()
    del older["netns_identity"]
    assert Attachment.from_json(older) == attachment(netns_identity=None)


@pytest.mark.parametrize("value", [7, "4:1", [4], [4, 1, 1], [4, "1"], [True, 1], [4, 1.0], {}])
def test_a_record_whose_namespace_has_no_identity_is_not_read(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Attachment.from_json({**attachment().to_json(), "netns_identity": value})


def test_a_record_is_private_and_where_the_design_says(directory: Directory) -> None:
    directory.write(attachment())
    assert files(directory) == ["attachments/c1.eth0.json"]
    assert directory.read("c1", "eth0") == attachment()
    path = os.path.join(directory.state_dir, "attachments/c1.eth0.json")
    assert os.stat(path).st_mode & 0o777 == 0o600
    for folder in (directory.state_dir, os.path.dirname(path)):
        assert os.stat(folder).st_mode & 0o777 == 0o700


def test_a_record_is_replaced_as_a_whole(directory: Directory) -> None:
    directory.write(attachment(result=None))
    assert not attachment(result=None).is_finished
    directory.write(attachment())
    assert directory.read("c1", "eth0") == attachment()
    assert files(directory) == ["attachments/c1.eth0.json"]


def test_reading_creates_nothing(directory: Directory) -> None:
    assert directory.read("c1", "eth0") is None
    assert directory.kept_boot("c1", "eth0") is None
    assert not [*directory.live(), *directory.deleted(), *directory.kept_boots()]
    assert directory.mark_deleted("c1", "eth0") is False
    directory.remove("c1", "eth0")
    directory.forget_boot("c1", "eth0")
    assert not os.path.exists(directory.state_dir)


def test_a_deleted_record_is_the_childs_until_it_forgets_it(directory: Directory) -> None:
    directory.write(attachment())
    assert directory.mark_deleted("c1", "eth0") is True
    assert directory.mark_deleted("c1", "eth0") is False
    assert directory.read("c1", "eth0") is None
    assert directory.live() == []
    ((path, found),) = directory.deleted()
    assert found == attachment()
    directory.forget(path)
    directory.forget(path)
    assert files(directory) == []


def test_an_attachment_can_be_deleted_and_made_again_many_times(directory: Directory) -> None:
    for number in range(3):
        directory.write(attachment(attached_at=float(number)))
        assert directory.mark_deleted("c1", "eth0")
    assert [found.attached_at for _, found in directory.deleted()] == [0.0, 1.0, 2.0]


def test_the_boot_networks_record_outlives_the_childs(directory: Directory) -> None:
    directory.write(attachment())
    directory.keep_boot("c1", "eth0")
    directory.keep_boot("c1", "eth0")
    directory.mark_deleted("c1", "eth0")
    for path, _ in directory.deleted():
        directory.forget(path)
    assert directory.kept_boot("c1", "eth0") == attachment()
    assert directory.kept_boots() == [attachment()]
    directory.forget_boot("c1", "eth0")
    assert files(directory) == []


def test_keeping_the_boot_network_of_no_record_keeps_nothing(directory: Directory) -> None:
    directory.keep_boot("c1", "eth0")
    assert directory.kept_boots() == []


def test_two_attachments_whose_files_are_named_alike_are_not_confused(directory: Directory) -> None:
    directory.write(attachment("a.b", "c"))
    assert directory.read("a", "b.c") is None
    assert directory.read("a.b", "c") is not None


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", '"x"', '{"version": 2}', "\x00", "[" * 100_000,
        json.dumps({**attachment().to_json(), "links": [{}]}),
        json.dumps({**attachment().to_json(), "links": 3}),
        json.dumps({**attachment().to_json(), "pod": None}),
        json.dumps({**attachment().to_json(), "public_ip": "x"}),
        json.dumps({**attachment().to_json(), "boot": []}),
        json.dumps({**attachment().to_json(), "result": "x"}),
        json.dumps({**attachment().to_json(), "attached_at": None}),
    ],
)  # fmt: skip
def test_a_damaged_record_is_skipped_and_stays(directory: Directory, text: str) -> None:
    directory.write(attachment("good"))
    path = os.path.join(directory.state_dir, "attachments/bad.eth0.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    assert directory.read("bad", "eth0") is None
    assert [found.container_id for found in directory.live()] == ["good"]
    assert os.path.exists(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ifname", "in%d"),
        ("ifname", "a\x01b"),
        ("pair_ifname", "all"),
        ("pair_ifname", "à"),
        ("pair", "-b"),
        ("address", "224.0.0.1/24"),
        ("pair_address", "127.0.0.1/8"),
    ],
)
def test_a_record_with_a_link_that_no_label_could_have_said_is_skipped(
    directory: Directory, key: str, value: str
) -> None:
    written = attachment().to_json()
    written["links"][0][key] = value
    directory.write(attachment())
    path = os.path.join(directory.state_dir, "attachments/c1.eth0.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(written, file)
    assert directory.read("c1", "eth0") is None


def test_foreign_files_are_not_looked_at(directory: Directory) -> None:
    directory.write(attachment())
    for name in (".c2.eth0.json.12", "README", ".hidden.json"):
        with open(os.path.join(directory.records, name), "w", encoding="utf-8"):
            pass
    assert directory.live() == [attachment()]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_a_state_error_and_leaves_nothing(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    directory.write(attachment())

    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(StateError, match="cannot write"):
            directory.write(attachment(pod="other"))
        with pytest.raises(StateError):
            directory.mark_deleted("c1", "eth0")
    assert directory.live() == [attachment()]
    assert files(directory) == ["attachments/c1.eth0.json"]


def test_a_name_that_is_too_long_for_a_file_is_a_state_error(directory: Directory) -> None:
    with pytest.raises(StateError):
        directory.write(attachment("c" * 300))
    assert directory.read("c" * 300, "eth0") is None


def test_whatever_can_be_written_can_be_deleted(directory: Directory) -> None:
    longest = attachment(container_id="x" * 200, ifname="y" * 15)
    directory.write(longest)
    assert directory.mark_deleted(longest.container_id, longest.ifname)
    with pytest.raises(StateError, match="container ID"):
        directory.write(attachment(container_id="x" * 201))


def test_a_state_directory_that_is_a_file_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError):
        Directory(str(tmp_path / "file")).write(attachment())


def test_whether_there_is_a_record_is_told_without_reading_it(directory: Directory) -> None:
    class Config:
        state_dir = directory.state_dir

    def is_attached() -> bool:
        return statedir.is_attached(Config(), "c1", "eth0")  # type: ignore[arg-type]

    assert not is_attached()
    directory.write(attachment())
    assert is_attached()
    directory.keep_boot("c1", "eth0")
    directory.mark_deleted("c1", "eth0")
    assert is_attached()
    directory.forget_boot("c1", "eth0")
    assert not is_attached()


@pytest.mark.parametrize(
    ("state_dir", "kept"),
    [
        ("/run/ratchet/net", "/var/lib/ratchet/net"),
        ("/var/run/ratchet/net", "/var/lib/ratchet/net"),
        ("/srv/ratchet", None),  # it survives a reboot itself
        ("/runs/ratchet", None),
    ],
)
def test_what_must_outlive_a_reboot_lies_on_the_disk(state_dir: str, kept: str | None) -> None:
    assert statedir.lasting_dir(state_dir) == kept
