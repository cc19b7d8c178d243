"""Two nodes that share an etcd."""

from __future__ import annotations

import pytest

from tests.unit.ratchet_child.hosts import Host
from tests.unit.ratchet_child.memory_store import MemoryEtcd


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd()


@pytest.fixture
def near(etcd: MemoryEtcd) -> Host:
    return Host(etcd, "10.0.0.1")


@pytest.fixture
def far(etcd: MemoryEtcd) -> Host:
    return Host(etcd, "10.0.0.2")
