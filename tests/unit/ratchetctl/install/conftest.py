"""Fixtures of the installer's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.ratchetctl.install.nodes import Node


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What survives a power cut cannot be seen in here, and costs most of the time."""
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)
