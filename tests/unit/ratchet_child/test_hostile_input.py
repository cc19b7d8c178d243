"""What fuzzing has found in the child, each as small as it can be. See docs/fuzzing.md."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import etcd
import pytest

from ratchet.attachments import Attachment
from ratchet.errors import StoreError
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import Declaration, OldLink, PodKey, Published
from ratchet_child.pairing.incoming import IncomingLinks
from ratchet_child.pods.records import Records
from ratchet_child.service import BadRequestError, Service
from ratchet_child.store import answers as etcd_answers
from ratchet_child.store.api import Entry

DEEP = "[" * 100_000


def test_nesting_without_end_in_etcd_is_a_value_that_cannot_be_read() -> None:
    readers = (OldLink.loads, Published.loads, lambda text: Declaration.loads(text, "r2"))
    for loads in readers:
        with pytest.raises(ValueError, match="nested too deeply"):
            loads(DEEP)


@pytest.mark.parametrize("pair", ["../../other", "a/b", "..", "."])
def test_nothing_published_is_taken_back_elsewhere(pair: str) -> None:
    with pytest.raises(ValueError, match="no pair"):
        Published.loads(json.dumps({"container": "c", "declared": [[pair, "in1"]]}))


def offers(**values: str) -> list[Any]:
    right = {"vxlanid": "11", "pairip": "", "pairifname": "in2", "primaryname": "r1", **values}
    there = {name: Entry(value, 5, 4) for name, value in right.items()}
    return IncomingLinks().on(PodKey("default", "r2"), there)


@pytest.mark.parametrize("name", ["../../other", "a/b", "..", "\ud800", ""])
def test_a_primary_of_v010_is_named_as_pods_are(name: str) -> None:
    assert offers()
    assert not offers(primaryname=name)


@pytest.mark.parametrize("ifname", ["\ud800", "in%d", "a/b"])
def test_an_interface_of_v010_is_named_as_interfaces_are(ifname: str) -> None:
    assert not offers(pairifname=ifname)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000])
def test_a_request_may_name_what_is_no_file(tmp_path: Any, name: str) -> None:
    assert not Records(str(tmp_path)).refresh(name)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_request_names_no_record_elsewhere(tmp_path: Any, absolute: bool) -> None:
    record = Attachment(
        *("c", "e", "/n", "n", "d", "p", None, None, (), None, None, None, 0.0, None, {})
    )
    (tmp_path / "attachments").mkdir()
    for folder in ("attachments", "."):
        (tmp_path / folder / "c.e.json").write_text(json.dumps(record.to_json()))
    records = Records(str(tmp_path))
    assert not records.refresh(f"{tmp_path}/c.e" if absolute else "../c.e")
    assert records.refresh("c.e")


def test_an_answer_does_not_repeat_a_huge_request() -> None:
    engine: Any = SimpleNamespace(
        clock=SystemClock(), registry=SimpleNamespace(attached=lambda name: None)
    )
    service = Service(engine, None)
    answers: list[Any] = []
    huge = "x" * 100_000
    requests: list[dict[str, Any]] = [
        {"op": huge},
        {"op": "attached", "attachment": huge, "wait": "all"},
        {"op": "check", "attachment": huge},
        {"op": "attached", "attachment": [huge]},
    ]
    for request in requests:
        service.handle(request, answers.append)
    service.close()
    assert len(answers) == len(requests)
    assert all(answer["code"] == BadRequestError.code for answer in answers)
    assert max(len(json.dumps(answer)) for answer in answers) < 1000


@pytest.mark.parametrize("index", ["7", True, -1, 2**64, 1.5, []])
def test_an_index_that_is_none_is_an_error_of_etcds(index: object) -> None:
    node = {"key": "/ratchet/a", "value": "1", "modifiedIndex": index}
    with pytest.raises(StoreError):
        etcd_answers.entry(etcd.EtcdResult(None, node))


@pytest.mark.parametrize("nodes", [5, [5], [None], [{"dir": True, "nodes": 5}]])
def test_a_directory_of_something_else_is_an_error_of_etcds(nodes: object) -> None:
    result = etcd.EtcdResult(None, {"key": "/ratchet/a", "dir": True, "nodes": nodes})
    with pytest.raises(StoreError):
        etcd_answers.entries(result, "/ratchet/a/")
