"""A store that is made when the first request comes.

Importing python-etcd is half of what a child costs at its start, and links inside a node are made
without it. So the thread that first has something to ask imports it, while others go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from ratchet.config import Config
from ratchet_child.store.api import Store


class Later:
    """Whatever is asked of it, what `make` returns is asked instead. `make` is called once."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: Store | None = None

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        attribute = getattr(self._made, name)
        if callable(attribute):
            setattr(self, name, attribute)  # from now on without this detour
        return attribute


def etcd(config: Config) -> Store:
    """Return etcd as it is configured. Sends nothing yet, and imports nothing."""

    def make() -> Store:
        from ratchet_child.store.etcd_v2 import EtcdV2Store  # noqa: PLC0415 - see above

        return EtcdV2Store(config)

    return cast(Store, Later(make))
