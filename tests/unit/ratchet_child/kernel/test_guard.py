"""Which source ports the tunnels get, and what becomes of a node without nftables."""

from __future__ import annotations

import errno
import os

import pytest

from ratchet.cni.ip import Host
from ratchet.errors import KernelError
from ratchet_child.kernel import guard, guard_table
from ratchet_child.kernel.guard import Guard, Tunnels
from ratchet_child.kernel.guard_table import Tunnel, source_ports

TUNNEL: Tunnel = (4789, 0xABCDEF)
FAR = Host.parse("10.0.0.2")
HIGH, LOW = (61440, 61951), (512, 639)


@pytest.mark.parametrize(
    ("local", "ports"),
    [
        ((32768, 60999), HIGH),
        ((32768, 61439), HIGH),
        ((32768, 61440), LOW),
        ((1024, 65535), LOW),
        ((62000, 65535), HIGH),
        ((1, 65535), None),
        ((639, 61440), None),
    ],
)
def test_source_ports_are_beside_those_that_the_kernel_gives_to_others(
    local: tuple[int, int], ports: tuple[int, int] | None
) -> None:
    assert source_ports(local) == ports


@pytest.mark.parametrize("remote", [None, FAR, Host.parse("fd00::2")])
def test_key_is_read_as_it_was_written(remote: Host | None) -> None:
    key = guard_table.key(TUNNEL) + (b"" if remote is None else remote.packed)
    assert guard_table.read_key(key) == (TUNNEL, remote)
    assert len(key) % 4 == 0


def test_rules_say_their_source_ports() -> None:
    rules = guard_table.expected(LOW)
    assert {chain for chain, _ in rules} == {"sends", "receives"}
    assert guard_table.read_ports(rules) == LOW
    assert guard_table.read_ports([("sends", "somebody else's")]) is None


def test_set_is_described_as_nft_describes_it() -> None:
    typeof = bytes.fromhex(
        "0004000000000346 00040d000000013e 00140004070000 00010c00040600 000001040200 0000"
        "01260004070000 00011e00040000 00000104000000 0002040300 0000030460 000000"
        "0404180000 00".replace(" ", "")
    )
    vnis = next(body for kind, _, body in guard_table.make(HIGH) if kind == 9)
    assert typeof in vnis


class Broken:
    """Nftables that answers everything with an error."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __getattr__(self, name: str) -> object:
        def fail(*_: object) -> None:
            raise OSError(self.code, os.strerror(self.code))

        return fail


def broken(monkeypatch: pytest.MonkeyPatch, code: int) -> Guard:
    monkeypatch.setattr(guard, "Nftables", lambda: Broken(code))
    monkeypatch.setattr(guard, "_local_ports", lambda: (32768, 60999))
    return Guard("/run/ratchet/x")


@pytest.mark.parametrize("code", [errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT])
def test_node_without_nftables_has_no_guard_and_its_tunnels_are_made(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    made = broken(monkeypatch, code)
    made.start()
    made.admit(TUNNEL, FAR)
    made.forget(TUNNEL)
    made.check(Tunnels({}, is_complete=True))
    assert made.state == f"off: nftables does not work on this node ({os.strerror(code)})"


def test_tunnel_that_the_guard_cannot_be_told_of_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = broken(monkeypatch, errno.ENOBUFS)
    with pytest.raises(KernelError, match="table ratchet"):
        made.admit(TUNNEL, FAR)
    assert made.state == "on"


def test_child_that_wants_no_guard_touches_nothing_of_its_own_accord(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "Nftables", lambda: Broken(errno.ENOBUFS))
    made = Guard("/run/ratchet/x", is_wanted=False)
    made.admit(TUNNEL, FAR)
    made.forget(TUNNEL)
    assert made.state == "off, as configured"


def test_without_free_source_ports_there_is_no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_local_ports", lambda: (1, 65535))
    made = Guard("/run/ratchet/x")
    made.start()
    made.admit(TUNNEL, FAR)
    assert made.ports is None
    assert "ip_local_port_range" in made.state
