"""`ratchetctl sim status`: which of two containers of one name has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ratchet.attachments import Attachment, Directory
from ratchet.links import Link
from ratchet.status import PodStatus
from ratchetctl import tables
from ratchetctl.sim import status
from ratchetctl.sim.directory import PodState


@pytest.fixture
def found() -> dict[str, Any]:
    link = {"ifname": "in[1]", "peer": "b", "peer_ifname": ":bug:", "state": "up", "kind": "veth"}
    pod = {"namespace": "default", "node": "node1", "addresses": [], "attached": True}
    shown: dict[str, Any] = {
        "nodes": [],
        "pods": [
            {**pod, "name": "old", "superseded": True, "links": []},
            {**pod, "name": "new", "superseded": False, "links": [link]},
        ],
    }
    return shown


def test_superseded_pod_is_shown_and_names_are_shown_as_they_are(found: dict[str, Any]) -> None:
    console = Console(width=200, record=True, markup=False, emoji=False)
    with console.capture() as capture:
        status.show(found, console)
    old, new = (
        next(line for line in capture.get().splitlines() if line.startswith(f"{name} "))
        for name in ("old", "new")
    )
    assert "superseded" in old
    assert "superseded" not in new
    assert "in[1] to :bug: of b" in new


def test_a_pod_takes_one_line_when_piped_and_nothing_is_cut_when_narrow(
    found: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "a-deployment-with-a-long-name-7d9f8c6b5-x2x4z"
    found["pods"][0]["name"] = found["pods"][1]["links"][0]["peer"] = name
    status.show(found, tables.console())
    assert f"in[1] to :bug: of {name} (veth, up)" in capsys.readouterr().out
    monkeypatch.setattr(tables, "PIPED_WIDTH", 40)
    status.show(found, tables.console())
    said = capsys.readouterr().out
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 40


def test_childs_word_counts_and_else_the_record_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = (Link(ifname="in1", address=None, pair="b", pair_ifname="in2", pair_address=None),)
    for container in ("old", "new"):
        Directory(str(tmp_path)).write(record(container, links))
    declared = {"ifname": "in1", "peer": "b", "peer_ifname": "in2", "state": "declared"}
    old = PodStatus("default", "a", "old", "/run/netns/x", superseded=True, links=())
    monkeypatch.setattr(status, "_ask", lambda _: (old,))
    assert status._seen(str(tmp_path)) == {
        "old": {"superseded": True, "links": []},
        "new": {"superseded": False, "links": [declared]},
    }


def record(container: str, links: tuple[Link, ...]) -> Attachment:
    return Attachment(
        container_id=container,
        ifname="eth0",
        netns="/run/netns/x",
        network="n",
        namespace="default",
        pod="a",
        kubernetes_name=None,
        uid=None,
        links=links,
        public_ip=None,
        target_pod=None,
        target_container=None,
        attached_at=1000.0,
        boottime_s=1.0,
        boot=None,
        result={},
    )


def test_addresses_of_a_loopback_are_none_of_a_pods() -> None:
    ips = [{"address": one} for one in ("127.0.0.1/8", "::1/128", "10.0.1.1/24", "fd00::1/64")]
    pod = PodState("default", "a", "u", "c", "node1", {}, {}, "/netns", {"ips": ips})
    assert status.addresses(pod) == ["10.0.1.1/24", "fd00::1/64"]
    assert status.addresses(replace(pod, result=None)) == []
