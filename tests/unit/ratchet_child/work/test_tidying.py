"""An idle node is not woken: who looks after legs and the guard waits until there is something."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ratchet.cni.ip import Host
from ratchet_child.kernel.guard import Guard, Tunnels
from ratchet_child.model.interfaces import Found, Label
from ratchet_child.model.keys import PodKey
from ratchet_child.work import tidying
from ratchet_child.work.panel import Panel
from ratchet_child.work.tidying import Tidying

A = PodKey("default", "a")
LABEL = cast("Label", SimpleNamespace(link="a:in1"))


class _Namespace:
    identity = (1, 2)
    fd = -1

    def close(self) -> None:
        pass

    def is_current(self) -> bool:
        return False


def _panel() -> Panel:
    devices = SimpleNamespace(set_down=lambda *_: None)
    keeper = SimpleNamespace(kept=dict, keep=lambda *_: None, drop=lambda *_: None)
    return Panel(cast("Any", devices), cast("Any", keeper), cast("Any", None), cast("Any", None))


def _tidy(panel: Panel) -> None:
    panel.tidy(lambda: (), lambda: None)


def test_panel_is_looked_after_only_while_a_leg_waits() -> None:
    panel = _panel()
    found = cast("Found", SimpleNamespace(index=3))
    assert not panel.may_be_untidy.is_set()
    with panel.room(cast("Any", _Namespace())) as room:
        assert panel.park(A, room, LABEL, found, is_needed=lambda: True)
    _tidy(panel)
    assert panel.may_be_untidy.is_set()
    panel.drop("default", "a:in1")
    _tidy(panel)
    assert not panel.may_be_untidy.is_set()


def test_thread_looks_once_a_leg_waits_and_ends_when_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tidying, "_EVERY_S", 0.0)
    looked, untidy = threading.Event(), threading.Event()

    def tidy(_in_use: object) -> None:
        looked.set()
        untidy.clear()

    ends = SimpleNamespace(may_be_untidy=untidy, tidy=tidy)
    thread = Tidying(cast("Any", ends), cast("Any", SimpleNamespace(namespaces_in_use=None)))
    thread.start()
    assert not looked.wait(0.1)
    untidy.set()
    assert looked.wait(5)
    thread.stop()


def test_guard_says_whether_there_are_tunnels_to_compare() -> None:
    guard = Guard("/run/ratchet", is_wanted=True)
    guard.ports = None  # so that nftables is not asked
    seen: dict[tuple[int, int], Host | None] = {(4789, 11): None}
    guard.check(Tunnels(seen, True, 0))
    assert guard.has_tunnels.is_set()
    for _ in range(2):  # what is stale is forgotten the second time
        guard.check(Tunnels({}, True, 0))
    assert not guard.has_tunnels.is_set()


def test_thread_ends_although_it_has_just_found_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidying, "_EVERY_S", 0.0)
    untidy, looking, told = threading.Event(), threading.Event(), threading.Event()
    untidy.set()

    def tidy(_in_use: object) -> None:
        looking.set()
        told.wait(5)
        untidy.clear()

    ends = SimpleNamespace(may_be_untidy=untidy, tidy=tidy)
    thread = Tidying(cast("Any", ends), cast("Any", SimpleNamespace(namespaces_in_use=None)))
    thread.start()
    assert looking.wait(5)
    stopping = threading.Thread(target=thread.stop, daemon=True)
    stopping.start()
    told.set()
    stopping.join(5)
    assert not stopping.is_alive()
