"""That host-local has given out addresses of a subnet under another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ratchet import books, log


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(log, "warning", lambda message, **_: found.append(message))
    return found


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    for name, address in (("cbr0", "10.244.1.7"), ("other", "10.9.0.3"), ("ratchet", "10.244.1.2")):
        (tmp_path / name).mkdir()
        for file in (address, "lock", "last_reserved_ip.0"):
            (tmp_path / name / file).touch()
    return tmp_path


def bridge(networks: Path, name: str = "ratchet", **ipam: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "dataDir": str(networks), **ipam}
    return {"type": "bridge", "name": name, "ipam": ipam}


@pytest.mark.parametrize(
    "ipam",
    [
        {"subnet": "10.244.1.0/24"},
        {"ranges": [[{"subnet": "fd00::/64"}], [{"subnet": "10.244.0.0/16"}]]},
    ],
)
def test_books_under_another_name_for_the_same_subnet_are_told(
    networks: Path, told: list[str], ipam: dict[str, Any]
) -> None:
    books.warn_of_others(bridge(networks, **ipam), "ratchet")
    (said,) = told
    assert 'Write "name": "cbr0" into the delegate' in said


def test_flannels_subnet_is_flannelds(
    networks: Path, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "DATA_DIR", str(networks))
    file = tmp_path / "subnet.env"
    file.write_text("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n")
    flannel = {"type": "flannel", "name": "ratchet", "subnetFile": str(file)}
    books.warn_of_others(flannel, "ratchet")
    assert len(told) == 1


@pytest.mark.parametrize(
    ("name", "ipam"),
    [
        ("cbr0", {"subnet": "10.244.1.0/24"}),  # a name of its own
        ("ratchet", {"subnet": "10.77.0.0/16"}),
        ("ratchet", {"subnet": "10.244.1.0/24", "type": "dhcp"}),
        ("ratchet", {"subnet": "10.244.1.0/24", "dataDir": "/nowhere"}),
        ("ratchet", {"subnet": 5, "ranges": [5, [5, {}]]}),
        ("ratchet", {"subnet": "fd00::/64"}),
    ],
)
def test_where_no_address_can_be_given_out_twice_nothing_is_told(
    networks: Path, told: list[str], name: str, ipam: dict[str, Any]
) -> None:
    books.warn_of_others(bridge(networks, name, **ipam), "ratchet")
    books.warn_of_others({"type": "x", "name": "ratchet", "ipam": 5}, "ratchet")
    assert told == []
